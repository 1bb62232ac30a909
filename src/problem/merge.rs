//! The description of a merge: results of attention over different keys, to be combined.

use crate::problem::dtype::Dtype;
use crate::problem::error::ProblemError;
use crate::problem::layout::{Layout, View};
use crate::problem::operand::Operand;
use crate::problem::positions::LONGEST;
use crate::problem::shape::Shape;

/// Unless given, strides from pair to pair are a multiple of this. No device binds at coarser steps, so each pair can be
/// bound by itself.
const PAIR_BYTES: u64 = 256;

/// A checked merge of pairs (O, LSE), as many as wanted, into the pair over the keys of all of them:
/// `m = max LSEᵢ; wᵢ = exp(LSEᵢ − m); O = Σ wᵢ Oᵢ / Σ wᵢ; LSE = m + ln Σ wᵢ`.
///
/// A pair is the output and the [log-sum-exp](crate::ProblemBuilder::lse) of attention over some of the keys. Each key
/// must be in one pair only, and so must a sink. All outputs are stacked in one buffer and all log-sum-exps in another,
/// so any number of pairs needs four bindings. Attention writes each pair to its place by itself:
///
/// ```
/// use wgpu_attention::{Attention, Merge, Operand, Operands, Problem, Shape};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (device, _queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
/// # let buffer = |size: Option<u64>| device.create_buffer(&wgpu::BufferDescriptor {
/// #     label: None,
/// #     size: size.unwrap_or_default(),
/// #     usage: wgpu::BufferUsages::STORAGE,
/// #     mapped_at_creation: false,
/// # });
/// # let [q, k, v] = [16, 1000, 1000].map(|rows| buffer(Some(8 * rows * 64 * 4)));
/// // 8 heads of 16 queries, over 5 chunks of 1000 keys.
/// let shape = Shape::new(1, 8, 16, 64).kv_len(1000);
/// let attention = Attention::new(&device);
/// let chunk = attention.plan(&Problem::builder(shape).lse().build()?)?;
/// let merge = Merge::builder(shape, 5).build()?;
/// let [outs, lses, out] =
///     [Operand::PairOut, Operand::PairLse, Operand::Out].map(|operand| buffer(merge.size_bytes(operand)));
///
/// let whole = wgpu::Buffer::as_entire_buffer_binding;
/// let mut calls = Vec::new();
/// for n in 0..merge.pairs() {
///     // With the keys and values of chunk n.
///     let operands = Operands::new(whole(&q), whole(&k), whole(&v), merge.pair(Operand::PairOut, n, &outs)?);
///     calls.push(chunk.bind(&operands.with(Operand::Lse, merge.pair(Operand::PairLse, n, &lses)?))?);
/// }
/// let operands = Operands::of_pairs(whole(&outs), whole(&lses), whole(&out));
/// calls.push(attention.plan_merge(&merge)?.bind(&operands)?);
/// # Ok(()) }
/// ```
///
/// | question | answer |
/// |---|---|
/// | a pair that saw no key (LSE = −∞) | contributes nothing, even if its output is NaN |
/// | all pairs saw no key | output exactly 0, LSE −∞ |
/// | a pair whose weight f32 takes for 0 | contributes nothing either |
/// | a LSE of NaN or +∞ | makes the output and the LSE of that row NaN; other rows are not affected |
/// | NaN or ∞ in an output | reaches those elements of the row, unless the pair contributes nothing |
/// | one pair, or one that contributes | has its values unchanged, as the output's type stores them (−0 may become 0) |
/// | the order of the pairs, or merging merged pairs | changes results only by rounding |
/// | outputs | are summed in f32 before the division: safe up to 3.4e38 / pairs in magnitude |
/// | head sizes | any, also above those of attention |
/// | no rows (`batch` or `len_q` = 0) | nothing is computed; this is not an error |
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Merge {
    spec: MergeBuilder,
}

/// Describes a [`Merge`]; created by [`Merge::builder`]. Nothing is checked before [`build`](Self::build).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct MergeBuilder {
    shape: Shape,
    pairs: u32,
    dtype: Dtype,
    out_dtype: Option<Dtype>,
    pair_out: Option<Layout>,
    pair_out_stride: Option<u64>,
    pair_lse: Option<Layout>,
    pair_lse_stride: Option<u64>,
    out: Option<Layout>,
    lse: Option<Option<Layout>>,
}

/// An operand of a merge: one result per pair, at equal strides. What is written is a stack of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stack {
    /// The result of the first pair.
    pub(crate) first: View,
    pub(crate) pairs: u32,
    /// From pair to pair, in elements.
    pub(crate) stride: u64,
}

impl Stack {
    /// How many elements after those of the first pair those of the last one lie; `None` past 64 bits.
    fn checked_further(&self) -> Option<u64> {
        self.stride.checked_mul((self.pairs - 1).into())
    }

    /// How many elements after those of the first pair those of the last one lie.
    pub(crate) fn further(&self) -> u64 {
        self.checked_further().unwrap_or(u64::MAX)
    }

