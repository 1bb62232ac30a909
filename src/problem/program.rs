//! The user's programs in the score: WGSL text that the kernels call.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use naga::valid::{Capabilities, ModuleInfo, ShaderStages, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ScalarKind, TypeInner};

use crate::problem::error::ProblemError;
use crate::problem::function::Function;

/// What users' programs may refer to besides their own declarations: the position of a score, and the `aux` buffer.
pub const AT: &str = "\
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

/// Whether `module` declares the function `wanted`, with the required parameters and result.
fn has(module: &Module, wanted: Function) -> bool {
    let is_float = |ty| is_scalar(module, ty, ScalarKind::Float);
    let is_at = |ty| module.types[ty].name.as_deref() == Some("At");
    let found = module.functions.iter().find(|(_, function)| function.name.as_deref() == Some(wanted.name()));
    let Some((_, function)) = found else { return false };
    let result = function.result.as_ref().map(|result| result.ty);
    match (wanted, &function.arguments[..]) {
        (Function::ScoreMod, [score, at]) => is_float(score.ty) && is_at(at.ty) && result.is_some_and(is_float),
        (Function::ScoreModGrad, [score, at, gradient]) => {
            is_float(score.ty) && is_at(at.ty) && is_float(gradient.ty) && result.is_some_and(is_float)
        }
        (Function::MaskMod, [at]) => is_at(at.ty) && result.is_some_and(|ty| is_scalar(module, ty, ScalarKind::Bool)),
        _ => false,
    }
}

fn is_scalar(module: &Module, ty: naga::Handle<naga::Type>, kind: ScalarKind) -> bool {
    matches!(module.types[ty].inner, TypeInner::Scalar(scalar) if scalar.kind == kind && (kind == ScalarKind::Bool || scalar.width == 4))
}

/// A user's text, with the function that checks it. Nothing else refers to that function, so an app without programs links no
/// parser of WGSL.
#[derive(Clone)]
pub(crate) struct Program {
    text: Arc<str>,
    check: fn(&Programs, bool) -> Result<(), ProblemError>,
}

impl Program {
    pub(crate) fn new(text: impl Into<Arc<str>>) -> Self {
        Self { text: text.into(), check: check_all }
    }
}

impl Deref for Program {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

/// Only the text tells programs apart.
impl PartialEq for Program {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Program {}

impl Hash for Program {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// The programs of a problem.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Programs {
    pub(crate) score_mod: Option<Program>,
    pub(crate) mask_mod: Option<Program>,
    /// Only within [`Gradients`](crate::Gradients).
    pub(crate) score_mod_grad: Option<Program>,
}

impl Programs {
    pub(crate) fn has_any(&self) -> bool {
        self.score_mod.is_some() || self.mask_mod.is_some()
    }

    fn all(&self) -> impl Iterator<Item = (Function, &Option<Program>)> {
        let Self { score_mod, mask_mod, score_mod_grad } = self;
        [(Function::ScoreMod, score_mod), (Function::MaskMod, mask_mod), (Function::ScoreModGrad, score_mod_grad)]
            .into_iter()
    }

    /// The programs that are given.
    pub(crate) fn given(&self) -> impl Iterator<Item = (Function, &str)> {
        self.all().filter_map(|(function, program)| Some((function, program.as_deref()?)))
    }

