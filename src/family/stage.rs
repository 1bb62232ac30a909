//! `stage.wgsl`: copies keys and values to textures, a key to a thread.

use super::{Constant, Kernel, tiled};
use crate::{Caps, Problem, Variant};

pub(super) const KEYS: u32 = 64;

/// Texels of a texture's row: every device has twice as many, and a power of two of keys fits.
const WIDTH: u32 = 4096;

/// How many keys, of so many elements each, share a row of a texture.
pub(super) const fn keys_per_row(dim: u32) -> u32 {
    1 << (WIDTH / (dim / 4)).ilog2()
}

/// Widths and heights of the textures of keys and of values.
pub(crate) fn sizes(variant: &Variant, problem: &Problem) -> [[u32; 2]; 2] {
    let shape = problem.shape();
    let keys = u64::from(shape.batch).saturating_mul(shape.heads_kv.into()).saturating_mul(shape.len_kv.into());
    [variant.dim_qk, variant.dim_v].map(|dim| {
        let height = keys.div_ceil(keys_per_row(dim).into());
        // A texture has at least one row, even where there are no keys.
        [keys_per_row(dim) * (dim / 4), u32::try_from(height).unwrap_or(u32::MAX).max(1)]
    })
}

/// Whether textures on such a device hold all keys and values.
pub(crate) fn fits(variant: &Variant, problem: &Problem, caps: &Caps) -> bool {
    sizes(variant, problem).iter().flatten().all(|&side| side <= caps.texture_side)
}

pub(super) fn constants(variant: &Variant) -> [(&'static str, Constant); 4] {
    [
        ("DIM_QK", Constant::U32(variant.dim_qk)),
        ("DIM_V", Constant::U32(variant.dim_v)),
        ("K_KEYS_PER_ROW", Constant::U32(keys_per_row(variant.dim_qk))),
        ("V_KEYS_PER_ROW", Constant::U32(keys_per_row(variant.dim_v))),
    ]
}

pub(super) fn kernel(variant: &Variant) -> Kernel {
    let mut sources = vec![include_str!("../../shaders/params.wgsl")];
    sources.extend(tiled::elements(variant));
    sources.extend(tiled::conversions(variant.dtype));
    sources.push(include_str!("../../shaders/stage.wgsl"));
    Kernel { directives: "", sources, constants: constants(variant).into(), workgroup_bytes: 0, rounds_per_tile: 1 }
}
