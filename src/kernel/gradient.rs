//! `gradient_queries.wgsl`, `gradient_keys.wgsl` and `gradient_bias.wgsl`: the gradients of the inputs, each over the same tiles of
//! scores as `tiled`.

use crate::device::caps::Caps;
use crate::kernel::choices::{Choices, VALUE_COLUMNS};
use crate::kernel::pieces::{Form, Pieces};
use crate::kernel::record::{Block, Columns, Cost, Counts, Iterations, Kernel, Keys, Needs, Work};
use crate::kernel::slots::{Slot, Space, Usage};
use crate::kernel::tiled::{
    Exchange, GROUP, GROUP_BYTES, LARGEST_BYTES, MANY_REGISTERS, MOST_REGISTERS, MULTIPLY_ADDS, ThreadBlock, Tiled,
    VOTES_BYTES, WORKGROUP_BYTES,
};
use crate::problem::Problem;
use crate::problem::operand::Operand;

/// The input whose gradient a kernel computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Queries,
    Keys,
    Values,
    Bias,
}

impl Target {
    pub(super) const fn operand(self) -> Operand {
        match self {
            Self::Queries => Operand::Dq,
            Self::Keys => Operand::Dk,
            Self::Values => Operand::Dv,
            Self::Bias => Operand::Dbias,
        }
    }
}

/// A kernel for one gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Gradient {
    target: Target,
    tiled: Tiled,
    /// The most bytes of workgroup memory for sums.
    bytes: u32,
}

impl Gradient {
    /// The kernel for a problem on a device: as many scores and sums per thread as registers hold, by the compilers of four makers
    /// (benches/NOTES.md).
    ///
    /// The lengths play no part, because the bits of a row would then depend on how many rows there are.
    pub(super) fn of(target: Target, problem: &Problem, caps: &Caps) -> Self {
        let shape = problem.shape();
        let columns = if target == Target::Values { shape.dim_v } else { shape.dim_qk };
        let smallest = (Tiled::smallest(Exchange::Workgroup), WORKGROUP_BYTES);
        let (tiled, bytes) = if target == Target::Bias { smallest } else { Self::division(caps, columns) };
        let tiled = if matches!(target, Target::Keys | Target::Values) { tiled.transposed() } else { tiled };
        let fits = tiled.fits_block_mask(problem) && tiled.threads() <= caps.invocations;
        let (tiled, bytes) = if fits { (tiled, bytes) } else { smallest };
        Self { target, tiled, bytes }
    }

    /// How the threads of a workgroup divide scores and sums with so many columns, and the bytes of workgroup memory for the sums.
    const fn division(caps: &Caps, columns: u32) -> (Tiled, u32) {
        use ThreadBlock::{EightByFour, FourByFour};
        let is_large = caps.workgroup_bytes >= LARGEST_BYTES;
        let (block, down, across, bytes) = match (caps.thread_registers, is_large, columns) {
            _ if caps.is_software => (FourByFour, 8, 8, WORKGROUP_BYTES),
            (MOST_REGISTERS.., true, 0..=192) | (MANY_REGISTERS.., true, 0..=64) => (EightByFour, 8, 16, LARGEST_BYTES),
            (MOST_REGISTERS.., true, _) => (EightByFour, 4, 32, LARGEST_BYTES),
            (MANY_REGISTERS.., true, 129..) => (FourByFour, 8, 16, LARGEST_BYTES),
            (0..MANY_REGISTERS, true, 129..) => (FourByFour, 4, 32, LARGEST_BYTES),
            (MANY_REGISTERS.., false, 0..=64) => (EightByFour, 8, 8, WORKGROUP_BYTES),
            (MOST_REGISTERS.., false, 65..=128) => (EightByFour, 4, 16, WORKGROUP_BYTES),
            (0..MANY_REGISTERS, _, 65..=128) => (FourByFour, 8, 16, WORKGROUP_BYTES),
            (0..MANY_REGISTERS, false, 129..) => (FourByFour, 4, 16, WORKGROUP_BYTES),
            _ => (FourByFour, 8, 8, WORKGROUP_BYTES),
        };
        (Tiled::of(block, down, across), bytes)
    }

    /// The name of its schedule.
    pub(super) const fn name(self) -> &'static str {
        match self.target {
            Target::Queries => "gradient_queries",
            Target::Keys => "gradient_keys",
            Target::Values => "gradient_values",
            Target::Bias => "gradient_bias",
        }
    }

    /// Its name without what only changes sizes.
    pub(super) fn kind(self) -> String {
        format!("{}{}", self.name(), self.tiled.block_kind())
    }
}

impl std::fmt::Display for Gradient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.name(), self.tiled.size())
    }
}