    /// The user's text for all programs. A text that is given for several appears once.
    pub(crate) fn text(&self) -> String {
        let mut texts: Vec<&str> = Vec::new();
        for (_, text) in self.given() {
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        texts.join("\n")
    }

    /// Checks that the texts parse, declare the required functions, and declare nothing that a kernel cannot contain.
    pub(crate) fn check(&self, has_aux: bool) -> Result<(), ProblemError> {
        let first = self.all().find_map(|(_, program)| program.as_ref());
        first.map_or(Ok(()), |program| (program.check)(self, has_aux))
    }
}

/// A hash that distinguishes texts in the names of variants: FNV-1a, which is the same on every platform.
pub(crate) fn fingerprint(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The line, the column and the message of an error.
type Wrong = (u32, u32, String);

fn check_all(programs: &Programs, has_aux: bool) -> Result<(), ProblemError> {
    for (function, text) in programs.given() {
        check_one(function, text, has_aux)?;
    }
    // Each text is valid by itself. Together they may declare a name twice, which is reported in the later text.
    let Err((mut line, column, message)) = parse(&programs.text(), has_aux) else { return Ok(()) };
    let mut seen: Vec<(Function, &str)> = Vec::new();
    for (function, text) in programs.given() {
        if seen.iter().all(|&(_, other)| other != text) {
            let lines = u32::try_from(text.matches('\n').count() + 1).unwrap_or(u32::MAX);
            if line <= lines {
                return Err(ProblemError::Program { function, line, column, message });
            }
            line -= lines;
            seen.push((function, text));
        }
    }
    Ok(())
}

fn check_one(function: Function, text: &str, has_aux: bool) -> Result<(), ProblemError> {
    let wrong = |(line, column, message)| ProblemError::Program { function, line, column, message };
    let (module, info) = parse(text, has_aux).map_err(wrong)?;
    // WGSL allows directives only at the beginning of a module, which is part of the kernel's text.
    let within = format!("{AT}{text}\n{}", if has_aux { AUX } else { "" });
    naga::front::wgsl::parse_str(&within).map_err(|error| {
        let line = error.location(&within).map_or(1, |at| at.line_number);
        let lines_before = u32::try_from(AT.matches('\n').count()).unwrap_or(u32::MAX);
        let message = format!("a program must not have directives ({})", error.message());
        wrong((line.saturating_sub(lines_before).max(1), 1, message))
    })?;
    if let Some((name, place)) = declared(text).into_iter().find(|(name, _)| BUILTINS.contains(name)) {
        let message = format!("`{name}` is a built-in name of WGSL that the kernels use; choose another name");
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
        let message = format!("`{name}` is a binding or a shared variable; a program reads its numbers from `aux`");
        return Err(wrong((span.line_number, span.line_position, message)));
    }
    if let Some(entry) = module.entry_points.first() {
        return Err(wrong((1, 1, format!("`{}` is an entry point; a program must have functions only", entry.name))));
    }
    if !module.overrides.is_empty() {
        return Err(wrong((1, 1, "a program must not have overrides; use `const`, or read `aux`".to_owned())));
    }
    // naga removes shader stages from functions that use barriers or derivatives.
    let not_alone = module.functions.iter().find(|(at, _)| info[*at].available_stages != ShaderStages::all());
    if let Some((handle, called)) = not_alone {
        let at = module.functions.get_span(handle).location(text);
        let name = called.name.clone().unwrap_or_default();
        let message = format!("`{name}` does what one thread cannot do alone, such as a barrier or a derivative");
        return Err(wrong((at.line_number, at.line_position, message)));
    }
    if !has(&module, function) {
        return Err(wrong((1, 1, format!("the program must declare `{}`", function.signature()))));
    }
    Ok(())
}

/// Parses a text together with the declarations that it may refer to. They follow the text, so that the locations of
/// errors are locations in the text.
fn parse(text: &str, has_aux: bool) -> Result<(Module, ModuleInfo), Wrong> {
    let whole = format!("{text}\n{AT}{}", if has_aux { AUX } else { "" });
    let module = naga::front::wgsl::parse_str(&whole).map_err(|error| {
        let (line, column) = error.location(&whole).map_or((1, 1), |at| (at.line_number, at.line_position));
        (line, column, error.message().to_owned())
    })?;
    let validated = Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module);
    let info = validated.map_err(|error| {
        // Of the spans that the error names, the shortest is the most specific.
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

/// The names that a text declares at module scope, with their byte offsets. They are not taken from naga, which keeps
/// neither aliases nor constants of abstract type.
fn declared(text: &str) -> Vec<(&str, usize)> {
    let code = without_comments(text);
    let mut names = Vec::new();
    let (mut depth, mut after_keyword) = (0, false);
    let mut at = 0;
    while let Some(c) = code[at..].chars().next() {
        if !is_word(c) {
            depth += i32::from(c == '{') - i32::from(c == '}');
            at += c.len_utf8();
            // The name may follow an address space, as in `var<private> name`.
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

/// Whether a text contains a word outside its comments.
pub(crate) fn mentions(text: &str, word: &str) -> bool {
    without_comments(text).split(|c| !is_word(c)).any(|other| other == word)
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The text with its comments replaced by spaces, so that its length does not change. Comments between `/*` and `*/`
/// nest.
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

/// The line and the column of a byte offset. Both count from 1; columns are bytes.
fn line_and_column(text: &str, place: usize) -> (u32, u32) {
    let before = &text[..place];
    let line = before.matches('\n').count() + 1;
    let column = place - before.rfind('\n').map_or(0, |end| end + 1) + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

/// The names of WGSL itself that the kernels use. A program that declared one of them would change what the kernels
/// compute.
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
    "clamp",
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
    "round",
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
