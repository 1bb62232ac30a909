//! The builder of a problem.

use std::ops::Range;
use std::sync::Arc;

use crate::problem::append::Append;
use crate::problem::block_mask::BlockMask;
use crate::problem::dropout::{Dropout, RngState};
use crate::problem::dtype::Dtype;
use crate::problem::layout::{Layout, ScoreLayout};
use crate::problem::mask::MaskFormat;
use crate::problem::number::Number;
use crate::problem::operand::Operand;
use crate::problem::positions::{Diagonal, Window};
use crate::problem::program::{Program, Programs};
use crate::problem::quantization::Quantization;
use crate::problem::sequences::{Keys, Pages, Queries};
use crate::problem::shape::Shape;
use crate::problem::wanted::Wanted;
use crate::problem::weight_rows::WeightRows;

/// Describes a [`Problem`](crate::Problem); created by [`Problem::builder`](crate::Problem::builder). Nothing is
/// checked before [`build`](Self::build).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct ProblemBuilder {
    pub(super) shape: Shape,
    pub(super) dtype: Dtype,
    pub(super) kv_dtype: Option<Dtype>,
    pub(super) out_dtype: Option<Dtype>,
    pub(super) quantization: Option<Quantization>,
    pub(super) q: Option<Layout>,
    pub(super) k: Option<Layout>,
    pub(super) v: Option<Layout>,
    pub(super) out: Option<Layout>,
    pub(super) scale: Option<Number>,
    pub(super) softcap: Option<Number>,
    pub(super) diagonal: Diagonal,
    pub(super) causal: bool,
    pub(super) window: Window,
    pub(super) mask: Option<(MaskFormat, ScoreLayout)>,
    pub(super) bias: Option<(Dtype, ScoreLayout)>,
    pub(super) kv_lengths: bool,
    pub(super) queries: Queries,
    pub(super) keys: Keys,
    pub(super) append: Option<Append>,
    pub(super) lse: bool,
    pub(super) lse_layout: Option<Layout>,
    pub(super) weights: bool,
    pub(super) alibi: Option<Slopes>,
    pub(super) sinks: bool,
    pub(super) programs: Programs,
    pub(super) aux: Option<u64>,
    pub(super) dropout: Option<Dropout>,
    pub(super) block_mask: Option<BlockMask>,
    pub(super) sharing: Sharing,
    /// The rows whose weights are written; `None` for all rows, if `weights` is set.
    pub(super) weights_of: Option<WeightRows>,
    /// Only within [`Gradients`](crate::Gradients).
    pub(super) gradients: Option<Wanted>,
}

/// Whether operands may be parts of the same buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sharing {
    /// No output shares its buffer with an input.
    Apart,
    /// Outputs and inputs may be parts of one buffer.
    Shared,
}

/// The shape of the `ALiBi` slopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slopes {
    /// (H): one slope per head, shared by all batches.
    PerHead,
    /// (B, H): one slope per batch and head.
    PerBatchAndHead,
}

