//! What is asked: plain data, checked once, no GPU.

use crate::mask::{Band, LONGEST, band};
use crate::{Diagonal, Dtype, Layout, Operand, ProblemError, ScoreLayout, Shape, View, Window};

/// One attention problem, checked: `O = softmax(scale · Q Kᵀ → softcap → + bias → mask) V`.
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Problem {
    spec: ProblemBuilder,
}

/// Describes a [`Problem`]; made by [`Problem::builder`]. Nothing is checked before [`build`](Self::build).
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct ProblemBuilder {
    shape: Shape,
    dtype: Dtype,
    q: Option<Layout>,
    k: Option<Layout>,
    v: Option<Layout>,
    out: Option<Layout>,
    scale: Option<f32>,
    softcap: Option<f32>,
    diagonal: Diagonal,
    causal: bool,
    window: Window,
    mask: Option<ScoreLayout>,
    bias: Option<(Dtype, ScoreLayout)>,
    kv_lengths: bool,
    lse: bool,
    weights: bool,
}

impl Problem {
    /// Starts from dense, unmasked f32 attention in (B, H, L, D).
    pub const fn builder(shape: Shape) -> ProblemBuilder {
        ProblemBuilder {
            shape,
            dtype: Dtype::F32,
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
            lse: false,
            weights: false,
        }
    }
}

/// The kernels need log₂ e times the scale, which is past f32 for a larger one.
const LARGEST_SCALE: f32 = f32::MAX / std::f32::consts::LOG2_E;

/// A score divided by a larger cap could be too small for f32; and such a cap caps nothing.
const LARGEST_CAP: f32 = 1e30;

impl ProblemBuilder {
    /// How `q`, `k`, `v`, the output and the weights are stored; f32 unless given.
    pub const fn dtype(mut self, dtype: Dtype) -> Self {
        self.dtype = dtype;
        self
    }

    /// Where `q` lies; contiguous (B, H, L, D) unless given.
    pub const fn q(mut self, layout: Layout) -> Self {
        self.q = Some(layout);
        self
    }

    /// Where `k` lies; contiguous (B, H, L, D) unless given.
    pub const fn k(mut self, layout: Layout) -> Self {
        self.k = Some(layout);
        self
    }

    /// Where `v` lies; contiguous (B, H, L, D) unless given.
    pub const fn v(mut self, layout: Layout) -> Self {
        self.v = Some(layout);
        self
    }

    /// Where the output goes; contiguous (B, H, L, D) unless given.
    pub const fn out(mut self, layout: Layout) -> Self {
        self.out = Some(layout);
        self
    }

    /// The factor on Q Kᵀ; `1/√dim_qk` unless given. At most 2.3e38 in magnitude; drivers may take one below 1.2e-38 for 0.
    pub const fn scale(mut self, scale: f32) -> Self {
        self.scale = Some(scale);
        self
    }

    /// Caps the scaled scores at ±`cap`: `cap · tanh(s / cap)`.
    pub const fn softcap(mut self, cap: f32) -> Self {
        self.softcap = Some(cap);
        self
    }

    /// Row `i` sees no key past the diagonal; the same as setting [`diagonal`](Self::diagonal) and a window with
    /// `right` = 0.
    pub const fn causal(mut self, diagonal: Diagonal) -> Self {
        self.causal = true;
        self.diagonal(diagonal)
    }

    /// Which key row 0 stands at, for the window; [`Diagonal::TopLeft`] unless given. One problem has one diagonal:
    /// the last of `causal` and `diagonal` decides it.
    pub const fn diagonal(mut self, diagonal: Diagonal) -> Self {
        self.diagonal = diagonal;
        self
    }

    /// A sliding window around the diagonal.
    pub const fn window(mut self, window: Window) -> Self {
        self.window = window;
        self
    }

    /// A boolean mask, one byte an element, non-zero = attend.
    pub const fn mask(mut self, layout: ScoreLayout) -> Self {
        self.mask = Some(layout);
        self
    }

    /// An additive bias, stored as f32 or as the elements are. A bias of −∞ hides the key.
    pub const fn bias(mut self, dtype: Dtype, layout: ScoreLayout) -> Self {
        self.bias = Some((dtype, layout));
        self
    }

    /// A buffer of B u32 says how many keys of each batch are valid; more than `len_kv` means all. The GPU reads it
    /// when the dispatch runs, so it may change every step without a new plan.
    pub const fn kv_lengths(mut self) -> Self {
        self.kv_lengths = true;
        self
    }

