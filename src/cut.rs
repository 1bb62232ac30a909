//! Cutting a problem into dispatches that the device can bind, count and finish in time, and its keys into parts.

use std::ops::Range;

use crate::family::{TILE_KEYS, VALUE_COLUMNS};
use crate::{Caps, Family, Operand, PlanError, Problem, Shape, Variant, View};

/// What one dispatch computes: a box of batches, query heads and query rows, over all keys. Where a kernel takes a KV head's
/// query heads together, of KV heads; where keys and values are staged, of KV heads and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) batch: Range<u32>,
    pub(crate) heads: Range<u32>,
    pub(crate) rows: Range<u32>,
    /// Of the values and the output: all of them, unless they are more than a kernel has room for.
    pub(crate) columns: Range<u32>,
}

impl Piece {
    /// Whether there is nothing to compute.
    fn is_empty(&self) -> bool {
        self.batch.is_empty() || self.heads.is_empty() || self.rows.is_empty()
    }
}

/// What a slice is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Operand(Operand),
    /// [`Space::Partial`](crate::scratch::Space::Partial).
    Partial,
}

/// The part of an operand that a piece touches, as a binding starting where the device can bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) source: Source,
    /// Binding, from the operand's own start.
    pub(crate) offset_bytes: u64,
    /// 0 where the piece touches no element of it, as of K and V where there are no keys.
    pub(crate) size_bytes: u64,
    /// The piece's first element, from the binding's start.
    pub(crate) first: u64,
    /// Strides along (batch, head, row, column); 0 along an axis where the piece has one index.
    pub(crate) stride: [u64; 4],
}

/// How the keys are split: a workgroup sees `keys` of them, and `parts` workgroups see them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) keys: u32,
    pub(crate) parts: u32,
}

/// With fewer keys in a part, merging costs more than the parts gain.
const SHORTEST_PART: u32 = 512;
/// Of a row in [`Space::Partial`](crate::scratch::Space::Partial): its statistics, before its part of the output.
pub(crate) const STATISTICS: u32 = 4;

impl Split {
    /// As many parts as fill the device, or more where the driver ends long loops, but no more than a grid can count.
    pub(crate) fn of(variant: &Variant, problem: &Problem, caps: &Caps) -> Self {
        let Shape { len_kv, .. } = problem.shape();
        if matches!(variant.family, Family::Weights | Family::Stage | Family::Merge) {
            return Self { keys: len_kv, parts: 1 };
        }
        let [x, y, z] = blocks(&whole(problem, variant), problem, variant).map(u64::from);
        let busy = x.saturating_mul(y).saturating_mul(z).max(1);
        let idle = u32::try_from(u64::from(caps.workgroups_to_fill) / busy).unwrap_or(u32::MAX);
        let wanted = idle.min(len_kv / SHORTEST_PART).min(caps.workgroups).max(1);
        let longest = (variant.most_keys(caps) / TILE_KEYS * TILE_KEYS).max(TILE_KEYS);
        let keys = len_kv.div_ceil(wanted).next_multiple_of(TILE_KEYS).clamp(TILE_KEYS, longest);
        Self { keys, parts: len_kv.div_ceil(keys).max(1) }
    }

    /// Where each row's parts lie, those of one piece's columns after those of another's.
    pub(crate) fn view(self, problem: &Problem) -> View {
        let [batch, heads, rows, _] = problem.shape().scores();
        let columns = column_ranges(problem.shape().dim_v).last().map_or(0, |last| self.columns(&last).end);
        let row = u64::from(columns);
        let head = row.saturating_mul(rows.into());
        let stride = [head.saturating_mul(heads.into()), head, row, 1];
        View { operand: Operand::Out, offset: 0, extent: [batch, heads, rows, columns], stride, element_bytes: 4 }
    }