impl ProblemBuilder {
    /// Dense, unmasked f32 attention in (B, H, L, D).
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            dtype: Dtype::F32,
            kv_dtype: None,
            out_dtype: None,
            quantization: None,
            q: None,
            k: None,
            v: None,
            out: None,
            scale: None,
            softcap: None,
            diagonal: Diagonal::TopLeft,
            causal: false,
            window: Window { left: None, right: None },
            mask: None,
            bias: None,
            kv_lengths: false,
            queries: Queries::All,
            keys: Keys::Dense,
            append: None,
            lse: false,
            lse_layout: None,
            weights: false,
            alibi: None,
            sinks: false,
            programs: Programs { score_mod: None, mask_mod: None, score_mod_grad: None },
            aux: None,
            dropout: None,
            block_mask: None,
            sharing: Sharing::Apart,
            weights_of: None,
            gradients: None,
        }
    }

    /// Other lengths for the same problem. Layouts that were given stay as they are.
    pub fn lengths(mut self, len_q: u32, len_kv: u32) -> Self {
        (self.shape.len_q, self.shape.len_kv) = (len_q, len_kv);
        self
    }

    /// The element type of `q`, and of `k`, `v`, the output and the weights unless they have their own; f32 unless
    /// given.
    pub fn dtype(mut self, dtype: Dtype) -> Self {
        self.dtype = dtype;
        self
    }

    /// The element type of `k` and `v`, for example of a cache in 16 bits beside activations in f32.
    pub fn kv_dtype(mut self, dtype: Dtype) -> Self {
        (self.kv_dtype, self.quantization) = (Some(dtype), None);
        self
    }

    /// `k` and `v` are quantized to 4 or 8 bits, with a scale per row. Kernels compute with the elements in f32. The
    /// layouts of `k` and `v` count words of 32 bits; [`Quantization`] says what a row is.
    pub fn kv_quantized(mut self, quantization: Quantization) -> Self {
        self.quantization = Some(quantization);
        self
    }

    /// The element type of the output and the weights.
    pub fn out_dtype(mut self, dtype: Dtype) -> Self {
        self.out_dtype = Some(dtype);
        self
    }

    /// The element type of an operand, whether or not the problem uses it; `None` if the operand holds no
    /// floating-point numbers.
    pub(super) fn dtype_of(&self, operand: Operand) -> Option<Dtype> {
        match operand {
            Operand::Q | Operand::Dq => Some(self.dtype),
            Operand::K | Operand::V if self.quantization.is_some() => None,
            Operand::K | Operand::V | Operand::Dk | Operand::Dv => Some(self.kv_dtype.unwrap_or(self.dtype)),
            Operand::Out | Operand::Weights | Operand::Dout => Some(self.out_dtype.unwrap_or(self.dtype)),
            Operand::Bias | Operand::Dbias => self.bias.map(|(dtype, _)| dtype),
            Operand::NewQ | Operand::NewK | Operand::NewV => Some(self.dtype),
            Operand::Lse
            | Operand::AlibiSlopes
            | Operand::Sinks
            | Operand::Aux
            | Operand::RotaryTable
            | Operand::Dlse
            | Operand::Dsinks => Some(Dtype::F32),
            Operand::Mask
            | Operand::BlockMask
            | Operand::KvLengths
            | Operand::QLengths
            | Operand::CuSeqlensQ
            | Operand::CuSeqlensK
            | Operand::BlockTable
            | Operand::RngState
            | Operand::PairOut
            | Operand::PairLse => None,
        }
    }

    /// The layout of `q`; contiguous (B, H, L, D) unless given.
    pub fn q(mut self, layout: Layout) -> Self {
        self.q = Some(layout);
        self
    }

    /// The layout of `k`; contiguous (B, H, L, D) unless given.
    pub fn k(mut self, layout: Layout) -> Self {
        self.k = Some(layout);
        self
    }

    /// The layout of `v`; contiguous (B, H, L, D) unless given.
    pub fn v(mut self, layout: Layout) -> Self {
        self.v = Some(layout);
        self
    }

    /// The layout of the output; contiguous (B, H, L, D) unless given.
    pub fn out(mut self, layout: Layout) -> Self {
        self.out = Some(layout);
        self
    }

    /// The factor on Q Kᵀ; `1/√dim_qk` unless given. At most 2.3e38 in magnitude; drivers may treat a magnitude below
    /// 1.2e-38 as 0.
    pub fn scale(mut self, scale: f32) -> Self {
        self.scale = Some(Number(scale));
        self
    }

    /// Caps the scaled scores at ±`cap`: `cap · tanh(s / cap)`.
    pub fn softcap(mut self, cap: f32) -> Self {
        self.softcap = Some(Number(cap));
        self
    }

    /// Row `i` sees no key past the diagonal. This is equivalent to setting [`diagonal`](Self::diagonal) and a window
    /// with `right` = 0.
    pub fn causal(mut self, diagonal: Diagonal) -> Self {
        self.causal = true;
        self.diagonal(diagonal)
    }

    /// The key that row 0 stands at, for the window, ALiBi and programs; [`Diagonal::TopLeft`] unless given. A problem
    /// has one diagonal, which the last call of `causal` or `diagonal` sets.
    pub fn diagonal(mut self, diagonal: Diagonal) -> Self {
        self.diagonal = diagonal;
        self
    }

    /// A sliding window around the diagonal.
    pub fn window(mut self, window: Window) -> Self {
        self.window = window;
        self
    }

    /// A boolean mask, one byte per element, non-zero = attend.
    pub fn mask(self, layout: ScoreLayout) -> Self {
        self.mask_as(MaskFormat::BytesAttend, layout)
    }

    /// A boolean mask in another format, for example one in which `true` hides the key.
    pub fn mask_as(mut self, format: MaskFormat, layout: ScoreLayout) -> Self {
        self.mask = Some((format, layout));
        self
    }

    /// An additive bias, stored as any element type. A bias of −∞ hides the key.
    pub fn bias(mut self, dtype: Dtype, layout: ScoreLayout) -> Self {
        self.bias = Some((dtype, layout));
        self
    }

    /// A buffer of B u32 holds the number of valid keys per batch; a number above `len_kv` means all keys. The GPU
    /// reads the buffer when the dispatch runs, so it may change every step without a new plan.
    pub fn kv_lengths(mut self) -> Self {
        self.kv_lengths = true;
        self
    }

    /// A buffer of B u32 holds the number of queries per batch; a number above `len_q` means all of them. Rows past it
    /// are 0, and their log-sum-exp is −∞. Like [`kv_lengths`](Self::kv_lengths), it may change every step. All `len_q` rows
    /// are written each time; if the host knows the lengths, [`Plan::resized`](crate::Plan::resized) leaves out the rest.
    pub fn q_lengths(mut self) -> Self {
        self.queries = Queries::Lengths;
        self
    }

    /// The queries of all sequences follow one another, as (T, Hq, D) unless `q` and the output have other layouts, and
    /// `total` is T, the rows that the buffers have. [`Operand::CuSeqlensQ`](crate::Operand::CuSeqlensQ), (B + 1), says
    /// where each sequence begins; the log-sum-exp is (Hq, T). `len_q` is the most queries that a sequence may have: a
    /// longer one is taken for one of its first `len_q` queries.
    ///
    /// No work is done for padding, so a batch may be as uneven as it likes. Rows of no sequence are not written. Masks
    /// and biases are still (B, Hq, Lq, Lk), counted within the sequence.
    pub fn ragged_q(mut self, total: u32) -> Self {
        self.queries = Queries::Ragged { total };
        self
    }

    /// The keys of all sequences follow one another, as (T, Hkv, D) unless `k` and `v` have other layouts, and `total` is
    /// T. [`Operand::CuSeqlensK`](crate::Operand::CuSeqlensK), (B + 1), says where each sequence begins. `len_kv` is the
    /// most keys that a sequence may have: of a longer one, the others are not seen.
    pub fn ragged_kv(mut self, total: u32) -> Self {
        self.keys = Keys::Ragged { total };
        self
    }

    /// A paged cache: `k` and `v` are (pages, page size, Hkv, D) unless they have other layouts, whose batch stride then is
    /// the stride from page to page. [`Operand::BlockTable`](crate::Operand::BlockTable), (B, ⌈`len_kv` / page size⌉),
    /// lists the pages of each sequence in order. Sequences may share pages. With
    /// [`kv_lengths`](Self::kv_lengths), neither the table nor the pages are read past a sequence's keys.
    pub fn paged_kv(mut self, pages: Pages) -> Self {
        self.keys = Keys::Paged(pages);
        self
    }

    /// A ring cache, for sliding windows: `k` and `v` have `capacity` rows per sequence, and key j lies in row j modulo
    /// `capacity`, so that each new key replaces the oldest. [`kv_lengths`](Self::kv_lengths), which this implies, counts
    /// all keys ever written; the last `capacity` of them can be seen. `len_kv` is the most keys that are ever written.
    ///
    /// If several new keys are written before their queries are computed, the capacity must be as much larger than the
    /// window: the keys that the first of these queries sees must still be there.
    pub fn ring_kv(mut self, capacity: u32) -> Self {
        self.keys = Keys::Ring { capacity };
        self
    }

    /// The keys and values of the queries' tokens are appended to the cache, by the plan that
    /// [`Attention::plan_append`](crate::Attention::plan_append) makes of this problem. The plan of the attention ignores
    /// this.
    pub fn append(mut self, append: Append) -> Self {
        self.append = Some(append);
        self
    }

    /// Also writes each row's log-sum-exp (B, Hq, Lq), f32.
    pub fn lse(mut self) -> Self {
        self.lse = true;
        self
    }

    /// Also writes each row's log-sum-exp, in this layout: that of rows with one element. For example,
    /// `Layout::blhd(heads, len, 1)` is (B, Lq, Hq).
    pub fn lse_in(mut self, layout: Layout) -> Self {
        self.lse_layout = Some(layout);
        self.lse()
    }

    /// Also writes the attention weights (B, Hq, Lq, Lk).
    ///
    /// This brings back the cost that fused attention avoids: a buffer that grows with Lq·Lk, and a separate kernel
    /// that computes Q Kᵀ twice more (once for each row's maximum and sum, once to write).
    pub fn weights(mut self) -> Self {
        self.weights = true;
        self.weights_of = None;
        self
    }

    /// Also writes the attention weights of some query heads, in the given order, and of a range of query rows:
    /// (B, heads, rows, Lk). The buffer and the work are then as large as what is chosen. Each run of consecutive heads
    /// is a dispatch of its own. The weights have the same bits as among those of [all rows](Self::weights).
    ///
    /// ```
    /// # use wgpu_attention::{Operand, Problem, Shape};
    /// // Word timestamps need the weights of a few heads of a decoder, for the newest token.
    /// let shape = Shape::new(1, 20, 1, 64).kv_len(1500);
    /// let problem = Problem::builder(shape).weights_of([3, 17, 18], 0..1).build()?;
    /// assert_eq!(problem.view(Operand::Weights).map(|view| view.extent), Some([1, 3, 1, 1500]));
    /// # Ok::<(), wgpu_attention::ProblemError>(())
    /// ```
    ///
    /// There must be a head, and each may be named once. The rows must exist, also after
    /// [`Plan::resized`](crate::Plan::resized), and there may be none.
    pub fn weights_of(mut self, heads: impl Into<Arc<[u32]>>, rows: Range<u32>) -> Self {
        self.weights = true;
        self.weights_of = Some(WeightRows { heads: heads.into(), rows });
        self
    }

    /// `ALiBi`: subtracts from each score its head's slope times the distance between the key and the [`Diagonal`]. The
    /// slopes are [`Operand::AlibiSlopes`](crate::Operand::AlibiSlopes), (H) or (B, H), f32.
    pub fn alibi(mut self, slopes: Slopes) -> Self {
        self.alibi = Some(slopes);
        self
    }

    /// Attention sinks: one learned logit per head that takes part in the softmax but has no value. The LSE includes
    /// it. The logits are [`Operand::Sinks`](crate::Operand::Sinks), (H), f32.
    pub fn sinks(mut self) -> Self {
        self.sinks = true;
        self
    }

    /// A WGSL function that modifies each score: `fn score_mod(score: f32, at: At) -> f32`. A result of −∞ hides the
    /// key.
    ///
    /// It receives the score in natural units, after the scale and the softcap, and the position of the score. It may
    /// read [`aux`](Self::aux) and declare what it needs. See [`programs`](crate::programs) for the members of `At`,
    /// the rules and the costs.
    pub fn score_mod(mut self, text: impl Into<Arc<str>>) -> Self {
        self.programs.score_mod = Some(Program::new(text));
        self
    }

    /// A WGSL function that returns whether a query sees a key: `fn mask_mod(at: At) -> bool`. It is combined with all
    /// other masks by "and".
    pub fn mask_mod(mut self, text: impl Into<Arc<str>>) -> Self {
        self.programs.mask_mod = Some(Program::new(text));
        self
    }

    /// A buffer of `len` f32 that programs read as `aux: array<f32>`. Its contents may change without a new plan.
    pub fn aux(mut self, len: u64) -> Self {
        self.aux = Some(len);
        self
    }

    /// Drops each weight with probability `p` after the softmax, and multiplies those that are kept by `1 / (1 − p)`, for
    /// training. The log-sum-exp is that without dropout; the weights that are written are those after it.
    ///
    /// `p` is in 0 .. 1, and 0 means no dropout. [`RngState`] says where the random numbers come from. The
    /// [gradients](crate::Problem::gradients) of the problem draw the same ones, if they get the same state.
    ///
    /// Positions are counted within the problem. If one attention is computed as several problems, as for a
    /// [`Merge`](crate::Merge), each of them needs an offset of its own.
    pub fn dropout(mut self, p: f32, state: RngState) -> Self {
        self.dropout = (p != 0.0).then_some(Dropout { p: Number(p), state });
        self
    }

    /// A block mask: a buffer with one number per tile of the scores, which says whether the masks hide all of the
    /// tile, some or none. Kernels for many rows then skip hidden tiles, and do not evaluate the masks in tiles that
    /// are entirely visible.
    pub fn block_mask(mut self, tiles: BlockMask) -> Self {
        self.block_mask = Some(tiles);
        self
    }

    /// Outputs may be parts of the same buffers as inputs, as in frameworks that keep many tensors in one buffer.
    ///
    /// WebGPU does not let a dispatch read a buffer and write it, even in different ranges, unless all of its bindings
    /// may write. So kernels then declare their inputs as read-write, and [`Plan::bind`](crate::Plan::bind) checks that
    /// the elements of the outputs are apart from all others. The lengths, the bounds, the block table and the block mask are
    /// still read-only, and may share a buffer only with each other.
    ///
    /// Browsers also compare the bindings themselves. There, begin each operand at a multiple of the binding alignment,
    /// end its binding where it ends, and do not interleave or share `q`, `k` and `v`.
    pub fn shared_buffers(mut self) -> Self {
        self.sharing = Sharing::Shared;
        self
    }
}
