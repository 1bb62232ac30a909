//! The multi-threaded sibling of [`wgpu_attention::reference`]: f32, a row a task, for machines without a GPU driver.
//!
//! A hidden key is never read, so what lies behind a mask cannot leak; a row that sees nothing is zeros and −∞.

use anyhow::{Result, ensure};
use indicatif::{ParallelProgressIterator as _, ProgressBar};
use rayon::prelude::*;
use wgpu_attention::blocking::Outputs;
use wgpu_attention::{Dtype, Inputs, Operand, Problem, View};

use crate::visibility::{Visibility, place};

/// The most one output may take, in bytes: past it a typing error is likelier than a wish.
const LARGEST_OUTPUT: u64 = 1 << 34;

/// Where a row's results go; `weights` is empty where nobody asked for them.
struct Row<'a> {
    out: &'a mut [f32],
    lse: &'a mut f32,
    weights: &'a mut [f32],
}

/// Computes every row on all cores.
pub(crate) fn attention(problem: &Problem, inputs: &Inputs<'_>, progress: &ProgressBar) -> Result<Outputs> {
    inputs.check(problem)?;
    for view in problem.views().filter(|view| view.operand.is_output()) {
        let (operand, need) = (view.operand, view.size_bytes());
        ensure!(
            need <= LARGEST_OUTPUT,
            "`{operand}` would take {need} bytes, and the CPU path writes at most {LARGEST_OUTPUT}; run fewer heads or \
             batches at a time"
        );
    }
    let shape = problem.shape();
    let [rows, dim_v, len_kv] = [
        shape.batch as usize * shape.heads_q as usize * shape.len_q as usize,
        shape.dim_v as usize,
        shape.len_kv as usize,
    ];
    let mut out = vec![0.0; rows * dim_v];
    let mut lse = vec![f32::NEG_INFINITY; rows];
    let mut weights = vec![0.0; if problem.uses(Operand::Weights) { rows * len_kv } else { 0 }];

    let stored = [inputs.q, inputs.k, inputs.v].map(|values| as_stored(problem.dtype(), values));
    let bias = inputs.bias.map(|bias| as_stored(problem.bias_dtype().unwrap_or_default(), bias));
    let rounded = Inputs { q: &stored[0], k: &stored[1], v: &stored[2], bias: bias.as_deref(), ..*inputs };
    let task = Task::new(problem, &rounded);

    progress.set_length(rows as u64);
    let mut weight_rows = weights.chunks_mut(len_kv);
    let targets: Vec<Row<'_>> = (out.chunks_mut(dim_v).zip(&mut lse))
        .map(|(out, lse)| Row { out, lse, weights: weight_rows.next().unwrap_or_default() })
        .collect();
    targets
        .into_par_iter()
        .enumerate()
        .progress_with(progress.clone())
        .for_each_init(Vec::new, |scores, (index, row)| task.compute(index, row, scores));

    Ok(Outputs {
        out: laid_out(problem, as_stored(problem.dtype(), &out).into_owned()),
        lse: problem.uses(Operand::Lse).then_some(lse),
        weights: problem.uses(Operand::Weights).then(|| as_stored(problem.dtype(), &weights).into_owned()),
    })
}

/// The values a tensor of this type can hold.
pub(crate) fn as_stored(dtype: Dtype, values: &[f32]) -> std::borrow::Cow<'_, [f32]> {
    match dtype {
        Dtype::F32 => values.into(),
        Dtype::F16 | Dtype::Bf16 => dtype.decode(&dtype.encode(values)).into(),
    }
}

/// Contiguous rows to the problem's own output layout.
fn laid_out(problem: &Problem, rows: Vec<f32>) -> Vec<f32> {
    let Some(view) = problem.view(Operand::Out) else { return rows };
    if view.end() == rows.len() as u64 && view.stride.is_sorted_by(|a, b| a >= b) {
        return rows;
    }
    let mut out = vec![0.0; usize::try_from(view.end()).unwrap_or(usize::MAX)];
    let dim = view.extent[3] as usize;
    for (index, row) in rows.chunks(dim).enumerate() {
        let start = place(&view, position(&view, index));
        out[start..start + dim].copy_from_slice(row);
    }
    out
}

