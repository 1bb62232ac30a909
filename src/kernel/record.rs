//! The properties of a kernel that planning and recording need.

use crate::kernel::slots::{Slot, Space};
use crate::problem::dtype::Dtype;
use crate::problem::operand::Operand;

/// A kernel, whatever its schedule.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// The parts of its text.
    pub(crate) source: Source,
    /// The resources that it binds. The first has `@binding(1)`, since binding 0 is the parameters.
    pub(crate) slots: Vec<Slot>,
    /// What one workgroup processes.
    pub(crate) block: Block,
    /// What it needs from a device.
    pub(crate) needs: Needs,
    /// What it costs.
    pub(crate) work: Work,
}

/// Whole files, and the constants generated for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    /// The directives, which must precede everything else.
    pub(crate) directives: &'static str,
    pub(crate) constants: Vec<(&'static str, Constant)>,
    pub(crate) files: Vec<File>,
    /// The user's text, which may declare any name; empty if there is none.
    pub(crate) programs: String,
}

/// A file of `shaders`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) text: &'static str,
    /// The operand that the file is copied for: `DATA` becomes that operand's binding, `load` becomes `load_` and the
    /// operand's name, as `store` does, and `FIRST` the first column of its rows that the dispatch uses.
    pub(crate) of: Option<Operand>,
    /// The element type that the file is copied for: `widen`, `narrow` and `halves` get its name as a suffix.
    pub(crate) dtype: Option<Dtype>,
    /// Other names that change, each with the new one.
    pub(crate) renamed: &'static [(&'static str, &'static str)],
}

/// A value of a generated `const`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Constant {
    U32(u32),
    Bool(bool),
}

/// As WGSL writes it, without the suffix for its type.
impl std::fmt::Display for Constant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::U32(value) => write!(f, "{value}"),
            Self::Bool(value) => write!(f, "{value}"),
        }
    }
}

/// What one workgroup processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// What its rows are: see [`Counts`].
    pub(crate) counts: Counts,
    /// Rows per workgroup.
    pub(crate) rows: u32,
    /// Threads per workgroup.
    pub(crate) threads: u32,
    /// Whether it computes wide rows, which may need several dispatches.
    pub(crate) columns: Columns,
}

/// The rows of columns that a kernel computes, of which one dispatch computes a limited number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Columns {
    /// It computes no such rows.
    None,
    /// Of the values, and so of the output.
    Values,
    /// Of the gradient of queries or keys.
    OfProducts,
    /// Of the gradient of the values.
    OfValues,
}

/// What the rows of a block, and so the boxes that a problem is cut into, count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counts {
    /// The query rows of one query head.
    Rows,
    /// The query rows of all query heads that share a KV head.
    GroupedRows,
    /// The keys of a KV head.
    Keys,
    /// The query rows of a head of the block mask.
    MaskRows,
    /// The keys of a KV head, each with the query rows that may see it.
    SeenKeys,
    /// The rows of the gradient of the bias, each with this many keys per workgroup.
    BiasRows(u32),
    /// One for all rows of a query head.
    Heads,
    /// The rows of `q` as they are stored, of one query head.
    StoredRows,
}

/// What a kernel needs from a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) features: wgpu::Features,
    pub(crate) workgroup_bytes: u32,
}

/// What a kernel costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    /// What a row costs.
    pub(crate) cost: Cost,
    /// How its loops iterate over the keys.
    pub(crate) keys: Keys,
    /// On a GPU, it is at least this many times as fast as other kernels.
    pub(crate) speed: u64,
}

/// What a row costs, in floating-point operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    /// Both products with every key.
    Scores,
    /// A few per key, to evaluate its masks.
    Masks,
    /// One per element that is copied.
    Copies,
    /// Two per column of each part of the keys.
    Parts,
    /// The products of a gradient with every key, or with every row.
    Gradients,
}

/// How a kernel's loops iterate over the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Several workgroups may process a part each.
    InParts(Iterations),
    /// One workgroup processes them all.
    AllAtOnce(Iterations),
    /// It iterates over query rows instead. One workgroup visits as many as `check.rs` says.
    Rows(Iterations),
    /// It has no loop over the keys, or one that is far shorter than what drivers allow.
    None,
}

/// An upper bound on the loop iterations of a kernel, for drivers that end loops early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Iterations {
    /// Keys per tile, or query rows if a workgroup has keys and visits rows. Parts of the keys begin at multiples of it.
    pub(crate) tile: u32,
    /// Iterations per tile.
    pub(crate) per_tile: u32,
    /// Further iterations, at most.
    pub(crate) besides: u32,
}

/// Most schedules count keys in tiles of this many.
pub(crate) const TILE_KEYS: u32 = 32;
/// More iterations than most schedules spend in loops that do not iterate over the keys, and than it takes to find the
/// sequence of ragged queries.
const OTHER_ITERATIONS: u32 = 64;

impl Iterations {
    /// For a kernel with few loops other than those over the keys.
    pub(crate) const fn of_tile(per_tile: u32) -> Self {
        Self { tile: TILE_KEYS, per_tile, besides: OTHER_ITERATIONS }
    }

    /// The number of keys that a workgroup can process on a driver that ends loops after `rounds` iterations: whole
    /// tiles.
    pub(crate) fn most_keys(self, iterations: u32) -> u32 {
        (iterations.saturating_sub(self.besides) / self.per_tile).saturating_mul(self.tile) / self.tile * self.tile
    }
}

impl Kernel {
    /// The same kernel for a problem whose operands may share buffers. Its text declares its slots.
    pub(crate) fn with_shared_buffers(mut self) -> Self {
        self.slots = self.slots.into_iter().map(Slot::shared).collect();
        self
    }

    /// The operands it binds, in the order of its slots.
    pub(crate) fn operands(&self) -> impl Iterator<Item = Operand> {
        self.slots.iter().filter_map(Slot::operand)
    }

    /// Whether it binds a kind of scratch memory.
    pub(crate) fn binds(&self, space: Space) -> bool {
        self.slots.iter().any(|slot| slot.space() == Some(space))
    }

    /// The number of storage buffers that it binds.
    pub(crate) fn storage_buffers(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_buffer()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_loops_reach_are_whole_tiles_and_do_not_wrap() {
        let iterations = Iterations { tile: 32, per_tile: 3, besides: 10 };
        for (most, keys) in [(0, 0), (12, 0), (13, 32), (15, 32), (16, 64), (u32::MAX, u32::MAX / 32 * 32)] {
            assert_eq!(iterations.most_keys(most), keys, "{most}");
        }
    }
}
