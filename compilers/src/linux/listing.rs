//! Machine code as the blocks of a program, whoever's it is: how many instructions there are of each kind, and where control goes.

use std::ops::{AddAssign, Mul};

use serde::{Deserialize, Serialize};

/// A program: its first block is where it begins.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) blocks: Vec<Block>,
}

/// Instructions that run one after another.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(crate) counts: Counts,
    /// The blocks that may follow, as indices.
    pub(crate) next: Vec<usize>,
}

/// Instructions by kind, as one thread's subgroup issues them, and bytes as one thread moves them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Counts {
    /// Instructions of every kind.
    pub(crate) all: u64,
    /// Multiply-adds of f32 or f16 numbers: an instruction may do two.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) multiply_adds: u64,
    /// Instructions that do them.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) multiplying: u64,
    /// Those of the vector units, multiply-adds among them, where a maker has other units beside.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) vector: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) shared_loads: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) shared_bytes: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) global_loads: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) global_bytes: u64,
    /// Exponentials.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) exponentials: u64,
    /// Exponentials, reciprocals, roots and their like.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) special: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) conversions: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) selects: u64,
    /// Integer arithmetic, addresses and clamps among it.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) integer: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) moves: u64,
    /// Between threads of a subgroup.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) shuffles: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) barriers: u64,
    /// Registers written to memory and read again.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) spills: u64,
    /// Matrix instructions.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) matrix: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Counts {
    /// One instruction of no kind in particular.
    pub(crate) fn other() -> Self {
        Self { all: 1, ..Self::default() }
    }

    /// Every number, for what is done to all alike.
    fn numbers(&mut self) -> [&mut u64; 18] {
        [
            &mut self.all,
            &mut self.multiply_adds,
            &mut self.multiplying,
            &mut self.vector,
            &mut self.shared_loads,
            &mut self.shared_bytes,
            &mut self.global_loads,
            &mut self.global_bytes,
            &mut self.exponentials,
            &mut self.special,
            &mut self.conversions,
            &mut self.selects,
            &mut self.integer,
            &mut self.moves,
            &mut self.shuffles,
            &mut self.barriers,
            &mut self.spills,
            &mut self.matrix,
        ]
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, mut other: Self) {
        for (mine, more) in self.numbers().into_iter().zip(other.numbers()) {
            *mine += *more;
        }
    }
}

impl Mul<u64> for Counts {
    type Output = Self;

    fn mul(mut self, times: u64) -> Self {
        self.numbers().into_iter().for_each(|number| *number *= times);
        self
    }
}
