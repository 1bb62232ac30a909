//! A problem's inputs, owned.

use wgpu_attention::Inputs;

/// What [`Inputs`] borrows.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostInputs {
    pub(crate) q: Vec<f32>,
    pub(crate) k: Vec<f32>,
    pub(crate) v: Vec<f32>,
    pub(crate) mask: Option<Vec<bool>>,
    pub(crate) bias: Option<Vec<f32>>,
    pub(crate) kv_lengths: Option<Vec<u32>>,
}

impl HostInputs {
    pub(crate) fn borrow(&self) -> Inputs<'_> {
        Inputs {
            q: &self.q,
            k: &self.k,
            v: &self.v,
            mask: self.mask.as_deref(),
            bias: self.bias.as_deref(),
            kv_lengths: self.kv_lengths.as_deref(),
        }
    }
}
