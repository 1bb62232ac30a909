//! The description of the gradients of a problem.

use std::sync::Arc;

use crate::problem::Problem;
use crate::problem::dtype::Dtype;
use crate::problem::error::ProblemError;
use crate::problem::layout::{Layout, View};
use crate::problem::operand::Operand;
use crate::problem::program::Program;
use crate::problem::sequences::Keys;
use crate::problem::shape::Shape;
use crate::problem::wanted::Wanted;

/// The gradients of a checked [`Problem`]: those of its inputs, from the gradient of its output.
///
/// With `S` the scores and `P = exp(S − LSE)` the weights of the forward pass, and `dP = dO Vᵀ`:
///
/// ```text
/// dV = Pᵀ dO,   dS = P ∘ (dP − rowsum(dO ∘ O) + dLSE),   dQ = scale · dS′ K,   dK = scale · dS′ᵀ Q
/// ```
///
/// `dS` is the gradient of the bias, and `dS′` is `dS` times the slopes of the `score_mod` and the softcap. Scores are
/// computed again, never stored, so memory grows with the lengths and not with their product (Dao et al.,
/// FlashAttention, 2022). Keys and values that several query heads share get the sum over these heads. There are no
/// atomic additions of floating-point numbers: the same inputs give the same bits.
///
/// The forward pass must keep `out` and `lse`, so the problem must ask for its [`lse`](crate::ProblemBuilder::lse).
///
/// ```
/// use wgpu_attention::{Attention, Diagonal, Operand, Operands, Problem, Shape};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (device, _queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
/// # let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
/// let problem = Problem::builder(Shape::new(2, 8, 512, 64)).causal(Diagonal::TopLeft).lse().build()?;
/// let gradients = problem.gradients().build()?;
/// let attention = Attention::new(&device);
/// let (forward, backward) = (attention.plan(&problem)?, attention.plan_gradients(&gradients)?);
/// # let buffer = |operand| device.create_buffer(&wgpu::BufferDescriptor {
/// #     label: None,
/// #     size: gradients.view(operand).map_or(4, |view| view.size_bytes()),
/// #     usage: wgpu::BufferUsages::STORAGE,
/// #     mapped_at_creation: false,
/// # });
/// # let [q, k, v, out] = [Operand::Q, Operand::K, Operand::V, Operand::Out].map(buffer);
/// # let [lse, dout, dq, dk, dv] = [Operand::Lse, Operand::Dout, Operand::Dq, Operand::Dk, Operand::Dv].map(buffer);
///
/// let whole = wgpu::Buffer::as_entire_buffer_binding;
/// let operands = Operands::new(whole(&q), whole(&k), whole(&v), whole(&out)).with(Operand::Lse, whole(&lse));
/// forward.bind(&operands)?.encode(&mut encoder);
/// // The app computes the gradient of the output; then:
/// let operands = operands.with(Operand::Dout, whole(&dout)).with(Operand::Dq, whole(&dq));
/// let operands = operands.with(Operand::Dk, whole(&dk)).with(Operand::Dv, whole(&dv));
/// backward.bind(&operands)?.encode(&mut encoder);
/// # Ok(()) }
/// ```
///
/// | question | answer |
/// |---|---|
/// | a row that sees no key | contributes nothing; its `dq` is exactly 0 (a sink still gets the row's `dlse`) |
/// | a key that no row sees, or past its sequence's length | `dk` and `dv` exactly 0 |
/// | a weight that dropout drops | contributes nothing to `dv`, and its `dP` is 0; the others' are multiplied by 1 / (1 − p) |
/// | rows past a sequence's queries | `dq` exactly 0 |
/// | rows of no sequence, in a ragged batch | not written |
/// | NaN or ∞ in what a row does not see, or in rows past the lengths | never reaches a gradient |
/// | NaN or ∞ in what a row sees, or in its `dout` | may make the gradients of that row and of the keys that it sees NaN; others are not affected |
/// | element types | `dq` has that of `q`, `dk` and `dv` that of `k`, `dout` that of the output, `dbias` that of the bias; sums are f32 |
/// | accuracy | weights are `exp(S − LSE)`, so they lose digits where the scores are large: about 1e-7 · the largest score. Above 10⁸ or so, where f32 cannot tell the LSE from the largest score, they are wrong by a factor of up to the number of keys |
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gradients {
    forward: Problem,
    /// The same, with the operands of its gradients.
    problem: Problem,
}

/// Describes the [`Gradients`] of a problem; created by [`Problem::gradients`]. Nothing is checked before
/// [`build`](Self::build).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct GradientsBuilder {
    problem: Problem,
    wanted: Wanted,
    score_mod_grad: Option<Program>,
}

impl Problem {
    /// Starts from the gradients of all inputs: [`Operand::Dq`], [`Operand::Dk`], [`Operand::Dv`] and, if the problem
    /// has a bias or sinks, [`Operand::Dbias`] and [`Operand::Dsinks`].
    pub fn gradients(&self) -> GradientsBuilder {
        let has = |operand| match operand {
            Operand::Dbias => self.uses(Operand::Bias),
            Operand::Dsinks => self.uses(Operand::Sinks),
            operand => operand.is_gradient(),
        };
        let of = Operand::ALL.into_iter().filter(|&operand| has(operand)).collect();
        let wanted = Wanted { of, dlse: false, dout: None, dq: None, dk: None, dv: None };
        GradientsBuilder { problem: self.clone(), wanted, score_mod_grad: None }
    }
}

