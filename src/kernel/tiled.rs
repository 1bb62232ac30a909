//! `tiled.wgsl`: K and V tiles through workgroup memory. It runs on every WebGPU device.

use std::iter::successors;

use crate::device::caps::Caps;
use crate::kernel::choices::{Choices, VALUE_COLUMNS};
use crate::kernel::pieces::{Form, Pieces};
use crate::kernel::record::{Block, Columns, Cost, Counts, Iterations, Kernel, Keys, Needs, Work};
use crate::kernel::{DIM_STEP, MAX_DIM};
use crate::problem::Problem;
use crate::problem::operand::Operand;

/// How threads that share a row or a key exchange numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Exchange {
    /// Through workgroup memory, with barriers.
    Workgroup,
    /// By shuffles within a subgroup that certainly contains these threads.
    Subgroup,
}

impl Exchange {
    pub(super) fn features(self) -> wgpu::Features {
        match self {
            Self::Workgroup => wgpu::Features::empty(),
            Self::Subgroup => wgpu::Features::SUBGROUP,
        }
    }

    /// The suffix of a kernel's name.
    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Self::Workgroup => "",
            Self::Subgroup => "-sub",
        }
    }
}

/// How a workgroup divides a tile of scores among its threads, and how many values it stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tiled {
    /// What a thread computes.
    block: ThreadBlock,
    /// Threads that have the same keys.
    down: u32,
    /// Threads that have the same rows.
    across: u32,
    /// Keys whose values are staged together.
    v_keys: u32,
    pub(super) exchange: Exchange,
}

/// The rows and the keys of the scores that a thread computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ThreadBlock {
    /// A multiply-add needs 2 bytes of workgroup memory. Hardware that reads as many bytes per cycle as it computes multiply-adds
    /// reaches half of its speed at most.
    FourByFour,
    /// A multiply-add needs 1.5 bytes.
    EightByFour,
    /// The same, for gradients of keys and values, whose sums have as many rows per thread as it has keys.
    FourByEight,
    /// A multiply-add needs 1 byte.
    EightByEight,
}

impl ThreadBlock {
    /// Vectors of four rows.
    const fn row_vectors(self) -> u32 {
        match self {
            Self::FourByFour | Self::FourByEight => 1,
            Self::EightByFour | Self::EightByEight => 2,
        }
    }

    /// Vectors of four keys.
    const fn key_vectors(self) -> u32 {
        match self {
            Self::FourByFour | Self::EightByFour => 1,
            Self::FourByEight | Self::EightByEight => 2,
        }
    }

    /// The block with the numbers of rows and keys exchanged.
    const fn transposed(self) -> Self {
        match self {
            Self::EightByFour => Self::FourByEight,
            Self::FourByEight => Self::EightByFour,
            square => square,
        }
    }
}

/// Every WebGPU device has this much workgroup memory.
pub(super) const WORKGROUP_BYTES: u32 = 16 << 10;
/// With more than 128 columns, a tile of 64 keys and more than 16 rows needs a little less than this.
const WIDE_BYTES: u32 = 19 << 10;
/// A tile of 64 rows and 64 keys needs a little less than this with 64 columns of the values.
const LARGE_BYTES: u32 = 24 << 10;
/// The same with more columns, and for gradients.
pub(super) const LARGEST_BYTES: u32 = 28 << 10;
/// What a vote of the threads takes.
pub(super) const VOTES_BYTES: u32 = 4;
/// Vectors of four that a thread reads from workgroup memory one after another, and the bytes that they take with the padding.
pub(super) const GROUP: u32 = 8;
pub(super) const GROUP_BYTES: u32 = 9 * 16;
/// Multiply-adds of one loop iteration. With fewer, a large part of the instructions would be the loop's.
pub(super) const MULTIPLY_ADDS: u32 = 256;

/// From this many registers on, a thread can hold 96 numbers of S and O, or 128 of S, dP and a gradient.
pub(super) const MANY_REGISTERS: u32 = 192;
/// From this many on, it can hold 160.
pub(super) const MOST_REGISTERS: u32 = 255;

impl Tiled {
    /// A division for gradients.
    pub(super) const fn of(block: ThreadBlock, down: u32, across: u32) -> Self {
        Self { block, down, across, ..Self::smallest(Exchange::Workgroup) }
    }

    /// The division with rows and keys exchanged.
    pub(super) const fn transposed(self) -> Self {
        Self { block: self.block.transposed(), down: self.across, across: self.down, ..self }
    }

    /// The division for every device, before [`Self::with_v_keys`].
    pub(super) const fn smallest(exchange: Exchange) -> Self {
        Self { block: ThreadBlock::FourByFour, down: 8, across: 8, v_keys: 8, exchange }
    }

