//! Splitting the keys over several workgroups, whose results are then merged.

use std::ops::Range;

use crate::device::caps::Caps;
use crate::kernel::choices::VALUE_COLUMNS;
use crate::kernel::record::{Kernel, Keys};
use crate::plan::piece::{Piece, count};
use crate::problem::Problem;
use crate::problem::layout::View;
use crate::problem::operand::Operand;

/// How the keys are split: `parts` workgroups process those of a sequence. Each has the same number of whole steps, except the last
/// ones. That number depends on how many keys the sequence has: see `span_of` in `shaders/pieces/site.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) step: u32,
    pub(crate) parts: u32,
}

/// With fewer keys in a part, merging costs more than splitting gains. Sequences that are shorter than a plan is made for have
/// shorter parts.
const SHORTEST_PART: u32 = 512;
/// The number of statistics that precede each part of the output in a row of
/// [`Space::Partial`](crate::kernel::slots::Space::Partial).
const STATISTICS: u32 = 4;

impl Split {
    /// Splits the keys into as many parts as fill the device, but no more than a grid can count. There are more parts
    /// if the driver ends long loops.
    pub(super) fn of(kernel: &Kernel, problem: &Problem, caps: &Caps) -> Self {
        let len_kv = problem.shape().len_kv.max(1);
        let Keys::InParts(rounds) = kernel.work.keys else { return Self { step: len_kv, parts: 1 } };
        let (tile, longest) = (rounds.tile, rounds.most_keys(caps.loop_iterations).max(rounds.tile));
        let whole = Piece::whole(problem, kernel.block);
        let [x, y, z] = whole.workgroups(problem, kernel.block).map(u64::from);
        // Each has a row of the output, whose elements 63 bits can count.
        let busy = (x * y * z).max(1);
        let idle = u32::try_from(u64::from(caps.workgroups_to_fill) / busy).unwrap_or(u32::MAX);
        // Keys that begin within a tile may end in one tile more.
        let before = if problem.may_hide_first_keys() { tile - 1 } else { 0 };
        let span = problem.most_keys_in_sight().saturating_add(before);
        let wanted = idle.min(span / SHORTEST_PART).min(caps.workgroups).max(1);
        if wanted == 1 && span <= longest {
            return Self { step: len_kv.next_multiple_of(tile), parts: 1 };
        }
        let keys = span.div_ceil(wanted).next_multiple_of(tile).min(longest);
        Self { step: tile, parts: span.div_ceil(keys) }
    }

    /// The layout of the partial results. A row has the parts of one piece's columns after those of another's.
    pub(super) fn view(self, problem: &Problem) -> View {
        let ([batch, rows], heads) = (problem.stored_queries(), problem.shape().heads_q);
        let columns = column_ranges(problem.shape().dim_v).last().map_or(0, |last| self.columns(&last).end);
        let row = i64::from(columns);
        let head = row * i64::from(rows);
        let stride = [head.saturating_mul(heads.into()), head, row, 1];
        View { operand: Operand::Out, offset: 0, extent: [batch, heads, rows, columns], stride, element_bytes: 4 }
    }

    /// The columns of such a row that hold the parts of `of_output`, a range of columns of the output.
    pub(super) fn columns(self, of_output: &Range<u32>) -> Range<u32> {
        let ranges_before = of_output.start / VALUE_COLUMNS;
        let start = self.parts.saturating_mul(of_output.start + ranges_before * STATISTICS);
        let width = count(of_output).next_multiple_of(4);
        start..start.saturating_add(self.parts.saturating_mul(STATISTICS + width))
    }
}

/// The columns of the values, in ranges that one dispatch can compute.
pub(super) fn column_ranges(dim_v: u32) -> impl DoubleEndedIterator<Item = Range<u32>> + ExactSizeIterator {
    let starts = (0..dim_v.div_ceil(VALUE_COLUMNS)).map(|n| n * VALUE_COLUMNS);
    starts.map(move |start| start..dim_v.min(start + VALUE_COLUMNS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::record::Iterations;
    use crate::kernel::select::candidates;
    use crate::problem::builder::ProblemBuilder;
    use crate::problem::positions::{Diagonal, Window};
    use crate::problem::shape::Shape;

    /// How the keys of one row are split on a device that has room for so many workgroups and allows so many loop iterations. A tile
    /// takes ten of these, and five are for everything else.
    fn split(problem: &ProblemBuilder, tile: u32, workgroups_to_fill: u32, loop_iterations: u32) -> (u32, u32) {
        let caps = Caps::from_limits(&wgpu::Limits::default());
        let problem = problem.build().expect("valid");
        let mut kernel = candidates(&problem, &caps).expect("runs everywhere")[0].kernel();
        kernel.work.keys = Keys::InParts(Iterations { tile, per_tile: 10, besides: 5 });
        let Split { step, parts } = Split::of(&kernel, &problem, &Caps { workgroups_to_fill, loop_iterations, ..caps });
        (step, parts)
    }

    #[test]
    fn keys_are_split_into_as_many_parts_as_fill_the_device_or_as_loops_allow() {
        let row = |len_kv| Problem::builder(Shape::new(1, 1, 1, 8).kv_len(len_kv));
        assert_eq!(split(&row(1000), 64, 1, u32::MAX), (1024, 1), "one part has whole tiles");
        assert_eq!(split(&row(0), 64, 1, u32::MAX), (64, 1), "a step is never 0");
        assert_eq!(split(&row(3600), 64, 100, u32::MAX), (64, 7), "of at least 512 keys");
        assert_eq!(split(&row(3600), 64, 4, u32::MAX), (64, 4));
        assert_eq!(split(&row(3600), 512, 7, u32::MAX), (512, 4), "515 keys are two tiles");
        // 16 tiles.
        assert_eq!(split(&row(1024), 64, 1, 165), (1024, 1));
        assert_eq!(split(&row(1025), 64, 1, 165), (64, 2));
        assert_eq!(split(&row(1024), 64, 1, 164), (64, 2));
        assert_eq!(split(&row(1000), 64, 1, 5), (64, 16), "a tile at least");
        // The 961 keys of a window may begin with the last key of a tile, and so end in the 16th after it.
        let window = |left| Window { left: Some(left), right: Some(0) };
        let windowed = |left| row(5000).diagonal(Diagonal::BottomRight).window(window(left));
        assert_eq!(split(&windowed(960), 64, 1, 165), (5056, 1));
        assert_eq!(split(&windowed(961), 64, 1, 165), (64, 2));
    }

    /// If the number of columns or a stride wrapped around, scratch would look small.
    #[test]
    fn parts_that_64_bits_cannot_count_do_not_wrap() {
        let of = |shape: Shape, parts| {
            let problem = Problem::builder(shape).build().expect("it fits 64 bits without parts");
            Split { step: 32, parts }.view(&problem)
        };
        // A row has 2²³ parts of 260 numbers, and all rows of a batch have more than 2⁶³.
        let view = of(Shape::new(2, 16, 1 << 29, 256).kv_heads(1), 1 << 23);
        let row = 260 << 23;
        assert_eq!(
            (view.extent, view.stride),
            ([2, 16, 1 << 29, row], [i64::MAX, i64::from(row) << 29, row.into(), 1])
        );
        // The second range of columns begins past 32 bits.
        let many = Split { step: 32, parts: 1 << 24 };
        assert_eq!(many.columns(&(256..300)), u32::MAX..u32::MAX);
        assert_eq!(of(Shape::new(1, 1, 1, 300), 1 << 24).extent[3], u32::MAX);
    }
}
