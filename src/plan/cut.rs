//! Cutting a problem into dispatches that fit the device's bindings, its grid and its time limit.

use crate::device::caps::Caps;
use crate::kernel::error::PlanError;
use crate::kernel::record::{Columns, Cost, Counts, Kernel, Keys};
use crate::kernel::slots::Resource;
use crate::plan::piece::{Piece, blocks, count, halve, shared_by};
use crate::plan::slices::{Slice, counts_query_heads, slices};
use crate::plan::split::{Split, column_ranges};
use crate::problem::Problem;
use crate::problem::operand::Operand;

/// More dispatches than this indicate a mistake in the description rather than work for a GPU.
pub(super) const MOST_DISPATCHES: usize = 1 << 16;

/// The estimated cost of evaluating the masks of a pair, in floating-point operations.
const MASK_FLOP: u64 = 16;

/// One kernel's work on a problem.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job<'a> {
    pub(crate) problem: &'a Problem,
    pub(crate) kernel: &'a Kernel,
    /// How the keys are split by this kernel or, if it merges, by the kernel before it.
    pub(crate) split: Split,
    pub(crate) caps: &'a Caps,
}

/// Why a piece cannot be one dispatch.
enum Obstacle {
    Binding(PlanError),
    Grid,
    Slow,
}

