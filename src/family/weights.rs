//! `weights.wgsl`: the attention weights, over the same tiles of scores as the baseline.

use super::{Kernel, tiled};
use crate::Variant;

pub(super) fn kernel(variant: &Variant) -> Kernel {
    let mut kernel = tiled::scores(variant, 0);
    // Once for the maximum and the sum, once to write.
    kernel.rounds_per_tile *= 2;
    kernel.sources.push(include_str!("../../shaders/weights.wgsl"));
    kernel
}
