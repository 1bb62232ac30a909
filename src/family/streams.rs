//! `streams.wgsl`: few query rows on CPUs that play a GPU, whose vector is a subgroup.

use super::{Constant, DIM_MOST, DIM_STEP, Kernel, VALUE_COLUMNS, tiled};
use crate::{Family, Problem, Variant};

/// Numbers of Q that every lane keeps, and as many of O: with more, the text no longer pays for the reading it saves.
const NUMBERS: u32 = 512;

/// The family for a problem on subgroups of `size`, whatever its number of rows.
pub(crate) fn family(problem: &Problem, size: u32) -> Family {
    Family::Streams { size, rows: rows(problem) }
}

/// Query rows of a workgroup.
pub(crate) fn rows(problem: &Problem) -> u32 {
    let shape = problem.shape();
    // Larger head sizes are refused elsewhere.
    let dim = shape.dim_qk.min(DIM_MOST).max(shape.dim_v.min(VALUE_COLUMNS)).next_multiple_of(DIM_STEP);
    match shape.len_q.saturating_mul(shape.group()) {
        0..=1 => 1,
        2 => 2,
        _ => (NUMBERS / dim).clamp(1, 4),
    }
}

pub(super) fn kernel(variant: &Variant, size: u32, rows: u32) -> Kernel {
    let mut sources = vec![include_str!("../../shaders/params.wgsl")];
    sources.extend(tiled::elements(variant));
    sources.extend(tiled::conversions(variant.dtype));
    sources.extend(tiled::score_pieces(variant));
    sources.extend(tiled::result(variant));
    sources.push(include_str!("../../shaders/streams.wgsl"));
    let (q_vectors, v_vectors) = (variant.dim_qk / 4, variant.dim_v / 4);
    let constants = vec![
        ("DIM_QK", Constant::U32(variant.dim_qk)),
        ("DIM_V", Constant::U32(variant.dim_v)),
        ("LANES", Constant::U32(size)),
        ("ROWS", Constant::U32(rows)),
        ("Q_VECTORS", Constant::U32(q_vectors)),
        ("V_VECTORS", Constant::U32(v_vectors)),
        ("K_TEXELS", Constant::U32(q_vectors / size)),
        ("V_TEXELS", Constant::U32(v_vectors / size)),
    ];
    // A round for a key to each lane; two more because what the driver counts is measured, not documented.
    Kernel {
        directives: "",
        sources,
        constants,
        workgroup_bytes: 0,
        rounds_per_tile: super::TILE_KEYS.div_ceil(size) + 2,
    }
}
