//! What the page runs. The cases are few, because the software driver takes two seconds to compile a pipeline.

use std::collections::HashSet;
use std::sync::Arc;

use truth::{Case, Fill};
use wgpu_attention::{
    BlockMask, Caps, Diagonal, Dtype, MaskFormat, Pages, Problem, ProblemBuilder, Quantization, ScoreLayout, Shape,
    Slopes, Variant, testing,
};

/// `decode` reads 64 keys per loop iteration. This many keys take several iterations, and the last one is not full.
const SEVERAL_ROUNDS: u32 = 300;
/// Enough keys to be split in two parts.
const TWO_PARTS: u32 = 1100;

/// The capabilities of a browser's device without optional features.
pub(crate) fn caps(limits: &wgpu::Limits) -> Caps {
    // Not `Caps::of`: on the software driver it would leave out kernels that a GPU gets.
    Caps::from_limits(limits)
}

fn drawn(problem: &ProblemBuilder, fill: Fill, seed: u64) -> Case {
    Case::filled(&problem.build().unwrap(), fill, seed)
}

/// The cases by name. Each call gives the same numbers.
///
/// Rows of 32 elements, and of 132 weights, are moved four at a time; rows of 30 elements one at a time.
pub(crate) fn all() -> [(&'static str, Case); 12] {
    // Selection prefers `decode` for few query rows and `tiled` for many, but each kernel can run either.
    let few = |len_kv, dim| Problem::builder(Shape::new(1, 4, 2, dim).kv_heads(1).kv_len(len_kv));
    let many = |dim| Shape::new(2, 2, 40, dim).kv_heads(1).kv_len(132);
    let tiled = Problem::builder(many(32)).causal(Diagonal::BottomRight);
    let scores = ScoreLayout::broadcast([2, 2, 40, 132]);
    let mask_and_bias = Problem::builder(many(30)).softcap(5.0).mask(scores).bias(Dtype::F32, scores).kv_lengths();
    // With the LSE these are eight storage buffers, as many as a browser grants.
    let programs = Problem::builder(many(30)).alibi(Slopes::PerHead).sinks().aux(2).lse();
    let programs = programs
        .score_mod("fn score_mod(score: f32, at: At) -> f32 { return score * aux[at.head]; }")
        .mask_mod("fn mask_mod(at: At) -> bool { return (at.query + 2u * at.key) % 3u != 0u; }");
    let mut programs = drawn(&programs, Fill::Normal, 7);
    programs.host.programs.score_mod = Some(Arc::new(|score, at, aux| score * f64::from(aux[at.head as usize])));
    programs.host.programs.mask_mod = Some(Arc::new(|at, _| (at.query + 2 * at.key) % 3 != 0));
    // Inputs are declared read-write, and what they hold must not decide which threads reach a barrier.
    let shared = Problem::builder(many(32)).mask_as(MaskFormat::WordsHide, scores).kv_lengths().shared_buffers();
    // Random tiles: some are empty, some are full, and in some the mask decides.
    let tiles = Problem::builder(many(30)).mask(scores).block_mask(BlockMask::new(12, 32).per_batch().per_head());
    // Barriers depend on the lengths and the bounds, and keys on a table.
    let ragged = Problem::builder(many(32)).causal(Diagonal::BottomRight).ragged_q(70);
    let ragged = ragged.paged_kv(Pages { count: 40, size: 7 }).kv_lengths();
    let ring = few(SEVERAL_ROUNDS, 32).kv_quantized(Quantization::Int8).ring_kv(100);
    [
        ("tiled, weights", drawn(&tiled.weights(), Fill::Normal, 1)),
        ("decode", drawn(&few(SEVERAL_ROUNDS, 32), Fill::Staircase, 2)),
        ("parts and merge", drawn(&few(TWO_PARTS, 32), Fill::Normal, 3)),
        ("f16", drawn(&few(SEVERAL_ROUNDS, 30).dtype(Dtype::F16), Fill::Normal, 4)),
        ("bf16", drawn(&few(SEVERAL_ROUNDS, 32).dtype(Dtype::Bf16), Fill::Normal, 5)),
        ("mask and bias", drawn(&mask_and_bias.lse().weights(), Fill::Normal, 6).lengths(&[130, 97])),
        ("programs, ALiBi and sinks", programs),
        ("block mask", drawn(&tiles, Fill::Normal, 8)),
        ("shared buffers", drawn(&shared.lse(), Fill::Normal, 9).lengths(&[130, 97])),
        ("ragged queries over pages", drawn(&ragged.lse(), Fill::Normal, 11)),
        ("a ring of int8", drawn(&ring, Fill::Normal, 12).lengths(&[250])),
        ("an f16 cache beside f32", drawn(&few(SEVERAL_ROUNDS, 32).kv_dtype(Dtype::F16), Fill::Normal, 10)),
    ]
}

/// Cases about how elements are read, which is the same in every kernel. The best kernel runs them.
pub(crate) fn of_one_kernel() -> [(&'static str, Case); 2] {
    let few = || Problem::builder(Shape::new(1, 4, 2, 32).kv_heads(1).kv_len(SEVERAL_ROUNDS));
    [
        ("a cache of 4 bits", drawn(&few().kv_quantized(Quantization::Int4), Fill::Normal, 13)),
        ("a cache of fp8", drawn(&few().kv_quantized(Quantization::Fp8E4m3), Fill::Normal, 14)),
    ]
}

/// What is tuned. Its kernels are those of another case, so that the browser has compiled them.
pub(crate) fn tuned() -> Problem {
    Problem::builder(Shape::new(1, 4, 2, 32).kv_heads(1).kv_len(SEVERAL_ROUNDS)).build().unwrap()
}

/// Of the variants that can run a case, the best one of each kernel.
pub(crate) fn one_of_each_kernel(candidates: Vec<Variant>) -> Vec<Variant> {
    let mut kernels = HashSet::new();
    candidates.into_iter().filter(|variant| kernels.insert(testing::schedule(variant))).collect()
}

#[cfg(test)]
mod tests {
    use wgpu_attention::candidates;

    use super::*;

    /// Every kernel that the page runs.
    fn kernels() -> Vec<Variant> {
        let caps = caps(&wgpu::Limits::default());
        let mut kernels = Vec::new();
        for (_, case) in all() {
            for variant in one_of_each_kernel(candidates(&case.problem, &caps).unwrap()) {
                kernels.extend(testing::kernels(&case.problem, &variant, &caps).unwrap());
            }
        }
        kernels
    }

    #[test]
    fn the_cases_reach_every_kernel_that_a_browser_gets_and_every_piece_of_it() {
        type Is = fn(&Variant) -> bool;
        let scores: [(&str, Is); 10] = [
            ("elements in fours", |kernel| testing::access(kernel) == "x4"),
            ("elements one at a time", |kernel| testing::access(kernel) == "x1"),
            ("f16", |kernel| kernel.to_string().contains(".f16")),
            ("bf16", |kernel| kernel.to_string().contains(".bf16")),
            ("parts", testing::is_partial),
            ("a mask, a bias and a softcap", |kernel| {
                [".mask", ".bias-", ".softcap"].iter().all(|word| kernel.to_string().contains(word))
            }),
            ("programs, ALiBi and sinks", |kernel| {
                [".score-", ".mask-", ".alibi", ".sinks", ".aux"].iter().all(|word| kernel.to_string().contains(word))
            }),
            ("shared buffers with a mask of words and lengths", |kernel| {
                [".mask-u32-hide", ".lengths", ".shared"].iter().all(|word| kernel.to_string().contains(word))
            }),
            ("a block mask", |kernel| kernel.to_string().contains(".tiles")),
            ("lengths and an LSE", |kernel| [".lengths", ".lse"].iter().all(|word| kernel.to_string().contains(word))),
        ];
        let both = &scores[..2];
        let kernels = kernels();
        for (name, pieces) in [("tiled", &scores[..]), ("decode", &scores), ("weights", both), ("merge", &both[..1])] {
            let is_it = |kernel: &Variant| testing::schedule(kernel) == name;
            for (piece, has_it) in pieces {
                assert!(kernels.iter().any(|kernel| is_it(kernel) && has_it(kernel)), "no {name} with {piece}");
            }
        }
    }
}
