//! `gradient_lanes_rows.wgsl` and `gradient_lanes_keys.wgsl`: gradients on software GPUs, and `stage_pairs.wgsl`, which copies
//! what passes by to textures.

use crate::device::caps::Caps;
use crate::kernel::choices::Choices;
use crate::kernel::pieces::{Form, Pieces};
use crate::kernel::record::{Block, Columns, Cost, Counts, Iterations, Kernel, Keys, Needs, TILE_KEYS, Work};
use crate::kernel::slots::{Space, Usage};
use crate::kernel::stage;
use crate::problem::Problem;
use crate::problem::operand::Operand;

/// What the lanes own, and so whose gradients they compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Own {
    /// Query rows.
    Rows,
    /// Keys, for the gradients of both keys and values.
    KeysAndValues,
    /// Keys, for their gradient only.
    Keys,
    /// Keys, for the gradient of the values only.
    Values,
}

/// Pairs that are copied to textures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pairs {
    Keys,
    Rows,
}

impl Own {
    /// What passes by.
    pub(super) const fn streams(self) -> Pairs {
        match self {
            Self::Rows => Pairs::Keys,
            Self::KeysAndValues | Self::Keys | Self::Values => Pairs::Rows,
        }
    }
}

impl Pairs {
    const fn spaces(self) -> [Space; 2] {
        match self {
            Self::Keys => [Space::StagedK, Space::StagedV],
            Self::Rows => [Space::StagedQ, Space::StagedDout],
        }
    }
}

/// The largest head size, whose text a software GPU still compiles within seconds.
pub(super) const MOST_DIM: u32 = 128;

/// Pairs that a lane owns, and pairs per iteration: as many as fit the first-level instruction cache.
const fn shape(choices: &Choices) -> (u32, u32) {
    match if choices.dim_qk > choices.dim_v { choices.dim_qk } else { choices.dim_v } {
        0..=32 => (4, 2),
        33..=64 => (2, 2),
        _ => (2, 1),
    }
}

/// The names of the textures of pairs.
const fn textures(pairs: Pairs) -> &'static [(&'static str, &'static str)] {
    match pairs {
        Pairs::Keys => &[("staged_x", "staged_k"), ("staged_y", "staged_v")],
        Pairs::Rows => &[("staged_x", "staged_q"), ("staged_y", "staged_dout")],
    }
}

/// The names that the copy of `lanes_products.wgsl` for Y has.
const OF_Y: &[(&str, &str)] = &[
    ("products_x", "products_y"),
    ("add_x", "add_y"),
    ("OwnX", "OwnY"),
    ("SumX", "SumY"),
    ("DIM_X", "DIM_Y"),
    ("X_TEXELS", "Y_TEXELS"),
    ("X_VECTORS", "Y_VECTORS"),
    ("x", "y"),
];

/// Widths and heights of the textures of pairs.
pub(super) fn sizes(choices: &Choices, problem: &Problem, pairs: Pairs) -> [[u32; 2]; 2] {
    let shape = problem.shape();
    let ([batches, rows], heads) = match pairs {
        Pairs::Keys => (problem.stageable_keys(), shape.heads_kv),
        Pairs::Rows => (problem.stored_queries(), shape.heads_q),
    };
    let count = [batches, heads, rows].map(u64::from).into_iter().fold(1, u64::saturating_mul);
    [choices.dim_qk / 4, choices.dim_v / 4 + 1].map(|vectors| {
        let height = count.div_ceil(stage::per_row(vectors).into());
        [stage::per_row(vectors) * vectors, u32::try_from(height).unwrap_or(u32::MAX).max(1)]
    })
}

/// Whether textures on the device can hold all pairs.
pub(super) fn fits(choices: &Choices, problem: &Problem, caps: &Caps) -> bool {
    let sides = [Pairs::Keys, Pairs::Rows].map(|pairs| sizes(choices, problem, pairs));
    sides.iter().flatten().flatten().all(|&side| side <= caps.texture_side)
}

fn add_constants(pieces: &mut Pieces, choices: &Choices) {
    let (x_vectors, y_vectors) = (choices.dim_qk / 4, choices.dim_v / 4);
    pieces.constants([
        ("X_VECTORS", x_vectors),
        ("Y_VECTORS", y_vectors),
        ("X_PER_ROW", stage::per_row(x_vectors)),
        ("Y_PER_ROW", stage::per_row(y_vectors + 1)),
    ]);
}

