//! The user's own program in the score: WGSL text that the kernels call.

use std::sync::Arc;

use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ScalarKind, Span, TypeInner};

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
            let lines_before = u32::try_from(score_mod.lines().count()).unwrap_or(u32::MAX);
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
    let module = parse(text, has_aux).map_err(wrong)?;
    if let Some((word, at)) = directive(text) {
        let message = format!("`{word}` is for a whole module, which a program is not");
        return Err(wrong((at, 1, message)));
    }
    if let Some((name, span)) = declared(&module).find(|(name, _)| BUILTINS.contains(name)) {
        let at = span.location(text);
        let message = format!("`{name}` is a name of WGSL's own that the kernels use; choose another");
        return Err(wrong((at.line_number, at.line_position, message)));
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
    if let Some(name) = NOT_ALONE.iter().find(|name| text.contains(*name)) {
        return Err(wrong((1, 1, format!("`{name}` needs all threads of a workgroup, which a program has not"))));
    }
    if !has(&module, function) {
        return Err(wrong((1, 1, format!("it must declare `{}`", function.signature()))));
    }
    Ok(())
}

/// Parses a text with what it may name, which stands after it so that places are those in the text.
fn parse(text: &str, has_aux: bool) -> Result<Module, Wrong> {
    let whole = format!("{text}\n{AT}{}", if has_aux { AUX } else { "" });
    let module = naga::front::wgsl::parse_str(&whole).map_err(|error| {
        let (line, column) = error.location(&whole).map_or((1, 1), |at| (at.line_number, at.line_position));
        (line, column, error.message().to_owned())
    })?;
    let validated = Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module);
    if let Err(error) = validated {
        // Of all that the error is about, the shortest piece of text says most.
        let places = error.spans().map(|(span, _)| span.location(&whole));
        let (line, column) = places.min_by_key(|at| at.length).map_or((1, 1), |at| (at.line_number, at.line_position));
        let mut message = error.as_inner().to_string();
        let mut source = std::error::Error::source(error.as_inner());
        while let Some(inner) = source {
            message = format!("{message}: {inner}");
            source = inner.source();
        }
        return Err((line, column, message));
    }
    Ok(module)
}

/// The names that a module declares at its outermost level, and where. Aliases have none left; WGSL's own names are not theirs.
fn declared(module: &Module) -> impl Iterator<Item = (&str, Span)> {
    let functions = module.functions.iter().map(|(at, it)| (&it.name, module.functions.get_span(at)));
    let constants = module.constants.iter().map(|(at, it)| (&it.name, module.constants.get_span(at)));
    let variables = module.global_variables.iter().map(|(at, it)| (&it.name, module.global_variables.get_span(at)));
    let types = module.types.iter().map(|(at, it)| (&it.name, module.types.get_span(at)));
    let all = functions.chain(constants).chain(variables).chain(types);
    all.filter_map(|(name, span)| Some((name.as_deref()?, span)))
}

/// A directive that a text begins with, and the number of its line.
fn directive(text: &str) -> Option<(&str, u32)> {
    let words = (1..).zip(text.lines()).filter_map(|(line, code)| Some((code.split_whitespace().next()?, line)));
    let mut words = words.map(|(word, line)| (word.split('(').next().unwrap_or(word), line));
    words.find(|(word, _)| ["enable", "requires", "diagnostic"].contains(word))
}

/// Functions of WGSL that all threads of a workgroup call together, or that no compute shader has.
const NOT_ALONE: [&str; 7] =
    ["workgroupBarrier", "storageBarrier", "textureBarrier", "workgroupUniformLoad", "dpdx", "dpdy", "fwidth"];

/// Functions and types of WGSL that the kernels use. A program that declared one of these would change what they compute.
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
    "u32",
    "u64",
    "unpack2x16float",
    "vec2",
    "vec3",
    "vec4",
    "workgroupBarrier",
    "workgroupUniformLoad",
];
