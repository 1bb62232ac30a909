//! Assembles a kernel's text: the generated constants and declarations, then whole files one after another (WGSL's
//! module scope has no order). Loops that keep an array in registers are unrolled.

use std::collections::HashSet;

use crate::kernel::params::Params;
use crate::kernel::record::{Constant, File, Kernel, Source};
use crate::kernel::shader::MARK;
use crate::kernel::slots::declarations;
use crate::problem::function::Function;
use crate::problem::operand::Operand;
use crate::problem::program::{AT, is_word};

/// The complete WGSL of a kernel.
pub(crate) fn text(name: &str, kernel: &Kernel) -> String {
    assemble(name, &kernel.source, &format!("{}\n{}", Params::WGSL, declarations(&kernel.slots)))
}

/// Joins the constants, the further declarations in `declared`, and the files.
pub(crate) fn assemble(name: &str, source: &Source, declared: &str) -> String {
    let Source { directives, constants, files, programs } = source;
    let mut text = String::new();
    for (name, value) in constants {
        text += &match value {
            Constant::U32(value) => format!("const {name} = {value}u;\n"),
            Constant::Bool(value) => format!("const {name} = {value};\n"),
        };
    }
    text.push('\n');
    text += declared;
    for file in files {
        text.push('\n');
        text += &copied(file);
    }
    let own = unroll(&text);
    let own = if programs.is_empty() { own } else { renamed(&own, programs) + "\n" + programs };
    format!("// {name}\n\n{directives}\n{own}")
}

/// A file's text, for the operand and the element type that it is copied for.
fn copied(file: &File) -> String {
    let mut text = file.text.to_owned();
    if let Some(operand) = file.of {
        for name in ["load", "store", "store_half", "store_row"] {
            text = replace_word(&text, name, &format!("{name}_{operand}"));
        }
        text = replace_word(&text, "DATA", operand.name());
        let first = if operand == Operand::V { "params.first_column" } else { "0u" };
        text = replace_word(&text, "FIRST", first);
    }
    for (name, other) in file.renamed {
        text = replace_word(&text, name, other);
    }
    if let Some(dtype) = file.dtype {
        for name in ["widen", "narrow", "halves"] {
            text = replace_word(&text, name, &format!("{name}_{dtype}"));
        }
    }
    text
}

/// Whether the programs and the kernel share a name: `At` and its members, the programs themselves, and `aux`.
fn is_shared(name: &str) -> bool {
    let functions = [Function::ScoreMod, Function::MaskMod, Function::ScoreModGrad].map(Function::name);
    let others = functions.into_iter().chain([Operand::Aux.name()]).collect::<Vec<_>>();
    others.contains(&name) || AT.split(|c| !is_word(c)).any(|word| word == name)
}

/// The text with a suffix on each name that it declares at module scope, so that none clashes with a name of the user.
fn renamed(text: &str, programs: &str) -> String {
    let ending = (0..).map(|n| format!("_k{n}")).find(|ending| !programs.contains(ending)).unwrap_or_default();
    let names: HashSet<&str> = declared_names(text).filter(|name| !is_shared(name)).collect();
    let mut renamed = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let (before, from_word) = rest.split_at(start);
        let (word, after) = from_word.split_at(from_word.find(|c| !is_word(c)).unwrap_or(from_word.len()));
        renamed += before;
        renamed += word;
        if names.contains(word) {
            renamed += &ending;
        }
        rest = after;
    }
    renamed + rest
}

/// The names that a text declares at module scope, where each declaration begins a line.
fn declared_names(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let line = match line.strip_prefix("@group") {
            Some(rest) => rest.split_once("var").map(|(_, rest)| rest)?,
            None => ["fn ", "const ", "struct ", "alias ", "var"].iter().find_map(|word| line.strip_prefix(word))?,
        };
        let line = line.trim_start();
        // Skips the address space, as in `<storage, read>`.
        let line = line.strip_prefix('<').and_then(|rest| rest.split_once('>')).map_or(line, |(_, rest)| rest);
        let name = line.trim_start();
        Some(&name[..name.find(|c| !is_word(c)).unwrap_or(name.len())])
    })
}