/// The (batch, head, row, 0) of the `index`th row.
fn position(view: &View, index: usize) -> [u32; 4] {
    let [_, heads, rows, _] = view.extent.map(|n| n as usize);
    // Each is below an extent that is a u32.
    [index / rows / heads, index / rows % heads, index % rows, 0].map(|i| u32::try_from(i).unwrap_or(u32::MAX))
}

/// All that the rows share.
struct Task<'a> {
    inputs: &'a Inputs<'a>,
    q: View,
    k: View,
    v: View,
    bias: Option<(View, &'a [f32])>,
    visibility: Visibility<'a>,
    group: u32,
    scale: f32,
    softcap: Option<f32>,
}

impl<'a> Task<'a> {
    fn new(problem: &'a Problem, inputs: &'a Inputs<'a>) -> Self {
        let always = |operand| problem.view(operand).unwrap_or_else(|| unreachable!("every problem has {operand}"));
        Self {
            inputs,
            q: always(Operand::Q),
            k: always(Operand::K),
            v: always(Operand::V),
            bias: problem.view(Operand::Bias).zip(inputs.bias),
            visibility: Visibility::new(problem, inputs),
            group: problem.shape().group(),
            scale: problem.scale(),
            softcap: problem.softcap(),
        }
    }

    fn compute(&self, index: usize, row: Row<'_>, scores: &mut Vec<f32>) {
        let [batch, head, i, _] = position(&self.q, index);
        let keys = self.visibility.range(batch, i);
        self.scores([batch, head, i], keys.clone(), scores);

        // −∞ marks a hidden key; NaN is no maximum but stays a score, so the row shows it.
        let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if scores.iter().all(|&score| score == f32::NEG_INFINITY) {
            return;
        }
        let mut total = 0.0;
        for score in scores.iter_mut() {
            *score = (*score - largest).exp();
            total += f64::from(*score);
        }
        #[expect(clippy::cast_possible_truncation, reason = "a sum of f32s, rounded back to f32")]
        let total = total as f32;
        *row.lse = largest + total.ln();

        let kv_head = head / self.group;
        for (j, weight) in keys.zip(scores.iter_mut()) {
            // Zero is a key that is hidden or too far below the maximum to count: its value may be anything.
            if *weight == 0.0 {
                continue;
            }
            *weight /= total;
            for (out, v) in row.out.iter_mut().zip(vector(&self.v, self.inputs.v, [batch, kv_head, j])) {
                *out += *weight * v;
            }
            if let Some(place) = row.weights.get_mut(j as usize) {
                *place = *weight;
            }
        }
    }

    fn scores(&self, [batch, head, i]: [u32; 3], keys: std::ops::Range<u32>, scores: &mut Vec<f32>) {
        let q = vector(&self.q, self.inputs.q, [batch, head, i]);
        let kv_head = head / self.group;
        scores.clear();
        scores.extend(keys.map(|j| {
            let at = [batch, head, i, j];
            if !self.visibility.unmasked(at) {
                return f32::NEG_INFINITY;
            }
            let mut score = dot(q, vector(&self.k, self.inputs.k, [batch, kv_head, j])) * self.scale;
            if let Some(cap) = self.softcap {
                score = cap * (score / cap).tanh();
            }
            match self.bias {
                Some((view, bias)) => score + bias[place(&view, at)],
                None => score,
            }
        }));
    }
}

fn vector<'a>(view: &View, values: &'a [f32], [batch, head, row]: [u32; 3]) -> &'a [f32] {
    let start = place(view, [batch, head, row, 0]);
    &values[start..start + view.extent[3] as usize]
}

/// Sixteen sums side by side, which the compiler keeps in vector registers.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut sums = [0.0; 16];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..16 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}
