//! The user's own program in the score: WGSL text that the kernels call.

use std::sync::Arc;

use naga::valid::{Capabilities, ModuleInfo, ShaderStages, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ScalarKind, TypeInner};

use crate::problem::error::ProblemError;
use crate::problem::function::Function;

/// What users' programs may name besides what they declare: where a score stands, and their own numbers.
pub(crate) const AT: &str = "\
struct At {
    batch: u32,
    head: u32,
    kv_head: u32,
    query: u32,
    key: u32,
    diagonal: i32,
}
";
const AUX: &str = "@group(0) @binding(0) var<storage, read> aux: array<f32>;\n";

/// Whether `module` has a function, with such parameters and such a result.
fn has(module: &Module, wanted: Function) -> bool {
    let is_float = |ty| is_scalar(module, ty, ScalarKind::Float);
    let is_at = |ty| module.types[ty].name.as_deref() == Some("At");
    let found = module.functions.iter().find(|(_, function)| function.name.as_deref() == Some(wanted.name()));
    let Some((_, function)) = found else { return false };
    let result = function.result.as_ref().map(|result| result.ty);
    match (wanted, &function.arguments[..]) {
        (Function::ScoreMod, [score, at]) => is_float(score.ty) && is_at(at.ty) && result.is_some_and(is_float),
        (Function::MaskMod, [at]) => is_at(at.ty) && result.is_some_and(|ty| is_scalar(module, ty, ScalarKind::Bool)),
        _ => false,
    }
}

fn is_scalar(module: &Module, ty: naga::Handle<naga::Type>, kind: ScalarKind) -> bool {
    matches!(module.types[ty].inner, TypeInner::Scalar(scalar) if scalar.kind == kind && (kind == ScalarKind::Bool || scalar.width == 4))
}

/// The programs of a problem, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Programs {
    pub(crate) score_mod: Option<Arc<str>>,
    pub(crate) mask_mod: Option<Arc<str>>,
}

impl Programs {
    pub(crate) fn has_any(&self) -> bool {
        self.score_mod.is_some() || self.mask_mod.is_some()
    }

    /// All of the user's text. One that is given for both is there once.
    pub(crate) fn text(&self) -> String {
        let mut texts: Vec<&str> = [&self.score_mod, &self.mask_mod].into_iter().flatten().map(AsRef::as_ref).collect();
        texts.dedup();
        texts.join("\n")
    }

    /// Whether the texts parse, declare what they must, and nothing that a kernel cannot hold.
    pub(crate) fn check(&self, has_aux: bool) -> Result<(), ProblemError> {
        let given = [(Function::ScoreMod, &self.score_mod), (Function::MaskMod, &self.mask_mod)];
        for (function, text) in given {
            if let Some(text) = text {
                check_one(function, text, has_aux)?;
            }
        }
        let (Some(score_mod), Some(mask_mod)) = (&self.score_mod, &self.mask_mod) else { return Ok(()) };
        // Each is right by itself; together they may declare a name twice, which is found in the second.
        if score_mod != mask_mod
            && let Err((line, column, message)) = parse(&self.text(), has_aux)
        {
            let lines_before = u32::try_from(score_mod.matches('\n').count() + 1).unwrap_or(u32::MAX);
            let line = line.saturating_sub(lines_before);
            return Err(ProblemError::Program { function: Function::MaskMod, line, column, message });
        }
        Ok(())
    }
}

/// A number that tells texts apart in names: FNV-1a, which every platform computes alike.
pub(crate) fn fingerprint(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// A line, a column and what is wrong there.
type Wrong = (u32, u32, String);

fn check_one(function: Function, text: &str, has_aux: bool) -> Result<(), ProblemError> {
    let wrong = |(line, column, message)| ProblemError::Program { function, line, column, message };
    let (module, info) = parse(text, has_aux).map_err(wrong)?;
    // Directives may stand at the beginning of a module alone, and there it is the kernel that begins.
    let within = format!("{AT}{text}\n{}", if has_aux { AUX } else { "" });
    naga::front::wgsl::parse_str(&within).map_err(|error| {
        let line = error.location(&within).map_or(1, |at| at.line_number);
        let lines_before = u32::try_from(AT.matches('\n').count()).unwrap_or(u32::MAX);
        let message = format!("a program may have no directives ({})", error.message());
        wrong((line.saturating_sub(lines_before).max(1), 1, message))
    })?;
    if let Some((name, place)) = declared(text).into_iter().find(|(name, _)| BUILTINS.contains(name)) {
        let message = format!("`{name}` is a name of WGSL's own that the kernels use; choose another");
        let (line, column) = line_and_column(text, place);
        return Err(wrong((line, column, message)));
    }
    let is_private = |space: AddressSpace| matches!(space, AddressSpace::Private);
    let global = module
        .global_variables
        .iter()
        .find(|(_, global)| !(is_private(global.space) || has_aux && global.name.as_deref() == Some("aux")));
    if let Some((handle, global)) = global {
        let span = module.global_variables.get_span(handle).location(text);
        let name = global.name.clone().unwrap_or_default();
        let message = format!("`{name}` is bound or shared; a program's own numbers are in `aux`");
        return Err(wrong((span.line_number, span.line_position, message)));
    }
    if let Some(entry) = module.entry_points.first() {
        return Err(wrong((1, 1, format!("`{}` is an entry point; a program has functions alone", entry.name))));
    }
    if !module.overrides.is_empty() {
        return Err(wrong((1, 1, "a program may have no overrides; use `const`, or read `aux`".to_owned())));
    }
    // A barrier takes stages away, and so does a derivative.
    let not_alone = module.functions.iter().find(|(at, _)| info[*at].available_stages != ShaderStages::all());
    if let Some((handle, called)) = not_alone {
        let at = module.functions.get_span(handle).location(text);
        let name = called.name.clone().unwrap_or_default();
        let message = format!("`{name}` does what one thread cannot do alone, as barriers and derivatives do");
        return Err(wrong((at.line_number, at.line_position, message)));
    }
    if !has(&module, function) {
        return Err(wrong((1, 1, format!("it must declare `{}`", function.signature()))));
    }
    Ok(())
}

/// Parses a text with what it may name, which stands after it so that places are those in the text.
fn parse(text: &str, has_aux: bool) -> Result<(Module, ModuleInfo), Wrong> {
    let whole = format!("{text}\n{AT}{}", if has_aux { AUX } else { "" });
    let module = naga::front::wgsl::parse_str(&whole).map_err(|error| {
        let (line, column) = error.location(&whole).map_or((1, 1), |at| (at.line_number, at.line_position));
        (line, column, error.message().to_owned())
    })?;
    let validated = Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module);
    let info = validated.map_err(|error| {
        // Of all that the error is about, the shortest piece of text says most.
        let places = error.spans().map(|(span, _)| span.location(&whole));
        let (line, column) = places.min_by_key(|at| at.length).map_or((1, 1), |at| (at.line_number, at.line_position));
        let mut message = error.as_inner().to_string();
        let mut source = std::error::Error::source(error.as_inner());
        while let Some(inner) = source {
            message = format!("{message}: {inner}");
            source = inner.source();
        }
        (line, column, message)
    })?;
    Ok((module, info))
}

