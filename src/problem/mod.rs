//! The description of an attention problem: plain data, checked once, without a GPU.

pub(crate) mod block_mask;
pub(crate) mod builder;
mod check;
pub(crate) mod dtype;
pub(crate) mod error;
pub(crate) mod function;
pub(crate) mod layout;
pub(crate) mod mask;
pub(crate) mod merge;
pub(crate) mod number;
pub(crate) mod operand;
pub(crate) mod positions;
pub(crate) mod program;
pub(crate) mod shape;

use block_mask::BlockMask;
use builder::{ProblemBuilder, Sharing, Slopes};
use dtype::Dtype;
use layout::{Layout, ScoreLayout, View};
use mask::MaskFormat;
use number::Number;
use operand::Operand;
use positions::{Band, Diagonal, Window, band};
use program::Programs;
use shape::Shape;

/// A checked attention problem: `O = softmax(scale · Q Kᵀ → softcap → score_mod → + bias → − ALiBi → mask) V`.
///
/// ```
/// use wgpu_attention::{Diagonal, Dtype, Problem, Shape};
/// # fn main() -> Result<(), wgpu_attention::ProblemError> {
/// // 32 query heads share 8 KV heads; the 16 new tokens come after those already in a cache of capacity 4096.
/// let shape = Shape::new(1, 32, 16, 128).kv_heads(8).kv_len(4096);
/// let problem = Problem::builder(shape).dtype(Dtype::F16).causal(Diagonal::BottomRight).kv_lengths().build()?;
/// assert_eq!(problem.scale(), 1.0 / 128f32.sqrt());
///
/// let error = Problem::builder(shape.kv_heads(5)).build().unwrap_err();
/// assert!(error.to_string().contains("heads_q = 32 is not a multiple of heads_kv = 5"));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    spec: ProblemBuilder,
}

impl Problem {
    /// Starts from dense, unmasked f32 attention in (B, H, L, D).
    pub fn builder(shape: Shape) -> ProblemBuilder {
        ProblemBuilder::new(shape)
    }

    /// Returns the builder that describes this problem, to change some of its settings.
    pub fn to_builder(self) -> ProblemBuilder {
        self.spec
    }

    /// The sizes of the problem.
    pub const fn shape(&self) -> Shape {
        self.spec.shape
    }

    /// The element type of an operand; `None` if the problem does not use it, or if it holds no floating-point
    /// numbers.
    pub fn dtype(&self, operand: Operand) -> Option<Dtype> {
        self.uses(operand).then(|| self.spec.dtype_of(operand)).flatten()
    }

    /// The factor on Q Kᵀ.
    pub fn scale(&self) -> f32 {
        let given = self.spec.scale.map(|Number(scale)| scale);
        given.unwrap_or_else(|| (self.spec.shape.dim_qk as f32).sqrt().recip())
    }

    /// The cap on the scaled scores, if there is one.
    pub fn softcap(&self) -> Option<f32> {
        self.spec.softcap.map(|Number(cap)| cap)
    }

    /// Whether keys past the diagonal are hidden.
    pub const fn is_causal(&self) -> bool {
        self.spec.causal
    }

    /// The key that query row 0 stands at.
    pub const fn diagonal(&self) -> Diagonal {
        self.spec.diagonal
    }

    /// The sliding window.
    pub const fn window(&self) -> Window {
        self.spec.window
    }

    /// How the boolean mask is stored, if there is one.
    pub fn mask_format(&self) -> Option<MaskFormat> {
        self.spec.mask.map(|(format, _)| format)
    }

    /// Whether outputs may be parts of the same buffers as inputs.
    pub fn shares_buffers(&self) -> bool {
        self.spec.sharing == Sharing::Shared
    }

    pub(crate) const fn sharing(&self) -> Sharing {
        self.spec.sharing
    }

    /// The tiles of the block mask, if there is one.
    pub const fn block_mask(&self) -> Option<BlockMask> {
        self.spec.block_mask
    }

    /// The user's programs in the score.
    pub(crate) const fn programs(&self) -> &Programs {
        &self.spec.programs
    }

    /// Whether a bias, ALiBi or a `score_mod` changes the scaled scores, in natural units.
    pub(crate) fn adds_to_scores(&self) -> bool {
        self.spec.bias.is_some() || self.spec.alibi.is_some() || self.spec.programs.score_mod.is_some()
    }

    /// Whether this problem uses an operand.
    pub fn uses(&self, operand: Operand) -> bool {
        self.view(operand).is_some()
    }

    /// The views of the operands that this problem uses, in the order of [`Operand::ALL`].
    pub fn views(&self) -> impl Iterator<Item = View> + use<> {
        let problem = self.clone();
        Operand::ALL.into_iter().filter_map(move |operand| problem.view(operand))
    }

