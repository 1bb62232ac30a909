//! The part of each buffer that a piece uses.

use std::ops::Range;

use crate::kernel::record::{Block, Columns, Counts, Kernel};
use crate::kernel::slots::{Resource, Slot, Space, binding};
use crate::plan::piece::{Piece, shared_by};
use crate::plan::split::Split;
use crate::problem::Problem;
use crate::problem::layout::{Layout, View};
use crate::problem::operand::Operand;
use crate::problem::sequences::{Keys, Queries};

/// The part of a buffer that a piece uses, as a binding that starts at an offset the device can bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) resource: Resource,
    /// The `@binding` of its slot.
    pub(crate) binding: u32,
    /// Offset of the binding from the buffer's start.
    pub(crate) offset_bytes: u64,
    /// Size of the binding; 0 if the piece uses no element of the buffer, as with K and V if there are no keys.
    pub(crate) size_bytes: u64,
    /// Index of the piece's first element, from the binding's start.
    pub(crate) first: u64,
    /// Strides along (batch, head, row, column); 0 along an axis where the piece has only one index.
    pub(crate) stride: [i64; 4],
}

/// The slices of a kernel's buffers that `piece` binds, at offsets that are multiples of `alignment`.
pub(crate) fn slices(
    kernel: &Kernel,
    problem: &Problem,
    split: Split,
    piece: &Piece,
    alignment: u64,
) -> impl Iterator<Item = Slice> {
    let view_of = move |slot: &Slot| match slot.resource {
        Resource::Operand(operand) => problem.view(operand),
        Resource::Space(Space::Partial) => Some(split.view(problem)),
        Resource::Space(Space::Sums) => Some(sums(problem)),
        Resource::Space(Space::StagedK | Space::StagedV | Space::StagedQ | Space::StagedDout) => None,
    };
    kernel.slots.iter().enumerate().filter_map(move |(n, slot)| {
        let view = view_of(slot)?;
        let mut axes = axes(&view, problem, kernel.block, piece);
        if slot.space() == Some(Space::Partial) {
            axes[3] = split.columns(&piece.columns);
        }
        let binding = binding(n);
        if matches!(slot.operand(), Some(Operand::Aux | Operand::BlockMask)) {
            return Some(whole(slot.resource, binding, &view));
        }
        Some(slice(slot.resource, binding, &view, &axes, 0, alignment))
    })
}