/// Unrolls every loop marked `// unroll`, innermost last.
///
/// An array stays in registers only if its indices are constants. naga adds a counter to each loop to bound it, as
/// WebGPU requires for safety, and drivers then no longer see that the indices are constants. The files stay plain WGSL
/// with the same meaning. A marked loop counts a `u32` from 0 by 1 to a literal, or to a `const` that is a literal, and
/// has no `break` or `continue`.
fn unroll(text: &str) -> String {
    expand(text, text)
}

/// `declarations` holds the `const`s that bound the loops of `text`.
fn expand(text: &str, declarations: &str) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, marked)) = rest.split_once(MARK) {
        expanded += before;
        let (head, body) = marked.split_once('{').expect("a marked loop has a body");
        let end = closing_brace(body);
        let (variable, count) = loop_head(head, declarations);
        for i in 0..count {
            expanded += "{";
            expanded += &expand(&replace_word(&body[..end], variable, &format!("{i}u")), declarations);
            expanded += "}\n";
        }
        rest = &body[end + 1..];
    }
    expanded + rest
}

/// The variable of `for (var NAME = 0u; NAME < COUNT; NAME++)` and its count.
fn loop_head<'a>(head: &'a str, declarations: &str) -> (&'a str, u32) {
    let head = head.trim().strip_prefix("for (var ").expect("a mark stands before a loop");
    let (variable, head) = head.split_once(" = 0u; ").expect("a marked loop counts from 0u");
    let count =
        head.strip_prefix(variable).and_then(|head| head.strip_prefix(" < ")).expect("a marked loop has a bound");
    let (count, step) = count.split_once("; ").expect("a marked loop has a step");
    assert_eq!(step, format!("{variable}++)"), "a marked loop counts by one");
    let declared = declarations.split_once(&format!("const {count} = ")).and_then(|(_, value)| value.split(';').next());
    let literal = declared.unwrap_or(count).strip_suffix('u').and_then(|digits| digits.parse().ok());
    (variable, literal.expect("a marked loop's bound is a literal, or a const that is one"))
}

/// The position of the brace that closes the body at the beginning of `text`.
fn closing_brace(text: &str) -> usize {
    let mut depth = 1;
    let end = text.bytes().position(|byte| {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    end.expect("braces match")
}

fn replace_word(text: &str, word: &str, by: &str) -> String {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut replaced = String::new();
    let mut last = 0;
    for (at, _) in text.match_indices(word) {
        let before = text[..at].bytes().next_back().is_some_and(is_word);
        let after = text[at + word.len()..].bytes().next().is_some_and(is_word);
        if !before && !after {
            replaced += &text[last..at];
            replaced += by;
            last = at + word.len();
        }
    }
    replaced + &text[last..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_loops_are_written_out_and_others_are_not() {
        let text = "\
const COLUMNS = 2u;
for (var i = 0u; i < 9u; i++) { f(i); }
// unroll
for (var c = 0u; c < COLUMNS; c++) { o[c] = cc + c_c(c);
// unroll
for (var r = 0u; r < 2u; r++) { if (a) { g(r, c); } } }
end";
        let wanted = "\
const COLUMNS = 2u;
for (var i = 0u; i < 9u; i++) { f(i); }
{ o[0u] = cc + c_c(0u);
{ if (a) { g(0u, 0u); } }
{ if (a) { g(1u, 0u); } }
 }
{ o[1u] = cc + c_c(1u);
{ if (a) { g(0u, 1u); } }
{ if (a) { g(1u, 1u); } }
 }

end";
        assert_eq!(unroll(text), wanted);
    }
}
