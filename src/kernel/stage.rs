//! `stage.wgsl`: copies keys and values to textures.

use crate::device::caps::Caps;
use crate::kernel::choices::Choices;
use crate::kernel::pieces::{Form, Pieces};
use crate::kernel::record::{Block, Columns, Cost, Counts, Kernel, Keys, Needs, Work};
use crate::kernel::slots::{Space, Usage};
use crate::problem::Problem;
use crate::problem::operand::Operand;

/// Threads per workgroup.
pub(super) const THREADS: u32 = 64;

/// Keys or pairs per workgroup that are copied: many, because a workgroup without valid keys is not free on a software GPU
/// (benches/NOTES.md, "Room in a cache"); but not so many that cores are idle.
pub(super) const COPIED: u32 = 512;

/// The most texels in a row of a texture. Every device supports twice as many, and a row holds a power of two of keys.
const WIDTH: u32 = 4096;

/// The number of keys, of `dim` elements each, that share a row of a texture.
const fn keys_per_row(dim: u32) -> u32 {
    per_row(dim / 4)
}

/// How many of something that takes `texels` share a row of a texture.
pub(super) const fn per_row(texels: u32) -> u32 {
    1 << (WIDTH / texels).ilog2()
}

/// Widths and heights of the textures of keys and of values.
pub(super) fn sizes(choices: &Choices, problem: &Problem) -> [[u32; 2]; 2] {
    let [batches, rows] = problem.stageable_keys();
    let heads = u64::from(batches) * u64::from(problem.shape().heads_kv);
    let keys = heads.saturating_mul(rows.into());
    [choices.dim_qk, choices.dim_v].map(|dim| {
        let height = keys.div_ceil(keys_per_row(dim).into());
        // A texture has at least one row, even if there are no keys.
        [keys_per_row(dim) * (dim / 4), u32::try_from(height).unwrap_or(u32::MAX).max(1)]
    })
}

/// Whether textures on the device can hold all keys and values.
pub(super) fn fits(choices: &Choices, problem: &Problem, caps: &Caps) -> bool {
    sizes(choices, problem).iter().flatten().all(|&side| side <= caps.texture_side)
}

pub(super) fn constants(choices: &Choices) -> [(&'static str, u32); 4] {
    [
        ("DIM_QK", choices.dim_qk),
        ("DIM_V", choices.dim_v),
        ("K_KEYS_PER_ROW", keys_per_row(choices.dim_qk)),
        ("V_KEYS_PER_ROW", keys_per_row(choices.dim_v)),
    ]
}

pub(super) fn kernel(choices: &Choices) -> Kernel {
    let mut pieces = Pieces::new(choices);
    pieces.inputs([Operand::K, Operand::V], choices, Form::Wide);
    pieces.keys(choices);
    pieces.space(Space::StagedK, Usage::Write);
    pieces.space(Space::StagedV, Usage::Write);
    pieces.file(shader!("../../shaders/stage.wgsl"));
    pieces.constants(constants(choices));
    pieces.constants([("KEYS", COPIED)]);
    Kernel {
        source: pieces.source,
        slots: pieces.slots,
        block: Block { counts: Counts::Keys, rows: COPIED, threads: THREADS, columns: Columns::Values },
        needs: Needs { features: choices.access.features(), workgroup_bytes: 0 },
        work: Work { cost: Cost::Copies, keys: Keys::None, speed: 1 },
    }
}