/// The index ranges of an operand that a piece uses.
fn axes(view: &View, problem: &Problem, block: Block, piece: &Piece) -> [Range<u32>; 4] {
    let counts = block.counts;
    let Piece { batch, heads, rows, columns } = piece.clone();
    let [all_batches, _, all_rows, all_columns] = view.extent.map(|n| 0..n);
    // The columns of quantized values lie behind their row's scale, so the whole row is bound.
    let has_columns = match view.operand {
        Operand::V => problem.quantization().is_none(),
        operand => operand == Operand::Out,
    } && block.columns == Columns::Values;
    let columns = if has_columns { columns } else { all_columns.clone() };
    let group = if counts_query_heads(counts) { 1 } else { problem.shape().group() };
    let query_heads = heads.start * group..heads.end * group;
    // A workgroup visits all rows of these, so the piece's own say only which results it computes.
    let (batch, rows, query_heads, heads) = match counts {
        Counts::SeenKeys => {
            let is_ragged = matches!(problem.keys(), Keys::Ragged { .. });
            let batch = if is_ragged { 0..problem.shape().batch } else { batch };
            (batch, 0..problem.shape().len_q, query_heads, heads)
        }
        Counts::BiasRows(_) => {
            let shape = problem.shape();
            let [shared_batches, shared_heads, ..] = shared_by(problem);
            let batch = if shared_batches == 1 { batch } else { 0..shape.batch };
            let heads = if shared_heads == 1 { heads } else { 0..shape.heads_q };
            (batch, 0..shape.len_q, heads.clone(), heads)
        }
        Counts::Heads => (0..problem.shape().batch, 0..problem.shape().len_q, query_heads, heads),
        Counts::Rows | Counts::GroupedRows | Counts::Keys | Counts::MaskRows | Counts::StoredRows => {
            (batch, rows, query_heads, heads)
        }
    };
    // The blocks of ragged queries may belong to any sequence.
    let is_ragged =
        matches!(problem.queries(), Queries::Ragged { .. }) && !matches!(counts, Counts::Keys | Counts::StoredRows);
    let [batch, query_rows] = if is_ragged { [all_batches.clone(), all_rows.clone()] } else { [batch, rows.clone()] };
    match view.operand {
        Operand::K | Operand::V | Operand::Dk | Operand::Dv => {
            let batch = match problem.keys() {
                Keys::Dense | Keys::Ring { .. } => batch,
                Keys::Ragged { .. } | Keys::Paged(_) => all_batches,
            };
            let rows = match (counts, problem.keys()) {
                (Counts::Keys, Keys::Dense | Keys::Ragged { .. } | Keys::Ring { .. }) => rows,
                _ => all_rows,
            };
            let heads = match counts {
                counts if counts_query_heads(counts) => kv_heads(problem, &heads),
                _ => heads,
            };
            [batch, heads, rows, columns]
        }
        Operand::NewK | Operand::NewV => [batch, kv_heads(problem, &heads), query_rows, all_columns],
        Operand::Q
        | Operand::NewQ
        | Operand::Out
        | Operand::Lse
        | Operand::Weights
        | Operand::Mask
        | Operand::Bias
        | Operand::Dout
        | Operand::Dlse
        | Operand::Dq => {
            let chosen = problem.weight_rows().filter(|_| view.operand == Operand::Weights);
            let [heads, rows] =
                chosen.map_or([query_heads.clone(), query_rows.clone()], |it| it.places(&query_heads, &query_rows));
            [batch, heads, rows, columns]
        }
        // Indexed by batch and head only.
        Operand::AlibiSlopes => [batch, query_heads, 0..1, 0..1],
        Operand::Dbias => [piece.batch.clone(), piece.heads.clone(), all_rows, all_columns],
        Operand::Sinks | Operand::Dsinks => [0..1, query_heads, 0..1, 0..1],
        Operand::BlockTable | Operand::RotaryTable => [all_batches, 0..1, 0..1, all_columns],
        Operand::KvLengths
        | Operand::QLengths
        | Operand::CuSeqlensQ
        | Operand::CuSeqlensK
        | Operand::Aux
        | Operand::RngState
        | Operand::BlockMask
        // No problem uses these.
        | Operand::PairOut
        | Operand::PairLse => [all_batches, 0..1, 0..1, 0..1],
    }
}

/// Whether the heads of a piece are query heads.
pub(super) const fn counts_query_heads(counts: Counts) -> bool {
    match counts {
        Counts::Rows | Counts::MaskRows | Counts::BiasRows(_) | Counts::Heads | Counts::StoredRows => true,
        Counts::GroupedRows | Counts::Keys | Counts::SeenKeys => false,
    }
}

/// The layout of the statistics of each row that the gradients share.
pub(super) fn sums(problem: &Problem) -> View {
    let ([batch, rows], heads) = (problem.stored_queries(), problem.shape().heads_q);
    let layout = Layout::bhld(heads, rows, 1);
    View::of_rows(Operand::Lse, layout, [batch, heads, rows, 1], SUMS_BYTES)
}

/// Four f32 per row.
const SUMS_BYTES: u64 = 16;

/// The KV heads of a range of query heads.
fn kv_heads(problem: &Problem, heads: &Range<u32>) -> Range<u32> {
    let shape = problem.shape();
    shape.kv_head(heads.start)..shape.kv_head(heads.end - 1) + 1
}

/// Where a piece's keys are staged: offset and strides of batch, head and key, in keys.
pub(crate) fn staged(problem: &Problem, counts: Counts, piece: &Piece) -> [u64; 4] {
    let (first_head, first_key) = match counts {
        Counts::Keys => (piece.heads.start, piece.rows.start),
        counts if counts_query_heads(counts) => (kv_heads(problem, &piece.heads).start, 0),
        _ => (piece.heads.start, 0),
    };
    let extent = (problem.stageable_keys(), problem.shape().heads_kv);
    in_texels(extent, [piece.batch.start, first_head, first_key])
}

