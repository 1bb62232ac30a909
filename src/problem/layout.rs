//! Where an operand's elements lie inside its buffer.

use std::ops::Range;

use crate::problem::operand::Operand;
use crate::problem::shape::Shape;

/// Strides of `q`, `k`, `v` or the output, in elements. The head dimension itself is contiguous.
///
/// Element (batch, head, row, d) lies at `offset + batch·batch_stride + head·head_stride + row·row_stride + d`. If the
/// offset, the strides and the head size are multiples of four, the shader loads four elements at a time. Other layouts
/// work, but more slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Index of the first element.
    pub offset: u64,
    /// Stride from one batch to the next.
    pub batch: u64,
    /// Stride from one head to the next.
    pub head: u64,
    /// Stride from one row (token) to the next.
    pub row: u64,
}

impl Layout {
    /// (B, H, L, D), contiguous: what `torch`'s SDPA and ONNX's 4-D attention use.
    pub const fn bhld(heads: u32, len: u32, dim: u32) -> Self {
        let (heads, len, dim) = (heads as u64, len as u64, dim as u64);
        let head = len * dim;
        Self { offset: 0, batch: heads.saturating_mul(head), head, row: dim }
    }

    /// (B, L, H, D), contiguous; the same bytes as packed (B, L, H·D).
    pub const fn blhd(heads: u32, len: u32, dim: u32) -> Self {
        let (heads, len, dim) = (heads as u64, len as u64, dim as u64);
        let row = heads * dim;
        Self { offset: 0, batch: len.saturating_mul(row), head: dim, row }
    }

    /// Query, key and value of one projection (B, L, Hq·Dqk + Hkv·Dqk + Hkv·Dv), packed in one buffer. No copy is
    /// needed.
    ///
    /// Bind the same buffer as `q`, `k` and `v`. Needs `shape.len_q == shape.len_kv`, since queries and keys are the
    /// same tokens.
    pub const fn packed_qkv(shape: &Shape) -> [Self; 3] {
        let (dim_qk, dim_v) = (shape.dim_qk as u64, shape.dim_v as u64);
        let (heads_q, heads_kv) = (shape.heads_q as u64, shape.heads_kv as u64);
        let offset_k = heads_q * dim_qk;
        let offset_v = offset_k.saturating_add(heads_kv * dim_qk);
        let row = offset_v.saturating_add(heads_kv * dim_v);
        let q = Self { offset: 0, batch: row.saturating_mul(shape.len_q as u64), head: dim_qk, row };
        [q, q.at(offset_k), Self { offset: offset_v, head: dim_v, ..q }]
    }

    /// Any strides, in elements, for (batch, head, row). A stride of 0 broadcasts. The elements of a row are contiguous.
    pub const fn strided([batch, head, row]: [u64; 3]) -> Self {
        Self { offset: 0, batch, head, row }
    }

    /// The same layout, starting at element `offset`.
    #[must_use]
    pub const fn at(self, offset: u64) -> Self {
        Self { offset, ..self }
    }
}

/// Strides of an operand shaped like the scores, (B, Hq, Lq, Lk): a mask or a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScoreLayout {
    pub(crate) offset: u64,
    pub(crate) stride: [i64; 4],
    /// The shape that the caller gave, which is checked against the problem; `None` if the caller gave strides.
    pub(crate) dims: Option<[u32; 4]>,
}

impl ScoreLayout {
    /// A contiguous tensor of shape (batch, heads, queries, keys). Each size is either the problem's or 1, which
    /// broadcasts.
    ///
    /// A key padding mask (B, Lk) is `[b, 1, 1, lk]`; a bias shared by the batch is `[1, h, lq, lk]`.
    pub const fn broadcast(dims: [u32; 4]) -> Self {
        let mut stride = [0; 4];
        let (mut axis, mut step) = (4, 1_i64);
        while axis > 0 {
            axis -= 1;
            if dims[axis] != 1 {
                stride[axis] = step;
            }
            step = step.saturating_mul(dims[axis] as i64);
        }
        Self { offset: 0, stride, dims: Some(dims) }
    }

    /// Any strides, in elements, for (batch, head, query, key). A stride of 0 broadcasts, and a negative stride runs
    /// backwards from the offset.
    ///
    /// A bias that depends only on the distance between query and key, as in T5 and Swin, needs no Lq × Lk tensor: a
    /// table of 2L − 1 numbers per head, with distance 0 in the middle, is read along diagonals.
    ///
    /// ```
    /// use wgpu_attention::{Dtype, Problem, ScoreLayout, Shape};
    /// # fn main() -> Result<(), wgpu_attention::ProblemError> {
    /// let (heads, len) = (8, 100);
    /// // Element h · (2L − 1) + (L − 1) + (key − query) is the bias of head h.
    /// let relative = ScoreLayout::strided([0, 2 * i64::from(len) - 1, -1, 1]).at(u64::from(len) - 1);
    /// let problem = Problem::builder(Shape::new(1, heads, len, 64)).bias(Dtype::F32, relative).build()?;
    /// # let _ = problem;
    /// # Ok(()) }
    /// ```
    pub const fn strided(stride: [i64; 4]) -> Self {
        Self { offset: 0, stride, dims: None }
    }

    /// The same layout, starting at element `offset`.
    #[must_use]
    pub const fn at(self, offset: u64) -> Self {
        Self { offset, ..self }
    }

    /// The sizes along (batch, head, query, key), with 1 for each axis that it broadcasts.
    pub(crate) fn sizes(&self, shape: Shape) -> [u32; 4] {
        let mut sizes = shape.scores();
        for (size, stride) in sizes.iter_mut().zip(self.stride) {
            if stride == 0 {
                *size = (*size).min(1);
            }
        }
        sizes
    }
}

