//! A box of a problem, which one dispatch computes.

use std::ops::Range;

use crate::kernel::record::{Block, Counts};
use crate::problem::Problem;
use crate::problem::operand::Operand;
use crate::problem::shape::Shape;

/// A box of batches, heads, rows and columns. The kernel's [`Counts`] say what its heads and rows are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) batch: Range<u32>,
    /// Query heads, or KV heads if their query heads or their keys are counted together. For a block mask, the heads
    /// that have their own tiles.
    pub(crate) heads: Range<u32>,
    /// Query rows, or keys.
    pub(crate) rows: Range<u32>,
    /// Columns of the values and the output: all of them, unless there are more than one dispatch can compute.
    pub(crate) columns: Range<u32>,
}

impl Piece {
    /// The whole problem.
    pub(super) fn whole(problem: &Problem, counts: Counts) -> Self {
        let Shape { batch, heads_q, heads_kv, len_q, len_kv, dim_v, .. } = problem.shape();
        let (heads, rows) = match counts {
            Counts::Rows => (heads_q, len_q),
            Counts::GroupedRows => (heads_kv, len_q),
            Counts::Keys => (heads_kv, len_kv),
            Counts::MaskRows => (heads_q, len_q),
        };
        let [batch, heads] = match problem.view(Operand::BlockMask) {
            Some(tiles) if counts == Counts::MaskRows => [tiles.extent[0], tiles.extent[1]],
            _ => [batch, heads],
        };
        Self { batch: 0..batch, heads: 0..heads, rows: 0..rows, columns: 0..dim_v }
    }

    /// Whether there is nothing to compute. There is always a head.
    pub(super) fn is_empty(&self) -> bool {
        self.batch.is_empty() || self.rows.is_empty()
    }

    /// Workgroups along (rows, heads, batches).
    pub(super) fn workgroups(&self, problem: &Problem, block: Block) -> [u32; 3] {
        let group = if block.counts == Counts::GroupedRows { problem.shape().group() } else { 1 };
        let rows = count(&self.rows).saturating_mul(group);
        [rows.div_ceil(block.rows), count(&self.heads), count(&self.batch)]
    }
}

pub(super) const fn count(range: &Range<u32>) -> u32 {
    range.end - range.start
}