/// Where a piece's query rows are staged: offset and strides of batch, head and row, in rows.
pub(crate) fn staged_rows(problem: &Problem, counts: Counts, piece: &Piece) -> [u64; 4] {
    let group = if counts_query_heads(counts) { 1 } else { problem.shape().group() };
    let first_row = if counts == Counts::StoredRows { piece.rows.start } else { 0 };
    let extent = (problem.stored_queries(), problem.shape().heads_q);
    in_texels(extent, [piece.batch.start, piece.heads.start * group, first_row])
}

/// The place of (batch, head, row) among rows that are numbered through (batches, heads, rows), and the strides along these.
fn in_texels(([batches, rows], heads): ([u32; 2], u32), [batch, head, row]: [u32; 3]) -> [u64; 4] {
    // If rows are staged, these numbers are far below 2⁶⁴, since textures hold the rows. Otherwise nothing reads them.
    let of_head = u64::from(rows);
    // Ragged rows have one batch, whatever the sequence.
    let of_batch = if batches > 1 { of_head * u64::from(heads) } else { 0 };
    let first = u64::from(batch).wrapping_mul(of_batch).wrapping_add(u64::from(head) * of_head + u64::from(row));
    [first, of_batch, of_head, 1]
}

/// The whole buffer, for an operand that a kernel may index anywhere.
fn whole(resource: Resource, binding: u32, view: &View) -> Slice {
    Slice { resource, binding, offset_bytes: 0, size_bytes: view.size_bytes(), first: 0, stride: view.stride }
}

