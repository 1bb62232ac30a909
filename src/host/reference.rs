//! The definition: attention in f64 as the formula says it, one row at a time. No tiling, no online softmax, and nothing
//! shared with the kernels. Slow, and meant to be: check your own integration against it.

use crate::host::inputs::Inputs;
use crate::problem::Problem;
use crate::problem::layout::View;
use crate::problem::operand::Operand;
use crate::problem::positions::Diagonal;
use crate::record::error::BindError;

/// What one query row gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The output, `dim_v` long; zeros where the row sees no key.
    pub out: Vec<f64>,
    /// Log-sum-exp of the visible scores; −∞ where there are none.
    pub lse: f64,
    /// The attention weights, `len_kv` long; zero where a key is hidden.
    pub weights: Vec<f64>,
}

/// What all rows give, contiguous in (batch, head, row) order whatever the problem's own output layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// (B, Hq, Lq, Dv).
    pub out: Vec<f64>,
    /// (B, Hq, Lq).
    pub lse: Vec<f64>,
    /// (B, Hq, Lq, Lk).
    pub weights: Vec<f64>,
}

/// Computes every row. Takes memory of the order of Lq·Lk for the weights.
///
/// # Errors
/// [`BindError`] where the inputs do not fit the problem.
pub fn attention(problem: &Problem, inputs: &Inputs<'_>) -> Result<Reference, BindError> {
    inputs.check(problem)?;
    let shape = problem.shape();
    let mut reference = Reference { out: Vec::new(), lse: Vec::new(), weights: Vec::new() };
    for batch in 0..shape.batch {
        for head in 0..shape.heads_q {
            for i in 0..shape.len_q {
                let row = compute_row(problem, inputs, [batch, head, i]);
                reference.out.extend(row.out);
                reference.lse.push(row.lse);
                reference.weights.extend(row.weights);
            }
        }
    }
    Ok(reference)
}

/// Computes the row of query `i` of `head` in `batch`, for sampling shapes too large to do whole.
///
/// # Errors
/// [`BindError`] where the inputs do not fit the problem, or there is no such row.
pub fn row(problem: &Problem, inputs: &Inputs<'_>, at: [u32; 3]) -> Result<Row, BindError> {
    inputs.check(problem)?;
    let [batches, heads, rows, _] = problem.shape().scores();
    let extent = [batches, heads, rows];
    if at.iter().zip(extent).any(|(&at, extent)| at >= extent) {
        return Err(BindError::NoSuchRow { at, extent });
    }
    Ok(compute_row(problem, inputs, at))
}

fn compute_row(problem: &Problem, inputs: &Inputs<'_>, [batch, head, i]: [u32; 3]) -> Row {
    let shape = problem.shape();
    let kv_head = head / (shape.heads_q / shape.heads_kv);
    let q = vector(problem, Operand::Q, inputs.q, [batch, head, i]);

    let mut scores = Vec::new();
    for j in 0..shape.len_kv {
        if !visible(problem, inputs, [batch, head, i, j]) {
            continue;
        }
        let k = vector(problem, Operand::K, inputs.k, [batch, kv_head, j]);
        let mut score = q.iter().zip(&k).map(|(q, k)| q * k).sum::<f64>() * f64::from(problem.scale());
        if let Some(cap) = problem.softcap().map(f64::from) {
            score = cap * (score / cap).tanh();
        }
        if let (Some(view), Some(bias)) = (problem.view(Operand::Bias), inputs.bias) {
            score += f64::from(bias[place(&view, [batch, head, i, j])]);
        }
        scores.push((j, score));
    }

    let mut row =
        Row { out: vec![0.0; shape.dim_v as usize], lse: f64::NEG_INFINITY, weights: vec![0.0; shape.len_kv as usize] };
    if scores.is_empty() {
        return row;
    }
    let largest = scores.iter().map(|&(_, score)| score).fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|(_, score)| (score - largest).exp()).sum();
    row.lse = largest + total.ln();
    for (j, score) in scores {
        let weight = (score - largest).exp() / total;
        row.weights[j as usize] = weight;
        let v = vector(problem, Operand::V, inputs.v, [batch, kv_head, j]);
        for (out, v) in row.out.iter_mut().zip(v) {
            *out += weight * v;
        }
    }
    row
}

/// Whether query `i` may see key `j`: within the valid keys, at or before the diagonal if causal, within the window of
/// it, not masked, and not hidden by a bias of −∞.
fn visible(problem: &Problem, inputs: &Inputs<'_>, at: [u32; 4]) -> bool {
    let [batch, _, i, j] = at;
    let shape = problem.shape();
    let valid = inputs.kv_lengths.map_or(shape.len_kv, |lengths| lengths[batch as usize].min(shape.len_kv));
    let offset = match problem.diagonal() {
        Diagonal::TopLeft => 0,
        Diagonal::BottomRight => i64::from(valid) - i64::from(shape.len_q),
        Diagonal::Offset(offset) => i64::from(offset),
    };
    let (diagonal, key) = (i64::from(i) + offset, i64::from(j));
    let window = problem.window();
    let unmasked = match (problem.view(Operand::Mask), inputs.mask) {
        (Some(view), Some(mask)) => mask[place(&view, at)],
        _ => true,
    };
    let biased_away = match (problem.view(Operand::Bias), inputs.bias) {
        (Some(view), Some(bias)) => bias[place(&view, at)] == f32::NEG_INFINITY,
        _ => false,
    };
    j < valid
        && unmasked
        && !biased_away
        && (!problem.is_causal() || key <= diagonal)
        && window.left.is_none_or(|left| key >= diagonal - i64::from(left))
        && window.right.is_none_or(|right| key <= diagonal + i64::from(right))
}

fn vector(problem: &Problem, operand: Operand, values: &[f32], [batch, head, row]: [u32; 3]) -> Vec<f64> {
    let Some(view) = problem.view(operand) else { return Vec::new() };
    (0..view.extent[3]).map(|d| f64::from(values[place(&view, [batch, head, row, d])])).collect()
}

fn place(view: &View, at: [u32; 4]) -> usize {
    usize::try_from(view.index(at)).expect("a slice that was long enough holds it")
}
