//! ferrotensor-backend's flash attention on wgpu 0.19, and the same with its gradients; f32 only, head sizes up to 128.

use std::process::ExitCode;

use ferrotensor_backend::{ComputeEngine, UnifiedTensor, WgpuContext};
use protocol::{Dtype, Peer, Problem};

struct Ferrotensor {
    context: WgpuContext,
    engine: ComputeEngine,
    q: UnifiedTensor,
    k: UnifiedTensor,
    v: UnifiedTensor,
    out: UnifiedTensor,
    /// Additive, (B, 1, 1, Lk).
    mask: Option<UnifiedTensor>,
    causal: bool,
    backward: Option<Backward>,
}

/// The gradient of the output, and those of queries, keys and values.
struct Backward {
    dout: UnifiedTensor,
    dq: UnifiedTensor,
    dk: UnifiedTensor,
    dv: UnifiedTensor,
}

impl Ferrotensor {
    fn prepare(problem: &Problem) -> Result<Self, String> {
        if problem.dtype != Dtype::F32 {
            return Err("f32 only".to_owned());
        }
        let s = problem.shape;
        let context = pollster::block_on(WgpuContext::new());
        let engine = ComputeEngine::new(&context);
        let upload = |tensor: &[f32], heads: usize, length: usize| {
            let swapped = swap_heads_and_rows(tensor, heads, length, s.dim);
            UnifiedTensor::new(&context, &swapped, &[s.batch, length, heads, s.dim])
        };
        let q = upload(&problem.q, s.heads_q, s.len_q);
        let k = upload(&problem.k, s.heads_kv, s.len_k);
        let v = upload(&problem.v, s.heads_kv, s.len_k);
        let out = UnifiedTensor::empty(&context, &q.shape);
        let mask = problem.keep.as_ref().map(|keep| {
            // It takes scores of −10³⁰ and below for hidden ones.
            let bias: Vec<f32> = keep.iter().map(|&keep| if keep { 0.0 } else { -2.0e30 }).collect();
            UnifiedTensor::new(&context, &bias, &[s.batch, 1, 1, s.len_k])
        });
        Ok(Self { context, engine, q, k, v, out, mask, causal: s.causal, backward: None })
    }

    fn prepare_backward(problem: &Problem) -> Result<Self, String> {
        let mut peer = Self::prepare(problem)?;
        if peer.mask.is_some() {
            return Err("measured without a mask only".to_owned());
        }
        let s = problem.shape;
        // As long as the output, and as good as any other numbers.
        let dout = UnifiedTensor::new(&peer.context, &problem.q, &[s.batch, s.len_q, s.heads_q, s.dim]);
        let [dq, dk, dv] = [&peer.q, &peer.k, &peer.v].map(|tensor| UnifiedTensor::empty(&peer.context, &tensor.shape));
        peer.backward = Some(Backward { dout, dq, dk, dv });
        Ok(peer)
    }
}

impl Peer for Ferrotensor {
    type Output = Vec<f32>;

    fn device(&self) -> String {
        self.context.adapter_info()
    }

    fn run(&mut self) -> Vec<f32> {
        let Self { context, engine, q, k, v, out, mask, causal, backward } = self;
        engine.flash_attention_v2(context, q, k, v, out, *causal, 0.0, 0, mask.as_ref());
        let Some(Backward { dout, dq, dk, dv }) = backward else { return pollster::block_on(out.to_vec(context)) };
        engine.flash_attention_v2_backward(context, q, k, v, out, dout, dq, dk, dv, *causal);
        pollster::block_on(dk.to_vec(context))
    }

    /// With gradients, the output that they were computed from.
    fn values(&self, output: Vec<f32>) -> Vec<f32> {
        let output = if self.backward.is_some() { pollster::block_on(self.out.to_vec(&self.context)) } else { output };
        let [_, length, heads, dim] = self.q.shape[..] else { return Vec::new() };
        swap_heads_and_rows(&output, length, heads, dim)
    }
}

/// (B, M, N, D) as (B, N, M, D).
fn swap_heads_and_rows(tensor: &[f32], m: usize, n: usize, dim: usize) -> Vec<f32> {
    let mut swapped = Vec::with_capacity(tensor.len());
    for batch in tensor.chunks(m * n * dim) {
        for (j, i) in (0..n).flat_map(|j| (0..m).map(move |i| (j, i))) {
            swapped.extend_from_slice(&batch[(i * n + j) * dim..][..dim]);
        }
    }
    swapped
}

fn main() -> ExitCode {
    // `run.py` compares forward passes. With this variable the gradients are computed too.
    let backward = std::env::var_os("BACKWARD").is_some();
    protocol::main::<Ferrotensor>(if backward {
        &[("ferrotensor-backward", Ferrotensor::prepare_backward)]
    } else {
        &[("ferrotensor", Ferrotensor::prepare)]
    })
}
