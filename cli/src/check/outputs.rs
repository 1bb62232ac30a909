//! The operator's outputs, and how near each must be.
//!
//! The library computes `Y`, the weights if `qk_matmul_output_mode` is 3, and the log-sum-exp, which the operator lacks.
//! Fused attention never writes the scores of modes 0 to 2, so they are computed here, in f64, from the case as it was
//! read. Comparing them checks that scale, softcap, masks and bias were read as the operator means them. `present_key` and
//! `present_value` must equal, bit by bit, what was passed to the library. On a GPU the library appends the new rows to the
//! past ones itself, and the attention reads the cache that this makes.

use anyhow::{Result, bail, ensure};
use truth::{Case, Visibility};
use wgpu_attention::blocking::Outputs;
use wgpu_attention::{Dtype, Operand};

use super::manifest::CaseSpec;
use crate::tensors::{Tensor, TensorFile, element};

/// An output tensor of the case.
pub(super) struct Output {
    name: &'static str,
    values: Vec<f32>,
    source: Source,
    tolerance: Tolerance,
}

/// Where the values to compare come from.
enum Source {
    Library(Operand),
    Checker(Vec<f32>),
}

#[derive(Clone, Copy)]
enum Tolerance {
    Exact,
    /// `|a − b| ≤ atol + rtol·|b|`
    Relative {
        rtol: f64,
        atol: f64,
    },
    Absolute(f64),
}

/// Reads the outputs that the file holds, with a tolerance for each.
pub(super) fn read(spec: &CaseSpec, file: &TensorFile<'_>, case: &Case) -> Result<Vec<Output>> {
    let mut all = Vec::new();
    let relative = Tolerance::Relative { rtol: spec.rtol, atol: spec.atol };
    // The expected values were rounded to their own type, and to that of the softmax if it is narrower.
    let narrowed = |tensor: &Tensor<'_>, largest: f32| {
        let softmax = spec.attributes.softmax_precision.and_then(onnx_float);
        let narrow = element(tensor.stored).filter(|&stored| stored != Dtype::F32);
        coarser(narrow, softmax).map_or(relative, |dtype| Tolerance::Absolute(2.0 * ulp(dtype, largest)))
    };
    if let Some(y) = file.find("out.Y")? {
        let (values, tolerance) = (y.numbers()?, narrowed(&y, largest(&case.host.v)));
        all.push(Output { name: "Y", values, source: Source::Library(Operand::Out), tolerance });
    }
    if let Some(qk) = file.find("out.qk_matmul_output")? {
        let values = qk.numbers()?;
        let source = match spec.attributes.qk_matmul_output_mode {
            3 => Source::Library(Operand::Weights),
            mode @ 0..=2 => Source::Checker(scores(case, mode)),
            other => bail!("qk_matmul_output_mode is {other}; it must be from 0 to 3"),
        };
        let tolerance = narrowed(&qk, largest(&values));
        all.push(Output { name: "qk_matmul_output", values, source, tolerance });
    }
    for (name, file_name, operand) in
        [("present_key", "out.present_key", Operand::K), ("present_value", "out.present_value", Operand::V)]
    {
        if let Some(present) = file.find(file_name)? {
            let source = Source::Checker(contiguous(case, operand));
            all.push(Output { name, values: present.numbers()?, source, tolerance: Tolerance::Exact });
        }
    }
    if let Some(lse) = file.find("out.lse")? {
        let source = Source::Library(Operand::Lse);
        all.push(Output { name: "lse", values: lse.numbers()?, source, tolerance: relative });
    }
    ensure!(
        !all.is_empty(),
        "the file holds no expected output: Y, lse, qk_matmul_output, present_key or present_value"
    );
    Ok(all)
}

/// The type with the larger unit in the last place, of those that are given.
fn coarser(a: Option<Dtype>, b: Option<Dtype>) -> Option<Dtype> {
    a.into_iter().chain(b).max_by(|&a, &b| ulp(a, 1.0).total_cmp(&ulp(b, 1.0)))
}

/// The 16-bit floats among ONNX's type numbers.
fn onnx_float(number: i64) -> Option<Dtype> {
    match number {
        10 => Some(Dtype::F16),
        16 => Some(Dtype::Bf16),
        _ => None,
    }
}

