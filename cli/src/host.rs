//! A problem's inputs: owned, and as the problem stores them.

use std::borrow::Cow;

use wgpu_attention::reference::{At, Programs};
use wgpu_attention::{Dtype, Inputs, Problem};

/// What [`Inputs`] borrows.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostInputs {
    pub(crate) q: Vec<f32>,
    pub(crate) k: Vec<f32>,
    pub(crate) v: Vec<f32>,
    pub(crate) mask: Option<Vec<bool>>,
    pub(crate) bias: Option<Vec<f32>>,
    pub(crate) kv_lengths: Option<Vec<u32>>,
    pub(crate) alibi_slopes: Option<Vec<f32>>,
    pub(crate) sinks: Option<Vec<f32>>,
    pub(crate) aux: Option<Vec<f32>>,
    /// The programs of the problem as Rust functions, where they are known as such.
    pub(crate) score_mod: Option<fn(f64, At) -> f64>,
    pub(crate) mask_mod: Option<fn(At) -> bool>,
}

impl HostInputs {
    pub(crate) fn programs(&self) -> Programs<'_> {
        Programs {
            score_mod: self.score_mod.as_ref().map(|run| run as _),
            mask_mod: self.mask_mod.as_ref().map(|run| run as _),
        }
    }

    pub(crate) fn borrow(&self) -> Inputs<'_> {
        Inputs {
            q: &self.q,
            k: &self.k,
            v: &self.v,
            mask: self.mask.as_deref(),
            bias: self.bias.as_deref(),
            kv_lengths: self.kv_lengths.as_deref(),
            alibi_slopes: self.alibi_slopes.as_deref(),
            sinks: self.sinks.as_deref(),
            aux: self.aux.as_deref(),
        }
    }
}

/// Inputs rounded to the values that the problem's types can hold.
pub(crate) struct Stored<'a> {
    q: Cow<'a, [f32]>,
    k: Cow<'a, [f32]>,
    v: Cow<'a, [f32]>,
    bias: Option<Cow<'a, [f32]>>,
    /// What has no rounding.
    given: Inputs<'a>,
}

impl<'a> Stored<'a> {
    pub(crate) fn new(problem: &Problem, given: &Inputs<'a>) -> Self {
        let [q, k, v] = [given.q, given.k, given.v].map(|values| as_stored(problem.dtype(), values));
        let bias = given.bias.map(|bias| as_stored(problem.bias_dtype().unwrap_or_default(), bias));
        Self { q, k, v, bias, given: *given }
    }

    pub(crate) fn borrow(&self) -> Inputs<'_> {
        Inputs { q: &self.q, k: &self.k, v: &self.v, bias: self.bias.as_deref(), ..self.given }
    }
}

/// The values a tensor of this type can hold.
pub(crate) fn as_stored(dtype: Dtype, values: &[f32]) -> Cow<'_, [f32]> {
    match dtype {
        Dtype::F32 => values.into(),
        Dtype::F16 | Dtype::Bf16 => dtype.decode(&dtype.encode(values)).into(),
    }
}