impl Job<'_> {
    /// Cuts the problem into pieces, in order.
    pub(crate) fn cut(&self) -> Result<Vec<Piece>, PlanError> {
        let whole = Piece::whole(self.problem, self.kernel.block);
        if whole.is_empty() {
            return Ok(Vec::new());
        }
        let mut waiting: Vec<Piece> = if self.kernel.block.columns != Columns::None {
            column_ranges(whole.columns.end).rev().map(|columns| Piece { columns, ..whole.clone() }).collect()
        } else {
            self.chosen(whole)
        };
        let mut pieces = Vec::new();
        while let Some(piece) = waiting.pop() {
            match (self.obstacle(&piece), self.halves(&piece)) {
                (None, _) | (Some(Obstacle::Slow), None) => pieces.push(piece),
                (Some(_), Some([first, second])) => waiting.extend([second, first]),
                (Some(Obstacle::Grid), None) => {
                    return Err(PlanError::TooManyDispatches { most: MOST_DISPATCHES });
                }
                (Some(Obstacle::Binding(error)), None) => return Err(error),
            }
            if pieces.len() + waiting.len() > MOST_DISPATCHES {
                return Err(PlanError::TooManyDispatches { most: MOST_DISPATCHES });
            }
        }
        Ok(pieces)
    }

    /// What of the whole problem the kernel computes: all of it, unless it writes the weights of chosen heads and rows.
    fn chosen(&self, whole: Piece) -> Vec<Piece> {
        let writes_weights = self.kernel.operands().any(|operand| operand == Operand::Weights);
        match self.problem.weight_rows().filter(|_| writes_weights) {
            Some(chosen) => {
                let runs = chosen.runs(self.problem.shape().group()).into_iter().rev();
                runs.map(|heads| Piece { heads, rows: chosen.rows.clone(), ..whole.clone() }).collect()
            }
            None => vec![whole],
        }
    }

    fn obstacle(&self, piece: &Piece) -> Option<Obstacle> {
        if self.grid(piece).into_iter().any(|n| n > self.caps.workgroups) {
            return Some(Obstacle::Grid);
        }
        for Slice { resource, size_bytes: need, .. } in self.slices(piece) {
            // Shaders index elements, and bytes of a mask, with 32 bits.
            let granted = self.caps.binding_bytes.min(u64::from(u32::MAX));
            if need > granted {
                // Partial results are as large as the output, so the error names the output.
                let operand = if let Resource::Operand(operand) = resource { operand } else { Operand::Out };
                return Some(Obstacle::Binding(PlanError::TooLarge { operand, need, granted }));
            }
        }
        (self.flop(piece) > self.patience()).then_some(Obstacle::Slow)
    }

    /// Halves a piece along the outermost axis that can be halved: batches, heads, blocks of rows. Heads are cut into
    /// whole groups while there are several groups, because the shader derives the KV heads of a dispatch from its
    /// first head.
    fn halves(&self, piece: &Piece) -> Option<[Piece; 2]> {
        let Piece { batch, heads, rows, .. } = piece;
        let counts = self.kernel.block.counts;
        let counts_query_heads = counts_query_heads(counts);
        let group = if counts_query_heads { self.problem.shape().group() } else { 1 };
        if let Some(halves) = halve(batch, 1) {
            return Some(halves.map(|batch| Piece { batch, ..piece.clone() }));
        }
        if let Some(halves) = halve(heads, group).or_else(|| halve(heads, 1)) {
            return Some(halves.map(|heads| Piece { heads, ..piece.clone() }));
        }
        let has_blocks = counts_query_heads || counts == Counts::SeenKeys;
        let block = if has_blocks && !self.counts_blocks() { self.kernel.block.rows } else { 1 };
        halve(rows, block).map(|halves| halves.map(|rows| Piece { rows, ..piece.clone() }))
    }

    /// The workgroups of a dispatch, along (rows, heads, batches). The parts of a batch's keys are neighbours along the
    /// axis of the batches.
    pub(crate) fn grid(&self, piece: &Piece) -> [u32; 3] {
        let [rows, heads, batches] = piece.workgroups(self.problem, self.kernel.block);
        let parts = if matches!(self.kernel.work.keys, Keys::InParts(_)) { self.split.parts } else { 1 };
        [rows, heads, batches.saturating_mul(parts)]
    }

    /// The most floating-point operations of one dispatch. A GPU may do more of them in kernels that are many times as
    /// fast as others.
    fn patience(&self) -> u64 {
        let speed = if self.caps.is_software { 1 } else { self.kernel.work.speed };
        self.caps.dispatch_flop.saturating_mul(speed)
    }

    /// Whether the rows of a piece are blocks of ragged queries.
    pub(crate) fn counts_blocks(&self) -> bool {
        blocks(self.problem, self.kernel.block).is_some()
    }

    fn flop(&self, piece: &Piece) -> u64 {
        let shape = self.problem.shape();
        let (dim_qk, len_kv) = (shape.dim_qk, self.problem.most_keys());
        let dim_v = u64::from(count(&piece.columns));
        let vectors = u64::from(dim_qk) + dim_v;
        let group = if self.kernel.block.counts == Counts::GroupedRows { shape.group().into() } else { 1 };
        let rows_together = if self.counts_blocks() { self.kernel.block.rows.into() } else { group };
        let rows = u64::from(count(&piece.rows)) * rows_together;
        // The products of one row do not overflow, since lengths are below 2³⁰ and head sizes below 2¹⁰.
        let a_row = match self.kernel.work.cost {
            Cost::Scores => u64::from(len_kv) * 2 * vectors,
            Cost::Masks => u64::from(len_kv) * MASK_FLOP,
            Cost::Copies => vectors,
            Cost::Gradients => self.gradient_flop(vectors + u64::from(shape.dim_v)),
            Cost::Parts => dim_v * 2 * u64::from(self.split.parts),
        };
        [count(&piece.heads).into(), rows, a_row].into_iter().fold(count(&piece.batch).into(), u64::saturating_mul)
    }

    /// What a row of a gradient costs: for each pair, products of so many numbers.
    fn gradient_flop(&self, numbers: u64) -> u64 {
        let shape = self.problem.shape();
        let [rows, keys, group] = [shape.len_q, shape.len_kv, shape.group()].map(u64::from);
        let pairs = match self.kernel.block.counts {
            Counts::SeenKeys => rows * group,
            Counts::BiasRows(_) => {
                let [batches, heads, rows, _] = shared_by(self.problem).map(u64::from);
                [batches, heads, rows, keys].into_iter().fold(1, u64::saturating_mul)
            }
            _ => keys,
        };
        pairs.saturating_mul(2 * numbers)
    }

    /// The slices of the kernel's buffers that `piece` binds, in the order of the kernel's slots.
    pub(crate) fn slices(&self, piece: &Piece) -> impl Iterator<Item = Slice> {
        slices(self.kernel, self.problem, self.split, piece, self.caps.binding_alignment.max(16))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::kernel::record::{Block, TILE_KEYS};
    use crate::kernel::select::{block_mask_variant, candidates, weights_candidates};
    use crate::kernel::select_gradients::gradient_variants;
    use crate::problem::block_mask::BlockMask;
    use crate::problem::builder::ProblemBuilder;
    use crate::problem::dtype::Dtype;
    use crate::problem::layout::{Layout, ScoreLayout};
    use crate::problem::positions::{Diagonal, Window};
    use crate::problem::shape::Shape;

    fn caps() -> Caps {
        Caps::from_limits(&wgpu::Limits::default())
    }

    fn pieces(problem: &Problem, caps: &Caps) -> Vec<Piece> {
        with_job(problem, caps, |job| job.cut().expect("can be cut"))
    }

    /// Calls `act` with the job of the preferred kernel.
    fn with_job<T>(problem: &Problem, caps: &Caps, act: impl FnOnce(&Job<'_>) -> T) -> T {
        let kernel = candidates(problem, caps).expect("runs everywhere")[0].kernel();
        act(&Job { problem, kernel: &kernel, split: Split::of(&kernel, problem, caps), caps })
    }

    /// Every (batch, head, row) is in exactly one piece.
    fn assert_partition(problem: &Problem, pieces: &[Piece]) {
        let mut times = vec![0; problem.shape().scores()[..3].iter().map(|&n| n as usize).product()];
        let [_, heads, rows, _] = problem.shape().scores();
        for piece in pieces {
            for b in piece.batch.clone() {
                for h in piece.heads.clone() {
                    for i in piece.rows.clone() {
                        times[((b * heads + h) * rows + i) as usize] += 1;
                    }
                }
            }
        }
        assert!(times.iter().all(|&n| n == 1), "not a partition: {pieces:?}");
    }

    #[test]
    fn a_problem_that_fits_is_one_piece() {
        let problem = Problem::builder(Shape::new(2, 4, 100, 64)).build().expect("valid");
        assert_eq!(pieces(&problem, &caps()), [Piece { batch: 0..2, heads: 0..4, rows: 0..100, columns: 0..64 }]);
    }

    #[test]
    fn cuts_partition_the_problem_and_respect_every_limit() {
        let shape = Shape::new(3, 6, 130, 32).kv_heads(2);
        let mask = ScoreLayout::broadcast([3, 1, 130, 130]);
        for problem in [
            Problem::builder(shape).mask(mask).build(),
            Problem::builder(shape).k(Layout::blhd(2, 130, 32)).v(Layout::blhd(2, 130, 32)).build(),
        ] {
            let problem = problem.expect("valid");
            for tight in [
                Caps { binding_bytes: 40_000, ..caps() },
                Caps { workgroups: 2, ..caps() },
                Caps { workgroups: 1, ..caps() },
                Caps { dispatch_flop: 1, ..caps() },
            ] {
                let pieces = pieces(&problem, &tight);
                assert!(pieces.len() > 1);
                assert_partition(&problem, &pieces);
                with_job(&problem, &tight, |job| {
                    for piece in &pieces {
                        assert!(job.grid(piece).into_iter().all(|n| n <= tight.workgroups));
                        for slice in job.slices(piece) {
                            assert!(slice.size_bytes <= tight.binding_bytes, "{slice:?}");
                            assert_eq!(slice.offset_bytes % tight.binding_alignment, 0);
                        }
                    }
                });
            }
        }
    }

    #[test]
    fn what_no_cut_can_bind_is_an_error_with_both_sizes() {
        let problem = Problem::builder(Shape::new(1, 1, 10, 64).kv_len(1000)).build().expect("valid");
        let tight = Caps { binding_bytes: 255_999, ..caps() };
        let error = with_job(&problem, &tight, |job| job.cut().expect_err("K is 256 000 bytes"));
        assert_eq!(error, PlanError::TooLarge { operand: Operand::K, need: 256_000, granted: 255_999 });
    }

    #[test]
    fn keys_are_split_to_fill_the_device_and_no_further() {
        let split = |shape: Shape, caps: Caps| {
            let problem = Problem::builder(shape).build().expect("valid");
            with_job(&problem, &caps, |job| job.split)
        };
        let wide = Caps { workgroups_to_fill: 64, ..caps() };
        assert_eq!(split(Shape::new(8, 8, 1, 64).kv_len(4096), wide), Split { step: 4096, parts: 1 });
        assert_eq!(split(Shape::new(1, 8, 1, 64).kv_len(8192), wide), Split { step: 32, parts: 8 });
        assert_eq!(split(Shape::new(1, 1, 1, 64).kv_len(1024), wide), Split { step: 32, parts: 2 });
        assert_eq!(split(Shape::new(1, 1, 1, 64).kv_len(1025), wide), Split { step: 32, parts: 2 });
        let impatient = Caps { loop_iterations: 65_535, workgroups_to_fill: 1, ..caps() };
        let problem = Problem::builder(Shape::new(1, 1, 1, 64).kv_len(1 << 22)).build().expect("valid");
        let (Split { step, parts }, reached) = with_job(&problem, &impatient, |job| {
            let Keys::InParts(rounds) = job.kernel.work.keys else { panic!("it is not split") };
            (job.split, rounds.most_keys(impatient.loop_iterations))
        });
        let a_part = (1_u32 << 22).div_ceil(step).div_ceil(parts) * step;
        assert!(parts > 1 && a_part <= reached, "{parts} parts of {a_part}, and {reached} are reached");
    }

    /// A window needs parts for the keys in it, not for all keys of the cache.
    #[test]
    fn only_keys_in_sight_are_split() {
        let window = |left, len_q| {
            let shape = Shape::new(1, 1, len_q, 64).kv_len(1 << 20);
            let window = Window { left: Some(left), right: Some(0) };
            let problem =
                Problem::builder(shape).window(window).diagonal(Diagonal::BottomRight).build().expect("valid");
            let wide = Caps { workgroups_to_fill: 64, ..caps() };
            with_job(&problem, &wide, |job| job.split)
        };
        assert_eq!(window(2047, 1), Split { step: 32, parts: 4 });
        assert_eq!(window(2045, 3), Split { step: 32, parts: 4 });
        // A ring keeps the last keys of a sequence, and the first of these may lie at the end of a tile.
        let ring = |capacity| {
            let problem =
                Problem::builder(Shape::new(1, 1, 1, 64).kv_len(4095)).ring_kv(capacity).build().expect("valid");
            let wide = Caps { workgroups_to_fill: 64, ..caps() };
            with_job(&problem, &wide, |job| job.split.parts)
        };
        assert_eq!([1024, 4094, 4095, 8192].map(ring), [2, 8, 7, 7]);
        // The first of them may lie at the end of a tile.
        assert_eq!([470, 992, 1600].map(|left| window(left, 1).parts), [1, 2, 3]);
    }

    #[test]
    fn keys_are_split_into_no_more_parts_than_a_grid_counts() {
        let problem = Problem::builder(Shape::new(1, 1, 1, 64).kv_len(100_000)).build().expect("valid");
        let narrow = Caps { workgroups: 4, workgroups_to_fill: 1 << 20, ..caps() };
        let parts = with_job(&problem, &narrow, |job| {
            assert_eq!(job.cut().expect("4 parts fit").len(), 1);
            job.split.parts
        });
        assert_eq!(parts, 4);
        // If the driver ends loops sooner, more parts are needed than fit, and the error has the bound.
        let impatient = Caps { loop_iterations: 400, ..narrow };
        let error = candidates(&problem, &impatient).expect_err("four workgroups do not reach so many keys");
        let PlanError::TooManyKeys { len_kv: 100_000, most, .. } = error else { panic!("{error}") };
        assert!(most < 100_000 && most % (4 * TILE_KEYS) == 0, "{most}");
        let fewer = Problem::builder(Shape::new(1, 1, 1, 64).kv_len(most)).build().expect("valid");
        candidates(&fewer, &impatient).expect("they reach these");
    }

    #[test]
    fn wide_values_are_cut_into_columns_and_each_has_parts_of_its_own() {
        let shape = Shape::new(2, 3, 7, 64).kv_len(2048).value_dim(573);
        let problem = Problem::builder(shape).build().expect("valid");
        let caps = Caps { workgroups_to_fill: 1 << 20, ..caps() };
        let (pieces, split) = with_job(&problem, &caps, |job| (job.cut().expect("can be cut"), job.split));
        assert_eq!(pieces.iter().map(|piece| piece.columns.clone()).collect::<Vec<_>>(), [0..256, 256..512, 512..573]);
        let parts: Vec<Range<u32>> = pieces.iter().map(|piece| split.columns(&piece.columns)).collect();
        let n = split.parts;
        assert!(n > 1);
        assert_eq!(parts, [0..n * 260, n * 260..n * 520, n * 520..n * (520 + 68)]);
        assert_eq!(split.view(&problem).extent[3], n * (520 + 68));
    }

    /// Calls `act` with the job of the kernel that computes a gradient.
    fn with_gradient<T>(problem: &ProblemBuilder, of: Operand, act: impl FnOnce(&Job<'_>) -> T) -> T {
        let gradients = problem.clone().lse().build().expect("valid").gradients().of([of]).build().expect("valid");
        let variants = gradient_variants(gradients.problem(), &caps()).expect("runs everywhere");
        let kernel = variants.last().expect("there is one").kernel();
        act(&Job { problem: gradients.problem(), kernel: &kernel, split: Split { parts: 1, step: 1 }, caps: &caps() })
    }

    #[test]
    fn a_gradient_costs_what_its_products_cost() {
        let shape = Shape::new(3, 10, 37, 13).kv_heads(5).kv_len(41).value_dim(7);
        let biased = |dims| Problem::builder(shape).bias(Dtype::F32, ScoreLayout::broadcast(dims));
        let pairs = 3 * 10 * 37 * 41;
        for (bias, of, numbers) in [
            ([1; 4], Operand::Dq, 2 * 13 + 7),
            ([1; 4], Operand::Dk, 2 * 13 + 7),
            ([1; 4], Operand::Dv, 13 + 2 * 7),
            ([3, 10, 37, 41], Operand::Dbias, 13 + 2 * 7),
            ([1, 10, 37, 41], Operand::Dbias, 13 + 2 * 7),
            ([3, 1, 37, 41], Operand::Dbias, 13 + 2 * 7),
            ([3, 10, 1, 41], Operand::Dbias, 13 + 2 * 7),
        ] {
            let flop = with_gradient(&biased(bias), of, |job| job.flop(&Piece::whole(job.problem, job.kernel.block)));
            assert_eq!(flop, pairs * 2 * numbers, "{of}, {bias:?}");
        }
        let vast = Shape::new(1 << 10, 1 << 10, 1 << 29, 1).kv_heads(1).kv_len(1 << 29);
        let vast =
            Problem::builder(vast).bias(Dtype::F32, ScoreLayout::broadcast([1; 4])).lse().build().expect("valid");
        let vast = vast.gradients().of([Operand::Dbias]).build().expect("valid");
        with_gradient(&biased([1; 4]), Operand::Dbias, |job| {
            let vast = Job { problem: vast.problem(), ..*job };
            assert_eq!(vast.flop(&Piece::whole(vast.problem, job.kernel.block)), u64::MAX);
        });
    }

    #[test]
    fn a_bias_has_a_workgroup_per_block_of_rows_and_tile_of_keys() {
        let biased = |len_q, len_kv| {
            let shape = Shape::new(1, 1, len_q, 13).kv_len(len_kv).value_dim(7);
            Problem::builder(shape).bias(Dtype::F32, ScoreLayout::broadcast([1, 1, len_q, len_kv]))
        };
        let grid = |job: &Job<'_>| job.grid(&Piece::whole(job.problem, job.kernel.block));
        with_gradient(&biased(45, 70), Operand::Dbias, |job| assert_eq!(grid(job), [2 * 3, 1, 1]));
        with_gradient(&biased(1 << 29, 1 << 29), Operand::Dbias, |job| assert_eq!(grid(job), [u32::MAX, 1, 1]));
        with_gradient(&biased(45, 0), Operand::Dbias, |job| assert_eq!(job.cut(), Ok(Vec::new())));
        let columns =
            |of| with_gradient(&biased(45, 70), of, |job| Piece::whole(job.problem, job.kernel.block).columns);
        assert_eq!([Operand::Dq, Operand::Dk, Operand::Dv].map(columns), [0..13, 0..13, 0..7]);
    }

    #[test]
    fn keys_of_a_gradient_are_cut_between_blocks() {
        let problem = Problem::builder(Shape::new(1, 1, 40, 8).kv_len(1000));
        with_gradient(&problem, Operand::Dk, |job| {
            let tight = Job { caps: &Caps { dispatch_flop: 1, ..caps() }, ..*job };
            let pieces = tight.cut().expect("can be cut");
            assert!(pieces.len() > 1);
            assert!(pieces.iter().all(|piece| piece.rows.start.is_multiple_of(job.kernel.block.rows)), "{pieces:?}");
        });
    }

    #[test]
    fn ragged_rows_are_cut_into_single_blocks() {
        // Three sequences of 100 rows together have at most ⌊100 / 32⌋ + 3 blocks.
        let problem = Problem::builder(Shape::new(3, 2, 40, 8).kv_len(41)).ragged_q(100).build().expect("valid");
        with_job(&problem, &caps(), |job| {
            assert_eq!(job.kernel.block.rows, 32);
            let whole = Piece::whole(&problem, job.kernel.block);
            assert_eq!(job.flop(&whole), 2 * 6 * 32 * 41 * 2 * (8 + 8));
        });
        let single = pieces(&problem, &Caps { dispatch_flop: 1, ..caps() });
        assert_eq!(single.len(), 2 * 6);
        // The same of keys.
        let ragged = |batch| Problem::builder(Shape::new(batch, 2, 40, 8).kv_len(41)).ragged_q(100).ragged_kv(200);
        with_gradient(&ragged(3), Operand::Dk, |job| {
            assert_eq!(job.kernel.block.rows, 32);
            let whole = Piece::whole(job.problem, job.kernel.block);
            assert_eq!((whole.batch, whole.rows), (0..1, 0..200 / 32 + 3));
        });
        // Rows of a group's heads together, 4 per workgroup.
        let few = Problem::builder(Shape::new(3, 4, 1, 8).kv_heads(2).kv_len(41)).ragged_q(100).build().expect("valid");
        with_job(&few, &caps(), |job| {
            let Block { counts, rows, .. } = job.kernel.block;
            assert_eq!(counts, Counts::GroupedRows);
            assert_eq!(Piece::whole(&few, job.kernel.block).rows, 0..200 / rows + 3);
        });
        // No rows, or no sequences, whatever room the tensors have.
        let no_rows = Problem::builder(Shape::new(3, 2, 40, 8)).ragged_q(0).build().expect("valid");
        assert!(pieces(&no_rows, &caps()).is_empty());
        with_gradient(&ragged(0), Operand::Dk, |job| assert_eq!(job.cut(), Ok(Vec::new())));
        assert!(pieces(&ragged(0).build().expect("valid"), &caps()).is_empty());
    }

    #[test]
    fn only_weights_are_those_of_chosen_rows() {
        let tiles =
            Problem::builder(Shape::new(2, 4, 100, 32)).weights_of([1], 3..5).block_mask(BlockMask::new(32, 32));
        let problem = tiles.build().expect("valid");
        let kernel = block_mask_variant(&problem, &caps()).expect("runs everywhere").kernel();
        let job = Job { problem: &problem, kernel: &kernel, split: Split { parts: 1, step: 1 }, caps: &caps() };
        assert_eq!(job.cut().expect("fits"), [Piece::whole(&problem, kernel.block)]);
        let kernel = weights_candidates(&problem, &caps()).expect("runs everywhere")[0].kernel();
        let pieces = Job { kernel: &kernel, ..job }.cut().expect("fits");
        assert_eq!(
            pieces.iter().map(|piece| (piece.heads.clone(), piece.rows.clone())).collect::<Vec<_>>(),
            [(1..2, 3..5)]
        );
    }

    #[test]
    fn absurd_sizes_end_in_an_error_rather_than_a_long_loop() {
        let shape = Shape::new(1 << 30, 1 << 30, 1, 1).kv_heads(1);
        let problem = Problem::builder(shape).build().expect("2^62 bytes can be addressed");
        let cut = with_job(&problem, &caps(), |job| job.cut());
        assert!(matches!(cut, Err(PlanError::TooManyDispatches { .. })));
    }
}
