//! What the page runs. The cases are few, because the software driver compiles each pipeline for a second or more.

use wgpu_attention::{Caps, Diagonal, Dtype, Problem, ProblemBuilder, Shape};

use crate::case::{Case, full};
use crate::inputs::Fill;

/// `decode` reads 64 keys in each round of its loop. With these it goes round several times, and the last round is not full.
const SEVERAL_ROUNDS: u32 = 300;
/// Enough keys to be split in two parts.
const TWO_PARTS: u32 = 1100;

/// What a browser's device grants an app that asks for no feature.
pub(crate) fn caps(limits: &wgpu::Limits) -> Caps {
    // Not `Caps::of`: on the software driver it would leave out kernels that a GPU gets.
    Caps::from_limits(limits)
}

/// The cases by name. Each call gives the same numbers.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, Case)> {
    // Few query rows are for `decode` first and many for `tiled`, but both kernels run both.
    let few = |len_kv| Problem::builder(Shape::new(1, 4, 2, 32).kv_heads(1).kv_len(len_kv));
    let shape = Shape::new(2, 2, 40, 32).kv_heads(1).kv_len(70);
    let many = Problem::builder(shape);
    let mask_and_bias = many.softcap(5.0).mask(full(shape)).bias(Dtype::F32, full(shape)).kv_lengths().lse();
    let cases: [(&str, ProblemBuilder, Fill); 7] = [
        ("tiled", many.causal(Diagonal::BottomRight), Fill::Normal),
        ("decode", few(SEVERAL_ROUNDS), Fill::Staircase),
        ("parts and merge", few(TWO_PARTS), Fill::Normal),
        ("weights", many.weights(), Fill::Spike),
        ("f16", few(SEVERAL_ROUNDS).dtype(Dtype::F16), Fill::Normal),
        ("bf16", few(SEVERAL_ROUNDS).dtype(Dtype::Bf16), Fill::Normal),
        ("mask and bias", mask_and_bias, Fill::Normal),
    ];
    (1..).zip(cases).map(|(seed, (name, problem, fill))| (name, Case::new(problem, fill, seed)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use wgpu_attention::{Access, Family, Variant, candidates, weights_candidates};

    use super::*;

    /// Every kernel that a browser's device runs for these cases.
    fn kernels() -> Vec<Variant> {
        let caps = caps(&wgpu::Limits::default());
        let mut kernels = Vec::new();
        for (_, case) in all() {
            for variant in candidates(&case.problem, &caps).unwrap() {
                kernels.push(variant);
                kernels.extend(variant.companions().into_iter().flatten());
            }
            if case.problem.uses(wgpu_attention::Operand::Weights) {
                kernels.extend(weights_candidates(&case.problem, &caps).unwrap());
            }
        }
        kernels
    }

    #[test]
    fn the_cases_reach_every_kernel_and_every_piece_that_a_browser_gets() {
        let kernels = kernels();
        let is_decode = |family: Family| matches!(family, Family::Decode(_));
        for access in [Access::Vec4, Access::Scalar] {
            let reached: HashSet<_> =
                kernels.iter().filter(|kernel| kernel.access == access).map(|kernel| kernel.family).collect();
            assert!(reached.iter().any(|&family| is_decode(family)), "no decode, {access:?}");
            for family in [Family::Tiled, Family::Weights, Family::Merge] {
                assert!(reached.contains(&family), "no {family:?}, {access:?}");
            }
        }
        for family in [Family::Tiled, kernels.iter().map(|kernel| kernel.family).find(|&f| is_decode(f)).unwrap()] {
            let has =
                |piece: fn(&Variant) -> bool| kernels.iter().any(|kernel| kernel.family == family && piece(kernel));
            assert!(has(|kernel| kernel.partial), "no part by {family:?}");
            assert!(has(|kernel| kernel.mask && kernel.bias.is_some() && kernel.softcap), "no mask by {family:?}");
            assert!(has(|kernel| kernel.kv_lengths && kernel.lse), "no lengths by {family:?}");
            for dtype in Dtype::ALL {
                assert!(kernels.iter().any(|kernel| kernel.family == family && kernel.dtype == dtype), "no {dtype}");
            }
        }
    }
}
