//! `merge.wgsl`: combines the parts of split keys. Each thread computes a vector of four columns of a row.

use crate::kernel::choices::Choices;
use crate::kernel::pieces::{Form, Pieces};
use crate::kernel::record::{Block, Columns, Cost, Counts, Kernel, Keys, Needs, Work};
use crate::kernel::slots::{Space, Usage};

const THREADS: u32 = 64;

pub(super) fn kernel(choices: &Choices) -> Kernel {
    // A row has at most 256 columns, and so no more vectors than there are threads.
    let rows = THREADS / (choices.dim_v / 4);
    let mut pieces = Pieces::new(choices);
    pieces.space(Space::Partial, Usage::Read);
    pieces.sites(choices);
    pieces.file(shader!("../../shaders/pieces/state.wgsl"));
    pieces.results(choices, Form::Wide);
    pieces.file(shader!("../../shaders/merge.wgsl"));
    pieces.constants([("DIM_V", choices.dim_v), ("ROWS", rows)]);
    Kernel {
        source: pieces.source,
        slots: pieces.slots,
        block: Block { counts: Counts::Rows, rows, threads: THREADS, columns: Columns::Values },
        needs: Needs { features: wgpu::Features::empty(), workgroup_bytes: 0 },
        work: Work { cost: Cost::Parts, keys: Keys::None, speed: 1 },
    }
}
