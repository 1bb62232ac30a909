//! `streams.wgsl`: few query rows on software GPUs, those of a group's heads together. A workgroup is one subgroup.

use crate::kernel::choices::{Choices, VALUE_COLUMNS};
use crate::kernel::pieces::{Form, Pieces};
use crate::kernel::record::{Block, Cost, Counts, Kernel, Keys, Needs, Rounds, TILE_KEYS, Work};
use crate::kernel::{DIM_MOST, DIM_STEP};
use crate::problem::Problem;
use crate::problem::operand::Operand;

/// How a workgroup divides the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Streams {
    /// Lanes of a subgroup.
    pub(super) size: u32,
    /// Query rows of a workgroup.
    rows: u32,
}

/// Numbers of Q that every lane keeps, and as many of O: with more, the text no longer pays for the reading it saves.
const NUMBERS: u32 = 512;

/// Query rows of a workgroup for a problem, whatever its number of rows.
pub(super) fn rows(problem: &Problem) -> u32 {
    let shape = problem.shape();
    // Larger head sizes are refused elsewhere.
    let dim = shape.dim_qk.min(DIM_MOST).max(shape.dim_v.min(VALUE_COLUMNS)).next_multiple_of(DIM_STEP);
    match shape.len_q.saturating_mul(shape.group()) {
        0..=1 => 1,
        2 => 2,
        _ => (NUMBERS / dim).clamp(1, 4),
    }
}

impl Streams {
    /// For a problem on subgroups of `size` lanes.
    pub(super) fn of(problem: &Problem, size: u32) -> Self {
        Self { size, rows: rows(problem) }
    }

    pub(super) fn kernel(self, choices: &Choices) -> Kernel {
        let Self { size, rows } = self;
        let (q_vectors, v_vectors) = (choices.dim_qk / 4, choices.dim_v / 4);
        let mut pieces = Pieces::new(choices);
        pieces.inputs([Operand::Q, Operand::K, Operand::V], choices, Form::Wide);
        pieces.scores(choices);
        pieces.results(choices, Form::Wide);
        pieces.file(include_str!("../../shaders/streams.wgsl"));
        pieces.constants([
            ("DIM_QK", choices.dim_qk),
            ("DIM_V", choices.dim_v),
            ("LANES", size),
            ("ROWS", rows),
            ("Q_VECTORS", q_vectors),
            ("V_VECTORS", v_vectors),
            ("K_TEXELS", q_vectors / size),
            ("V_TEXELS", v_vectors / size),
        ]);
        // A round for a key to each lane; two more because what the driver counts is measured, not documented.
        let rounds = Rounds::of_tile(TILE_KEYS.div_ceil(size) + 2);
        let features = wgpu::Features::SUBGROUP | choices.access.features();
        Kernel {
            source: pieces.source,
            slots: pieces.slots,
            block: Block { counts: Counts::GroupedRows, rows, threads: size, computes_values: true },
            needs: Needs { features, workgroup_bytes: 0 },
            work: Work { cost: Cost::Scores, keys: Keys::InParts(rounds), speed: 1 },
        }
    }
}

impl std::fmt::Display for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "streams{}x{}", self.size, self.rows)
    }
}
