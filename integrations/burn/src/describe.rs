//! From burn's shapes and options to a problem of wgpu-attention.

use burn::tensor::ops::AttentionModuleOptions;
use wgpu_attention::{Diagonal, Dtype, Layout, MaskFormat, Problem, ProblemBuilder, ProblemError, ScoreLayout, Shape};

use crate::check::Reason;

/// The sizes, from burn's shapes of the queries and the values: (batch, heads, length, head size).
pub(crate) fn shape([batch, heads_q, len_q, dim_qk]: [usize; 4], v: [usize; 4]) -> Result<Shape, Reason> {
    let size = |n: usize| u32::try_from(n).map_err(|_| Reason::TooLong(n));
    let [_, heads_kv, len_kv, dim_v] = v;
    let shape = Shape::new(size(batch)?, size(heads_q)?, size(len_q)?, size(dim_qk)?);
    Ok(shape.kv_heads(size(heads_kv)?).kv_len(size(len_kv)?).value_dim(size(dim_v)?))
}

/// Where queries, keys and values lie in their bindings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layouts {
    pub(crate) q: Layout,
    pub(crate) k: Layout,
    pub(crate) v: Layout,
}

/// One call of attention.
#[derive(Clone, Debug)]
pub(crate) struct Forward {
    pub(crate) shape: Shape,
    pub(crate) dtype: Dtype,
    /// Contiguous, if there are none.
    pub(crate) layouts: Option<Layouts>,
    pub(crate) mask: Option<(MaskFormat, ScoreLayout)>,
    pub(crate) bias: Option<ScoreLayout>,
    pub(crate) options: AttentionModuleOptions,
}

impl Forward {
    pub(crate) fn problem(&self) -> Result<Problem, Reason> {
        self.builder().build().map_err(refused)
    }

    /// The problem that also keeps what its gradients need.
    pub(crate) fn training(&self) -> Result<Problem, Reason> {
        self.builder().lse().build().map_err(refused)
    }

    fn builder(&self) -> ProblemBuilder {
        // All tensors are parts of burn's few buffers.
        let mut builder = Problem::builder(self.shape).dtype(self.dtype).shared_buffers();
        if let Some(Layouts { q, k, v }) = self.layouts {
            builder = builder.q(q).k(k).v(v);
        }
        if let Some((format, layout)) = self.mask {
            builder = builder.mask_as(format, layout);
        }
        if let Some(layout) = self.bias {
            builder = builder.bias(self.dtype, layout);
        }
        let AttentionModuleOptions { scale, softcap, is_causal } = self.options;
        if let Some(scale) = scale {
            builder = builder.scale(single(scale));
        }
        if let Some(softcap) = softcap {
            builder = builder.softcap(single(softcap));
        }
        if is_causal { builder.causal(Diagonal::BottomRight) } else { builder }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "kernels compute in f32, and a number past it is refused")]
fn single(number: f64) -> f32 {
    number as f32
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(crate) fn refused(error: ProblemError) -> Reason {
    Reason::Refused(error.to_string())
}
