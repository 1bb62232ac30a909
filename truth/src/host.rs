//! The inputs of a problem, owned.

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use wgpu_attention::reference::At;
use wgpu_attention::{Inputs, Philox};

/// What [`Inputs`] borrows, and the problem's programs as Rust functions.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Queries.
    pub q: Vec<f32>,
    /// Keys.
    pub k: Vec<f32>,
    /// Values.
    pub v: Vec<f32>,
    /// Quantized keys, in place of `k`.
    pub k_words: Option<Vec<u32>>,
    /// Quantized values, in place of `v`.
    pub v_words: Option<Vec<u32>>,
    /// Boolean mask, `true` = attend.
    pub mask: Option<Vec<bool>>,
    /// Additive bias.
    pub bias: Option<Vec<f32>>,
    /// Valid keys per batch.
    pub kv_lengths: Option<Vec<u32>>,
    /// Queries per batch.
    pub q_lengths: Option<Vec<u32>>,
    /// Where the queries of each sequence begin, and the last ones end.
    pub cu_seqlens_q: Option<Vec<u32>>,
    /// Where the keys of each sequence begin, and the last ones end.
    pub cu_seqlens_k: Option<Vec<u32>>,
    /// The pages of each sequence.
    pub block_table: Option<Vec<u32>>,
    /// `ALiBi` slopes.
    pub alibi_slopes: Option<Vec<f32>>,
    /// Sinks.
    pub sinks: Option<Vec<f32>>,
    /// The numbers that programs read.
    pub aux: Option<Vec<f32>>,
    /// The state of the generator that dropout draws from.
    pub rng_state: Option<Philox>,
    /// What the masks do in each tile. It may be left out of a problem with a block mask if a device is to compute it.
    pub block_mask: Option<Vec<u32>>,
    /// The gradient of the output.
    pub dout: Option<Vec<f32>>,
    /// The gradient of the log-sum-exp.
    pub dlse: Option<Vec<f32>>,
    /// The programs of the problem, where they are known as Rust functions.
    pub programs: Programs,
}

/// What a problem's WGSL programs compute, in f64.
#[derive(Clone, Default)]
pub struct Programs {
    /// `score_mod`.
    pub score_mod: Option<Arc<ScoreMod>>,
    /// `mask_mod`.
    pub mask_mod: Option<Arc<MaskMod>>,
    /// `score_mod_grad`.
    pub score_mod_grad: Option<Arc<ScoreModGrad>>,
}

/// A new score from a score, its place and the numbers that programs read.
pub type ScoreMod = dyn Fn(f64, At, &[f32]) -> f64 + Send + Sync;
/// The gradient of a score from the score, its place, the gradient of the new score and the numbers that programs read.
pub type ScoreModGrad = dyn Fn(f64, At, f64, &[f32]) -> f64 + Send + Sync;
/// Whether a query attends to a key, from their place and the numbers that programs read.
pub type MaskMod = dyn Fn(At, &[f32]) -> bool + Send + Sync;

impl Debug for Programs {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { score_mod, mask_mod, .. } = self;
        write!(f, "Programs {{ score_mod: {}, mask_mod: {} }}", score_mod.is_some(), mask_mod.is_some())
    }
}

impl Host {
    /// The inputs, borrowed as the library takes them.
    pub fn inputs(&self) -> Inputs<'_> {
        Inputs {
            q: &self.q,
            k: &self.k,
            v: &self.v,
            k_words: self.k_words.as_deref(),
            v_words: self.v_words.as_deref(),
            mask: self.mask.as_deref(),
            bias: self.bias.as_deref(),
            kv_lengths: self.kv_lengths.as_deref(),
            q_lengths: self.q_lengths.as_deref(),
            cu_seqlens_q: self.cu_seqlens_q.as_deref(),
            cu_seqlens_k: self.cu_seqlens_k.as_deref(),
            block_table: self.block_table.as_deref(),
            alibi_slopes: self.alibi_slopes.as_deref(),
            sinks: self.sinks.as_deref(),
            aux: self.aux.as_deref(),
            rng_state: self.rng_state,
            block_mask: self.block_mask.as_deref(),
            dout: self.dout.as_deref(),
            dlse: self.dlse.as_deref(),
            ..Inputs::default()
        }
    }

    /// The numbers that programs read.
    pub fn aux(&self) -> &[f32] {
        self.aux.as_deref().unwrap_or_default()
    }
}
