//! `block_mask.wgsl`: computes the number of each tile of a block mask, one row of tiles per workgroup.

use crate::kernel::choices::{Access, Choices, Keys, Queries, Storage};
use crate::kernel::pieces::Pieces;
use crate::kernel::record::{self, Block, Columns, Cost, Counts, Iterations, Kernel, Needs, TILE_KEYS, Work};
use crate::kernel::slots::Slot;
use crate::problem::dtype::Dtype;
use crate::problem::operand::Operand;
use crate::problem::program::{Programs, mentions};

const THREADS: u32 = 64;

/// The choices that concern the masks of a problem, and no others.
pub(super) fn choices(all: &Choices) -> Choices {
    let programs = Programs { score_mod: None, score_mod_grad: None, ..all.programs.clone() };
    let (mask, block_mask, aux) = (all.mask, all.block_mask, all.aux && programs.has_any());
    // A `mask_mod` that uses the diagonal needs the lengths, since the diagonal may be measured from the valid keys.
    let uses_diagonal = programs.mask_mod.as_deref().is_some_and(|text| mentions(text, "diagonal"));
    let (kv_lengths, queries, keys) = if uses_diagonal {
        (all.kv_lengths, all.queries, all.keys.without_places())
    } else {
        (false, Queries::All, Keys::Dense)
    };
    let (storage, access, dim_qk, dim_v) = (Storage::uniform(Dtype::F32), Access::Vec4, 0, 0);
    let masks = Choices { mask, block_mask, programs, aux, ..all.of_elements() };
    Choices { storage, access, dim_qk, dim_v, kv_lengths, queries, keys, ..masks }
}

pub(super) fn kernel(choices: &Choices) -> Kernel {
    // Problems without a block mask have no such kernel, so the default is never used.
    let [rows, keys] = choices.block_mask.unwrap_or([1, TILE_KEYS]);
    let mut pieces = Pieces::new(choices);
    pieces.pairs(&Choices { block_mask: None, ..choices.clone() });
    pieces.file(shader!("../../shaders/block_mask.wgsl"));
    pieces.constants([("MASK_ROWS", rows), ("MASK_KEYS", keys)]);
    pieces.slots.push(Slot::made(Operand::BlockMask, "array<u32>"));
    // For each tile of the mask, the threads iterate over its pairs; two more, because the driver's counting is
    // measured, not documented.
    let iterations = rows.saturating_mul(TILE_KEYS / 4).div_ceil(THREADS).saturating_add(1 + 2);
    Kernel {
        source: pieces.source,
        slots: pieces.slots,
        block: Block { counts: Counts::MaskRows, rows, threads: THREADS, columns: Columns::None },
        needs: Needs { features: wgpu::Features::empty(), workgroup_bytes: 4 },
        work: Work { cost: Cost::Masks, keys: record::Keys::AllAtOnce(Iterations::of_tile(iterations)), speed: 1 },
    }
}
