//! `lanes.wgsl`: for CPUs that play a GPU, whose vector is a subgroup.

use super::{Constant, Kernel, stage, tiled};
use crate::Variant;

/// Query rows a lane keeps: as many as the registers' overflow and the driver's compiler bear.
pub(super) fn rows(variant: &Variant) -> u32 {
    match variant.dim_qk.max(variant.dim_v) {
        0..=128 => 4,
        _ => 2,
    }
}

pub(super) fn kernel(variant: &Variant, size: u32) -> Kernel {
    let mut sources = vec![include_str!("../../shaders/params.wgsl"), tiled::elements(variant)];
    sources.extend(tiled::conversions(variant.dtype));
    sources.extend([tiled::mask(variant), tiled::bias(variant.bias), tiled::lengths(variant)]);
    sources.extend(tiled::result(variant));
    sources.push(include_str!("../../shaders/lanes.wgsl"));
    let rows = rows(variant);
    let mut constants = Vec::from(stage::constants(variant));
    constants.extend([
        ("LANES", Constant::U32(size)),
        ("ROWS", Constant::U32(rows)),
        ("Q_VECTORS", Constant::U32(variant.dim_qk / 4)),
        ("V_VECTORS", Constant::U32(variant.dim_v / 4)),
        ("LANE_QUADS", Constant::U32(size / 4)),
        ("Q_ARRAY", Constant::U32(rows * variant.dim_qk / 4)),
        ("O_ARRAY", Constant::U32(rows * variant.dim_v / 4)),
        ("P_ARRAY", Constant::U32(rows * size / 4)),
        ("SOFTCAP", Constant::Bool(variant.softcap)),
    ]);
    // A round for as many keys as there are lanes; two more because what the driver counts is measured, not documented.
    Kernel { sources, constants, workgroup_bytes: 0, rounds_per_tile: super::TILE_KEYS.div_ceil(size) + 2 }
}