    /// A view that ends where the stack does: of its last element, if it has several pairs. It is `None` if the size of
    /// the stack in bytes overflows 64 bits.
    fn checked_end(&self) -> Option<View> {
        let first_end = self.first.checked_end()?;
        if self.first.is_empty() || self.pairs == 1 {
            return Some(self.first);
        }
        let last = first_end.checked_add(self.checked_further()?)? - 1;
        let end = View { offset: last, extent: [1; 4], stride: [0; 4], ..self.first };
        end.checked_end().map(|_| end)
    }

    /// A view that ends where the stack does: of its last element, if it has several pairs.
    pub(crate) fn end(&self) -> View {
        self.checked_end().unwrap_or(View { offset: u64::MAX, extent: [1; 4], stride: [0; 4], ..self.first })
    }

    /// Whether each row of each pair starts at a multiple of four elements and has a multiple of four.
    pub(crate) fn is_in_fours(&self) -> bool {
        self.first.is_in_fours() && (self.pairs == 1 || self.stride.is_multiple_of(4))
    }
}

impl MergeBuilder {
    /// The element type of the pairs' outputs, and of the merged output unless it has its own; f32 unless given.
    pub fn dtype(mut self, dtype: Dtype) -> Self {
        self.dtype = dtype;
        self
    }

    /// The element type of the merged output.
    pub fn out_dtype(mut self, dtype: Dtype) -> Self {
        self.out_dtype = Some(dtype);
        self
    }

    /// The layout of each pair's output from where the pair begins; contiguous (B, H, L, D) unless given.
    pub fn pair_out(mut self, layout: Layout) -> Self {
        self.pair_out = Some(layout);
        self
    }

    /// The stride from one pair's output to the next, in elements. Unless given, the next pair begins at the first
    /// multiple of 256 bytes after a pair, so that it can be bound by itself.
    pub fn pair_out_stride(mut self, stride: u64) -> Self {
        self.pair_out_stride = Some(stride);
        self
    }

    /// The layout of each pair's log-sum-exp from where the pair begins, that of rows with one element; contiguous
    /// (B, H, L) unless given. Attention writes the same layout by [`lse_in`](crate::ProblemBuilder::lse_in).
    pub fn pair_lse(mut self, layout: Layout) -> Self {
        self.pair_lse = Some(layout);
        self
    }

    /// The stride from one pair's log-sum-exp to the next, in elements. Unless given, the next pair begins at the first
    /// multiple of 256 bytes after a pair, so that it can be bound by itself.
    pub fn pair_lse_stride(mut self, stride: u64) -> Self {
        self.pair_lse_stride = Some(stride);
        self
    }

    /// The layout of the merged output; contiguous (B, H, L, D) unless given.
    pub fn out(mut self, layout: Layout) -> Self {
        self.out = Some(layout);
        self
    }

    /// Also writes each row's merged log-sum-exp (B, Hq, Lq), f32.
    pub fn lse(mut self) -> Self {
        self.lse = Some(None);
        self
    }

    /// Also writes each row's merged log-sum-exp, in this layout: that of rows with one element.
    pub fn lse_in(mut self, layout: Layout) -> Self {
        self.lse = Some(Some(layout));
        self
    }

    /// Checks the description.
    ///
    /// # Errors
    /// [`ProblemError`] names the field, its value and the bound.
    pub fn build(&self) -> Result<Merge, ProblemError> {
        let Shape { heads_q, len_q, dim_v, .. } = self.shape;
        for (axis, value) in [("heads_q", heads_q), ("dim_v", dim_v), ("pairs", self.pairs)] {
            if value == 0 {
                return Err(ProblemError::Empty { axis });
            }
        }
        for (axis, value) in [("len_q", len_q), ("pairs", self.pairs)] {
            if value > LONGEST {
                return Err(ProblemError::TooLong { axis, value, most: LONGEST });
            }
        }
        let merge = Merge { spec: self.clone() };
        for stack in merge.stacks() {
            let View { operand, stride, extent, .. } = stack.first;
            if stack.checked_end().is_none() {
                return Err(ProblemError::Unaddressable { operand });
            }
            if operand.is_output() && !stack.first.is_injective() {
                return Err(ProblemError::Overlapping { operand, stride, extent });
            }
        }
        Ok(merge)
    }
}

impl Merge {
    /// Starts from contiguous f32 pairs. Of the shape, which may be that of the attention that computes a pair, only
    /// `batch`, `heads_q`, `len_q` and `dim_v` count.
    pub fn builder(shape: Shape, pairs: u32) -> MergeBuilder {
        MergeBuilder {
            shape,
            pairs,
            dtype: Dtype::F32,
            out_dtype: None,
            pair_out: None,
            pair_out_stride: None,
            pair_lse: None,
            pair_lse_stride: None,
            out: None,
            lse: None,
        }
    }

    /// Returns the builder that describes this merge, to change some of its settings.
    pub fn to_builder(self) -> MergeBuilder {
        self.spec
    }

    /// The sizes of a pair: only `batch`, `heads_q`, `len_q` and `dim_v` count.
    pub const fn shape(&self) -> Shape {
        self.spec.shape
    }

