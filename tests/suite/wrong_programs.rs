//! Programs that are refused when the problem is built, and what the error says of them. Needs no adapter.

use std::collections::BTreeSet;

use wgpu_attention::{Diagonal, Function, Problem, ProblemBuilder, ProblemError, testing};

use crate::programs::shape;

fn wrong(problem: ProblemBuilder) -> (Function, u32, u32, String) {
    match problem.build().unwrap_err() {
        ProblemError::Program { function, line, column, message } => (function, line, column, message),
        other => panic!("{other}"),
    }
}

#[test]
fn a_wrong_program_is_told_where_it_is_wrong() {
    let score = |text: &str| wrong(Problem::builder(shape()).score_mod(text));
    let mask = |text: &str| wrong(Problem::builder(shape()).mask_mod(text));
    let at = |(function, line, column, _): &(Function, u32, u32, String)| (*function, *line, *column);
    let score_mod = "fn score_mod(score: f32, at: At) -> f32 { return score; }";

    let syntax = score("// A comment.\nfn score_mod(score: f32, at: At) -> f32 {\n    return score +;\n}");
    assert_eq!(at(&syntax), (Function::ScoreMod, 3, 19), "{syntax:?}");
    let unknown = score("fn score_mod(score: f32, at: At) -> f32 {\n    return score + slope;\n}");
    assert_eq!(at(&unknown), (Function::ScoreMod, 2, 20), "{unknown:?}");
    assert!(unknown.3.contains("slope"), "{unknown:?}");
    let types = mask("fn mask_mod(at: At) -> bool {\n    return at.key;\n}");
    assert_eq!(at(&types).1, 2, "{types:?}");
    for (text, said) in [
        ("fn other(score: f32, at: At) -> f32 { return score; }", "fn score_mod(score: f32, at: At) -> f32"),
        ("fn score_mod(score: f32) -> f32 { return score; }", "fn score_mod(score: f32, at: At) -> f32"),
        ("fn score_mod(score: f32, at: At) -> bool { return true; }", "fn score_mod(score: f32, at: At) -> f32"),
        ("fn score_mod(score: f32, at: At) -> f32 { return aux[0]; }", "aux"),
        ("fn max(x: f32) -> f32 { return x; }\nfn score_mod(score: f32, at: At) -> f32 { return score; }", "`max`"),
        ("var<workgroup> w: f32;\nfn score_mod(score: f32, at: At) -> f32 { return score; }", "`w`"),
        ("@group(1) @binding(0) var<uniform> u: f32;\nfn score_mod(score: f32, at: At) -> f32 { return u; }", "`u`"),
        ("fn score_mod(score: f32, at: At) -> f32 { workgroupBarrier(); return score; }", "alone"),
        ("@compute @workgroup_size(1) fn run() {}\nfn score_mod(score: f32, at: At) -> f32 { return score; }", "`run`"),
        (
            "fn a() -> f32 { return 1.0; } fn min(x: f32) -> f32 { return x; }
            fn score_mod(score: f32, at: At) -> f32 { return score; }",
            "`min`",
        ),
        ("struct vec4 { x: f32 }\nfn score_mod(score: f32, at: At) -> f32 { return score; }", "vec4"),
        ("enable f16;\nfn score_mod(score: f32, at: At) -> f32 { return score; }", "directives"),
        (
            "diagnostic(off, derivative_uniformity);\nfn score_mod(score: f32, at: At) -> f32 { return 1.0; }",
            "directives",
        ),
        ("fn score_mod(score: f32, at: At) -> f32 { return dpdx(score); }", "one thread cannot do alone"),
        ("fn score_mod(score: f32, at: At) -> f32 { if (at.key == 3u) { discard; } return score; }", "alone"),
        ("const max = 8;\nfn score_mod(score: f32, at: At) -> f32 { return score; }", "`max`"),
        ("alias /* of */ fma = f32;\nfn score_mod(score: f32, at: At) -> f32 { return score; }", "`fma`"),
        ("const workgroup = 16u;\nfn score_mod(score: f32, at: At) -> f32 { return score; }", "`workgroup`"),
        ("override strength: f32;\nfn score_mod(score: f32, at: At) -> f32 { return score * strength; }", "overrides"),
        ("struct At { batch: u32 }\nfn score_mod(score: f32, at: At) -> f32 { return score; }", "At"),
    ] {
        let (function, _, _, message) = score(text);
        assert!(function == Function::ScoreMod && message.contains(said), "{text}: {message:?}");
    }
    // Text that only looks like one of these is not refused.
    let harmless = "
        /* enable fn max: /* nested */ as it is said */
        // needs no workgroupBarrier
        const halfwidth = 16u;
        fn score_mod(score: f32, at: At) -> f32 { const max_x = 2.0; let my_fn = 1.0; return score * max_x * my_fn; }";
    Problem::builder(shape()).score_mod(harmless).build().unwrap();
    let far = Problem::builder(shape()).diagonal(Diagonal::Offset(i32::MIN)).score_mod(harmless).build().unwrap_err();
    assert!(matches!(far, ProblemError::TooLong { axis: "diagonal", .. }), "{far}");
    // Both texts are one module: a name that both declare is the second's to change.
    let helper = "fn half(x: f32) -> f32 { return 0.5 * x; }\n";
    let twice = Problem::builder(shape())
        .score_mod(format!("{helper}{score_mod}\n"))
        .mask_mod(format!("\n{helper}fn mask_mod(at: At) -> bool {{ return true; }}"));
    let twice = wrong(twice);
    assert_eq!(at(&twice), (Function::MaskMod, 2, 4), "{twice:?}");
    // One text for both is not refused.
    let both = format!("{helper}{score_mod}\nfn mask_mod(at: At) -> bool {{ return true; }}");
    Problem::builder(shape()).score_mod(both.clone()).mask_mod(both).build().unwrap();
}

/// A program that declares a builtin that the kernels call would change what they compute, so it is refused. The list of
/// these builtins is complete.
#[test]
fn every_builtin_that_the_kernels_use_is_kept_from_programs() {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut missing = BTreeSet::new();
    for (_, variant) in crate::shaders::every_variant() {
        let text: String =
            variant.wgsl().lines().map(|line| line.split("//").next().unwrap().to_owned() + "\n").collect();
        let mut asked = BTreeSet::new();
        let mut rest = 0;
        while let Some(start) = text[rest..].find(|c: char| c.is_alphabetic() || c == '_').map(|at| rest + at) {
            let end = text[start..].find(|c: char| !is_word(c)).map_or(text.len(), |len| start + len);
            rest = end;
            let (before, word, after) = (&text[..start], &text[start..end], &text[end..]);
            // A member, an attribute, or the suffix of a number.
            if before.ends_with(|c: char| c.is_numeric() || c == '.' || c == '@') {
                continue;
            }
            // Called, or with types; or one of those, as in `ptr<function, …>`.
            let is_used = after.starts_with(['(', '<'])
                || ["var<", "ptr<", "<storage, "].iter().any(|open| before.ends_with(open))
                || after.starts_with(", read>")
                || after.starts_with(", write>");
            if !is_used || testing::is_builtin(word) || !asked.insert(word) {
                continue;
            }
            let is_declared =
                ["fn ", "struct ", "alias ", "const "].iter().any(|keyword| text.contains(&format!("{keyword}{word}")));
            let is_keyword =
                ["if", "for", "switch", "while", "return", "diagnostic", "var", "group", "binding"].contains(&word);
            // Only the program of `every_variant` calls it.
            let is_of_program = word == "arrayLength";
            if !is_declared && !is_keyword && !is_of_program {
                missing.insert(word.to_owned());
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}