/// The kernel on subgroups of `size` lanes.
pub(super) fn kernel(choices: &Choices, own: Own, size: u32) -> Kernel {
    let (count, stream) = shape(choices);
    let mut pieces = Pieces::new(choices);
    for space in own.streams().spaces() {
        pieces.space(space, Usage::Read);
    }
    pieces.scores(choices);
    pieces.slopes(choices);
    pieces.renamed(shader!("../../shaders/gradient_lanes.wgsl"), textures(own.streams()));
    pieces.file(shader!("../../shaders/lanes_products.wgsl"));
    pieces.renamed(shader!("../../shaders/lanes_products.wgsl"), OF_Y);
    add_constants(&mut pieces, choices);
    pieces.constants([
        ("LANES", size),
        ("OWN", count),
        ("STREAM", stream),
        ("DIM_X", choices.dim_qk),
        ("DIM_Y", choices.dim_v),
        ("X_TEXELS", choices.dim_qk / 4 / size),
        ("Y_TEXELS", choices.dim_v / 4 / size),
    ]);
    let of_masks = choices.block_mask_iterations(size * count, Counts::Rows);
    // Two more iterations per tile, because the driver's counting is measured, not documented.
    let iterations = Iterations::of_tile(TILE_KEYS / stream * (1 + of_masks) + 2);
    let (counts, keys) = if own == Own::Rows {
        pieces.inputs([Operand::Q, Operand::Dout], choices, Form::Wide);
        pieces.file(shader!("../../shaders/pieces/dout.wgsl"));
        pieces.space(Space::Sums, Usage::Read);
        pieces.gradient(Operand::Dq, choices);
        pieces.file(shader!("../../shaders/gradient_lanes_rows.wgsl"));
        (Counts::Rows, Keys::AllAtOnce(iterations))
    } else {
        add_keys(&mut pieces, choices, own);
        (Counts::SeenKeys, Keys::Rows(iterations))
    };
    Kernel {
        source: pieces.source,
        slots: pieces.slots,
        block: Block { counts, rows: size * count, threads: size, columns: Columns::None },
        needs: Needs { features: wgpu::Features::SUBGROUP, workgroup_bytes: 0 },
        work: Work { cost: Cost::Gradients, keys, speed: 1 },
    }
}

fn add_keys(pieces: &mut Pieces, choices: &Choices, own: Own) {
    pieces.inputs([Operand::K, Operand::V], choices, Form::Wide);
    if choices.kv_lengths || choices.alibi {
        pieces.space(Space::Sums, Usage::Read);
    }
    if own == Own::Values {
        pieces.file(shader!("../../shaders/pieces/keep_no_dk.wgsl"));
    } else {
        pieces.gradient(Operand::Dk, choices);
        pieces.file(shader!("../../shaders/pieces/keep_dk.wgsl"));
    }
    if own == Own::Keys {
        pieces.file(shader!("../../shaders/pieces/keep_no_dv.wgsl"));
    } else {
        pieces.gradient(Operand::Dv, choices);
        pieces.file(shader!("../../shaders/pieces/keep_dv.wgsl"));
    }
    pieces.key_blocks(choices);
    pieces.file(shader!("../../shaders/gradient_lanes_keys.wgsl"));
}

/// The kernel that copies pairs to textures.
pub(super) fn stage_pairs(choices: &Choices, pairs: Pairs) -> Kernel {
    let mut pieces = Pieces::new(choices);
    let counts = match pairs {
        Pairs::Keys => {
            pieces.inputs([Operand::K, Operand::V], choices, Form::Wide);
            pieces.keys(choices);
            pieces.file(shader!("../../shaders/pieces/staged_keys.wgsl"));
            Counts::Keys
        }
        Pairs::Rows => {
            pieces.inputs([Operand::Q, Operand::Dout], choices, Form::Wide);
            pieces.space(Space::Sums, Usage::Read);
            pieces.file(shader!("../../shaders/pieces/staged_rows.wgsl"));
            Counts::StoredRows
        }
    };
    for space in pairs.spaces() {
        pieces.space(space, Usage::Write);
    }
    pieces.renamed(shader!("../../shaders/stage_pairs.wgsl"), textures(pairs));
    add_constants(&mut pieces, choices);
    pieces.constants([("PAIRS", stage::COPIED)]);
    Kernel {
        source: pieces.source,
        slots: pieces.slots,
        block: Block { counts, rows: stage::COPIED, threads: stage::THREADS, columns: Columns::None },
        needs: Needs { features: wgpu::Features::empty(), workgroup_bytes: 0 },
        work: Work { cost: Cost::Copies, keys: Keys::None, speed: 1 },
    }
}