    /// Also writes each row's log-sum-exp.
    pub const fn lse(mut self) -> Self {
        self.lse = true;
        self
    }

    /// Also writes the attention weights (B, Hq, Lq, Lk).
    ///
    /// The price is that which fused attention exists to avoid: a buffer that grows with Lq·Lk, and a pass of its own
    /// that computes Q Kᵀ twice more (once for each row's maximum and sum, once to write).
    pub const fn weights(mut self) -> Self {
        self.weights = true;
        self
    }

    /// Checks the description.
    ///
    /// # Errors
    /// [`ProblemError`] names the field, its value and the bound.
    pub fn build(self) -> Result<Problem, ProblemError> {
        let problem = Problem { spec: self };
        self.check_shape()?;
        self.check_numbers()?;
        for (operand, layout) in [(Operand::Mask, self.mask), (Operand::Bias, self.bias.map(|(_, layout)| layout))] {
            self.check_broadcast(operand, layout)?;
        }
        for view in problem.views() {
            let View { operand, stride, extent, .. } = view;
            if view.checked_end().is_none() {
                return Err(ProblemError::Unaddressable { operand });
            }
            if operand.is_output() && !view.is_injective() {
                return Err(ProblemError::Overlapping { operand, stride, extent });
            }
        }
        Ok(problem)
    }

    fn check_shape(&self) -> Result<(), ProblemError> {
        let Shape { heads_q, heads_kv, len_q, len_kv, dim_qk, dim_v, .. } = self.shape;
        for (axis, value) in [("heads_q", heads_q), ("heads_kv", heads_kv), ("dim_qk", dim_qk), ("dim_v", dim_v)] {
            if value == 0 {
                return Err(ProblemError::Empty { axis });
            }
        }
        for (axis, value) in [("len_q", len_q), ("len_kv", len_kv)] {
            if value > LONGEST {
                return Err(ProblemError::TooLong { axis, value, most: LONGEST });
            }
        }
        if heads_q % heads_kv != 0 {
            return Err(ProblemError::HeadsNotGrouped { heads_q, heads_kv });
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), ProblemError> {
        if let Some(scale) = self.scale.filter(|scale| scale.is_nan() || scale.abs() > LARGEST_SCALE) {
            return Err(ProblemError::Scale(scale));
        }
        if let Some(cap) = self.softcap.filter(|&cap| !(cap > 0.0 && cap <= LARGEST_CAP)) {
            return Err(ProblemError::Softcap(cap));
        }
        match self.bias {
            Some((bias, _)) if bias != Dtype::F32 && bias != self.dtype => {
                Err(ProblemError::BiasDtype { bias, elements: self.dtype })
            }
            _ => Ok(()),
        }
    }

    fn check_broadcast(&self, operand: Operand, layout: Option<ScoreLayout>) -> Result<(), ProblemError> {
        let Some(dims) = layout.and_then(|layout| layout.dims) else { return Ok(()) };
        let axes = ["batch", "heads_q", "len_q", "len_kv"];
        for ((axis, got), want) in axes.into_iter().zip(dims).zip(self.shape.scores()) {
            if got != 1 && got != want {
                return Err(ProblemError::NotBroadcastable { operand, axis, got, want });
            }
        }
        Ok(())
    }
}

impl Problem {
    /// Its description, to change something of it.
    pub const fn to_builder(self) -> ProblemBuilder {
        self.spec
    }

    /// The sizes.
    pub const fn shape(&self) -> Shape {
        self.spec.shape
    }

    /// How the elements are stored.
    pub const fn dtype(&self) -> Dtype {
        self.spec.dtype
    }

    /// The factor on Q Kᵀ.
    pub fn scale(&self) -> f32 {
        self.spec.scale.unwrap_or_else(|| (self.spec.shape.dim_qk as f32).sqrt().recip())
    }

    /// The cap on the scaled scores.
    pub const fn softcap(&self) -> Option<f32> {
        self.spec.softcap
    }

    /// Whether keys past the diagonal are hidden.
    pub const fn is_causal(&self) -> bool {
        self.spec.causal
    }

    /// Where row 0 stands.
    pub const fn diagonal(&self) -> Diagonal {
        self.spec.diagonal
    }

    /// The sliding window.
    pub const fn window(&self) -> Window {
        self.spec.window
    }

    /// How the bias is stored, if there is one.
    pub fn bias_dtype(&self) -> Option<Dtype> {
        self.spec.bias.map(|(dtype, _)| dtype)
    }

