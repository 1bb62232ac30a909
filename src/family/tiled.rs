//! `attention.wgsl`: the baseline. Its shape is the shader's: 64 threads over 32 queries × 32 keys.

use super::{Constant, Kernel};
use crate::{Access, Dtype, Exchange, Variant};

pub(super) const ROWS: u32 = 32;
pub(super) const THREADS: u32 = 64;

/// Every WebGPU device has this much workgroup memory.
const WORKGROUP_BYTES: u32 = 16 << 10;
const VEC4_BYTES: u32 = 16;
/// Vectors of four in `kv_tile`, and in `p_tile`.
const TILE: u32 = 256;

pub(super) fn kernel(variant: &Variant) -> Kernel {
    let p_tile_bytes = TILE * VEC4_BYTES;
    let mut kernel = scores(variant, p_tile_bytes);
    kernel.sources.extend(result(variant));
    kernel.sources.push(include_str!("../../shaders/attention.wgsl"));
    kernel.rounds_per_tile += ROWS / keys_per_v_tile(variant.dim_v) + 2;
    kernel.constants.push(("V_COLUMNS", Constant::U32(variant.dim_v / 32)));
    kernel.constants.push(("V_QUADS", Constant::U32(keys_per_v_tile(variant.dim_v) / 4)));
    kernel
}

/// Where a row's result goes.
pub(super) fn result(variant: &Variant) -> Vec<&'static str> {
    match (variant.partial, variant.lse) {
        (true, _) => vec![include_str!("../../shaders/pieces/result_part.wgsl")],
        (false, true) => vec![
            include_str!("../../shaders/pieces/lse_buffer.wgsl"),
            include_str!("../../shaders/pieces/result_whole.wgsl"),
        ],
        (false, false) => vec![
            include_str!("../../shaders/pieces/lse_none.wgsl"),
            include_str!("../../shaders/pieces/result_whole.wgsl"),
        ],
    }
}

/// How many keys' values fit in `kv_tile`: a power of two, so that it divides the tile.
fn keys_per_v_tile(dim_v: u32) -> u32 {
    1 << (TILE / (dim_v / 4)).min(ROWS).ilog2()
}

/// What both kernels that look at scores share. `other_bytes` is the workgroup memory the kernel itself declares.
pub(super) fn scores(variant: &Variant, other_bytes: u32) -> Kernel {
    let votes_bytes = if variant.mask { 4 } else { 0 };
    let fixed_bytes = TILE * VEC4_BYTES + votes_bytes + other_bytes;
    let q_bytes = ROWS * variant.dim_qk * 4;
    // All of Q stays in workgroup memory where it fits; else it is read again, 32 dimensions at a time.
    let q_resident = fixed_bytes + q_bytes <= WORKGROUP_BYTES;
    let q_tile_bytes = if q_resident { q_bytes } else { ROWS * 32 * 4 };

    let mut sources = vec![include_str!("../../shaders/params.wgsl")];
    sources.extend(elements(variant));
    sources.extend(conversions(variant.dtype));
    sources.extend(score_pieces(variant));
    sources.push(match variant.exchange {
        Exchange::Workgroup => include_str!("../../shaders/pieces/rows_workgroup.wgsl"),
        Exchange::Subgroup => include_str!("../../shaders/pieces/rows_subgroup.wgsl"),
    });
    sources.push(if variant.mask {
        include_str!("../../shaders/pieces/skip_by_vote.wgsl")
    } else {
        include_str!("../../shaders/pieces/skip_by_position.wgsl")
    });
    sources.push(include_str!("../../shaders/scores.wgsl"));
    let constants = vec![("DIM_QK", Constant::U32(variant.dim_qk)), ("Q_RESIDENT", Constant::Bool(q_resident))];
    // The loop over tiles; the loop over slices, and in each the loop over its 8 vectors. Two rounds more for each loop than
    // it does work in: one in which it ends, and one because what the driver counts is measured, not documented.
    let rounds_per_tile = 1 + variant.dim_qk / 32 * (1 + 8 + 2) + 2;
    Kernel { directives: "", sources, constants, workgroup_bytes: fixed_bytes + q_tile_bytes, rounds_per_tile }
}

pub(super) fn elements(variant: &Variant) -> Vec<&'static str> {
    let inputs = match (variant.dtype, variant.access) {
        (Dtype::F32, Access::Vec4) => include_str!("../../shaders/pieces/elements_f32_vec4.wgsl"),
        (Dtype::F32, Access::Scalar) => include_str!("../../shaders/pieces/elements_f32_scalar.wgsl"),
        (Dtype::F32, Access::Words) => include_str!("../../shaders/pieces/elements_f32_words.wgsl"),
        (_, Access::Vec4) => include_str!("../../shaders/pieces/elements_packed_vec4.wgsl"),
        (_, Access::Words) => include_str!("../../shaders/pieces/elements_packed_words.wgsl"),
        (_, Access::Scalar) => include_str!("../../shaders/pieces/elements_packed_scalar.wgsl"),
    };
    let out = if variant.dtype == Dtype::F32 { None } else { Some(packed_out(variant)) };
    [inputs].into_iter().chain(places(variant.access)).chain(out).collect()
}

/// What moving elements one at a time takes.
pub(super) fn places(access: Access) -> Option<&'static str> {
    (access == Access::Scalar).then_some(include_str!("../../shaders/pieces/places.wgsl"))
}

/// Where 16-bit results go.
fn packed_out(variant: &Variant) -> &'static str {
    match variant.access {
        Access::Vec4 | Access::Words => include_str!("../../shaders/pieces/out_packed_vec4.wgsl"),
        Access::Scalar => include_str!("../../shaders/pieces/out_packed_scalar.wgsl"),
    }
}

pub(super) fn conversions(dtype: Dtype) -> Option<&'static str> {
    match dtype {
        Dtype::F32 => None,
        Dtype::F16 => Some(include_str!("../../shaders/pieces/f16.wgsl")),
        Dtype::Bf16 => Some(include_str!("../../shaders/pieces/bf16.wgsl")),
    }
}

/// What shapes the scores and hides some of them.
pub(super) fn score_pieces(variant: &Variant) -> [&'static str; 4] {
    let softcap = if variant.softcap {
        include_str!("../../shaders/pieces/softcap_tanh.wgsl")
    } else {
        include_str!("../../shaders/pieces/softcap_none.wgsl")
    };
    let mask = if variant.mask {
        include_str!("../../shaders/pieces/mask_bytes.wgsl")
    } else {
        include_str!("../../shaders/pieces/mask_none.wgsl")
    };
    let bias = match variant.bias {
        None => include_str!("../../shaders/pieces/bias_none.wgsl"),
        Some(Dtype::F32) => include_str!("../../shaders/pieces/bias_f32.wgsl"),
        Some(Dtype::F16 | Dtype::Bf16) => include_str!("../../shaders/pieces/bias_packed.wgsl"),
    };
    let lengths = if variant.kv_lengths {
        include_str!("../../shaders/pieces/lengths_buffer.wgsl")
    } else {
        include_str!("../../shaders/pieces/lengths_all.wgsl")
    };
    [softcap, mask, bias, lengths]
}
