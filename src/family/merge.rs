//! `merge.wgsl`: combines the parts of split keys, a vector of four columns of a row to a thread.

use super::{Constant, Kernel, tiled};
use crate::Variant;

pub(super) const THREADS: u32 = 64;

/// Rows of a workgroup.
pub(super) fn rows(variant: &Variant) -> u32 {
    (THREADS / (variant.dim_v / 4)).max(1)
}

pub(super) fn kernel(variant: &Variant) -> Kernel {
    let mut sources = vec![include_str!("../../shaders/params.wgsl")];
    sources.extend(tiled::elements(variant));
    sources.extend(tiled::conversions(variant.dtype));
    sources.extend(tiled::result(variant));
    sources.push(include_str!("../../shaders/merge.wgsl"));
    let constants = vec![("DIM_V", Constant::U32(variant.dim_v)), ("ROWS", Constant::U32(rows(variant)))];
    // Its loops go over parts, of which there are few.
    Kernel { directives: "", sources, constants, workgroup_bytes: 0, rounds_per_tile: 1 }
}
