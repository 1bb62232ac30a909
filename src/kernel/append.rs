//! `append.wgsl`: appends new keys and values to a cache, and rotates them and their queries, one row per workgroup.

use crate::kernel::choices::{Appended, Choices, Elements, NewRows};
use crate::kernel::pieces::{Form, Pieces};
use crate::kernel::record::{Block, Columns, Cost, Counts, Kernel, Keys, Needs, Work};
use crate::kernel::slots::Slot;
use crate::problem::append::RotaryPairs;
use crate::problem::operand::Operand;

const THREADS: u32 = 64;
/// Elements per cell, of which a thread has some of a row.
const CELL: u32 = 8;

pub(super) fn kernel(choices: &Choices) -> Kernel {
    let mut pieces = Pieces::new(choices);
    // Only the problems that append have such a kernel, so the default is never used.
    let Appended { rows, rotary } = choices.append.unwrap_or(Appended { rows: NewRows::All, rotary: None });
    let quantizes = rows != NewRows::Queries && matches!(choices.storage.kv, Elements::Quantized(_));
    if rows == NewRows::Queries {
        pieces.file(shader!("../../shaders/pieces/append_no_keys.wgsl"));
    } else {
        pieces.inputs([Operand::NewK, Operand::NewV], choices, Form::Wide);
        pieces.row(Operand::K, choices);
        pieces.row(Operand::V, choices);
        pieces.file(shader!("../../shaders/pieces/append_keys.wgsl"));
    }
    if quantizes {
        pieces.file(shader!("../../shaders/pieces/largest_of_row.wgsl"));
    }
    // Queries change only if they are rotated.
    if rotary.is_none() || rows == NewRows::Keys {
        pieces.file(shader!("../../shaders/pieces/append_no_queries.wgsl"));
    } else {
        pieces.inputs([Operand::NewQ], choices, Form::Wide);
        pieces.row(Operand::Q, choices);
        pieces.file(shader!("../../shaders/pieces/append_queries.wgsl"));
    }
    if rotary.is_some() {
        pieces.slots.push(Slot::of(Operand::RotaryTable, "array<vec2<f32>>"));
    }
    pieces.file(match rotary {
        None => shader!("../../shaders/pieces/rotary_none.wgsl"),
        Some(RotaryPairs::Halves) => shader!("../../shaders/pieces/rotary_halves.wgsl"),
        Some(RotaryPairs::Neighbours) => shader!("../../shaders/pieces/rotary_neighbours.wgsl"),
    });
    pieces.sites(choices);
    pieces.file(shader!("../../shaders/append.wgsl"));
    let cells = choices.dim_qk.max(choices.dim_v).div_ceil(CELL * THREADS);
    pieces.constants([("CELLS", cells)]);
    let workgroup_bytes = if quantizes { THREADS * 4 } else { 0 };
    Kernel {
        source: pieces.source,
        slots: pieces.slots,
        block: Block { counts: Counts::Rows, rows: 1, threads: THREADS, columns: Columns::None },
        needs: Needs { features: choices.access.features(), workgroup_bytes },
        work: Work { cost: Cost::Copies, keys: Keys::None, speed: 1 },
    }
}
