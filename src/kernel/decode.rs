//! `decode.wgsl`: few query rows over many keys, those of a group's heads together.

use crate::kernel::choices::{Choices, VALUE_COLUMNS};
use crate::kernel::pieces::{Form, Pieces};
use crate::kernel::record::{Block, Cost, Counts, Kernel, Keys, Needs, Rounds, TILE_KEYS, Work};
use crate::kernel::tiled::Exchange;
use crate::kernel::{DIM_MOST, DIM_STEP};
use crate::problem::Problem;
use crate::problem::operand::Operand;

/// How a workgroup divides the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Decode {
    /// Query rows, those of the heads of a group among them.
    rows: u32,
    /// Threads that share a key.
    share: u32,
    /// Threads in all.
    threads: u32,
    pub(super) exchange: Exchange,
}

/// Rows a workgroup takes at most: with more, their registers overflow.
const MOST_ROWS: u32 = 8;
/// Numbers of Q that a thread keeps, and as many of O.
const REGISTERS: u32 = 64;
const THREADS: u32 = 128;
const SHARE: u32 = 8;

impl Decode {
    /// For a problem, whatever its number of rows.
    pub(super) fn of(problem: &Problem, exchange: Exchange) -> Self {
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
        Self { rows, share: SHARE, threads: THREADS, exchange }
    }

    pub(super) fn kernel(self, choices: &Choices) -> Kernel {
        let Self { rows, share, threads, exchange } = self;
        let mut pieces = Pieces::new(choices);
        pieces.inputs([Operand::Q, Operand::K, Operand::V], choices, Form::Wide);
        pieces.scores(choices);
        pieces.results(choices, Form::Wide);
        pieces.file(match exchange {
            Exchange::Workgroup => include_str!("../../shaders/pieces/share_workgroup.wgsl"),
            Exchange::Subgroup => include_str!("../../shaders/pieces/share_subgroup.wgsl"),
        });
        pieces.file(include_str!("../../shaders/decode.wgsl"));
        let (q_vectors, v_vectors) = (choices.dim_qk / 4 / share, choices.dim_v / 4 / share);
        pieces.constants([
            ("DIM_QK", choices.dim_qk),
            ("DIM_V", choices.dim_v),
            ("ROWS", rows),
            ("KEYS", threads / share),
            ("SHARE", share),
            ("Q_VECTORS", q_vectors),
            ("V_VECTORS", v_vectors),
            ("Q_ARRAY", rows * q_vectors),
            ("O_ARRAY", rows * v_vectors),
        ]);
        Kernel {
            source: pieces.source,
            slots: pieces.slots,
            block: Block { counts: Counts::GroupedRows, rows, threads, computes_values: true },
            needs: Needs { features: exchange.features(), workgroup_bytes: rows * threads * 16 },
            work: Work { cost: Cost::Scores, keys: Keys::InParts(self.rounds(choices)), speed: 1 },
        }
    }

    /// A round for 4 keys of each thread, with the sums over those that share one inside; two more because what the driver counts is
    /// measured, not documented. At the end, the sums over the keys.
    fn rounds(self, choices: &Choices) -> Rounds {
        let keys = self.threads / self.share;
        let per_tile = (TILE_KEYS / (4 * keys)).max(1) * (1 + self.share + 1) + 2;
        Rounds { per_tile, besides: (2 + choices.dim_v / 4 / self.share) * (keys + 2) }
    }
}

impl std::fmt::Display for Decode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rows, share, threads, exchange } = self;
        write!(f, "decode{rows}x{share}of{threads}{}", exchange.suffix())
    }
}
