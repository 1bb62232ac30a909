//! The gradients in f64, as the formulas say, one row at a time. Like the rest of the reference, they share nothing with the
//! kernels.

use crate::host::inputs::Inputs;
use crate::host::reference::{Programs, Scored, compute_row, dropout_factor, scores, sink, softmax};
use crate::host::reference_places::{key_place, key_vector, place, query_place, vector};
use crate::problem::gradients::Gradients;
use crate::problem::operand::Operand;
use crate::record::error::BindError;

/// The gradients of all inputs, whether or not they are wanted, contiguous whatever the layouts. Rows are counted within
/// their sequences.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceGradients {
    /// That of the queries (B, Hq, Lq, Dqk).
    pub dq: Vec<f64>,
    /// That of the keys (B, Hkv, Lk, Dqk).
    pub dk: Vec<f64>,
    /// That of the values (B, Hkv, Lk, Dv).
    pub dv: Vec<f64>,
    /// That of the bias, with 1 for each axis that it broadcasts; empty without a bias that is wanted.
    pub dbias: Vec<f64>,
    /// That of the sinks (Hq).
    pub dsinks: Vec<f64>,
}

/// Computes the gradients of a problem, whose programs are given as Rust functions.
///
/// # Errors
/// [`BindError`] if the inputs do not fit the problem.
pub fn gradients(
    gradients: &Gradients,
    inputs: &Inputs<'_>,
    programs: &Programs<'_>,
) -> Result<ReferenceGradients, BindError> {
    let [batches, heads, rows, _] = gradients.problem().shape().scores();
    let all = (0..batches).flat_map(|b| (0..heads).flat_map(move |h| (0..rows).map(move |i| [b, h, i])));
    gradients_of_rows(gradients, inputs, programs, all)
}

/// Computes what some rows contribute to the gradients, each row given by its batch, head and query. The contributions of
/// all rows add up to the gradients, so several threads can share the work.
///
/// # Errors
/// [`BindError`] if the inputs do not fit the problem, or there is no such row.
pub fn gradients_of_rows(
    gradients: &Gradients,
    inputs: &Inputs<'_>,
    programs: &Programs<'_>,
    rows: impl IntoIterator<Item = [u32; 3]>,
) -> Result<ReferenceGradients, BindError> {
    let problem = gradients.problem();
    inputs.check(problem)?;
    programs.check(problem)?;
    let shape = problem.shape();
    let (dim_qk, dim_v, scale) = (shape.dim_qk as usize, shape.dim_v as usize, f64::from(problem.scale()));
    let count = |heads: u32, len: u32| shape.batch as usize * heads as usize * len as usize;
    let [of_queries, of_keys] = [count(shape.heads_q, shape.len_q), count(shape.heads_kv, shape.len_kv)];
    let extent = [shape.batch, shape.heads_q, shape.len_q];
    let bias = problem.view(Operand::Dbias);
    let mut all = ReferenceGradients {
        dq: vec![0.0; of_queries * dim_qk],
        dk: vec![0.0; of_keys * dim_qk],
        dv: vec![0.0; of_keys * dim_v],
        dbias: vec![0.0; bias.map_or(0, |view| usize::try_from(view.end()).unwrap_or(usize::MAX))],
        dsinks: vec![0.0; shape.heads_q as usize],
    };
    for row @ [batch, head, i] in rows {
        if row.iter().zip(extent).any(|(&at, extent)| at >= extent) {
            return Err(BindError::NoSuchRow { at: row, extent });
        }
        let (seen, sink) = (scores(problem, inputs, programs, row), sink(problem, inputs, row));
        if seen.is_empty() && sink.is_none() {
            continue;
        }
        let [q_batch, q_row] = query_place(problem, inputs, batch, i);
        let at = [q_batch, head, q_row];
        let dlse = match (problem.view(Operand::Dlse), inputs.dlse) {
            (Some(view), Some(dlse)) => f64::from(dlse[place(&view, [q_batch, head, q_row, 0])]),
            _ => 0.0,
        };
        let forward = compute_row(problem, inputs, programs, row);
        if seen.is_empty() {
            // All weight is the sink's, which has no value.
            all.dsinks[head as usize] += dlse;
            continue;
        }
        let dout = vector(problem, Operand::Dout, inputs.dout.unwrap_or_default(), at);
        let mean = dot(&dout, &forward.out);
        if let Some(sink) = sink {
            all.dsinks[head as usize] += (sink - forward.lse).exp() * (dlse - mean);
        }
        let q = vector(problem, Operand::Q, inputs.q, at);
        // Those before dropout.
        let (weights, _) = softmax(&seen, sink);
        for (Scored { at, product, capped, .. }, weight) in seen.into_iter().zip(weights) {
            let [k_batch, k_row] = key_place(problem, inputs, batch, at.key);
            let [k, v] = [Operand::K, Operand::V]
                .map(|operand| key_vector(problem, inputs, operand, [k_batch, at.kv_head, k_row]));
            let factor = dropout_factor(problem, inputs, at);
            let mut gradient = weight * (factor * dot(&dout, &v) - mean + dlse);
            if let Some(view) = bias {
                let own = view.extent.map(|extent| extent > 1);
                let index = [batch, head, i, at.key];
                let index = std::array::from_fn(|axis| if own[axis] { index[axis] } else { 0 });
                all.dbias[place(&view, index)] += gradient;
            }
            if let Some(score_mod_grad) = programs.score_mod_grad {
                gradient = score_mod_grad(capped, at, gradient);
            }
            if let Some(cap) = problem.softcap().map(f64::from) {
                gradient /= (product / cap).cosh().powi(2);
            }
            let query = (batch as usize * shape.heads_q as usize + head as usize) * shape.len_q as usize + i as usize;
            let key = (batch as usize * shape.heads_kv as usize + at.kv_head as usize) * shape.len_kv as usize
                + at.key as usize;
            add(&mut all.dq[query * dim_qk..][..dim_qk], gradient * scale, &k);
            add(&mut all.dk[key * dim_qk..][..dim_qk], gradient * scale, &q);
            add(&mut all.dv[key * dim_v..][..dim_v], weight * factor, &dout);
        }
    }
    Ok(all)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `sum ← sum + factor · x`
fn add(sum: &mut [f64], factor: f64, x: &[f64]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += factor * x);
}
