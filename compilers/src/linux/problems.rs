//! What is compiled for: long prompts, single tokens, caches of servers, and the gradients of usual models.

use anyhow::Result;
use wgpu_attention::{Dtype, Gradients, Pages, Problem, Quantization, Shape};

const HEADS: u32 = 32;
const PROMPT: u32 = 4096;
const CONTEXT: u32 = 16 << 10;

/// Problems by name. `brief` has the few that a test compares.
pub(crate) fn all(brief: bool) -> Result<Vec<(String, Problem)>> {
    let mut problems = Vec::new();
    let dtypes: &[Dtype] = if brief { &[Dtype::F32, Dtype::F16] } else { &Dtype::ALL };
    let dims: &[u32] = if brief { &[64, 128] } else { &[32, 64, 128, 192, 256] };
    for &dtype in dtypes {
        for &dim in dims {
            let problem = Problem::builder(Shape::new(1, HEADS, PROMPT, dim)).dtype(dtype).build()?;
            problems.push((format!("prefill {dtype} {dim}"), problem));
        }
    }
    let groups: &[u32] = if brief { &[4] } else { &[1, 4, 8] };
    for dtype in [Dtype::F32, Dtype::F16].into_iter().filter(|&dtype| !brief || dtype == Dtype::F16) {
        for &dim in [64, 128].iter().filter(|&&dim| !brief || dim == 128) {
            for &group in groups {
                let shape = Shape::new(1, HEADS, 1, dim).kv_heads(HEADS / group).kv_len(CONTEXT);
                let problem = Problem::builder(shape).dtype(dtype).build()?;
                problems.push((format!("decode {dtype} {dim} by {group}"), problem));
            }
        }
    }
    if !brief {
        problems.extend(serving()?);
    }
    Ok(problems)
}

/// What servers run besides: quantized and paged caches, and prompts of several lengths at once.
fn serving() -> Result<Vec<(String, Problem)>> {
    let decode = || {
        let shape = Shape::new(1, HEADS, 1, 128).kv_heads(HEADS / 4).kv_len(CONTEXT);
        Problem::builder(shape).dtype(Dtype::F16).kv_lengths()
    };
    let prefill = || Problem::builder(Shape::new(8, HEADS, PROMPT, 128)).dtype(Dtype::F16);
    let total = 2 * PROMPT;
    Ok(vec![
        ("decode lengths 128 by 4".to_owned(), decode().build()?),
        ("decode int8 128 by 4".to_owned(), decode().kv_quantized(Quantization::Int8).build()?),
        ("decode int4 128 by 4".to_owned(), decode().kv_quantized(Quantization::Int4).build()?),
        ("decode fp8 128 by 4".to_owned(), decode().kv_quantized(Quantization::Fp8E4m3).build()?),
        ("decode pages 128 by 4".to_owned(), decode().paged_kv(Pages { count: CONTEXT / 16, size: 16 }).build()?),
        ("prefill ragged 128".to_owned(), prefill().ragged_q(total).ragged_kv(total).build()?),
        ("prefill lengths 128".to_owned(), prefill().q_lengths().kv_lengths().build()?),
    ])
}

/// Gradients by name, likewise.
pub(crate) fn gradients(brief: bool) -> Result<Vec<(String, Gradients)>> {
    let dtypes: &[Dtype] = if brief { &[Dtype::F32] } else { &[Dtype::F32, Dtype::F16] };
    let dims: &[u32] = if brief { &[64] } else { &[32, 64, 128, 256] };
    let mut gradients = Vec::new();
    for &dtype in dtypes {
        for &dim in dims {
            let problem = Problem::builder(Shape::new(1, HEADS, PROMPT, dim)).dtype(dtype).lse().build()?;
            gradients.push((format!("backward {dtype} {dim}"), problem.gradients().build()?));
        }
    }
    Ok(gradients)
}