    /// The division for every device.
    pub(super) fn plain(problem: &Problem) -> Self {
        Self::smallest(Exchange::Workgroup).with_v_keys(problem, WORKGROUP_BYTES)
    }

    /// Whether it is the division for every device, apart from its memory.
    pub(super) fn is_plain(self) -> bool {
        Self { v_keys: 8, ..self } == Self::smallest(Exchange::Workgroup)
    }

    /// The division for a GPU: as many rows and columns per thread as registers hold.
    ///
    /// The number of rows plays no part, because the bits of a row would then depend on how many rows there are.
    pub(super) fn for_gpu(problem: &Problem, caps: &Caps, exchange: Exchange) -> Option<Self> {
        let dim_v = problem.shape().dim_v;
        let (block, down, across) = match (caps.thread_registers, dim_v) {
            (_, 129..) if caps.workgroup_bytes < WIDE_BYTES => (ThreadBlock::FourByFour, 4, 16),
            (MANY_REGISTERS.., 0..=64) => (ThreadBlock::EightByFour, 8, 8),
            (MANY_REGISTERS.., 65..=128) => (ThreadBlock::EightByFour, 4, 16),
            (MANY_REGISTERS.., _) => (ThreadBlock::FourByFour, 8, 16),
            (_, 0..=96) => (ThreadBlock::FourByFour, 8, 8),
            (_, 97..=192) => (ThreadBlock::FourByFour, 8, 16),
            _ => (ThreadBlock::FourByFour, 4, 32),
        };
        let mut base = Self { block, down, across, v_keys: 8, exchange };
        if !base.fits_block_mask(problem) {
            base = Self::smallest(exchange);
        }
        base.can_exchange(caps).then(|| base.with_v_keys(problem, WORKGROUP_BYTES))
    }

    /// The division for a GPU with the most registers and enough workgroup memory, for head sizes that gain from both.
    pub(super) fn large(problem: &Problem, caps: &Caps, exchange: Exchange) -> Option<Self> {
        let (block, down, across, bytes) = match problem.shape().dim_v {
            0..=32 => return None,
            33..=64 => (ThreadBlock::EightByEight, 8, 8, LARGE_BYTES),
            _ => (ThreadBlock::EightByFour, 8, 16, LARGEST_BYTES),
        };
        let fits = caps.thread_registers >= MOST_REGISTERS && caps.workgroup_bytes >= bytes;
        let base = Self { block, down, across, v_keys: 8, exchange };
        let suits = fits && base.fits_block_mask(problem) && base.can_exchange(caps);
        suits.then(|| base.with_v_keys(problem, bytes))
    }

    /// Whether the threads of a row are certain to be in one subgroup, if they exchange numbers there.
    fn can_exchange(self, caps: &Caps) -> bool {
        self.exchange == Exchange::Workgroup || caps.min_subgroup_size.is_some_and(|least| least >= self.across)
    }

    /// Whether each of its tiles lies within tiles of the block mask, if there is one.
    pub(super) fn fits_block_mask(self, problem: &Problem) -> bool {
        problem.block_mask().is_none_or(|tiles| tiles.keys.is_multiple_of(self.keys()))
    }

    /// The largest number of keys whose values fit, together with all of Q if that fits with the fewest.
    fn with_v_keys(self, problem: &Problem, bytes: u32) -> Self {
        let shape = problem.shape();
        let (dim_qk, dim_v) = (shape.dim_qk.min(MAX_DIM).next_multiple_of(DIM_STEP), shape.dim_v.min(VALUE_COLUMNS));
        // The weights and the values take more than a slice of K, which lies in the same memory.
        let fits = |tiled: Self, q_groups| {
            let values = tiled.p_groups() + tiled.v_groups(dim_v);
            (q_groups + values) * GROUP_BYTES + VOTES_BYTES <= bytes
        };
        let all_q_groups = self.all_q_groups(dim_qk);
        let q_groups = if fits(self, all_q_groups) { all_q_groups } else { 0 };
        let more = successors(Some(self), |tiled| Some(Self { v_keys: tiled.v_keys << 1, ..self }));
        let fitting = more.take_while(|tiled| tiled.v_keys <= tiled.keys() && fits(*tiled, q_groups));
        fitting.last().unwrap_or(self)
    }

    /// Its name without what only changes sizes.
    pub(super) fn kind(self) -> String {
        format!("tiled{}{}", self.block_kind(), self.exchange.suffix())
    }

