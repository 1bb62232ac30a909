//! A box of a problem, which one dispatch computes.

use std::ops::Range;

use crate::kernel::record::{Block, Columns, Counts};
use crate::problem::Problem;
use crate::problem::operand::Operand;
use crate::problem::sequences::{Keys, Queries};
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
        let Shape { batch, heads_q, heads_kv, len_q, dim_qk, dim_v, .. } = problem.shape();
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
            Counts::SeenKeys => match blocks(problem, block) {
                Some(blocks) => (batch.min(1), heads_kv, blocks),
                None => (batch, heads_kv, problem.shape().len_kv),
            },
            Counts::BiasRows(_) => {
                let [batches, heads, rows, keys] = problem.view(Operand::Dbias).map_or([0; 4], |bias| bias.extent);
                (batches, heads, if keys == 0 { 0 } else { rows })
            }
            Counts::Heads => (1, heads_q, 1),
            Counts::StoredRows => {
                let [batches, rows] = problem.stored_queries();
                (batches, heads_q, rows)
            }
        };
        let columns = if block.columns == Columns::OfProducts { dim_qk } else { dim_v };
        Self { batch: 0..batch, heads: 0..heads, rows: 0..rows, columns: 0..columns }
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
        let blocks = blocks.saturating_mul(key_tiles(problem, block));
        [blocks, count(&self.heads), count(&self.batch)]
    }
}

/// The number of blocks of ragged queries or keys, at most; `None` if the rows of a block are not ragged. A sequence from row `a` to row `b` has at most `⌊b / rows⌋ − ⌊a / rows⌋ + 1` blocks.
pub(super) fn blocks(problem: &Problem, block: Block) -> Option<u32> {
    let (total, group) = match (block.counts, problem.queries(), problem.keys()) {
        (Counts::Rows, Queries::Ragged { total }, _) => (total, 1),
        (Counts::GroupedRows, Queries::Ragged { total }, _) => (total, problem.shape().group()),
        (Counts::SeenKeys, _, Keys::Ragged { total }) => (total, 1),
        _ => return None,
    };
    if total == 0 {
        return Some(0);
    }
    // The description was checked not to overflow.
    Some(total.saturating_mul(group) / block.rows).map(|full| full.saturating_add(problem.shape().batch))
}

/// The tiles of keys that a block of rows of the bias' gradient has, each for a workgroup; 1 for other kernels.
pub(super) fn key_tiles(problem: &Problem, block: Block) -> u32 {
    let Counts::BiasRows(keys) = block.counts else { return 1 };
    problem.view(Operand::Dbias).map_or(1, |bias| bias.extent[3].div_ceil(keys))
}

/// How many batches, heads, rows and keys share an element of the bias' gradient.
pub(super) fn shared_by(problem: &Problem) -> [u32; 4] {
    let own = problem.view(Operand::Dbias).map_or([1; 4], |bias| bias.extent);
    let mut shared = problem.shape().scores();
    for (shared, own) in shared.iter_mut().zip(own) {
        if own != 1 {
            *shared = 1;
        }
    }
    shared
}

pub(super) const fn count(range: &Range<u32>) -> u32 {
    range.end - range.start
}

/// The halves of a range, the first of which is a multiple of `step` long; `None` if one of them would be empty.
pub(super) fn halve(range: &Range<u32>, step: u32) -> Option<[Range<u32>; 2]> {
    let middle = range.start.checked_add((count(range) / 2).checked_next_multiple_of(step)?)?;
    (range.start < middle && middle < range.end).then_some([range.start..middle, middle..range.end])
}
