//! `lanes.wgsl`: many rows on software GPUs. A workgroup is one subgroup, and keys and values come from textures.

use crate::kernel::choices::{Access, Choices, Results};
use crate::kernel::pieces::{Form, Pieces};
use crate::kernel::record::{Block, Columns, Cost, Counts, Iterations, Kernel, Keys, Needs, TILE_KEYS, Work};
use crate::kernel::slots::{Space, Usage};
use crate::kernel::stage;
use crate::problem::operand::Operand;

/// Query rows per lane and keys per iteration: as many as fit the first-level instruction cache, since each of their
/// numbers adds a few instructions to the text (benches/NOTES.md).
const fn shape(choices: &Choices) -> (u32, u32) {
    match if choices.dim_qk > choices.dim_v { choices.dim_qk } else { choices.dim_v } {
        0..=32 => (6, 2),
        33..=64 => (4, 2),
        65..=96 => (2, 2),
        97..=128 => (3, 1),
        _ => (2, 1),
    }
}

/// Where a kernel with this access writes its results. Storing elements one at a time is unrolled for every number of
/// O, and a software GPU takes half a minute to compile that much text, once per head size. The small kernel that
/// merges stores them instead.
pub(super) const fn results(access: Access) -> Results {
    if access.is_in_fours() { Results::Whole } else { Results::Partial }
}

/// The kernel on subgroups of `size` lanes.
pub(super) fn kernel(choices: &Choices, size: u32) -> Kernel {
    let (rows, keys) = shape(choices);
    let (q_vectors, v_vectors) = (choices.dim_qk / 4, choices.dim_v / 4);
    let mut pieces = Pieces::new(choices);
    pieces.inputs([Operand::Q], choices, Form::Wide);
    pieces.space(Space::StagedK, Usage::Read);
    pieces.space(Space::StagedV, Usage::Read);
    pieces.scores(choices);
    pieces.results(choices, Form::Wide);
    pieces.file(shader!("../../shaders/lanes.wgsl"));
    pieces.constants(stage::constants(choices));
    pieces.constants([
        ("LANES", size),
        ("ROWS", rows),
        ("KEYS", keys),
        ("Q_VECTORS", q_vectors),
        ("V_VECTORS", v_vectors),
        ("K_TEXELS", q_vectors / size),
        ("V_TEXELS", v_vectors / size),
    ]);
    // One iteration per `keys` keys; two more, because the driver's counting is measured, not documented.
    let of_masks = choices.block_mask_iterations(size * rows, Counts::Rows);
    let iterations = Iterations::of_tile(TILE_KEYS / keys * (1 + of_masks) + 2);
    let features = wgpu::Features::SUBGROUP | choices.access.features();
    Kernel {
        source: pieces.source,
        slots: pieces.slots,
        block: Block { counts: Counts::Rows, rows: size * rows, threads: size, columns: Columns::Values },
        needs: Needs { features, workgroup_bytes: 0 },
        work: Work { cost: Cost::Scores, keys: Keys::InParts(iterations), speed: 1 },
    }
}
