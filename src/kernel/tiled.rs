//! `tiled.wgsl`: K and V tiles through workgroup memory; runs on every WebGPU device. Its shape is the shader's: 64 threads over
//! 32 queries × 32 keys.

use crate::kernel::choices::Choices;
use crate::kernel::pieces::{Form, Pieces};
use crate::kernel::record::{Block, Cost, Counts, Kernel, Keys, Needs, Rounds, Work};
use crate::problem::operand::Operand;

/// How threads that share a row or a key tell each other numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Exchange {
    /// Through workgroup memory, with barriers.
    Workgroup,
    /// By shuffles within a subgroup, of whatever size from eight lanes on.
    Subgroup,
}

impl Exchange {
    pub(super) fn features(self) -> wgpu::Features {
        match self {
            Self::Workgroup => wgpu::Features::empty(),
            Self::Subgroup => wgpu::Features::SUBGROUP,
        }
    }

    /// What a kernel's name has of it.
    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Self::Workgroup => "",
            Self::Subgroup => "-sub",
        }
    }
}

const ROWS: u32 = 32;
const THREADS: u32 = 64;

/// Every WebGPU device has this much workgroup memory.
const WORKGROUP_BYTES: u32 = 16 << 10;
const VEC4_BYTES: u32 = 16;
/// Vectors of four in `kv_tile`, and in `p_tile`.
const TILE: u32 = 256;

pub(super) fn kernel(choices: &Choices, exchange: Exchange) -> Kernel {
    let p_tile_bytes = TILE * VEC4_BYTES;
    let (mut pieces, memory) = scores(choices, exchange, p_tile_bytes);
    pieces.inputs([Operand::V], choices, Form::Wide);
    pieces.results(choices, Form::Wide);
    pieces.file(include_str!("../../shaders/tiled.wgsl"));
    let v_keys = keys_per_v_tile(choices.dim_v);
    pieces.constants([("V_COLUMNS", choices.dim_v / 32), ("V_QUADS", v_keys / 4)]);
    let rounds = score_rounds(choices) + ROWS / v_keys + 2;
    Kernel {
        source: pieces.source,
        slots: pieces.slots,
        block: Block { counts: Counts::Rows, rows: ROWS, threads: THREADS, computes_values: true },
        needs: Needs { features: exchange.features(), workgroup_bytes: memory },
        work: Work { cost: Cost::Scores, keys: Keys::InParts(Rounds::of_tile(rounds)), speed: 1 },
    }
}

/// `weights.wgsl`: the attention weights, over the same tiles of scores.
pub(super) fn weights(choices: &Choices) -> Kernel {
    let exchange = Exchange::Workgroup;
    let (mut pieces, memory) = scores(choices, exchange, 0);
    pieces.output(Operand::Weights, choices, Form::Wide);
    pieces.total(choices);
    pieces.file(include_str!("../../shaders/weights.wgsl"));
    // Once for the maximum and the sum, once to write.
    let rounds = 2 * score_rounds(choices);
    Kernel {
        source: pieces.source,
        slots: pieces.slots,
        block: Block { counts: Counts::Rows, rows: ROWS, threads: THREADS, computes_values: false },
        needs: Needs { features: exchange.features(), workgroup_bytes: memory },
        work: Work { cost: Cost::Scores, keys: Keys::AllAtOnce(Rounds::of_tile(rounds)), speed: 1 },
    }
}

/// How many keys' values fit in `kv_tile`: a power of two, so that it divides the tile.
fn keys_per_v_tile(dim_v: u32) -> u32 {
    1 << (TILE / (dim_v / 4)).min(ROWS).ilog2()
}

/// What both kernels do with scores, and the workgroup memory they declare. `other_bytes` is what the kernel declares besides.
fn scores(choices: &Choices, exchange: Exchange, other_bytes: u32) -> (Pieces, u32) {
    let votes = choices.mask || choices.programs.mask_mod.is_some();
    let votes_bytes = if votes { 4 } else { 0 };
    let fixed_bytes = TILE * VEC4_BYTES + votes_bytes + other_bytes;
    let q_bytes = ROWS * choices.dim_qk * 4;
    // All of Q stays in workgroup memory where it fits; else it is read again, 32 dimensions at a time.
    let q_resident = fixed_bytes + q_bytes <= WORKGROUP_BYTES;
    let q_tile_bytes = if q_resident { q_bytes } else { ROWS * 32 * 4 };

    let mut pieces = Pieces::new(choices);
    pieces.inputs([Operand::Q, Operand::K], choices, Form::Wide);
    pieces.scores(choices);
    pieces.file(match exchange {
        Exchange::Workgroup => include_str!("../../shaders/pieces/rows_workgroup.wgsl"),
        Exchange::Subgroup => include_str!("../../shaders/pieces/rows_subgroup.wgsl"),
    });
    pieces.file(if votes {
        include_str!("../../shaders/pieces/skip_by_vote.wgsl")
    } else {
        include_str!("../../shaders/pieces/skip_by_position.wgsl")
    });
    pieces.file(include_str!("../../shaders/pieces/block.wgsl"));
    pieces.file(include_str!("../../shaders/tile.wgsl"));
    pieces.constants([("DIM_QK", choices.dim_qk)]);
    pieces.flag("Q_RESIDENT", q_resident);
    (pieces, fixed_bytes + q_tile_bytes)
}

/// The loop over tiles; the loop over slices, and in each the loop over its 8 vectors. Two rounds more for each loop than it does
/// work in: one in which it ends, and one because what the driver counts is measured, not documented.
fn score_rounds(choices: &Choices) -> u32 {
    1 + choices.dim_qk / 32 * (1 + 8 + 2) + 2
}