/// The layout of an operand in its buffer: what to bind, how to index it, and how far it reaches.
///
/// All code that accesses memory uses this type: the checks, the shader's parameters, the slices of a large tensor, the
/// reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The operand that this view describes.
    pub operand: Operand,
    /// Index of the element at 0 along every axis. (For [`Operand::Aux`], which has no axes, it is the last element.)
    pub offset: u64,
    /// Number of elements along (batch, head, row, column).
    pub extent: [u32; 4],
    /// Strides along the same axes, in elements.
    pub stride: [i64; 4],
    /// Bytes per element.
    pub element_bytes: u64,
}

impl View {
    /// Rows of `extent[3]` contiguous elements.
    pub(crate) fn of_rows(operand: Operand, layout: Layout, extent: [u32; 4], element_bytes: u64) -> Self {
        let Layout { offset, batch, head, row } = layout;
        // A stride that does not fit 63 bits is clamped. An axis of 2 or more then reaches past 2⁶⁴ bytes and is
        // refused; an axis of 1 does not use its stride.
        let [batch, head, row] = [batch, head, row].map(|stride| i64::try_from(stride).unwrap_or(i64::MAX));
        Self { operand, offset, extent, stride: [batch, head, row, 1], element_bytes }
    }

    /// Whether each row starts at a multiple of four elements and has a multiple of four.
    pub(crate) fn is_in_fours(&self) -> bool {
        let [batch, head, row, _] = self.stride;
        self.offset.is_multiple_of(4) && [batch, head, row, self.extent[3].into()].iter().all(|n| n % 4 == 0)
    }

    /// The index of the element at `[batch, head, row, column]`, or `u64::MAX` if the index does not fit 64 bits or is
    /// negative, which does not happen in a view of a [`Problem`](crate::Problem).
    pub fn index(&self, at: [u32; 4]) -> u64 {
        u64::try_from(self.place(at)).unwrap_or(u64::MAX)
    }

    /// The index of an element, which may be negative or past 64 bits. 128 bits hold any sum of such products.
    fn place(&self, at: [u32; 4]) -> i128 {
        let steps = at.into_iter().zip(self.stride).map(|(i, stride)| i128::from(i) * i128::from(stride));
        i128::from(self.offset) + steps.sum::<i128>()
    }

    /// Whether the view has no elements, because an axis has length 0.
    pub fn is_empty(&self) -> bool {
        self.extent.contains(&0)
    }

    /// The lowest and the highest index of the elements in these ranges along the axes, none of which may be empty.
    pub(crate) fn reach(&self, axes: &[Range<u32>; 4]) -> (i128, i128) {
        let [mut lowest, mut highest] = [i128::from(self.offset); 2];
        for (range, stride) in axes.iter().zip(self.stride) {
            let [near, far] = [range.start, range.end - 1].map(|at| i128::from(at) * i128::from(stride));
            // An axis with a negative stride begins with its highest element.
            lowest += near.min(far);
            highest += near.max(far);
        }
        (lowest, highest)
    }

    /// The lowest index of an element. The view must have elements, and none before its buffer.
    pub(crate) fn first(&self) -> u64 {
        u64::try_from(self.reach(&self.extent.map(|n| 0..n)).0).unwrap_or(0)
    }

    /// Whether the view reaches before the first element of its buffer.
    pub(crate) fn reaches_before_buffer(&self) -> bool {
        !self.is_empty() && self.reach(&self.extent.map(|n| 0..n)).0 < 0
    }

    /// The index one past the last element, or `None` if the buffer's size in bytes overflows 64 bits.
    pub fn checked_end(&self) -> Option<u64> {
        if self.is_empty() {
            return Some(0);
        }
        let (_, last) = self.reach(&self.extent.map(|n| 0..n));
        let end = u64::try_from(last).ok()?.checked_add(1)?;
        end.checked_mul(self.element_bytes)?.checked_next_multiple_of(4)?;
        Some(end)
    }

    /// The index one past the last element; 0 if the view is empty.
    pub fn end(&self) -> u64 {
        self.checked_end().unwrap_or(u64::MAX)
    }

    /// The buffer size that this operand needs, in bytes. It is a multiple of four, as WebGPU requires of bindings.
    pub fn size_bytes(&self) -> u64 {
        self.end().saturating_mul(self.element_bytes).checked_next_multiple_of(4).unwrap_or(u64::MAX)
    }

    /// Whether no two elements share an index, for a view that ends within 64 bits. The test is that each stride
    /// reaches past everything that the smaller strides span. That is sufficient in general, and exact for every
    /// nesting of rows.
    pub(crate) fn is_injective(&self) -> bool {
        if self.is_empty() {
            return true;
        }
        let mut axes: Vec<(u64, u64)> = (self.stride.into_iter().zip(self.extent))
            .filter(|&(_, n)| n > 1)
            .map(|(stride, n)| (stride.unsigned_abs(), u64::from(n)))
            .collect();
        axes.sort_unstable();
        let mut span = 1;
        axes.into_iter().all(|(stride, n)| {
            let clear = stride >= span;
            span += stride * (n - 1);
            clear
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_that_is_broadcast_has_one_size_unless_it_is_empty() {
        let layout = ScoreLayout::strided([0, 7, 0, 1]);
        assert_eq!(layout.sizes(Shape::new(2, 3, 5, 8).kv_len(7)), [1, 3, 1, 7]);
        assert_eq!(layout.sizes(Shape::new(0, 3, 0, 8).kv_len(7)), [0, 3, 0, 7]);
    }
}
