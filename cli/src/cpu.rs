//! The multi-threaded sibling of [`wgpu_attention::reference`]: f32 in and out, sums in f64, a row a task. For machines
//! without a GPU driver.
//!
//! A hidden key is never read, so what lies behind a mask cannot leak; a row that sees nothing is zeros and −∞.

use anyhow::{Result, ensure};
use indicatif::{ParallelProgressIterator as _, ProgressBar};
use rayon::prelude::*;
use wgpu_attention::blocking::Outputs;
use wgpu_attention::{Dtype, Inputs, Operand, Problem, View};

use crate::visibility::{Visibility, place};

/// The most one output may take, in bytes: past it a typing error is likelier than a wish.
const LARGEST_OUTPUT: u64 = 1 << 31;

/// Where a row's results go; `weights` is empty where nobody asked for them.
struct Row<'a> {
    out: &'a mut [f32],
    lse: &'a mut f32,
    weights: &'a mut [f32],
}

/// What a thread keeps from row to row.
#[derive(Default)]
struct Scratch {
    q: Vec<f64>,
    scores: Vec<f64>,
    sums: Vec<f64>,
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
        .for_each_init(Scratch::default, |scratch, (index, row)| task.compute(index, row, scratch));

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
    scale: f64,
    softcap: Option<f64>,
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
            scale: problem.scale().into(),
            softcap: problem.softcap().map(f64::from),
        }
    }

    fn compute(&self, index: usize, row: Row<'_>, scratch: &mut Scratch) {
        let [batch, head, i, _] = position(&self.q, index);
        let keys = self.visibility.range(batch, i);
        self.scores([batch, head, i], keys.clone(), scratch);
        let (Scratch { scores, sums, .. }, Row { out, lse, weights }) = (scratch, row);

        // −∞ marks a hidden key; NaN is no maximum but stays a score, so the row shows it.
        if scores.iter().all(|&score| score == f64::NEG_INFINITY) {
            return;
        }
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        for score in scores.iter_mut() {
            // f32 holds e to the power of a difference as exactly as the result needs.
            *score = f64::from(narrow(*score - largest).exp());
        }
        let total: f64 = scores.iter().sum();
        *lse = narrow(largest + total.ln());

        sums.clear();
        sums.resize(out.len(), 0.0);
        let kv_head = head / self.group;
        for (j, &weight) in keys.zip(scores.iter()) {
            // Zero is a key that is hidden or too far below the maximum to count: its value may be anything.
            if weight == 0.0 {
                continue;
            }
            let weight = weight / total;
            for (sum, &v) in sums.iter_mut().zip(vector(&self.v, self.inputs.v, [batch, kv_head, j])) {
                *sum += weight * f64::from(v);
            }
            if let Some(place) = weights.get_mut(j as usize) {
                *place = narrow(weight);
            }
        }
        for (out, &sum) in out.iter_mut().zip(sums.iter()) {
            *out = narrow(sum);
        }
    }

    /// Fills the scratch with the scores of a row's keys.
    fn scores(&self, [batch, head, i]: [u32; 3], keys: std::ops::Range<u32>, scratch: &mut Scratch) {
        let Scratch { q, scores, .. } = scratch;
        q.clear();
        q.extend(vector(&self.q, self.inputs.q, [batch, head, i]).iter().map(|&q| f64::from(q) * self.scale));
        let kv_head = head / self.group;
        scores.clear();
        scores.extend(keys.map(|j| {
            let at = [batch, head, i, j];
            if !self.visibility.unmasked(at) {
                return f64::NEG_INFINITY;
            }
            let mut score = dot(q, vector(&self.k, self.inputs.k, [batch, kv_head, j]));
            if let Some(cap) = self.softcap {
                score = cap * (score / cap).tanh();
            }
            match self.bias {
                Some((view, bias)) => score + f64::from(bias[place(&view, at)]),
                None => score,
            }
        }));
    }
}

