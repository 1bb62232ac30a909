//! A box of a problem, which one dispatch computes.

use std::ops::Range;

use crate::kernel::record::{Block, Counts};
use crate::problem::Problem;
use crate::problem::operand::Operand;
use crate::problem::sequences::Queries;
use crate::problem::shape::Shape;

/// A box of batches, heads, rows and columns. The kernel's [`Counts`] say what its heads and rows are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) batch: Range<u32>,
    /// Query heads, or KV heads if their query heads or their keys are counted together. For a block mask, the heads
    /// that have their own tiles.
    pub(crate) heads: Range<u32>,
    /// Query rows, or keys. The rows of ragged queries are counted in blocks, through all sequences.
    pub(crate) rows: Range<u32>,
    /// Columns of the values and the output: all of them, unless there are more than one dispatch can compute.
    pub(crate) columns: Range<u32>,
}

impl Piece {
    /// The whole problem.
    pub(super) fn whole(problem: &Problem, block: Block) -> Self {
        let Shape { batch, heads_q, heads_kv, len_q, dim_v, .. } = problem.shape();
        let (batch, heads, rows) = match block.counts {
            Counts::Rows | Counts::GroupedRows => {
                let heads = if block.counts == Counts::Rows { heads_q } else { heads_kv };
                match blocks(problem, block) {
                    Some(blocks) => (batch.min(1), heads, blocks),
                    None => (batch, heads, len_q),
                }
            }
            Counts::Keys => {
                let [batches, rows] = problem.stageable_keys();
                (batches, heads_kv, rows)
            }
            Counts::MaskRows => {
                let tiles = problem.view(Operand::BlockMask).map(|tiles| tiles.extent);
                let [batches, heads, ..] = tiles.unwrap_or([batch, heads_q, 0, 0]);
                (batches, heads, len_q)
            }
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
        let blocks = match blocks(problem, block) {
            Some(_) => count(&self.rows),
            None => count(&self.rows).saturating_mul(group).div_ceil(block.rows),
        };
        [blocks, count(&self.heads), count(&self.batch)]
    }
}

/// The number of blocks of ragged queries, at most; `None` if the problem has no ragged queries, or the block none of
/// their rows. A sequence from row `a` to row `b` has at most `⌊b / rows⌋ − ⌊a / rows⌋ + 1` blocks.
pub(super) fn blocks(problem: &Problem, block: Block) -> Option<u32> {
    let Queries::Ragged { total } = problem.queries() else { return None };
    let group = match block.counts {
        Counts::Rows => 1,
        Counts::GroupedRows => problem.shape().group(),
        Counts::Keys | Counts::MaskRows => return None,
    };
    if total == 0 {
        return Some(0);
    }
    // The description was checked not to overflow.
    Some(total.saturating_mul(group) / block.rows).map(|full| full.saturating_add(problem.shape().batch))
}

pub(super) const fn count(range: &Range<u32>) -> u32 {
    range.end - range.start
}