/// The names that the copy of `products.wgsl` for dO and V has instead of those for Q and K.
const OF_VALUES: &[(&str, &str)] = &[
    ("stage_q", "stage_dout"),
    ("stage_k", "stage_v"),
    ("products", "value_products"),
    ("q_address", "dout_address"),
    ("k_address", "v_address"),
    ("load_q", "load_dout"),
    ("load_k", "load_v"),
    ("dim_qk", "dim_v"),
    ("QK_SLICES", "VALUE_SLICES"),
    ("Q_RESIDENT", "DOUT_RESIDENT"),
];

pub(super) fn kernel(choices: &Choices, gradient: Gradient) -> Kernel {
    let Gradient { target, tiled, .. } = gradient;
    let sum = Sum::of(choices, gradient);
    let after = sum.map_or([tiled.rows() * tiled.keys() / 4 / GROUP, tiled.exchange_groups()], |sum| {
        [sum.w_groups(), sum.x_groups().max(tiled.exchange_groups())]
    });
    let (mut pieces, memory) = tiled.scores(choices, after, 0);
    pieces.inputs([Operand::Dout], choices, Form::Wide);
    pieces.file(shader!("../../shaders/pieces/dout.wgsl"));
    pieces.slopes(choices);
    if target == Target::Values {
        pieces.file(shader!("../../shaders/pieces/no_value_products.wgsl"));
    } else {
        pieces.inputs([Operand::V], choices, Form::Wide);
        pieces.renamed(shader!("../../shaders/products.wgsl"), OF_VALUES);
    }
    pieces.space(Space::Sums, Usage::Read);
    pieces.gradient(target.operand(), choices);
    pieces.file(shader!("../../shaders/gradient_tile.wgsl"));
    pieces.constants([("DIM_V", choices.dim_v)]);
    if let Some(sum) = sum {
        sum.add(&mut pieces);
    }
    match target {
        Target::Queries => {
            pieces.file(shader!("../../shaders/pieces/gradient_dq.wgsl"));
            pieces.file(shader!("../../shaders/gradient_queries.wgsl"));
        }
        Target::Keys | Target::Values => {
            pieces.file(if target == Target::Keys {
                shader!("../../shaders/pieces/gradient_dk.wgsl")
            } else {
                shader!("../../shaders/pieces/gradient_dv.wgsl")
            });
            pieces.key_blocks(choices);
            pieces.file(shader!("../../shaders/gradient_keys.wgsl"));
        }
        Target::Bias => pieces.file(shader!("../../shaders/gradient_bias.wgsl")),
    }

    let values = if target == Target::Values { 0 } else { choices.dim_v };
    let of_values = values / tiled.slice() * (1 + tiled.slice() / tiled.step() + 2) + 2;
    let per_tile = tiled.score_iterations(choices) + of_values + sum.map_or(0, Sum::iterations);
    let (counts, rows, columns) = match target {
        Target::Queries => (Counts::Rows, tiled.rows(), Columns::OfProducts),
        Target::Keys => (Counts::SeenKeys, tiled.keys(), Columns::OfProducts),
        Target::Values => (Counts::SeenKeys, tiled.keys(), Columns::OfValues),
        Target::Bias => (Counts::BiasRows(tiled.keys()), tiled.rows(), Columns::None),
    };
    let tile = if counts == Counts::SeenKeys { tiled.rows() } else { tiled.keys() };
    let iterations = Iterations { tile, ..Iterations::of_tile(per_tile) };
    let keys = if target == Target::Queries { Keys::AllAtOnce(iterations) } else { Keys::Rows(iterations) };
    Kernel {
        source: pieces.source,
        slots: pieces.slots,
        block: Block { counts, rows, threads: tiled.threads(), columns },
        needs: Needs { features: wgpu::Features::empty(), workgroup_bytes: memory },
        work: Work { cost: Cost::Gradients, keys, speed: 1 },
    }
}

/// How `gradient_sum.wgsl` divides its sums and its memory.
#[derive(Clone, Copy, Debug)]
struct Sum {
    /// Rows that a product sums over: the keys of a tile for dQ, its query rows for dK and dV.
    inner: u32,
    /// Vectors of four rows of the sums per thread.
    outer_vectors: u32,
    /// Vectors of four columns per thread.
    column_vectors: u32,
    /// Rows whose columns are staged together.
    staged: u32,
    /// Threads with the same columns.
    down: u32,
    /// Threads with the same rows of the sums.
    across: u32,
}

