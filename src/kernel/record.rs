//! What planning and recording need to know of a kernel.

use crate::kernel::slots::{Slot, Space};
use crate::problem::operand::Operand;

/// A kernel, whatever its schedule.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// What its text is made of.
    pub(crate) source: Source,
    /// What it binds. The first has `@binding(1)`: 0 is the parameters'.
    pub(crate) slots: Vec<Slot>,
    /// What a workgroup covers.
    pub(crate) block: Block,
    /// What it needs of a device.
    pub(crate) needs: Needs,
    /// What it costs.
    pub(crate) work: Work,
}

/// Whole files, and the constants generated for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    /// What must stand before everything else.
    pub(crate) directives: &'static str,
    pub(crate) constants: Vec<(&'static str, Constant)>,
    pub(crate) files: Vec<File>,
    /// The user's text, in which any name may be declared; empty where there is none.
    pub(crate) programs: String,
}

/// A file of `shaders`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) text: &'static str,
    /// The operand that the file is written out for: its `DATA` is that operand's binding, and its `load` has the operand's name
    /// added.
    pub(crate) of: Option<&'static str>,
}

/// A value of a generated `const`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Constant {
    U32(u32),
    Bool(bool),
}

/// As WGSL spells it, but for the suffix that tells its type.
impl std::fmt::Display for Constant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::U32(value) => write!(f, "{value}"),
            Self::Bool(value) => write!(f, "{value}"),
        }
    }
}

/// What a workgroup covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// What its rows are.
    pub(crate) counts: Counts,
    /// How many of them.
    pub(crate) rows: u32,
    /// Threads of a workgroup.
    pub(crate) threads: u32,
    /// Whether it computes columns of the values, of which there may be more than one dispatch has room for.
    pub(crate) computes_values: bool,
}

/// What the rows of a block, and so the boxes that a problem is cut into, count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counts {
    /// The query rows of one query head.
    Rows,
    /// Those of all query heads that share a KV head.
    GroupedRows,
    /// The keys of a KV head.
    Keys,
}

/// What a kernel needs of a device.
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
    /// How its loops go over the keys.
    pub(crate) keys: Keys,
    /// How many times as fast as other kernels it is at least, on a GPU.
    pub(crate) speed: u64,
}

/// What a row costs, in floating-point operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    /// Both products with every key.
    Scores,
    /// One for each element that is copied.
    Copies,
    /// Two for each column of each part of the keys.
    Parts,
}

/// How a kernel's loops go over the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Several workgroups may see a part each.
    InParts(Rounds),
    /// One workgroup sees them all.
    AllAtOnce(Rounds),
    /// There is no such loop.
    None,
}

/// How often a kernel's loops go round, for drivers that end them early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rounds {
    /// For each tile of [`TILE_KEYS`] keys.
    pub(crate) per_tile: u32,
    /// And at most so many besides.
    pub(crate) besides: u32,
}

/// What keys are counted in, in every schedule.
pub(crate) const TILE_KEYS: u32 = 32;
/// More than the loops of most schedules that do not go over the keys.
const OTHER_ROUNDS: u32 = 64;

impl Rounds {
    /// For a kernel that has few loops but those over the keys.
    pub(crate) const fn of_tile(per_tile: u32) -> Self {
        Self { per_tile, besides: OTHER_ROUNDS }
    }

    /// How many keys a workgroup may see before a driver that ends loops after `rounds` ends its own: whole tiles.
    pub(crate) fn most_keys(self, rounds: u32) -> u32 {
        (rounds.saturating_sub(self.besides) / self.per_tile).saturating_mul(TILE_KEYS) / TILE_KEYS * TILE_KEYS
    }
}

impl Kernel {
    /// The operands it binds, in the order of its slots.
    pub(crate) fn operands(&self) -> impl Iterator<Item = Operand> {
        self.slots.iter().filter_map(Slot::operand)
    }

    /// Whether it binds a space.
    pub(crate) fn binds(&self, space: Space) -> bool {
        self.slots.iter().any(|slot| slot.space() == Some(space))
    }

    /// The storage buffers it binds.
    pub(crate) fn storage_buffers(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_buffer()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_loops_reach_are_whole_tiles_and_do_not_wrap() {
        let rounds = Rounds { per_tile: 3, besides: 10 };
        for (most, keys) in [(0, 0), (12, 0), (13, 32), (15, 32), (16, 64), (u32::MAX, u32::MAX / 32 * 32)] {
            assert_eq!(rounds.most_keys(most), keys, "{most}");
        }
    }
}