    /// Whether this problem uses an operand.
    pub fn uses(&self, operand: Operand) -> bool {
        self.view(operand).is_some()
    }

    /// The operands this problem uses, in slot order, and where each lies.
    pub fn views(&self) -> impl Iterator<Item = View> + use<> {
        let problem = *self;
        Operand::ALL.into_iter().filter_map(move |operand| problem.view(operand))
    }

    /// Where an operand lies, if the problem uses it.
    pub fn view(&self, operand: Operand) -> Option<View> {
        let ProblemBuilder { shape, dtype, .. } = self.spec;
        let Shape { batch, heads_q, heads_kv, len_q, len_kv, dim_qk, dim_v } = shape;
        let rows = |layout: Option<Layout>, heads, len, dim| {
            let Layout { offset, batch: b, head, row } = layout.unwrap_or(Layout::bhld(heads, len, dim));
            let (extent, stride) = ([batch, heads, len, dim], [b, head, row, 1]);
            View { operand, offset, extent, stride, element_bytes: dtype.size_bytes() }
        };
        let scores = |layout: ScoreLayout, element_bytes| {
            let ScoreLayout { offset, stride, .. } = layout;
            View { operand, offset, extent: shape.scores(), stride, element_bytes }
        };
        match operand {
            Operand::Q => Some(rows(self.spec.q, heads_q, len_q, dim_qk)),
            Operand::K => Some(rows(self.spec.k, heads_kv, len_kv, dim_qk)),
            Operand::V => Some(rows(self.spec.v, heads_kv, len_kv, dim_v)),
            Operand::Out => Some(rows(self.spec.out, heads_q, len_q, dim_v)),
            Operand::Lse => self.spec.lse.then(|| View { element_bytes: 4, ..rows(None, heads_q, len_q, 1) }),
            Operand::Weights => self.spec.weights.then(|| rows(None, heads_q, len_q, len_kv)),
            Operand::Mask => self.spec.mask.map(|layout| scores(layout, 1)),
            Operand::Bias => self.spec.bias.map(|(dtype, layout)| scores(layout, dtype.size_bytes())),
            Operand::KvLengths => self.spec.kv_lengths.then_some(View {
                operand,
                offset: 0,
                extent: [batch, 1, 1, 1],
                stride: [1, 0, 0, 0],
                element_bytes: 4,
            }),
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

    #[test]
    fn errors_name_the_field_the_value_and_the_bound() {
        let shape = Shape::new(2, 4, 8, 16);
        let text = |builder: ProblemBuilder| builder.build().expect_err("must be refused").to_string();
        let cases = [
            (Problem::builder(Shape { heads_q: 0, ..shape }), "`heads_q` is 0"),
            (Problem::builder(Shape { dim_v: 0, ..shape }), "`dim_v` is 0"),
            (Problem::builder(shape.kv_len(LONGEST + 1)), "`len_kv` is 536870913, and at most 536870912"),
            (Problem::builder(shape.kv_heads(3)), "heads_q = 4 is not a multiple of heads_kv = 3"),
            (Problem::builder(shape).scale(f32::NAN), "scale = NaN must be at most"),
            (Problem::builder(shape).scale(f32::NEG_INFINITY), "scale = -inf must be at most"),
            (Problem::builder(shape).scale(2.5e38), "2.3e38"),
            (Problem::builder(shape).softcap(0.0), "softcap = 0 must be positive"),
            (Problem::builder(shape).softcap(f32::NAN), "softcap = NaN must be positive"),
            (
                Problem::builder(shape).mask(ScoreLayout::broadcast([2, 1, 1, 7])),
                "`mask` has 7 along `len_kv`, but the scores have 8",
            ),
            (
                Problem::builder(shape).bias(Dtype::F16, ScoreLayout::broadcast([1; 4])),
                "bias is stored as f16 but the elements are f32",
            ),
            (
                Problem::builder(shape).q(Layout { batch: u64::MAX, ..Layout::bhld(4, 8, 16) }),
                "the strides of `q` reach past 2^64",
            ),
            (
                Problem::builder(shape).mask(ScoreLayout::strided([0; 4]).at(u64::MAX - 1)),
                "the strides of `mask` reach past 2^64",
            ),
            (
                Problem::builder(shape).out(Layout { row: 15, ..Layout::bhld(4, 8, 16) }),
                "the layout of `out` lets elements overlap",
            ),
        ];
        for (builder, wanted) in cases {
            let got = text(builder);
            assert!(got.contains(wanted), "{got:?} should contain {wanted:?}");
        }
    }
}
