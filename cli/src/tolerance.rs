//! How far a result may be from the definition: per row, twice the error that plain f32 arithmetic makes on the same stored
//! values, and four units of the stored type at the largest value. Both errors are against f64.

use anyhow::Result;
use rayon::prelude::*;
use wgpu_attention::blocking::Outputs;
use wgpu_attention::reference::{At, Programs};
use wgpu_attention::{Dtype, Inputs, Operand, Problem, reference};

use crate::host::{Stored, as_stored};
use crate::visibility::{Visibility, place};

/// The definition's rows for one problem, and the room each leaves.
pub(crate) struct Truth {
    problem: Problem,
    rows: Vec<TrueRow>,
}

struct TrueRow {
    at: [u32; 3],
    exact: reference::Row,
    /// What out, lse and weights may be off by.
    allowed: [f64; 3],
}

/// The row that came closest to its bound, or furthest past it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    pub(crate) error: f64,
    pub(crate) allowed: f64,
    quantity: Operand,
    at: [u32; 3],
}

impl Verdict {
    /// Written so that NaN fails.
    pub(crate) fn holds(&self) -> bool {
        self.error <= self.allowed
    }

    /// Past 1 it fails.
    fn strain(&self) -> f64 {
        if !self.holds() {
            return f64::INFINITY;
        }
        if self.error == 0.0 { 0.0 } else { self.error / self.allowed }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { error, allowed, quantity, at } = self;
        write!(f, "error {error:.1e}, allowed {allowed:.1e} ({quantity} at {at:?})")
    }
}

impl Truth {
    /// Computes every row twice, in f64 and in plain f32.
    pub(crate) fn new(problem: &Problem, inputs: &Inputs<'_>, programs: &Programs<'_>) -> Result<Self> {
        inputs.check(problem)?;
        let stored = Stored::new(problem, inputs);
        let inputs = stored.borrow();
        // What hides behind a mask may be infinite or NaN, and sets no scale.
        let visible = inputs.v.iter().filter(|v| v.is_finite());
        let largest = visible.fold(0.0, |largest: f64, &v| largest.max(f64::from(v.abs())));

        let shape = problem.shape();
        let heads = (0..shape.batch).flat_map(|batch| (0..shape.heads_q).map(move |head| [batch, head]));
        let places: Vec<[u32; 3]> =
            heads.flat_map(|[batch, head]| (0..shape.len_q).map(move |row| [batch, head, row])).collect();
        let rows = places.into_par_iter().map(|at| {
            let exact = reference::row_with(problem, &inputs, programs, at)?;
            let plain = plain_row(problem, &inputs, programs, at);
            let allowed = plain.errors(&exact).map(|error| 2.0 * error);
            let unit = epsilon(problem.dtype());
            let slack = [
                unit * largest,
                epsilon(Dtype::F32) * exact.lse.abs().max(1.0),
                // A weight is 1 at most.
                unit,
            ];
            let allowed = std::array::from_fn(|i| allowed[i] + 4.0 * slack[i]);
            Ok(TrueRow { at, exact, allowed })
        });
        Ok(Self { problem: problem.clone(), rows: rows.collect::<Result<_>>()? })
    }

    /// Compares whatever outputs there are.
    pub(crate) fn judge(&self, outputs: &Outputs) -> Verdict {
        let mut worst = Verdict { error: 0.0, allowed: 0.0, quantity: Operand::Out, at: [0; 3] };
        for (index, row) in self.rows.iter().enumerate() {
            let [out, weights] = [Operand::Out, Operand::Weights].map(|operand| self.slice(outputs, operand, row.at));
            let lse = outputs.lse.as_ref().map(|lse| lse[index]);
            let errors = [
                out.map(|out| largest_difference(out, &row.exact.out)),
                lse.map(|lse| difference(lse, row.exact.lse)),
                weights.map(|weights| largest_difference(weights, &row.exact.weights)),
            ];
            let quantities = [Operand::Out, Operand::Lse, Operand::Weights];
            for ((error, allowed), quantity) in errors.into_iter().zip(row.allowed).zip(quantities) {
                let Some(error) = error else { continue };
                let verdict = Verdict { error, allowed, quantity, at: row.at };
                if verdict.strain() > worst.strain() {
                    worst = verdict;
                }
            }
        }
        worst
    }

    /// One row of an output, where it is there.
    fn slice<'a>(&self, outputs: &'a Outputs, operand: Operand, [batch, head, row]: [u32; 3]) -> Option<&'a [f32]> {
        let view = self.problem.view(operand)?;
        let values = if operand == Operand::Out { Some(&outputs.out) } else { outputs.weights.as_ref() };
        let start = place(&view, [batch, head, row, 0]);
        values.and_then(|values| values.get(start..start + view.extent[3] as usize))
    }
}

/// The distance between two neighbours just above 1.
fn epsilon(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => f64::from(f32::EPSILON),
        Dtype::F16 => 2.0_f64.powi(-10),
        Dtype::Bf16 => 2.0_f64.powi(-7),
    }
}

/// Zero between equal infinities; NaN if either is.
fn difference(got: f32, exact: f64) -> f64 {
    let got = f64::from(got);
    if got == exact { 0.0 } else { (got - exact).abs() }
}

