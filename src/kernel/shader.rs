//! The files of `shaders`, as a program embeds them: natively as they are, in a browser without comments, which are a third of
//! what such an app downloads.

/// The text of a file.
#[cfg(not(target_arch = "wasm32"))]
macro_rules! shader {
    ($path:literal) => {
        include_str!($path)
    };
}

/// The text of a file, without comments.
#[cfg(target_arch = "wasm32")]
macro_rules! shader {
    ($path:literal) => {{
        const FILE: &str = include_str!($path);
        const PADDED: ([u8; FILE.len()], usize) = $crate::kernel::shader::bare(FILE);
        const BARE: [u8; PADDED.1] = *PADDED.0.first_chunk().expect("is no longer than the file");
        // These panics can only end a compilation.
        const TEXT: &str = match str::from_utf8(&BARE) {
            Ok(text) => text,
            Err(_) => panic!("only whole comments are dropped"),
        };
        TEXT
    }};
}

/// The comment that [`text`](super::text) reads.
pub(super) const MARK: &str = "// unroll";

/// A text without comments, except [`MARK`]s, and without empty lines. It is followed by zeros, which the returned length does not
/// count. `N` is at least the length of `text` and a line's end.
pub(crate) const fn bare<const N: usize>(text: &str) -> ([u8; N], usize) {
    let text = text.as_bytes();
    let (mut bare, mut length) = ([0; N], 0);
    let mut start = 0;
    while start < text.len() {
        // The end of the line, and that of its code.
        let (mut end, mut code) = (start, start);
        let mut is_comment = false;
        while end < text.len() && text[end] != b'\n' {
            is_comment |= starts_with(text, end, b"//") && !starts_with(text, end, MARK.as_bytes());
            end += 1;
            if !is_comment && text[end - 1] != b' ' {
                code = end;
            }
        }
        if code > start {
            while start < code {
                bare[length] = text[start];
                (start, length) = (start + 1, length + 1);
            }
            bare[length] = b'\n';
            length += 1;
        }
        start = end + 1;
    }
    (bare, length)
}

const fn starts_with(text: &[u8], at: usize, word: &[u8]) -> bool {
    let mut n = 0;
    while n < word.len() {
        if at + n >= text.len() || text[at + n] != word[n] {
            return false;
        }
        n += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_and_marks_are_left() {
        let text = "// A file.\n\nfn f() {  // says what\n    // unroll\n    for (;;) { a = b / c; }    \n  // ends\n}";
        let (bare, length) = bare::<128>(text);
        let wanted = "fn f() {\n    // unroll\n    for (;;) { a = b / c; }\n}\n";
        assert_eq!(str::from_utf8(&bare[..length]), Ok(wanted));
        assert_eq!(bare[length..], [0; 128][length..]);
    }
}
