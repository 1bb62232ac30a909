//! Makes text from elsewhere safe for a terminal or a log.

/// `text` in one line: white space between words becomes one space, and other control characters are escaped.
pub(crate) fn one_line(text: &str) -> String {
    let words: Vec<String> = text.split_whitespace().map(printable).collect();
    words.join(" ")
}

/// Escapes control characters, which a terminal would obey, and the marks that reorder or hide the text after them.
fn printable(word: &str) -> String {
    let is_obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let mut plain = String::new();
    for c in word.chars() {
        if is_obeyed(c) { plain.extend(c.escape_default()) } else { plain.push(c) }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(one_line("two\n lines\r\n\tand a tab"), "two lines and a tab");
        assert_eq!(one_line("\u{1b}[31mred\u{7}"), "\\u{1b}[31mred\\u{7}");
        assert_eq!(one_line("\u{202e}txt"), "\\u{202e}txt");
        assert_eq!(one_line("größer als σ²"), "größer als σ²");
    }
}