/// NaN if any difference is.
fn largest_difference(got: &[f32], exact: &[f64]) -> f64 {
    let differences = got.iter().zip(exact).map(|(&got, &exact)| difference(got, exact));
    differences.fold(0.0, |worst: f64, error| if worst.is_nan() || error <= worst { worst } else { error })
}

/// A row as plain f32 arithmetic gives it: one sum after another, no tiles.
struct PlainRow {
    out: Vec<f32>,
    lse: f32,
    weights: Vec<f32>,
}

impl PlainRow {
    fn errors(&self, exact: &reference::Row) -> [f64; 3] {
        [
            largest_difference(&self.out, &exact.out),
            difference(self.lse, exact.lse),
            largest_difference(&self.weights, &exact.weights),
        ]
    }
}

fn plain_row(problem: &Problem, inputs: &Inputs<'_>, programs: &Programs<'_>, [batch, head, i]: [u32; 3]) -> PlainRow {
    let shape = problem.shape();
    let kv_head = shape.kv_head(head);
    let value = |operand, values: &[f32], at| problem.view(operand).map_or(0.0, |view| values[place(&view, at)]);
    let visibility = Visibility::new(problem, inputs);
    let slope = inputs.alibi_slopes.map_or(0.0, |slopes| value(Operand::AlibiSlopes, slopes, [batch, head, 0, 0]));
    let sink = inputs.sinks.map(|sinks| value(Operand::Sinks, sinks, [batch, head, 0, 0]));
    let diagonal = visibility.diagonal(batch, i);
    let diagonal = i32::try_from(diagonal).unwrap_or(i32::MAX);

    let mut weights = vec![0.0_f32; shape.len_kv as usize];
    let mut scores = Vec::new();
    for j in visibility.range(batch, i).filter(|&j| visibility.unmasked([batch, head, i, j])) {
        let at = At { batch, head, kv_head, query: i, key: j, diagonal };
        if programs.mask_mod.is_some_and(|mask_mod| !mask_mod(at)) {
            continue;
        }
        let mut score = 0.0;
        for d in 0..shape.dim_qk {
            let q = value(Operand::Q, inputs.q, [batch, head, i, d]);
            score += q * value(Operand::K, inputs.k, [batch, kv_head, j, d]);
        }
        score *= problem.scale();
        if let Some(cap) = problem.softcap() {
            score = cap * (score / cap).tanh();
        }
        if let Some(score_mod) = programs.score_mod {
            #[expect(clippy::cast_possible_truncation, reason = "plain f32 arithmetic is what is wanted")]
            let modified = score_mod(score.into(), at) as f32;
            score = modified;
            if score == f32::NEG_INFINITY {
                continue;
            }
        }
        score += inputs.bias.map_or(0.0, |bias| value(Operand::Bias, bias, [batch, head, i, j]));
        score -= slope * (i64::from(diagonal) - i64::from(j)).abs() as f32;
        scores.push((j, score));
    }
    let mut row =
        PlainRow { out: vec![0.0; shape.dim_v as usize], lse: sink.unwrap_or(f32::NEG_INFINITY), weights: Vec::new() };
    if !scores.is_empty() {
        let with_sink = scores.iter().map(|&(_, score)| score).chain(sink);
        let largest = with_sink.clone().fold(f32::NEG_INFINITY, f32::max);
        let total: f32 = with_sink.map(|score| (score - largest).exp()).sum();
        row.lse = largest + total.ln();
        for (j, score) in scores {
            let weight = (score - largest).exp() / total;
            weights[j as usize] = weight;
            for (d, out) in (0..).zip(&mut row.out) {
                *out += weight * value(Operand::V, inputs.v, [batch, kv_head, j, d]);
            }
        }
    }
    row.out = as_stored(problem.dtype(), &row.out).into_owned();
    row.weights = as_stored(problem.dtype(), &weights).into_owned();
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use wgpu_attention::Shape;

    #[test]
    fn wrong_results_are_refused() {
        let shape = Shape::new(1, 2, 5, 4);
        let problem = Problem::builder(shape).lse().weights().build().expect("a valid problem");
        let values: Vec<f32> = (0_u16..40).map(|i| f32::from(i * 37 % 41) / 10.0 - 2.0).collect();
        let inputs = Inputs { q: &values, k: &values, v: &values, ..Inputs::default() };
        let truth = Truth::new(&problem, &inputs, &Programs::default()).expect("inputs fit");
        let right = crate::cpu::attention(&problem, &inputs, &Programs::default(), &indicatif::ProgressBar::hidden())
            .expect("it computes");
        assert!(truth.judge(&right).holds());

        let wrong: [fn(&mut Outputs); 6] = [
            |outputs| outputs.out.fill(0.0),
            |outputs| outputs.out[7] = f32::NAN,
            |outputs| outputs.out.swap(0, 4),
            |outputs| outputs.out[39] *= 1.001,
            |outputs| outputs.lse.as_mut().expect("asked for")[9] = f32::NEG_INFINITY,
            |outputs| outputs.weights.as_mut().expect("asked for")[49] += 1e-4,
        ];
        for (index, spoil) in wrong.into_iter().enumerate() {
            let mut outputs = right.clone();
            spoil(&mut outputs);
            assert!(!truth.judge(&outputs).holds(), "spoiled result {index} passed");
        }
    }
}