impl GradientsBuilder {
    /// Computes only these gradients, for example without that of a bias that is not learned.
    pub fn of(mut self, gradients: impl IntoIterator<Item = Operand>) -> Self {
        self.wanted.of.clear();
        for operand in gradients {
            if !self.wanted.of.contains(&operand) {
                self.wanted.of.push(operand);
            }
        }
        self
    }

    /// Takes a gradient of the log-sum-exp too, [`Operand::Dlse`]: (B, Hq, Lq), contiguous.
    pub fn dlse(mut self) -> Self {
        self.wanted.dlse = true;
        self
    }

    /// The layout of `dout`; contiguous (B, H, L, D), or (T, H, D) for ragged queries, unless given.
    pub fn dout(mut self, layout: Layout) -> Self {
        self.wanted.dout = Some(layout);
        self
    }

    /// The layout of `dq`; contiguous likewise unless given.
    pub fn dq(mut self, layout: Layout) -> Self {
        self.wanted.dq = Some(layout);
        self
    }

    /// The layout of `dk`; contiguous likewise unless given.
    pub fn dk(mut self, layout: Layout) -> Self {
        self.wanted.dk = Some(layout);
        self
    }

    /// The layout of `dv`; contiguous likewise unless given.
    pub fn dv(mut self, layout: Layout) -> Self {
        self.wanted.dv = Some(layout);
        self
    }

    /// The derivative of the problem's `score_mod`, which it must have if the problem has a `score_mod`:
    /// `fn score_mod_grad(score: f32, at: At, gradient: f32) -> f32`. It receives the score that the `score_mod` received,
    /// and the gradient of what the `score_mod` returned; it returns their product with the slope there. A text that
    /// declares both functions may be given for both.
    pub fn score_mod_grad(mut self, text: impl Into<Arc<str>>) -> Self {
        self.score_mod_grad = Some(Program::new(text));
        self
    }

    /// Checks the description.
    ///
    /// # Errors
    /// [`ProblemError`] names the setting and what to do.
    pub fn build(&self) -> Result<Gradients, ProblemError> {
        let Self { problem, wanted, score_mod_grad } = self;
        if !problem.uses(Operand::Lse) {
            return Err(ProblemError::GradientsNeedLse);
        }
        if wanted.of.is_empty() {
            return Err(ProblemError::NoGradients);
        }
        for &operand in &wanted.of {
            let input = match operand {
                Operand::Dbias => Operand::Bias,
                Operand::Dsinks => Operand::Sinks,
                _ => Operand::Q,
            };
            if !operand.is_gradient() || !problem.uses(input) {
                return Err(ProblemError::NotAGradient { operand });
            }
        }
        match problem.keys() {
            Keys::Dense | Keys::Ragged { .. } => {}
            Keys::Paged(_) | Keys::Ring { .. } => {
                let other = if problem.ring().is_some() { "ring_kv" } else { "paged_kv" };
                let remedy = "train on keys that lie side by side: dense, or `ragged_kv`";
                return Err(ProblemError::Combined { one: "gradients", other, remedy });
            }
        }
        if problem.quantization().is_some() {
            let remedy = "train on keys and values in f32, f16 or bf16";
            return Err(ProblemError::Combined { one: "gradients", other: "kv_quantized", remedy });
        }
        let programs = problem.programs();
        if programs.score_mod.is_some() != score_mod_grad.is_some() {
            return Err(ProblemError::ScoreModGrad { has_score_mod: programs.score_mod.is_some() });
        }
        let mut spec = problem.spec.clone();
        spec.programs.score_mod_grad.clone_from(score_mod_grad);
        spec.gradients = Some(wanted.clone());
        Ok(Gradients { forward: problem.clone(), problem: spec.build()? })
    }
}

impl Problem {
    /// Checks that each element of a bias whose gradient is wanted is of pairs that its strides of 0 tell.
    pub(super) fn check_dbias(&self) -> Result<(), ProblemError> {
        let (Some(bias), Some(View { extent, .. })) = (self.view(Operand::Bias), self.view(Operand::Dbias)) else {
            return Ok(());
        };
        if (View { extent, ..bias }).is_injective() {
            return Ok(());
        }
        Err(ProblemError::BiasOverlaps { stride: bias.stride, extent })
    }
}

impl Gradients {
    /// The layout of an operand, if the gradients use it: besides the operands of the problem, `dout`, `dlse` and the
    /// gradients that are wanted.
    pub fn view(&self, operand: Operand) -> Option<View> {
        self.problem.view(operand)
    }

    /// The sizes of the problem.
    pub const fn shape(&self) -> Shape {
        self.problem.shape()
    }

    /// Whether the gradients use an operand.
    pub fn uses(&self, operand: Operand) -> bool {
        self.view(operand).is_some()
    }

    /// The element type of an operand; `None` if the gradients do not use it, or if it holds no floating-point numbers.
    pub fn dtype(&self, operand: Operand) -> Option<Dtype> {
        self.problem.dtype(operand)
    }

    /// The problem whose gradients these are.
    pub const fn forward(&self) -> &Problem {
        &self.forward
    }

    /// The problem whose gradients these are, with the operands of its gradients.
    pub(crate) const fn problem(&self) -> &Problem {
        &self.problem
    }
}