/// The slice that holds what lies in these ranges along the axes, and the same again `further` elements on.
pub(super) fn slice(
    resource: Resource,
    binding: u32,
    view: &View,
    axes: &[Range<u32>; 4],
    further: u64,
    alignment: u64,
) -> Slice {
    if axes.iter().any(Range::is_empty) {
        return Slice { resource, binding, offset_bytes: 0, size_bytes: 0, first: 0, stride: [0; 4] };
    }
    // A view of a problem begins at its buffer's start or later, and ends within 64 bits.
    let in_range = |place: i128| u64::try_from(place).unwrap_or(u64::MAX);
    let first = view.index(axes.clone().map(|axis| axis.start));
    let (lowest, highest) = view.reach(axes);
    let (lowest, end) = (in_range(lowest), in_range(highest).saturating_add(further).saturating_add(1));
    let start_bytes = lowest * view.element_bytes / alignment * alignment;
    let mut stride = view.stride;
    for (stride, axis) in stride.iter_mut().zip(axes) {
        if axis.end - axis.start == 1 {
            *stride = 0;
        }
    }
    Slice {
        resource,
        binding,
        offset_bytes: start_bytes,
        size_bytes: (end * view.element_bytes - start_bytes).next_multiple_of(4),
        first: first - start_bytes / view.element_bytes,
        stride,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::caps::Caps;
    use crate::kernel::select::candidates;
    use crate::problem::builder::Slopes;
    use crate::problem::dtype::Dtype;
    use crate::problem::layout::ScoreLayout;
    use crate::problem::sequences::Pages;
    use crate::problem::shape::Shape;

    /// The slice of an operand that a piece uses: byte offset, size in bytes, first element, and strides.
    fn touched(problem: &Problem, operand: Operand, piece: &Piece) -> (u64, u64, u64, [i64; 4]) {
        let caps = Caps::from_limits(&wgpu::Limits { max_storage_buffers_per_shader_stage: 16, ..Default::default() });
        let kernel = candidates(problem, &caps).expect("runs everywhere")[0].kernel();
        assert_eq!(kernel.block.counts, Counts::Rows, "many rows");
        let split = Split { step: 64, parts: 1 };
        let slice = slices(&kernel, problem, split, piece, 16)
            .find(|slice| slice.resource == Resource::Operand(operand))
            .expect("it is bound");
        (slice.offset_bytes, slice.size_bytes, slice.first, slice.stride)
    }

    #[test]
    fn tables_are_bound_from_the_piece_on() {
        let shape = Shape::new(3, 10, 100, 8).kv_heads(5).kv_len(64);
        let program = "fn mask_mod(at: At) -> bool { return aux[at.key] > 0.0; }";
        let problem =
            Problem::builder(shape).alibi(Slopes::PerBatchAndHead).sinks().kv_lengths().aux(77).mask_mod(program);
        let problem = problem.build().expect("valid");
        let piece = Piece { batch: 1..3, heads: 3..7, rows: 10..40, columns: 0..8 };
        // 10 slopes per batch: those of batch 1 begin at index 10, and head 3 has index 13. The last index is 26.
        assert_eq!(touched(&problem, Operand::AlibiSlopes, &piece), (48, 60, 1, [10, 1, 0, 0]));
        assert_eq!(touched(&problem, Operand::Sinks, &piece), (0, 28, 3, [0, 1, 0, 0]));
        assert_eq!(touched(&problem, Operand::KvLengths, &piece), (0, 12, 0, [1, 0, 0, 0]));
        assert_eq!(touched(&problem, Operand::Aux, &piece), (0, 308, 0, [0; 4]), "all of it, wherever the piece is");
    }

    #[test]
    fn operands_are_bound_from_the_piece_on() {
        let problem = Problem::builder(Shape::new(3, 4, 100, 8).kv_heads(2).kv_len(64).value_dim(300));
        let problem = problem.build().expect("valid");
        let piece = Piece { batch: 1..3, heads: 2..4, rows: 10..40, columns: 256..300 };
        // Of Q all columns: 3200 numbers per batch, 800 per head. Of V those of the piece, in KV head 1.
        assert_eq!(
            touched(&problem, Operand::Q, &piece),
            (19_520, 4 * (8000 + 800 + 320 - 4880), 0, [3200, 800, 8, 1])
        );
        let (v, end) = (38_400 + 19_200 + 256, 2 * 38_400 + 2 * 19_200);
        assert_eq!(touched(&problem, Operand::V, &piece), (4 * v, 4 * (end - v), 0, [38_400, 0, 300, 1]));
        let (out, end) = (4 * 30_000 + 2 * 30_000 + 3000 + 256, 8 * 30_000 + 3 * 30_000 + 12_000);
        assert_eq!(touched(&problem, Operand::Out, &piece), (4 * out, 4 * (end - out), 0, [120_000, 30_000, 300, 1]));
    }

    /// A stride that nothing is multiplied by may be past 32 bits, which the parameters cannot hold.
    #[test]
    fn an_axis_of_one_index_has_no_stride() {
        let problem = Problem::builder(Shape::new(3, 4, 100, 8)).build().expect("valid");
        let stride = |batch, heads, rows| touched(&problem, Operand::Q, &Piece { batch, heads, rows, columns: 0..8 }).3;
        assert_eq!(stride(0..3, 0..4, 0..100), [3200, 800, 8, 1]);
        assert_eq!(stride(1..2, 0..4, 0..100), [0, 800, 8, 1]);
        assert_eq!(stride(0..3, 3..4, 0..100), [3200, 0, 8, 1]);
        assert_eq!(stride(0..3, 0..2, 99..100), [3200, 800, 0, 1]);
        // The end of the first range is 1, and the second has two indices.
        assert_eq!(stride(0..1, 1..3, 0..1), [0, 800, 0, 1]);
    }

    /// The index ranges of an operand that a piece uses, if the kernel's rows count this.
    fn ranges(problem: &Problem, operand: Operand, counts: Counts, columns: Columns, piece: &Piece) -> [Range<u32>; 4] {
        let view = problem.view(operand).expect("it is used");
        axes(&view, problem, Block { counts, rows: 16, threads: 64, columns }, piece)
    }

    /// A workgroup of the bias' gradient visits the batches and heads that share its elements.
    #[test]
    fn what_shares_a_bias_is_bound_as_a_whole() {
        let shape = Shape::new(3, 4, 45, 8).kv_heads(2).kv_len(70);
        let of_q = |bias| {
            let biased = Problem::builder(shape).bias(Dtype::F32, ScoreLayout::broadcast(bias)).lse();
            let gradients = biased.build().expect("valid").gradients().of([Operand::Dbias]).build().expect("valid");
            let piece = Piece { batch: 1..2, heads: 2..3, rows: 10..20, columns: 0..8 };
            ranges(gradients.problem(), Operand::Q, Counts::BiasRows(16), Columns::None, &piece)
        };
        assert_eq!(of_q([3, 4, 45, 70]), [1..2, 2..3, 0..45, 0..8]);
        assert_eq!(of_q([1, 4, 45, 70]), [0..3, 2..3, 0..45, 0..8]);
        assert_eq!(of_q([3, 1, 45, 70]), [1..2, 0..4, 0..45, 0..8]);
    }

    #[test]
    fn columns_are_cut_only_where_the_kernel_computes_them() {
        let problem = Problem::builder(Shape::new(1, 1, 10, 8).value_dim(300)).build().expect("valid");
        let piece = Piece { batch: 0..1, heads: 0..1, rows: 0..10, columns: 256..300 };
        let [.., columns] = ranges(&problem, Operand::V, Counts::Rows, Columns::Values, &piece);
        assert_eq!(columns, 256..300);
        let [.., columns] = ranges(&problem, Operand::V, Counts::Rows, Columns::OfProducts, &piece);
        assert_eq!(columns, 0..300);
    }

    /// Ragged queries of any sequence may be in a block of them. Where blocks count something else, they do not matter.
    #[test]
    fn all_ragged_queries_are_bound_only_for_blocks_of_queries() {
        let problem = Problem::builder(Shape::new(3, 4, 45, 8).kv_len(70)).ragged_q(90).build().expect("valid");
        let piece = Piece { batch: 0..1, heads: 2..3, rows: 10..20, columns: 0..8 };
        let of = |operand, counts| ranges(&problem, operand, counts, Columns::None, &piece);
        assert_eq!(of(Operand::Q, Counts::Rows), [0..1, 2..3, 0..90, 0..8]);
        assert_eq!(of(Operand::Q, Counts::StoredRows), [0..1, 2..3, 10..20, 0..8]);
        assert_eq!(of(Operand::K, Counts::Keys), [0..1, 2..3, 10..20, 0..8]);
        assert_eq!(of(Operand::CuSeqlensQ, Counts::Rows), [0..4, 0..1, 0..1, 0..1]);
        assert_eq!(
            [Counts::StoredRows, Counts::Rows].map(|counts| staged_rows(&problem, counts, &piece)[0]),
            [190, 180]
        );
    }

    #[test]
    fn tables_are_bound_as_a_whole() {
        let paged = Problem::builder(Shape::new(3, 4, 45, 8).kv_len(70))
            .paged_kv(Pages { count: 9, size: 16 })
            .kv_lengths()
            .build()
            .expect("valid");
        let piece = Piece { batch: 1..2, heads: 2..3, rows: 10..20, columns: 0..8 };
        let ranges = ranges(&paged, Operand::BlockTable, Counts::Rows, Columns::None, &piece);
        assert_eq!(ranges, [0..3, 0..1, 0..1, 0..5]);
    }

    #[test]
    fn weights_of_chosen_heads_and_rows_are_bound_where_they_are_stored() {
        let problem = Problem::builder(Shape::new(1, 4, 45, 8)).weights_of([3, 1], 5..40).build().expect("valid");
        let piece = Piece { batch: 0..1, heads: 1..2, rows: 10..20, columns: 0..8 };
        let of = |operand| ranges(&problem, operand, Counts::Rows, Columns::None, &piece);
        assert_eq!(of(Operand::Weights), [0..1, 1..2, 5..15, 0..45]);
        assert_eq!(of(Operand::Q), [0..1, 1..2, 10..20, 0..8]);
    }

    #[test]
    fn what_runs_backwards_is_bound_from_its_lowest_element_on() {
        // The table of head h has 199 numbers and begins at 199 h; row i reads from 99 − i on.
        let relative = ScoreLayout::strided([0, 199, -1, 1]).at(99);
        let problem = Problem::builder(Shape::new(1, 4, 100, 8)).bias(Dtype::F32, relative).build().expect("valid");
        let piece = Piece { batch: 0..1, heads: 1..3, rows: 30..50, columns: 0..8 };
        // From 199 + 99 − 49 = 249 to 2 · 199 + 99 − 30 + 99 = 566; the piece's first row begins at 268.
        let (offset, size, first, stride) = touched(&problem, Operand::Bias, &piece);
        assert_eq!((offset, size, first, stride), (249 * 4 / 16 * 16, (567 - 248) * 4, 268 - 248, [0, 199, -1, 1]));
    }
}