/// The names that a text declares at its outermost level, and the places of these names. naga keeps neither aliases nor constants
/// whose type is abstract.
fn declared(text: &str) -> Vec<(&str, usize)> {
    let code = without_comments(text);
    let mut names = Vec::new();
    let (mut depth, mut after_keyword) = (0, false);
    let mut at = 0;
    while let Some(c) = code[at..].chars().next() {
        if !is_word(c) {
            depth += i32::from(c == '{') - i32::from(c == '}');
            at += c.len_utf8();
            // What follows `var` may stand behind an address space.
            if c == '<' && after_keyword {
                at += code[at..].find('>').map_or(0, |end| end + 1);
            }
            continue;
        }
        let end = code[at..].find(|c| !is_word(c)).map_or(code.len(), |end| at + end);
        if after_keyword {
            names.push((&text[at..end], at));
        }
        let keywords = ["fn", "const", "struct", "alias", "override", "var"];
        after_keyword = depth == 0 && keywords.contains(&&code[at..end]);
        at = end;
    }
    names
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The text with spaces in the place of comments, as long as it was. Those between `/*` and `*/` nest.
fn without_comments(text: &str) -> String {
    let mut code = String::new();
    let (mut depth, mut in_line) = (0, false);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let opens = !in_line && rest.starts_with("/*");
        let closes = depth > 0 && rest.starts_with("*/");
        in_line = (in_line && c != '\n') || (depth == 0 && rest.starts_with("//"));
        depth += i32::from(opens) - i32::from(closes);
        let taken = if opens || closes { 2 } else { c.len_utf8() };
        if opens || closes || depth > 0 || in_line {
            code.extend(std::iter::repeat_n(' ', taken));
        } else {
            code.push(c);
        }
        rest = &rest[taken..];
    }
    code
}

/// From 1, the column in bytes.
fn line_and_column(text: &str, place: usize) -> (u32, u32) {
    let before = &text[..place];
    let line = before.matches('\n').count() + 1;
    let column = place - before.rfind('\n').map_or(0, |end| end + 1) + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

/// WGSL's own names that the kernels use. A program that declared one of these would change what they compute.
pub(crate) const BUILTINS: &[&str] = &[
    "abs",
    "any",
    "array",
    "atomic",
    "atomicAnd",
    "atomicLoad",
    "atomicOr",
    "atomicStore",
    "bitcast",
    "bool",
    "const_assert",
    "coopLoad",
    "coopLoadT",
    "coopMultiplyAdd",
    "coopStoreT",
    "coop_mat16x16",
    "coop_mat8x8",
    "exp",
    "exp2",
    "f16",
    "f32",
    "fma",
    "i32",
    "mat4x4",
    "max",
    "min",
    "ptr",
    "select",
    "sign",
    "subgroupShuffle",
    "subgroupShuffleXor",
    "textureLoad",
    "textureStore",
    "texture_storage_2d",
    "transpose",
    "function",
    "private",
    "read",
    "read_write",
    "rgba32float",
    "storage",
    "uniform",
    "workgroup",
    "write",
    "u32",
    "u64",
    "unpack2x16float",
    "vec2",
    "vec3",
    "vec4",
    "workgroupBarrier",
    "workgroupUniformLoad",
];

#[cfg(test)]
mod tests {
    use super::AT;

    #[test]
    fn the_documentation_has_the_members_that_programs_get() {
        let documentation = include_str!("../programs.rs");
        for member in AT.lines().filter(|line| line.starts_with(' ')) {
            assert!(documentation.contains(&format!("//! {member}")), "{member}");
        }
    }
}