impl Sum {
    fn of(choices: &Choices, Gradient { target, tiled, bytes }: Gradient) -> Option<Self> {
        let (inner, outer, dim) = match target {
            Target::Queries => (tiled.keys(), tiled.rows(), choices.dim_qk),
            Target::Keys => (tiled.rows(), tiled.keys(), choices.dim_qk),
            Target::Values => (tiled.rows(), tiled.keys(), choices.dim_v),
            Target::Bias => return None,
        };
        // As many rows of the sums per thread as it has rows or keys of the scores.
        let (down, across) = match target {
            Target::Queries => tiled.down_and_across(),
            _ => tiled.transposed().down_and_across(),
        };
        let column_vectors = dim.min(VALUE_COLUMNS).div_ceil(4 * across);
        let staged = down.max(GROUP);
        let least = Self { inner, outer_vectors: outer / down / 4, column_vectors, staged, down, across };
        let fits = |sum: Self| (sum.w_groups() + sum.x_groups()) * GROUP_BYTES + VOTES_BYTES <= bytes;
        let doubled = std::iter::successors(Some(least), |sum| Some(Self { staged: sum.staged * 2, ..*sum }));
        Some(doubled.take_while(|sum| sum.staged <= inner && fits(*sum)).last().unwrap_or(least))
    }

    const fn w_groups(self) -> u32 {
        self.inner * self.outer_vectors * self.down / GROUP
    }

    const fn x_group(self) -> u32 {
        1 << (GROUP / self.column_vectors).ilog2()
    }

    const fn x_groups(self) -> u32 {
        self.staged / self.x_group() * self.across
    }

    /// Rows of one loop iteration: whole groups of both.
    fn x_step(self) -> u32 {
        (MULTIPLY_ADDS / (self.outer_vectors * 4 * self.column_vectors * 4)).clamp(GROUP, self.staged)
    }

    /// Iterations per tile: over what is staged together, and in each over its steps.
    fn iterations(self) -> u32 {
        self.inner / self.staged * (1 + self.staged / self.x_step() + 2) + 2
    }

    fn add(self, pieces: &mut Pieces) {
        pieces.file(shader!("../../shaders/gradient_sum.wgsl"));
        pieces.constants([
            ("SUM_DOWN", self.down),
            ("SUM_ACROSS", self.across),
            ("INNER", self.inner),
            ("OUTER_VECTORS", self.outer_vectors),
            ("OUTER_COUNT", self.outer_vectors * 4),
            ("COLUMN_VECTORS", self.column_vectors),
            ("SUMS", self.outer_vectors * 4 * self.column_vectors),
            ("STAGED", self.staged),
            ("X_GROUP", self.x_group()),
            ("X_STEP", self.x_step()),
            ("X_LOADS", self.staged / self.down),
        ]);
    }
}

/// `row_sums.wgsl`: what the other kernels need of each row.
pub(super) fn row_sums(choices: &Choices) -> Kernel {
    let mut pieces = Pieces::new(choices);
    pieces.inputs([Operand::Out, Operand::Dout], choices, Form::Wide);
    pieces.file(shader!("../../shaders/pieces/dout.wgsl"));
    pieces.slots.push(Slot::read(Operand::Lse, "array<f32>"));
    pieces.queries(choices);
    pieces.lengths(choices);
    pieces.alibi(choices);
    if choices.dlse {
        pieces.file(shader!("../../shaders/pieces/dlse_buffer.wgsl"));
        pieces.slots.push(Slot::read(Operand::Dlse, "array<f32>"));
    } else {
        pieces.file(shader!("../../shaders/pieces/dlse_none.wgsl"));
    }
    pieces.space(Space::Sums, Usage::Write);
    pieces.file(shader!("../../shaders/pieces/counts.wgsl"));
    pieces.file(shader!("../../shaders/row_sums.wgsl"));
    Kernel {
        source: pieces.source,
        slots: pieces.slots,
        block: Block { counts: Counts::Rows, rows: ROWS, threads: ROWS, columns: Columns::None },
        needs: Needs { features: wgpu::Features::empty(), workgroup_bytes: 0 },
        work: Work { cost: Cost::Copies, keys: Keys::None, speed: 1 },
    }
}

/// `gradient_sinks.wgsl`: the gradient of the sinks, one head per workgroup.
pub(super) fn sinks(choices: &Choices) -> Kernel {
    let mut pieces = Pieces::new(choices);
    pieces.slots.push(Slot::read(Operand::Sinks, "array<f32>"));
    pieces.queries(choices);
    pieces.space(Space::Sums, Usage::Read);
    pieces.slots.push(Slot::of(Operand::Dsinks, "array<f32>"));
    pieces.file(shader!("../../shaders/gradient_sinks.wgsl"));
    Kernel {
        source: pieces.source,
        slots: pieces.slots,
        block: Block { counts: Counts::Heads, rows: 1, threads: ROWS, columns: Columns::None },
        needs: Needs { features: wgpu::Features::empty(), workgroup_bytes: 4 * ROWS },
        // Two more iterations per sequence: one in which the loop ends, and one because the driver's counting is measured.
        work: Work {
            cost: Cost::Copies,
            keys: Keys::Rows(Iterations { tile: ROWS, ..Iterations::of_tile(3) }),
            speed: 1,
        },
    }
}

/// Query rows per workgroup, or per step of one.
const ROWS: u32 = 64;