    /// What a kernel's name says of a thread's block.
    pub(super) const fn block_kind(self) -> &'static str {
        match self.block {
            ThreadBlock::FourByFour => "",
            ThreadBlock::EightByFour => "8x4",
            ThreadBlock::FourByEight => "4x8",
            ThreadBlock::EightByEight => "8x8",
        }
    }

    /// What a kernel's name says of the division: nothing of the one for every device.
    pub(super) fn size(self) -> String {
        let Self { block, down, across, .. } = self;
        if (block, down, across) == (ThreadBlock::FourByFour, 8, 8) {
            return String::new();
        }
        let [rows, keys] = [block.row_vectors(), block.key_vectors()].map(|vectors| 4 * vectors);
        format!("{rows}x{keys}of{down}x{across}")
    }

    pub(super) const fn down_and_across(self) -> (u32, u32) {
        (self.down, self.across)
    }

    pub(super) const fn threads(self) -> u32 {
        self.down * self.across
    }

    pub(super) const fn rows(self) -> u32 {
        self.down * self.block.row_vectors() * 4
    }

    pub(super) const fn keys(self) -> u32 {
        self.across * self.block.key_vectors() * 4
    }

    /// Dimensions of Q and K that are staged together.
    pub(super) const fn slice(self) -> u32 {
        if self.keys() > 64 { 16 } else { 32 }
    }

    /// Vectors of four columns per thread.
    const fn v_columns(self, dim_v: u32) -> u32 {
        dim_v.div_ceil(4 * self.across)
    }

    /// Keys per group of V.
    const fn v_group(self, dim_v: u32) -> u32 {
        1 << (GROUP / self.v_columns(dim_v)).ilog2()
    }

    /// Groups that a slice of K takes.
    const fn k_groups(self) -> u32 {
        self.slice() * self.keys() / 4 / GROUP
    }

    /// Groups that a slice of Q takes.
    const fn q_groups(self) -> u32 {
        self.slice() * self.rows() / 4 / GROUP
    }

    /// Groups that all of Q's rows take.
    const fn all_q_groups(self, dim_qk: u32) -> u32 {
        dim_qk / self.slice() * self.q_groups()
    }

    /// Groups that the weights take.
    const fn p_groups(self) -> u32 {
        self.keys() * self.rows() / 4 / GROUP
    }

    /// Groups that the staged values take, and before them the maxima and sums of rows that threads exchange.
    fn v_groups(self, dim_v: u32) -> u32 {
        (self.v_keys / self.v_group(dim_v) * self.across).max(self.exchange_groups())
    }

    pub(super) fn exchange_groups(self) -> u32 {
        (self.threads() * self.block.row_vectors()).div_ceil(GROUP)
    }

    pub(super) fn kernel(self, choices: &Choices) -> Kernel {
        let v_columns = self.v_columns(choices.dim_v);
        let values = [self.p_groups(), self.v_groups(choices.dim_v)];
        let (mut pieces, memory) = self.scores(choices, values, WORKGROUP_BYTES);
        pieces.inputs([Operand::V], choices, Form::Wide);
        pieces.results(choices, Form::Wide);
        pieces.file(shader!("../../shaders/tiled.wgsl"));
        let rows = self.block.row_vectors() * 4;
        let v_step = (MULTIPLY_ADDS / (rows * v_columns * 4)).clamp(GROUP, self.v_keys);
        pieces.constants([
            ("V_COLUMNS", v_columns),
            ("O_ARRAY", rows * v_columns),
            ("V_KEYS", self.v_keys),
            ("V_GROUP", self.v_group(choices.dim_v)),
            ("V_STEP", v_step),
            ("V_LOADS", self.v_keys / self.down),
        ]);
        let of_values = self.keys() / self.v_keys * (1 + self.v_keys / v_step + 2) + 2;
        let iterations =
            Iterations { tile: self.keys(), ..Iterations::of_tile(self.score_iterations(choices) + of_values) };
        Kernel {
            source: pieces.source,
            slots: pieces.slots,
            block: Block { counts: Counts::Rows, rows: self.rows(), threads: self.threads(), columns: Columns::Values },
            needs: Needs { features: self.exchange.features(), workgroup_bytes: memory },
            work: Work { cost: Cost::Scores, keys: Keys::InParts(iterations), speed: 1 },
        }
    }

    /// The pieces for scores that both kernels share, and the bytes of workgroup memory. `after` are the groups of memory that the
    /// kernel uses once it has a tile's scores; the threads of a row exchange numbers in the last of them. All of Q stays in
    /// workgroup memory if that takes at most `resident_bytes` in all; otherwise it is read again for each tile.
    pub(super) fn scores(self, choices: &Choices, after: [u32; 2], resident_bytes: u32) -> (Pieces, u32) {
        let Self { block, down, across, .. } = self;
        let (row_vectors, key_vectors) = (block.row_vectors(), block.key_vectors());
        let votes = choices.mask.is_some() || choices.programs.mask_mod.is_some();
        let votes_bytes = if votes { VOTES_BYTES } else { 0 };
        let (k_groups, q_groups, all_q_groups) = (self.k_groups(), self.q_groups(), self.all_q_groups(choices.dim_qk));
        let after_groups = after[0] + after[1];
        let if_resident = all_q_groups + k_groups.max(after_groups);
        let q_resident = if_resident * GROUP_BYTES + votes_bytes <= resident_bytes;
        let (k_at, q_at, groups) = if q_resident {
            (all_q_groups, 0, if_resident)
        } else {
            (0, k_groups, (k_groups + q_groups).max(after_groups))
        };

        let mut pieces = Pieces::new(choices);
        pieces.inputs([Operand::Q, Operand::K], choices, Form::Wide);
        pieces.scores(choices);
        pieces.file(match self.exchange {
            Exchange::Workgroup => shader!("../../shaders/pieces/rows_workgroup.wgsl"),
            Exchange::Subgroup => shader!("../../shaders/pieces/rows_subgroup.wgsl"),
        });
        pieces.file(if votes {
            shader!("../../shaders/pieces/skip_by_vote.wgsl")
        } else {
            shader!("../../shaders/pieces/skip_by_position.wgsl")
        });
        pieces.file(shader!("../../shaders/pieces/block.wgsl"));
        pieces.file(shader!("../../shaders/tile.wgsl"));
        pieces.file(shader!("../../shaders/products.wgsl"));
        pieces.constants([
            ("DIM_QK", choices.dim_qk),
            ("ROW_VECTORS", row_vectors),
            ("KEY_VECTORS", key_vectors),
            ("ROW_COUNT", row_vectors * 4),
            ("SCORES", row_vectors * 4 * key_vectors),
            ("DOWN", down),
            ("ACROSS", across),
            ("SLICE", self.slice()),
            ("STEP", self.step()),
            // Blocks of 4 × 4 numbers per thread.
            ("K_LOADS", (self.slice() * self.keys() / 16).div_ceil(self.threads())),
            ("Q_LOADS", (self.slice() * self.rows() / 16).div_ceil(self.threads())),
            ("K_AT", k_at),
            ("Q_AT", q_at),
            ("P_AT", if q_resident { all_q_groups } else { 0 }),
            ("V_AT", after[0] + if q_resident { all_q_groups } else { 0 }),
            ("TILE", groups),
        ]);
        pieces.flag("Q_RESIDENT", q_resident);
        (pieces, groups * GROUP_BYTES + votes_bytes)
    }

    /// Dimensions of one loop iteration: whole groups, with at least [`MULTIPLY_ADDS`] in all.
    pub(super) const fn step(self) -> u32 {
        match self.block {
            ThreadBlock::FourByFour => 2 * GROUP,
            ThreadBlock::EightByFour | ThreadBlock::FourByEight | ThreadBlock::EightByEight => GROUP,
        }
    }

    /// The loop over tiles; the loop over slices, and in each the loop over its dimensions. Two iterations more per loop: one
    /// in which it ends, and one because the driver's counting is measured, not documented.
    pub(super) fn score_iterations(self, choices: &Choices) -> u32 {
        let slices = choices.dim_qk / self.slice();
        let mask = 3 * choices.block_mask_iterations(self.rows(), Counts::Rows);
        1 + slices * (1 + self.slice() / self.step() + 2) + 2 + mask
    }
}

/// `weights.wgsl`: the attention weights, over the same tiles of scores.
pub(super) fn weights(choices: &Choices) -> Kernel {
    let tiled = Tiled { block: ThreadBlock::FourByFour, down: 8, across: 8, v_keys: 8, exchange: Exchange::Workgroup };
    let (mut pieces, memory) = tiled.scores(choices, [0, tiled.exchange_groups()], WORKGROUP_BYTES);
    pieces.output(Operand::Weights, choices, Form::Wide);
    pieces.total(choices);
    pieces.file(shader!("../../shaders/weights.wgsl"));
    // The scores are computed twice: once for the maximum and the sum, once to write.
    let iterations = 2 * tiled.score_iterations(choices);
    Kernel {
        source: pieces.source,
        slots: pieces.slots,
        block: Block { counts: Counts::Rows, rows: tiled.rows(), threads: tiled.threads(), columns: Columns::None },
        needs: Needs { features: Exchange::Workgroup.features(), workgroup_bytes: memory },
        work: Work { cost: Cost::Scores, keys: Keys::AllAtOnce(Iterations::of_tile(iterations)), speed: 1 },
    }
}

impl std::fmt::Display for Tiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tiled{}{}", self.size(), self.exchange.suffix())
    }
}