fn largest(values: &[f32]) -> f32 {
    values.iter().filter(|value| value.is_finite()).fold(0.0, |largest, value| largest.max(value.abs()))
}

/// The unit in the last place of `dtype` at `value`.
fn ulp(dtype: Dtype, value: f32) -> f64 {
    let (bits, lowest) = match dtype {
        Dtype::F32 => (23.0, -126.0),
        Dtype::F16 => (10.0, -14.0),
        Dtype::Bf16 => (7.0, -126.0),
    };
    (f64::from(value).log2().floor().max(lowest) - bits).exp2()
}

/// An operand's elements in (B, H, L, D) order.
fn contiguous(case: &Case, operand: Operand) -> Vec<f32> {
    let [batches, heads, rows, _] = case.view(operand).extent;
    let all = (0..batches).flat_map(|b| (0..heads).flat_map(move |h| (0..rows).map(move |row| [b, h, row])));
    all.flat_map(|at| case.row(operand, at).into_owned()).collect()
}

/// The scores, computed in f64. Mode 0: after the scale. Mode 1: after the softcap. Mode 2: after bias and masks.
fn scores(case: &Case, mode: i64) -> Vec<f32> {
    let (problem, shape) = (&case.problem, case.problem.shape());
    let (q, k) = (contiguous(case, Operand::Q), contiguous(case, Operand::K));
    let dim = shape.dim_qk as usize;
    let visibility = Visibility::new(case);
    let mut scores = Vec::new();
    for (row, q) in (0..).zip(q.chunks(dim)) {
        let (head, i) = (row / shape.len_q, row % shape.len_q);
        let (batch, head) = (head / shape.heads_q, head % shape.heads_q);
        let first = (batch * shape.heads_kv + shape.kv_head(head)) as usize * shape.len_kv as usize;
        for (j, k) in (0..shape.len_kv).zip(k[first * dim..].chunks(dim)) {
            let dot: f64 = q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
            let mut score = dot * f64::from(problem.scale());
            if let (Some(cap), 1 | 2) = (problem.softcap().map(f64::from), mode) {
                score = cap * (score / cap).tanh();
            }
            if mode == 2 {
                let at = [batch, head, i, j];
                score += if problem.uses(Operand::Bias) { f64::from(case.get(Operand::Bias, at)) } else { 0.0 };
                // Added, as the operator does, so that NaN stays NaN.
                score += if visibility.sees(at) { 0.0 } else { f64::NEG_INFINITY };
            }
            #[expect(clippy::cast_possible_truncation, reason = "rounded to the precision of the comparison")]
            scores.push(score as f32);
        }
    }
    scores
}

/// Whether every expected tensor matches, and the largest error or the first mismatch.
pub(super) fn judge(expected: &[Output], outputs: &Outputs) -> (bool, String) {
    let mut largest: f64 = 0.0;
    for Output { name, values, source, tolerance } in expected {
        let got = match source {
            Source::Library(Operand::Weights) => outputs.weights.as_deref().unwrap_or_default(),
            Source::Library(Operand::Lse) => outputs.lse.as_deref().unwrap_or_default(),
            Source::Library(_) => &outputs.out,
            Source::Checker(values) => values,
        };
        if got.len() != values.len() {
            return (false, format!("{name} has {} elements, expected {}", got.len(), values.len()));
        }
        for (index, (&got, &want)) in got.iter().zip(values).enumerate() {
            // NaN is expected only of scores that the checker computed, from inputs that hold it.
            let both_nan = got.is_nan() && want.is_nan() && matches!(source, Source::Checker(_));
            if !(both_nan || tolerance.allows(got, want)) {
                return (false, format!("{name}[{index}] is {got}, expected {want}"));
            }
            if got != want && !both_nan {
                largest = largest.max(f64::from(got - want).abs());
            }
        }
    }
    (true, format!("error {largest:.1e}"))
}

impl Tolerance {
    /// Written so that NaN fails.
    fn allows(self, got: f32, want: f32) -> bool {
        let error = (f64::from(got) - f64::from(want)).abs();
        got == want
            || match self {
                Self::Exact => false,
                Self::Relative { rtol, atol } => error <= atol + rtol * f64::from(want).abs(),
                Self::Absolute(bound) => error <= bound,
            }
    }
}
