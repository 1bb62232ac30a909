//! `combine.wgsl`: merges pairs of an output and its log-sum-exp. Each thread computes a vector of four columns of a row.

use crate::kernel::choices::Choices;
use crate::kernel::pieces::Pieces;
use crate::kernel::record::{Block, Columns, Cost, Counts, Iterations, Kernel, Keys, Needs, Work};

/// Vectors of four columns per workgroup, one per thread.
const THREADS: u32 = 64;

pub(super) fn kernel(choices: &Choices) -> Kernel {
    let mut pieces = Pieces::new(choices);
    pieces.pairs_of_results(choices);
    pieces.file(shader!("../../shaders/combine.wgsl"));
    Kernel {
        source: pieces.source,
        slots: pieces.slots,
        block: Block { counts: Counts::Rows, rows: THREADS, threads: THREADS, columns: Columns::Values },
        needs: Needs { features: choices.access.features(), workgroup_bytes: 0 },
        // Two loops over the pairs, which take the place of keys; and what the driver's counting may add, which is
        // measured, not documented.
        work: Work {
            cost: Cost::Parts,
            keys: Keys::AllAtOnce(Iterations { tile: 1, per_tile: 2, besides: 8 }),
            speed: 1,
        },
    }
}
