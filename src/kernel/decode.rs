//! `decode.wgsl`: few query rows over many keys. A block has the rows of all heads of a group.

use crate::device::caps::Caps;
use crate::kernel::MAX_DIM;
use crate::kernel::choices::{Choices, VALUE_COLUMNS};
use crate::kernel::pieces::{Form, Pieces};
use crate::kernel::record::{Block, Columns, Cost, Counts, Iterations, Kernel, Keys, Needs, TILE_KEYS, Work};
use crate::kernel::tiled::{Exchange, MANY_REGISTERS, MOST_REGISTERS};
use crate::problem::Problem;
use crate::problem::dtype::Dtype;
use crate::problem::operand::Operand;
use crate::problem::quantization::Quantization;

/// How a workgroup divides the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Decode {
    /// Query rows per workgroup, counting those of all heads of a group.
    rows: u32,
    /// Threads that share a key.
    share: u32,
    /// Threads per workgroup.
    threads: u32,
    pub(super) exchange: Exchange,
}

/// The most rows per workgroup: with more, the registers overflow.
const MAX_ROWS: u32 = 8;
/// The same if a thread has few registers. Each key that is read serves half as many rows, but the second read is served by a cache,
/// and a multiply-add takes fewer instructions (benches/NOTES.md).
const MAX_ROWS_OF_FEW: u32 = 4;
/// The same limit on a software GPU. llvmpipe's compile time for a kernel with barriers grows with the square of the
/// text: 20 s for eight rows.
const MAX_ROWS_ON_SOFTWARE: u32 = 2;
/// Numbers of Q that a thread keeps if it may have the most registers; it keeps as many of O. With more of these or the following,
/// the compilers spill registers (benches/NOTES.md).
const NUMBERS_OF_MOST: u32 = 64;
/// The same with fewer registers, also with few if the keys are f16, int8 or int4.
const NUMBERS: u32 = 32;
/// The same with few registers if the keys are f32, bf16 or fp8.
const NUMBERS_OF_FEW: u32 = 16;
const THREADS: u32 = 128;
/// The same where they exchange through workgroup memory: with more, [`MAX_ROWS`] need more than the 16 KiB that every device
/// has. A software GPU has fewer rows. It does not depend on the number of rows, so that neither do a row's bits.
const THREADS_BY_MEMORY: u32 = 64;
/// Threads that may share a key.
const SHARES: [u32; 3] = [8, 16, 32];

impl Decode {
    /// The division of work for a problem on a device, whatever its number of rows.
    pub(super) fn of(problem: &Problem, caps: &Caps, exchange: Exchange) -> Self {
        let shape = problem.shape();
        // Few sizes, for few pipelines: an extra row costs little compared to what is read for all of them.
        let wanted = match shape.len_q.saturating_mul(shape.group()) {
            0..=1 => 1,
            2 => 2,
            3..=4 => 4,
            _ => MAX_ROWS,
        };
        // Larger head sizes are refused elsewhere.
        let dim = shape.dim_qk.min(MAX_DIM).max(shape.dim_v.min(VALUE_COLUMNS));
        let is_light = match problem.quantization() {
            Some(quantization) => quantization != Quantization::Fp8E4m3,
            None => problem.dtype(Operand::K) == Some(Dtype::F16),
        };
        let (most, numbers) = match caps.thread_registers {
            _ if caps.is_software => (MAX_ROWS_ON_SOFTWARE, NUMBERS),
            MOST_REGISTERS.. => (MAX_ROWS, NUMBERS_OF_MOST),
            MANY_REGISTERS.. => (MAX_ROWS, NUMBERS),
            _ if is_light => (MAX_ROWS_OF_FEW, NUMBERS),
            _ => (MAX_ROWS_OF_FEW, NUMBERS_OF_FEW),
        };
        let wanted = wanted.min(most);
        let lanes = match exchange {
            Exchange::Workgroup => SHARES[2],
            Exchange::Subgroup => caps.min_subgroup_size.unwrap_or(0),
        };
        let mut shares = SHARES.into_iter().filter(|&share| share <= lanes);
        // A thread holds whole vectors of four.
        let per_row = |share: u32| dim.div_ceil(4 * share) * 4;
        let enough = shares.clone().find(|&share| wanted * per_row(share) <= numbers);
        let share = enough.or_else(|| shares.next_back()).unwrap_or(SHARES[0]);
        // A power of two, as the shader needs.
        let rows = wanted.min(1 << (numbers / per_row(share)).max(1).ilog2());
        let threads = match exchange {
            Exchange::Workgroup if !caps.is_software => THREADS_BY_MEMORY,
            Exchange::Workgroup | Exchange::Subgroup => THREADS,
        };
        Self { rows, share, threads, exchange }
    }

    /// Keys that are processed at a time.
    const fn keys(self) -> u32 {
        self.threads / self.share
    }

    pub(super) fn kernel(self, choices: &Choices) -> Kernel {
        let Self { rows, share, threads, exchange } = self;
        let mut pieces = Pieces::new(choices);
        pieces.inputs([Operand::Q, Operand::K, Operand::V], choices, Form::Wide);
        pieces.scores(choices);
        pieces.results(choices, Form::Wide);
        let mut workgroup_bytes = rows * threads * 16;
        match exchange {
            Exchange::Workgroup => {
                pieces.file(shader!("../../shaders/pieces/share_workgroup.wgsl"));
                workgroup_bytes += rows * 16 + threads * 20;
            }
            Exchange::Subgroup => {
                pieces.file(shader!("../../shaders/pieces/share_subgroup.wgsl"));
                pieces.constants([("PAIRS", rows / 2), ("FOURS", rows / 4), ("EIGHTS", rows / 8)]);
            }
        }
        pieces.file(shader!("../../shaders/decode.wgsl"));
        let [q_vectors, v_vectors] = [choices.dim_qk, choices.dim_v].map(|dim| dim.div_ceil(4 * share));
        pieces.constants([
            ("ROWS", rows),
            ("KEYS", self.keys()),
            ("SHARE", share),
            ("Q_VECTORS", q_vectors),
            ("V_VECTORS", v_vectors),
            ("Q_ARRAY", rows * q_vectors),
            ("O_ARRAY", rows * v_vectors),
        ]);
        Kernel {
            source: pieces.source,
            slots: pieces.slots,
            block: Block { counts: Counts::GroupedRows, rows, threads, columns: Columns::Values },
            needs: Needs { features: exchange.features(), workgroup_bytes },
            work: Work { cost: Cost::Scores, keys: Keys::InParts(self.iterations(choices)), speed: 1 },
        }
    }

    /// One iteration per 4 keys of each thread; two more, because the driver's counting is measured, not documented. At
    /// the end, the sums over the keys.
    fn iterations(self, choices: &Choices) -> Iterations {
        let keys = self.keys();
        let tile = TILE_KEYS.max(4 * keys);
        let per_tile = tile / (4 * keys) + 2;
        Iterations { tile, per_tile, besides: (2 + choices.dim_v.div_ceil(4 * self.share)) * (keys + 2) }
    }
}

impl std::fmt::Display for Decode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rows, share, threads, exchange } = self;
        write!(f, "decode{rows}x{share}of{threads}{}", exchange.suffix())
    }
}
