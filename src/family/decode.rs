//! `decode.wgsl`: few query rows over many keys.

use super::{Constant, DIM_MOST, DIM_STEP, Kernel, VALUE_COLUMNS, tiled};
use crate::{Exchange, Family, Problem, Variant};

/// How a workgroup divides the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decode {
    /// Query rows, those of the heads of a group among them.
    pub rows: u32,
    /// Threads that share a key.
    pub share: u32,
    /// Threads in all.
    pub threads: u32,
}

/// Rows a workgroup takes at most: with more, their registers overflow.
const MOST_ROWS: u32 = 8;
/// Numbers of Q that a thread keeps, and as many of O.
const REGISTERS: u32 = 64;
const THREADS: u32 = 128;
const SHARE: u32 = 8;

/// The family for a problem, whatever its number of rows.
pub(crate) fn family(problem: &Problem) -> Family {
    let shape = problem.shape();
    // Few sizes, for few pipelines: a row too many costs little beside what is read for all of them.
    let wanted = match shape.len_q.saturating_mul(shape.group()) {
        0..=1 => 1,
        2..=4 => 4,
        _ => MOST_ROWS,
    };
    // Larger head sizes are refused elsewhere.
    let dim = shape.dim_qk.min(DIM_MOST).max(shape.dim_v.min(VALUE_COLUMNS)).next_multiple_of(DIM_STEP);
    let rows = wanted.min((REGISTERS * SHARE / dim).max(1));
    Family::Decode(Decode { rows, share: SHARE, threads: THREADS })
}

pub(super) fn kernel(variant: &Variant, Decode { rows, share, threads }: Decode) -> Kernel {
    let mut sources = vec![include_str!("../../shaders/params.wgsl")];
    sources.extend(tiled::elements(variant));
    sources.extend(tiled::conversions(variant.dtype));
    sources.extend(tiled::score_pieces(variant));
    sources.extend(tiled::result(variant));
    sources.push(match variant.exchange {
        Exchange::Workgroup => include_str!("../../shaders/pieces/share_workgroup.wgsl"),
        Exchange::Subgroup => include_str!("../../shaders/pieces/share_subgroup.wgsl"),
    });
    sources.push(include_str!("../../shaders/decode.wgsl"));
    let (q_vectors, v_vectors) = (variant.dim_qk / 4 / share, variant.dim_v / 4 / share);
    let constants = vec![
        ("DIM_QK", Constant::U32(variant.dim_qk)),
        ("DIM_V", Constant::U32(variant.dim_v)),
        ("ROWS", Constant::U32(rows)),
        ("KEYS", Constant::U32(threads / share)),
        ("SHARE", Constant::U32(share)),
        ("Q_VECTORS", Constant::U32(q_vectors)),
        ("V_VECTORS", Constant::U32(v_vectors)),
        ("Q_ARRAY", Constant::U32(rows * q_vectors)),
        ("O_ARRAY", Constant::U32(rows * v_vectors)),
    ];
    // A round for 4 keys of each thread, with the sums over those that share one inside; two more because what the driver
    // counts is measured, not documented. The rounds at the end, of sums over the keys, are charged to every tile.
    let rounds_per_tile = (super::TILE_KEYS / (4 * threads / share)).max(1) * (1 + share + 1) + 2;
    Kernel { directives: "", sources, constants, workgroup_bytes: rows * threads * 16, rounds_per_tile }
}

/// Rounds of the sums over the keys, at the end.
pub(super) fn final_rounds(variant: &Variant, decode: Decode) -> u32 {
    let keys = decode.threads / decode.share;
    (2 + variant.dim_v / 4 / decode.share) * (keys + 2)
}