    /// The layout of an operand in its buffer, if the problem uses the operand.
    pub fn view(&self, operand: Operand) -> Option<View> {
        let shape = self.spec.shape;
        let element_bytes = match (operand, self.spec.dtype_of(operand), self.mask_format()) {
            (Operand::Mask, _, Some(format)) => format.size_bytes(),
            // Lengths and the numbers of tiles are as large as an f32.
            (_, dtype, _) => dtype.unwrap_or(Dtype::F32).size_bytes(),
        };
        let Shape { batch, heads_q, heads_kv, len_q, len_kv, dim_qk, dim_v } = shape;
        let rows = |layout: Option<Layout>, heads, len, dim| {
            let layout = layout.unwrap_or(Layout::bhld(heads, len, dim));
            View::of_rows(operand, layout, [batch, heads, len, dim], element_bytes)
        };
        let scores = |layout: ScoreLayout| {
            let ScoreLayout { offset, stride, .. } = layout;
            View { operand, offset, extent: shape.scores(), stride, element_bytes }
        };
        match operand {
            Operand::Q => Some(rows(self.spec.q, heads_q, len_q, dim_qk)),
            Operand::K => Some(rows(self.spec.k, heads_kv, len_kv, dim_qk)),
            Operand::V => Some(rows(self.spec.v, heads_kv, len_kv, dim_v)),
            Operand::Out => Some(rows(self.spec.out, heads_q, len_q, dim_v)),
            Operand::Lse => self.spec.lse.then(|| rows(self.spec.lse_layout, heads_q, len_q, 1)),
            Operand::Weights => self.spec.weights.then(|| rows(None, heads_q, len_q, len_kv)),
            Operand::Mask => self.spec.mask.map(|(_, layout)| scores(layout)),
            Operand::Bias => self.spec.bias.map(|(_, layout)| scores(layout)),
            Operand::AlibiSlopes => self.spec.alibi.map(|slopes| View {
                operand,
                offset: 0,
                extent: [batch, heads_q, 1, 1],
                stride: [if slopes == Slopes::PerHead { 0 } else { heads_q.into() }, 1, 0, 0],
                element_bytes,
            }),
            Operand::Sinks => self.spec.sinks.then_some(View {
                operand,
                offset: 0,
                extent: [1, heads_q, 1, 1],
                stride: [0, 1, 0, 0],
                element_bytes,
            }),
            Operand::Aux => self.spec.aux.map(|len| View {
                operand,
                // The view has one element, the last, because an extent of 32 bits cannot count all of them.
                offset: len.saturating_sub(1),
                extent: [u32::from(len > 0), 1, 1, 1],
                stride: [0; 4],
                element_bytes,
            }),
            Operand::BlockMask => self.spec.block_mask.map(|tiles| {
                let [batches, heads] = [(tiles.per_batch, batch), (tiles.per_head, heads_q)];
                let [batches, heads] = [batches, heads].map(|(has_own, n)| if has_own { n } else { n.min(1) });
                let (rows, columns) = (len_q.div_ceil(tiles.rows), len_kv.div_ceil(tiles.keys));
                // A head has at most 2²⁹ by 2²⁴ tiles.
                let head = i64::from(rows) * i64::from(columns);
                let of_batch = if tiles.per_batch { head.saturating_mul(heads.into()) } else { 0 };
                let stride = [of_batch, if tiles.per_head { head } else { 0 }, columns.into(), 1];
                View { operand, offset: 0, extent: [batches, heads, rows, columns], stride, element_bytes }
            }),
            Operand::KvLengths => self.spec.kv_lengths.then_some(View {
                operand,
                offset: 0,
                extent: [batch, 1, 1, 1],
                stride: [1, 0, 0, 0],
                element_bytes,
            }),
            Operand::PairOut | Operand::PairLse => None,
        }
    }

    pub(crate) fn band(&self) -> Band {
        band(self.spec.diagonal, self.spec.causal, self.spec.window, self.spec.shape.len_q)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed_qkv_tiles_one_row(shape: Shape) {
        let [q, k, v] = Layout::packed_qkv(&shape);
        let problem = Problem::builder(shape).q(q).k(k).v(v).build().expect("packed layouts are valid");
        let mut seen = std::collections::BTreeSet::new();
        for operand in [Operand::Q, Operand::K, Operand::V] {
            let view = problem.view(operand).expect("always used");
            for batch in 0..view.extent[0] {
                for head in 0..view.extent[1] {
                    for row in 0..view.extent[2] {
                        for col in 0..view.extent[3] {
                            assert!(seen.insert(view.index([batch, head, row, col])), "{operand} overlaps");
                        }
                    }
                }
            }
        }
        assert_eq!(seen.len() as u64, seen.last().map_or(0, |last| last + 1), "packed without gaps");
    }

    #[test]
    fn packed_qkv_covers_each_element_once() {
        packed_qkv_tiles_one_row(Shape::new(2, 4, 3, 5).kv_heads(2).value_dim(7));
    }
}
