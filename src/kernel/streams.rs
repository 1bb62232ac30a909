//! `streams.wgsl`: few query rows on software GPUs. A block has the rows of all heads of a group. A workgroup is one
//! subgroup.

use crate::kernel::choices::{Choices, VALUE_COLUMNS};
use crate::kernel::pieces::{Form, Pieces};
use crate::kernel::record::{Block, Columns, Cost, Counts, Iterations, Kernel, Keys, Needs, TILE_KEYS, Work};
use crate::kernel::{DIM_STEP, MAX_DIM};
use crate::problem::Problem;
use crate::problem::operand::Operand;

/// How a workgroup divides the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Streams {
    /// Lanes per subgroup.
    pub(super) size: u32,
    /// Query rows per workgroup.
    rows: u32,
}

/// Numbers of Q that every lane keeps; it keeps as many of O. With more, the longer text costs more than the saved
/// reads gain.
const NUMBERS: u32 = 512;

/// Query rows per workgroup for a problem, whatever its number of rows.
pub(super) fn rows(problem: &Problem) -> u32 {
    let shape = problem.shape();
    // Larger head sizes are refused elsewhere.
    let dim = shape.dim_qk.min(MAX_DIM).max(shape.dim_v.min(VALUE_COLUMNS)).next_multiple_of(DIM_STEP);
    match shape.len_q.saturating_mul(shape.group()) {
        0..=1 => 1,
        2 => 2,
        _ => (NUMBERS / dim).clamp(1, 4),
    }
}

impl Streams {
    /// The division of work for a problem on subgroups of `size` lanes.
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
        pieces.file(shader!("../../shaders/streams.wgsl"));
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
        // One iteration per key of each lane; two more, because the driver's counting is measured, not documented.
        let iterations = Iterations::of_tile(TILE_KEYS.div_ceil(size) + 2);
        let features = wgpu::Features::SUBGROUP | choices.access.features();
        Kernel {
            source: pieces.source,
            slots: pieces.slots,
            block: Block { counts: Counts::GroupedRows, rows, threads: size, columns: Columns::Values },
            needs: Needs { features, workgroup_bytes: 0 },
            work: Work { cost: Cost::Scores, keys: Keys::InParts(iterations), speed: 1 },
        }
    }
}

impl std::fmt::Display for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "streams{}x{}", self.size, self.rows)
    }
}
