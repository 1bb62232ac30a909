//! The description of an attention problem: plain data, checked once, without a GPU.

pub(crate) mod append;
pub(crate) mod block_mask;
pub(crate) mod builder;
mod check;
pub(crate) mod dropout;
pub(crate) mod dtype;
pub(crate) mod error;
pub(crate) mod function;
pub(crate) mod gradients;
pub(crate) mod layout;
pub(crate) mod mask;
pub(crate) mod merge;
pub(crate) mod number;
pub(crate) mod operand;
pub(crate) mod positions;
pub(crate) mod program;
pub(crate) mod quantization;
pub(crate) mod sequences;
pub(crate) mod shape;
mod wanted;
pub(crate) mod weight_rows;

use append::{Append, Rotary};
use block_mask::BlockMask;
use builder::{ProblemBuilder, Sharing, Slopes};
use dropout::{Dropout, Philox, RngState};
use dtype::Dtype;
use layout::{Layout, ScoreLayout, View};
use mask::MaskFormat;
use number::Number;
use operand::Operand;
use positions::{Band, Diagonal, Window, band};
use program::Programs;
use quantization::Quantization;
use sequences::{Keys, Pages, Queries};
use shape::Shape;
use wanted::Wanted;
use weight_rows::WeightRows;

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

    /// How the keys and values are quantized, if they are.
    pub const fn quantization(&self) -> Option<Quantization> {
        self.spec.quantization
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

    /// The probability with which a weight is dropped; 0 without dropout.
    pub fn dropout_p(&self) -> f32 {
        self.spec.dropout.map_or(0.0, Dropout::p)
    }

    /// Where dropout takes its random numbers from, if there is dropout.
    pub fn rng_state(&self) -> Option<RngState> {
        self.spec.dropout.map(|dropout| dropout.state)
    }

    pub(crate) const fn dropout(&self) -> Option<Dropout> {
        self.spec.dropout
    }

    /// Whether dropout keeps the weight of a pair (batch, query head, query, key), where this is the state of the generator.
    /// Queries and keys are counted within their sequence. The kernels draw the same numbers.
    ///
    /// ```
    /// # use wgpu_attention::{Philox, Problem, RngState, Shape};
    /// let state = Philox::new(42, 0);
    /// let problem = Problem::builder(Shape::new(1, 2, 50, 64)).dropout(0.25, RngState::Fixed(state)).build()?;
    /// let kept = (0..2500).filter(|n| problem.keeps(state, [0, 1, n / 50, n % 50])).count();
    /// assert!((1800..1950).contains(&kept));
    /// # Ok::<(), wgpu_attention::ProblemError>(())
    /// ```
    pub fn keeps(&self, state: Philox, pair: [u32; 4]) -> bool {
        self.spec.dropout.is_none_or(|dropout| dropout.keeps(state, self.spec.shape.heads_q, pair))
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
            // Lengths, the numbers of tiles, the words of quantized keys and of generators are as large as an f32.
            (_, dtype, _) => dtype.unwrap_or(Dtype::F32).size_bytes(),
        };
        let Shape { batch, heads_q, heads_kv, len_q, len_kv, dim_qk, dim_v } = shape;
        let [batches_q, rows_q] = self.stored_queries();
        let [batches_kv, rows_kv] = self.spec.keys.extent(batch, len_kv);
        let rows = |layout: Layout, [batch, len]: [u32; 2], heads, dim| {
            View::of_rows(operand, layout, [batch, heads, len, dim], element_bytes)
        };
        let scores = |layout: ScoreLayout| {
            let ScoreLayout { offset, stride, .. } = layout;
            View { operand, offset, extent: shape.scores(), stride, element_bytes }
        };
        let queries = |layout: Option<Layout>, heads, dim| {
            let usual = match self.spec.queries {
                Queries::All | Queries::Lengths => Layout::bhld(heads, rows_q, dim),
                Queries::Ragged { .. } => Layout::blhd(heads, rows_q, dim),
            };
            rows(layout.unwrap_or(usual), [batches_q, rows_q], heads, dim)
        };
        let keys = |layout: Option<Layout>, dim| {
            let dim = self.spec.quantization.map_or(dim, |quantization| quantization.row_words(dim));
            let usual = match self.spec.keys {
                Keys::Dense | Keys::Ring { .. } => Layout::bhld(heads_kv, rows_kv, dim),
                Keys::Ragged { .. } | Keys::Paged(_) => Layout::blhd(heads_kv, rows_kv, dim),
            };
            rows(layout.unwrap_or(usual), [batches_kv, rows_kv], heads_kv, dim)
        };
        let numbers = |n| View { operand, offset: 0, extent: [n, 1, 1, 1], stride: [1, 0, 0, 0], element_bytes };
        let [ragged_q, ragged_kv] =
            [matches!(self.spec.queries, Queries::Ragged { .. }), matches!(self.spec.keys, Keys::Ragged { .. })];
        match operand {
            Operand::Q => Some(queries(self.spec.q, heads_q, dim_qk)),
            Operand::K => Some(keys(self.spec.k, dim_qk)),
            Operand::V => Some(keys(self.spec.v, dim_v)),
            Operand::Out => Some(queries(self.spec.out, heads_q, dim_v)),
            Operand::Lse => self.spec.lse.then(|| {
                let layout = self.spec.lse_layout.unwrap_or(Layout::bhld(heads_q, rows_q, 1));
                rows(layout, [batches_q, rows_q], heads_q, 1)
            }),
            Operand::Weights => self.spec.weights.then(|| {
                let chosen = self.spec.weights_of.as_ref().map(|chosen| (chosen.heads(), chosen.len()));
                let (heads, len) = chosen.unwrap_or((heads_q, rows_q));
                rows(Layout::bhld(heads, len, len_kv), [batches_q, len], heads, len_kv)
            }),
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
            Operand::RngState => {
                self.spec.dropout.filter(|dropout| dropout.state == RngState::Buffer).map(|_| numbers(Philox::WORDS))
            }
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
            Operand::KvLengths => (self.spec.kv_lengths || self.ring().is_some()).then(|| numbers(batch)),
            Operand::QLengths => (self.spec.queries == Queries::Lengths).then(|| numbers(batch)),
            Operand::CuSeqlensQ => ragged_q.then(|| numbers(batch.saturating_add(1))),
            Operand::CuSeqlensK => ragged_kv.then(|| numbers(batch.saturating_add(1))),
            Operand::BlockTable => self.pages().map(|_| {
                let pages = self.table_row();
                View {
                    operand,
                    offset: 0,
                    extent: [batch, 1, 1, pages],
                    stride: [pages.into(), 0, 0, 1],
                    element_bytes,
                }
            }),
            Operand::NewQ => {
                self.rotary().map(|_| queries(self.spec.append.and_then(|append| append.q), heads_q, dim_qk))
            }
            Operand::NewK => self.spec.append.map(|append| queries(append.k, heads_kv, dim_qk)),
            Operand::NewV => self.spec.append.map(|append| queries(append.v, heads_kv, dim_v)),
            Operand::RotaryTable => self.rotary().map(|rotary| View {
                operand,
                offset: 0,
                extent: [rotary.positions, 1, 1, rotary.dims],
                stride: [rotary.dims.into(), 0, 0, 1],
                element_bytes,
            }),
            Operand::Dout => self.wanted(operand).map(|wanted| queries(wanted.dout, heads_q, dim_v)),
            Operand::Dlse => {
                self.wanted(operand).map(|_| rows(Layout::bhld(heads_q, rows_q, 1), [batches_q, rows_q], heads_q, 1))
            }
            Operand::Dq => self.wanted(operand).map(|wanted| queries(wanted.dq, heads_q, dim_qk)),
            Operand::Dk => self.wanted(operand).map(|wanted| keys(wanted.dk, dim_qk)),
            Operand::Dv => self.wanted(operand).map(|wanted| keys(wanted.dv, dim_v)),
            Operand::Dbias => self.wanted(operand).and(self.spec.bias).map(|(_, bias)| {
                let ScoreLayout { offset, stride, .. } = ScoreLayout::broadcast(bias.sizes(shape));
                View { operand, offset, extent: bias.sizes(shape), stride, element_bytes }
            }),
            Operand::Dsinks => self.wanted(operand).map(|_| View {
                operand,
                offset: 0,
                extent: [1, heads_q, 1, 1],
                stride: [0, 1, 0, 0],
                element_bytes,
            }),
            Operand::PairOut | Operand::PairLse => None,
        }
    }

    /// The rows whose weights are written, if only some are.
    pub(crate) const fn weight_rows(&self) -> Option<&WeightRows> {
        self.spec.weights_of.as_ref()
    }

    /// The index of the first weight of a row (batch, query head, query) in the buffer of the weights; `None` if its
    /// weights are not written.
    pub fn weights_at(&self, [batch, head, query]: [u32; 3]) -> Option<u64> {
        let view = self.view(Operand::Weights)?;
        let (head, query) = match &self.spec.weights_of {
            Some(chosen) => (chosen.place(head)?, query.checked_sub(chosen.rows.start)?),
            None => (head, query),
        };
        let is_written = batch < view.extent[0] && head < view.extent[1] && query < view.extent[2];
        is_written.then(|| view.index([batch, head, query, 0]))
    }

    pub(crate) fn band(&self) -> Band {
        band(self.spec.diagonal, self.spec.causal, self.spec.window)
    }

    /// What is appended to the cache, if anything is.
    pub const fn appends(&self) -> Option<Append> {
        self.spec.append
    }

    pub(crate) fn rotary(&self) -> Option<Rotary> {
        self.spec.append.and_then(|append| append.rotary)
    }

    /// What is wanted of the gradients, if they use an operand.
    fn wanted(&self, operand: Operand) -> Option<&Wanted> {
        self.spec.gradients.as_ref().filter(|wanted| wanted.uses(operand))
    }

    pub(crate) const fn queries(&self) -> Queries {
        self.spec.queries
    }

    pub(crate) const fn keys(&self) -> Keys {
        self.spec.keys
    }

    /// The rows that `q` and the results have if the queries of all sequences follow one another.
    pub const fn ragged_queries(&self) -> Option<u32> {
        match self.spec.queries {
            Queries::Ragged { total } => Some(total),
            Queries::All | Queries::Lengths => None,
        }
    }

    /// The pages of a paged cache.
    pub const fn pages(&self) -> Option<Pages> {
        match self.spec.keys {
            Keys::Paged(pages) => Some(pages),
            Keys::Dense | Keys::Ragged { .. } | Keys::Ring { .. } => None,
        }
    }

    /// The keys that a ring cache holds per sequence.
    pub const fn ring(&self) -> Option<u32> {
        match self.spec.keys {
            Keys::Ring { capacity } => Some(capacity),
            Keys::Dense | Keys::Ragged { .. } | Keys::Paged(_) => None,
        }
    }

    /// The number of pages that the block table lists per sequence.
    pub(crate) fn table_row(&self) -> u32 {
        self.pages().map_or(0, |pages| self.spec.shape.len_kv.div_ceil(pages.size))
    }

    /// How many batches and rows the queries and the results have in their buffers.
    pub(crate) fn stored_queries(&self) -> [u32; 2] {
        let Shape { batch, len_q, .. } = self.spec.shape;
        match self.spec.queries {
            Queries::All | Queries::Lengths => [batch, len_q],
            Queries::Ragged { total } => [batch.min(1), total],
        }
    }

    /// How many batches and rows of keys a kernel can stage: those that lie in the buffers or, if these are pages, those
    /// of the sequences.
    pub(crate) const fn stageable_keys(&self) -> [u32; 2] {
        let Shape { batch, len_kv, .. } = self.spec.shape;
        match self.spec.keys {
            Keys::Paged(_) => [batch, len_kv],
            keys => keys.extent(batch, len_kv),
        }
    }

    /// The most keys of a sequence that its queries together see by position.
    pub(crate) fn most_keys_in_sight(&self) -> u32 {
        self.most_keys().min(self.band().width(self.spec.shape.len_q))
    }

    /// Whether the first keys of a sequence may be out of sight of all its queries.
    pub(crate) fn may_hide_first_keys(&self) -> bool {
        let len_kv = self.spec.shape.len_kv;
        self.ring().is_some_and(|capacity| capacity < len_kv) || self.band().may_hide_first(len_kv)
    }

    /// The most keys that a sequence has at a time.
    pub(crate) fn most_keys(&self) -> u32 {
        match self.spec.keys {
            Keys::Ring { capacity } => capacity.min(self.spec.shape.len_kv),
            Keys::Dense | Keys::Ragged { .. } | Keys::Paged(_) => self.spec.shape.len_kv,
        }
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