    /// Where in such a row the parts of some columns of the output lie.
    fn columns(self, of_output: &Range<u32>) -> Range<u32> {
        let ranges_before = of_output.start / VALUE_COLUMNS;
        let start = self.parts.saturating_mul(of_output.start + ranges_before * STATISTICS);
        let width = (of_output.end - of_output.start).next_multiple_of(4);
        start..start.saturating_add(self.parts.saturating_mul(STATISTICS + width))
    }
}

/// The columns of the values, as many at a time as a kernel has room for.
fn column_ranges(dim_v: u32) -> impl DoubleEndedIterator<Item = Range<u32>> + ExactSizeIterator {
    let starts = (0..dim_v.div_ceil(VALUE_COLUMNS)).map(|n| n * VALUE_COLUMNS);
    starts.map(move |start| start..dim_v.min(start + VALUE_COLUMNS))
}

/// How many times as fast as other kernels those on a matrix unit are at least, where time matters to a driver.
const MATRIX_SPEED: u64 = 8;

/// More dispatches than this is a mistake in the description rather than work for a GPU.
const MOST_DISPATCHES: usize = 1 << 16;

/// One kernel's work on a problem.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job<'a> {
    pub(crate) problem: &'a Problem,
    pub(crate) variant: Variant,
    /// How the keys are split, by this kernel or, where it merges, by the one before.
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
    /// The pieces, in order.
    pub(crate) fn cut(&self) -> Result<Vec<Piece>, PlanError> {
        let whole = whole(self.problem, &self.variant);
        if whole.is_empty() {
            return Ok(Vec::new());
        }
        // The weights have no columns of values.
        let mut waiting: Vec<Piece> = match self.variant.family {
            Family::Weights => vec![whole],
            _ => column_ranges(whole.columns.end).rev().map(|columns| Piece { columns, ..whole.clone() }).collect(),
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

    fn obstacle(&self, piece: &Piece) -> Option<Obstacle> {
        if self.grid(piece).into_iter().any(|n| n > self.caps.workgroups) {
            return Some(Obstacle::Grid);
        }
        for Slice { source, size_bytes: need, .. } in self.slices(piece) {
            // Shaders index elements, and bytes of a mask, with 32 bits.
            let granted = self.caps.binding_bytes.min(u64::from(u32::MAX));
            if need > granted {
                // What is kept of an output is as large as it is.
                let operand = if let Source::Operand(operand) = source { operand } else { Operand::Out };
                return Some(Obstacle::Binding(PlanError::TooLarge { operand, need, granted }));
            }
        }
        (self.flop(piece) > self.patience()).then_some(Obstacle::Slow)
    }

    /// Two halves along the outermost axis that has two: batches, heads, blocks of rows. Heads go by whole groups while
    /// there are several: the shader finds the KV head of a dispatch's heads from the first of them.
    fn halves(&self, piece: &Piece) -> Option<[Piece; 2]> {
        let halve = |range: &Range<u32>, step: u32| {
            let middle = range.start.checked_add(((range.end - range.start) / 2).checked_next_multiple_of(step)?)?;
            (range.start < middle && middle < range.end).then_some([range.start..middle, middle..range.end])
        };
        let Piece { batch, heads, rows, .. } = piece;
        let group = if counts_kv_heads(&self.variant) { 1 } else { self.problem.shape().group() };
        if let Some(halves) = halve(batch, 1) {
            return Some(halves.map(|batch| Piece { batch, ..piece.clone() }));
        }
        if let Some(halves) = halve(heads, group).or_else(|| halve(heads, 1)) {
            return Some(halves.map(|heads| Piece { heads, ..piece.clone() }));
        }
        let block = if counts_kv_heads(&self.variant) { 1 } else { self.variant.block().rows };
        halve(rows, block).map(|halves| halves.map(|rows| Piece { rows, ..piece.clone() }))
    }

    /// The parts of a batch's keys are neighbours along its axis.
    pub(crate) fn grid(&self, piece: &Piece) -> [u32; 3] {
        let [rows, heads, batches] = blocks(piece, self.problem, &self.variant);
        let parts = if self.variant.family == Family::Merge { 1 } else { self.split.parts };
        [rows, heads, batches.saturating_mul(parts)]
    }

    /// The work that one dispatch may cost: a GPU's matrix unit does it many times as fast.
    fn patience(&self) -> u64 {
        let is_fast = matches!(self.variant.family, Family::Matrix(_)) && !self.caps.is_software;
        if is_fast { self.caps.dispatch_flop.saturating_mul(MATRIX_SPEED) } else { self.caps.dispatch_flop }
    }

    fn flop(&self, piece: &Piece) -> u64 {
        let Shape { len_kv, dim_qk, .. } = self.problem.shape();
        let dim_v = piece.columns.end - piece.columns.start;
        let a_row = match self.variant.family {
            Family::Stage => u64::from(dim_qk) + u64::from(dim_v),
            family if family.takes_groups() => {
                let group = u64::from(self.problem.shape().group());
                (u64::from(len_kv) * 2).saturating_mul(u64::from(dim_qk) + u64::from(dim_v)).saturating_mul(group)
            }
            Family::Merge => (u64::from(dim_v) * 2).saturating_mul(self.split.parts.into()),
            _ => (u64::from(len_kv) * 2).saturating_mul(u64::from(dim_qk) + u64::from(dim_v)),
        };
        let count = |range: &Range<u32>| u64::from(range.end - range.start);
        [count(&piece.heads), count(&piece.rows), a_row].into_iter().fold(count(&piece.batch), u64::saturating_mul)
    }

    /// What `piece` binds, in slot order.
    pub(crate) fn slices(&self, piece: &Piece) -> impl Iterator<Item = Slice> {
        let alignment = self.caps.binding_alignment.max(16);
        let operands = self.variant.operands();
        let operands = operands.filter_map(|operand| Some((Source::Operand(operand), self.problem.view(operand)?)));
        let keeps_parts = self.variant.partial || self.variant.family == Family::Merge;
        let partial = keeps_parts.then(|| (Source::Partial, self.split.view(self.problem)));
        operands.chain(partial).map(move |(source, view)| {
            let mut axes = self.axes(&view, piece);
            if source == Source::Partial {
                axes[3] = self.split.columns(&piece.columns);
            }
            slice(source, &view, &axes, alignment)
        })
    }

    /// What of an operand a piece touches.
    fn axes(&self, view: &View, piece: &Piece) -> [Range<u32>; 4] {
        let Piece { batch, heads, rows, columns } = piece.clone();
        let [all_batches, _, all_rows, all_columns] = view.extent.map(|n| 0..n);
        let group = self.problem.shape().group();
        let columns = if matches!(view.operand, Operand::V | Operand::Out) { columns } else { all_columns };
        match view.operand {
            Operand::Q | Operand::Out | Operand::Lse | Operand::Mask | Operand::Bias
                if counts_kv_heads(&self.variant) =>
            {
                [batch, heads.start * group..heads.end * group, rows, columns]
            }
            Operand::Q | Operand::Out | Operand::Lse | Operand::Weights | Operand::Mask | Operand::Bias => {
                [batch, heads, rows, columns]
            }
            Operand::K | Operand::V if self.variant.family == Family::Stage => [batch, heads, rows, columns],
            Operand::K | Operand::V if counts_kv_heads(&self.variant) => [batch, heads, all_rows, columns],
            Operand::K | Operand::V => [batch, self.kv_heads(&heads), all_rows, columns],
            Operand::KvLengths => [all_batches, 0..1, 0..1, 0..1],
        }
    }

    fn kv_heads(&self, heads: &Range<u32>) -> Range<u32> {
        let shape = self.problem.shape();
        shape.kv_head(heads.start)..shape.kv_head(heads.end - 1) + 1
    }

    /// Where a piece's keys are staged: offset and strides of batch, head and key, in keys.
    pub(crate) fn staged(&self, piece: &Piece) -> [u64; 4] {
        let Shape { heads_kv, len_kv, .. } = self.problem.shape();
        // Where keys are staged these are far below 2^64, since textures hold them.
        let (head, batch) = (u64::from(len_kv), u64::from(len_kv) * u64::from(heads_kv));
        let (first_head, first_key) = match self.variant.family {
            Family::Stage => (piece.heads.start, piece.rows.start),
            family if family.takes_groups() => (piece.heads.start, 0),
            _ => (self.kv_heads(&piece.heads).start, 0),
        };
        let first = u64::from(piece.batch.start)
            .saturating_mul(batch)
            .saturating_add(u64::from(first_head) * head + u64::from(first_key));
        [first, batch, head, 1]
    }
}

fn whole(problem: &Problem, variant: &Variant) -> Piece {
    let Shape { batch, heads_q, heads_kv, len_q, len_kv, dim_v, .. } = problem.shape();
    let heads = if counts_kv_heads(variant) { heads_kv } else { heads_q };
    let rows = if variant.family == Family::Stage { len_kv } else { len_q };
    Piece { batch: 0..batch, heads: 0..heads, rows: 0..rows, columns: 0..dim_v }
}

/// Workgroups along (rows, heads, batches), before the keys are split.
fn blocks(piece: &Piece, problem: &Problem, variant: &Variant) -> [u32; 3] {
    let count = |range: &Range<u32>| range.end - range.start;
    let group = if variant.family.takes_groups() { problem.shape().group() } else { 1 };
    let rows = count(&piece.rows).saturating_mul(group);
    [rows.div_ceil(variant.block().rows), count(&piece.heads), count(&piece.batch)]
}

/// Whether the heads of a piece are KV heads.
fn counts_kv_heads(variant: &Variant) -> bool {
    variant.family == Family::Stage || variant.family.takes_groups()
}

fn slice(source: Source, view: &View, axes: &[Range<u32>; 4], alignment: u64) -> Slice {
    if axes.iter().any(Range::is_empty) {
        return Slice { source, offset_bytes: 0, size_bytes: 0, first: 0, stride: [0; 4] };
    }
    let first = view.index(axes.clone().map(|axis| axis.start));
    let end = view.index(axes.clone().map(|axis| axis.end - 1)) + 1;
    let start_bytes = first * view.element_bytes / alignment * alignment;
    let mut stride = view.stride;
    for (stride, axis) in stride.iter_mut().zip(axes) {
        if axis.end - axis.start == 1 {
            *stride = 0;
        }
    }
    Slice {
        source,
        offset_bytes: start_bytes,
        size_bytes: (end * view.element_bytes - start_bytes).next_multiple_of(4),
        first: first - start_bytes / view.element_bytes,
        stride,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, Exchange, Family, Layout, ScoreLayout};

    fn caps() -> Caps {
        Caps::from_limits(&wgpu::Limits::default())
    }

    fn pieces(problem: &Problem, caps: &Caps) -> Vec<Piece> {
        job(problem, Access::Scalar, caps).cut().expect("can be cut")
    }

    fn job<'a>(problem: &'a Problem, access: Access, caps: &'a Caps) -> Job<'a> {
        let variant = Variant::of((Family::Tiled, Exchange::Workgroup), access, problem, caps);
        Job { problem, variant, split: Split::of(&variant, problem, caps), caps }
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
                for piece in &pieces {
                    let job = job(&problem, Access::Scalar, &tight);
                    assert!(job.grid(piece).into_iter().all(|n| n <= tight.workgroups));
                    for slice in job.slices(piece) {
                        assert!(slice.size_bytes <= tight.binding_bytes, "{slice:?}");
                        assert_eq!(slice.offset_bytes % tight.binding_alignment, 0);
                    }
                }
            }
        }
    }

    #[test]
    fn what_no_cut_can_bind_is_an_error_with_both_sizes() {
        let problem = Problem::builder(Shape::new(1, 1, 10, 64).kv_len(1000)).build().expect("valid");
        let tight = Caps { binding_bytes: 255_999, ..caps() };
        let error = job(&problem, Access::Vec4, &tight).cut().expect_err("K is 256 000 bytes");
        assert_eq!(error, PlanError::TooLarge { operand: Operand::K, need: 256_000, granted: 255_999 });
    }

    #[test]
    fn keys_are_split_to_fill_the_device_and_no_further() {
        let split = |shape: Shape, caps: Caps| {
            let problem = Problem::builder(shape).build().expect("valid");
            job(&problem, Access::Vec4, &caps).split
        };
        let wide = Caps { workgroups_to_fill: 64, ..caps() };
        assert_eq!(split(Shape::new(8, 8, 1, 64).kv_len(4096), wide), Split { keys: 4096, parts: 1 });
        assert_eq!(split(Shape::new(1, 8, 1, 64).kv_len(8192), wide), Split { keys: 1024, parts: 8 });
        assert_eq!(split(Shape::new(1, 1, 1, 64).kv_len(1024), wide), Split { keys: 512, parts: 2 });
        let impatient = Caps { loop_rounds: 65_535, workgroups_to_fill: 1, ..caps() };
        let long = split(Shape::new(1, 1, 1, 64).kv_len(1 << 20), impatient);
        assert!(long.parts > 1 && long.keys * long.parts >= 1 << 20, "{long:?}");
    }

    #[test]
    fn keys_are_split_into_no_more_parts_than_a_grid_counts() {
        let problem = Problem::builder(Shape::new(1, 1, 1, 64).kv_len(100_000)).build().expect("valid");
        let narrow = Caps { workgroups: 4, workgroups_to_fill: 1 << 20, ..caps() };
        let job_of = |caps| job(&problem, Access::Vec4, caps);
        assert_eq!(job_of(&narrow).split.parts, 4);
        assert_eq!(job_of(&narrow).cut().expect("4 parts fit").len(), 1);
        // A driver that ends loops sooner makes more parts than fit, and then the bound is in the error.
        let impatient = Caps { loop_rounds: 2000, ..narrow };
        let variant = job_of(&impatient).variant;
        let most = variant.most_keys(&impatient) / TILE_KEYS * TILE_KEYS * 4;
        assert!(most < 100_000, "{most}");
        let error = variant.check_rounds(100_000, &impatient).expect_err("four workgroups do not reach so many keys");
        assert_eq!(error, PlanError::TooManyKeys { variant, len_kv: 100_000, most });
        variant.check_rounds(most, &impatient).expect("they reach these");
    }

    #[test]
    fn wide_values_are_cut_into_columns_and_each_has_parts_of_its_own() {
        let shape = Shape::new(2, 3, 7, 64).kv_len(2048).value_dim(601);
        let problem = Problem::builder(shape).build().expect("valid");
        let caps = Caps { workgroups_to_fill: 1 << 20, ..caps() };
        let job = job(&problem, Access::Vec4, &caps);
        let pieces = job.cut().expect("can be cut");
        assert_eq!(pieces.iter().map(|piece| piece.columns.clone()).collect::<Vec<_>>(), [0..256, 256..512, 512..601]);
        let parts: Vec<Range<u32>> = pieces.iter().map(|piece| job.split.columns(&piece.columns)).collect();
        let n = job.split.parts;
        assert!(n > 1);
        assert_eq!(parts, [0..n * 260, n * 260..n * 520, n * 520..n * (520 + 96)]);
        assert_eq!(job.split.view(&problem).extent[3], n * (520 + 96));
    }

    #[test]
    fn absurd_sizes_end_in_an_error_rather_than_a_long_loop() {
        let shape = Shape::new(1 << 30, 1 << 30, 1, 1).kv_heads(1);
        let problem = Problem::builder(shape).build().expect("2^62 bytes can be addressed");
        let cut = job(&problem, Access::Scalar, &caps()).cut();
        assert!(matches!(cut, Err(PlanError::TooManyDispatches { .. })));
    }
}