fn vector<'a>(view: &View, values: &'a [f32], [batch, head, row]: [u32; 3]) -> &'a [f32] {
    let start = place(view, [batch, head, row, 0]);
    &values[start..start + view.extent[3] as usize]
}

/// Eight sums side by side, which the compiler keeps in vector registers.
fn dot(a: &[f64], b: &[f32]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * f64::from(b[lane]);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(&a, &b)| a * f64::from(b)).sum();
    sums.iter().sum::<f64>() + rest
}

#[expect(clippy::cast_possible_truncation, reason = "the nearest f32 is what is wanted")]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};
    use rand_distr::StandardNormal;
    use wgpu_attention::{Diagonal, ScoreLayout, Shape, Window};

    use super::*;
    use crate::host::HostInputs;
    use crate::tolerance::Truth;

    /// A problem drawn at random, with poison behind its mask where it has one.
    fn draw(random: &mut StdRng) -> (Problem, HostInputs) {
        let mut upto = |most: u32| random.random_range(1..=most);
        let (heads_kv, group) = (upto(3), upto(3));
        let shape = Shape::new(upto(2), heads_kv * group, upto(20), upto(40))
            .kv_heads(heads_kv)
            .kv_len(upto(30))
            .value_dim(upto(20));
        let mut problem = Problem::builder(shape).dtype(Dtype::ALL[random.random_range(0..3)]).lse().weights();
        let diagonals = [Diagonal::TopLeft, Diagonal::BottomRight, Diagonal::Offset(random.random_range(-9..9))];
        let diagonal = diagonals[random.random_range(0..3)];
        problem = if random.random() { problem.causal(diagonal) } else { problem.diagonal(diagonal) };
        let mut side = || random.random_bool(0.3).then(|| random.random_range(0..12));
        problem = problem.window(Window { left: side(), right: side() });
        if random.random_bool(0.3) {
            problem = problem.softcap(random.random_range(0.5..20.0));
        }

        let mut normal = |len: u32| -> Vec<f32> { (0..len).map(|_| random.sample(StandardNormal)).collect() };
        let keys = shape.batch * shape.heads_kv * shape.len_kv;
        let scores = [shape.batch, 1, shape.len_q, shape.len_kv];
        let mut host = HostInputs {
            q: normal(shape.batch * shape.heads_q * shape.len_q * shape.dim_qk),
            k: normal(keys * shape.dim_qk),
            v: normal(keys * shape.dim_v),
            bias: Some(normal(scores.iter().product())),
            ..HostInputs::default()
        };
        host.bias = host.bias.filter(|_| random.random());
        if random.random() {
            let mut mask: Vec<bool> = (0..shape.len_kv).map(|_| random.random()).collect();
            // The first key of each head is hidden, and holds what must not come out.
            mask[0] = false;
            host.mask = Some(mask);
            host.k.chunks_mut((shape.len_kv * shape.dim_qk) as usize).for_each(|head| head[0] = f32::NAN);
            host.v.chunks_mut((shape.len_kv * shape.dim_v) as usize).for_each(|head| head[0] = f32::INFINITY);
            problem = problem.mask(ScoreLayout::broadcast([1, 1, 1, shape.len_kv]));
        }
        if random.random() {
            host.kv_lengths = Some((0..shape.batch).map(|_| random.random_range(0..=shape.len_kv + 1)).collect());
            problem = problem.kv_lengths();
        }
        if host.bias.is_some() {
            problem = problem.bias(Dtype::F32, ScoreLayout::broadcast(scores));
        }
        (problem.build().expect("a valid problem"), host)
    }

    #[test]
    fn agrees_with_the_definition() {
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..400 {
            let (problem, host) = draw(&mut random);
            let inputs = host.borrow();
            let outputs = attention(&problem, &inputs, &ProgressBar::hidden()).expect("the inputs fit");
            let verdict = Truth::new(&problem, &inputs).expect("the inputs fit").judge(&outputs);
            assert!(verdict.holds(), "{verdict}: {problem:?}");
        }
    }
}
