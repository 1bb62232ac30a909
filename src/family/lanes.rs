//! `lanes.wgsl`: for CPUs that play a GPU, whose vector is a subgroup.

use super::{Constant, Kernel, stage, tiled};
use crate::Variant;

/// Query rows of a lane and keys of a round: as many as fit the first-level instruction cache, since every number of theirs
/// is a few instructions of the text (benches/NOTES.md).
const fn shape(variant: &Variant) -> (u32, u32) {
    match if variant.dim_qk > variant.dim_v { variant.dim_qk } else { variant.dim_v } {
        0..=32 => (6, 2),
        33..=64 => (4, 2),
        65..=96 => (2, 2),
        97..=128 => (3, 1),
        _ => (2, 1),
    }
}

/// Query rows of a lane.
pub(super) const fn rows(variant: &Variant) -> u32 {
    shape(variant).0
}

pub(super) fn kernel(variant: &Variant, size: u32) -> Kernel {
    let mut sources = vec![include_str!("../../shaders/params.wgsl")];
    sources.extend(tiled::elements(variant));
    sources.extend(tiled::conversions(variant.dtype));
    sources.extend(tiled::score_pieces(variant));
    sources.extend(tiled::result(variant));
    sources.push(include_str!("../../shaders/lanes.wgsl"));
    let (rows, keys) = shape(variant);
    let (q_vectors, v_vectors) = (variant.dim_qk / 4, variant.dim_v / 4);
    let mut constants = Vec::from(stage::constants(variant));
    constants.extend([
        ("LANES", Constant::U32(size)),
        ("ROWS", Constant::U32(rows)),
        ("KEYS", Constant::U32(keys)),
        ("Q_VECTORS", Constant::U32(q_vectors)),
        ("V_VECTORS", Constant::U32(v_vectors)),
        ("K_TEXELS", Constant::U32(q_vectors / size)),
        ("V_TEXELS", Constant::U32(v_vectors / size)),
    ]);
    // A round for each so many keys; two more because what the driver counts is measured, not documented.
    Kernel { directives: "", sources, constants, workgroup_bytes: 0, rounds_per_tile: super::TILE_KEYS / keys + 2 }
}