    /// The number of pairs.
    pub const fn pairs(&self) -> u32 {
        self.spec.pairs
    }

    /// Whether this merge uses an operand: `pair_out`, `pair_lse` and `out`, and `lse` if it is wanted.
    pub const fn uses(&self, operand: Operand) -> bool {
        match operand {
            Operand::PairOut | Operand::PairLse | Operand::Out => true,
            Operand::Lse => self.spec.lse.is_some(),
            _ => false,
        }
    }

    /// The element type of an operand; `None` if the merge does not use it.
    pub fn dtype(&self, operand: Operand) -> Option<Dtype> {
        let dtype = match operand {
            Operand::PairOut => self.spec.dtype,
            Operand::Out => self.spec.out_dtype.unwrap_or(self.spec.dtype),
            _ => Dtype::F32,
        };
        self.uses(operand).then_some(dtype)
    }

    /// The layout of an operand, if the merge uses it. Of `pair_out` and `pair_lse` it is that of the first pair.
    pub fn view(&self, operand: Operand) -> Option<View> {
        self.stack(operand).map(|stack| stack.first)
    }

    /// The stride from pair to pair, in elements, of `pair_out` or `pair_lse`; `None` for other operands.
    pub fn pair_stride(&self, operand: Operand) -> Option<u64> {
        matches!(operand, Operand::PairOut | Operand::PairLse).then(|| self.stack(operand))?.map(|stack| stack.stride)
    }

    /// The buffer size that an operand needs, in bytes, all pairs included; `None` if the merge does not use it.
    pub fn size_bytes(&self, operand: Operand) -> Option<u64> {
        self.stack(operand).map(|stack| stack.end().size_bytes())
    }

    /// The operands that this merge uses.
    pub(crate) fn stacks(&self) -> impl Iterator<Item = Stack> {
        Operand::ALL.into_iter().filter_map(|operand| self.stack(operand))
    }

    /// An operand, if the merge uses it.
    pub(crate) fn stack(&self, operand: Operand) -> Option<Stack> {
        let spec = &self.spec;
        let (layout, dim, stride) = match operand {
            Operand::PairOut => (spec.pair_out, spec.shape.dim_v, Some(spec.pair_out_stride)),
            Operand::PairLse => (spec.pair_lse, 1, Some(spec.pair_lse_stride)),
            Operand::Out => (spec.out, spec.shape.dim_v, None),
            Operand::Lse => (spec.lse?, 1, None),
            _ => return None,
        };
        let Shape { batch, heads_q, len_q, .. } = spec.shape;
        let element_bytes = self.dtype(operand)?.size_bytes();
        let layout = layout.unwrap_or(Layout::bhld(heads_q, len_q, dim));
        let first = View::of_rows(operand, layout, [batch, heads_q, len_q, dim], element_bytes);
        let after = || first.end().checked_next_multiple_of(PAIR_BYTES / element_bytes).unwrap_or(u64::MAX);
        Some(match stride {
            Some(stride) => Stack { first, pairs: spec.pairs, stride: stride.unwrap_or_else(after) },
            None => Stack { first, pairs: 1, stride: 0 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge(pairs: u32, change: impl FnOnce(MergeBuilder) -> MergeBuilder) -> Merge {
        change(Merge::builder(Shape::new(1, 2, 3, 8), pairs)).build().expect("valid")
    }

    #[test]
    fn pairs_are_in_fours_if_each_begins_and_ends_there() {
        let is_in_fours = |merge: &Merge| merge.stack(Operand::PairOut).expect("it is used").is_in_fours();
        assert!(is_in_fours(&merge(2, |merge| merge.pair_out_stride(52))));
        assert!(!is_in_fours(&merge(2, |merge| merge.pair_out_stride(54))));
        assert!(is_in_fours(&merge(1, |merge| merge.pair_out_stride(54))), "there is no second pair");
        let odd = Layout { offset: 0, batch: 54, head: 27, row: 9 };
        assert!(!is_in_fours(&merge(2, |merge| merge.pair_out(odd).pair_out_stride(64))));
    }

    #[test]
    fn operands_have_the_element_types_that_were_asked_for() {
        let of =
            |merge: &Merge| [Operand::PairOut, Operand::Out, Operand::PairLse, Operand::Lse].map(|o| merge.dtype(o));
        let (half, full) = (Some(Dtype::F16), Some(Dtype::F32));
        assert_eq!(of(&merge(2, |merge| merge.dtype(Dtype::F16))), [half, half, full, None]);
        assert_eq!(of(&merge(2, |merge| merge.out_dtype(Dtype::F16).lse())), [full, half, full, full]);
    }

    /// Results may be read from one place for several rows, but not written there.
    #[test]
    fn only_what_is_written_must_not_overlap() {
        let same = Layout { offset: 0, batch: 0, head: 0, row: 1 };
        merge(2, |merge| merge.pair_lse(same));
        let written = Merge::builder(Shape::new(1, 2, 3, 8), 2).out(Layout { row: 8, ..same });
        let error = written.build().expect_err("heads overlap");
        assert!(matches!(error, ProblemError::Overlapping { operand: Operand::Out, .. }), "{error}");
    }
}
