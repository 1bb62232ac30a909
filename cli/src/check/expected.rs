//! The operator's outputs, and how near each must be.
//!
//! The library computes `Y`, the log-sum-exp, which the operator lacks, and the weights where `qk_matmul_output_mode` is 3. The scores of modes 0 to 2 are what fused
//! attention never writes down, so they are computed here, in f64, from the case as it was read: comparing them checks
//! that scale, softcap, masks and bias were understood as the operator means them. `present_key` and `present_value` are
//! compared to the last bit with what was handed to the library.

use anyhow::{Result, bail, ensure};
use wgpu_attention::blocking::Outputs;
use wgpu_attention::{Dtype, Inputs, Operand, Problem};

use super::manifest::CaseSpec;
use crate::host::HostInputs;
use crate::tensors::{Tensor, TensorFile, element};
use crate::visibility::{Visibility, place};

/// An output tensor of the case.
pub(super) struct Expected {
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

/// The outputs the file holds and how near each must be.
pub(super) fn read(
    spec: &CaseSpec,
    file: &TensorFile<'_>,
    problem: &Problem,
    host: &HostInputs,
) -> Result<Vec<Expected>> {
    let mut all = Vec::new();
    let relative = Tolerance::Relative { rtol: spec.rtol, atol: spec.atol };
    // The expected values carry the rounding of their own type, and of the softmax's where that is narrower.
    let narrowed = |tensor: &Tensor<'_>, largest: f32| {
        let softmax = spec.attributes.softmax_precision.and_then(onnx_float);
        let narrow = element(tensor.stored).filter(|&stored| stored != Dtype::F32);
        coarser(narrow, softmax).map_or(relative, |dtype| Tolerance::Absolute(2.0 * ulp(dtype, largest)))
    };
    if let Some(y) = file.find("out.Y")? {
        let (values, tolerance) = (y.numbers()?, narrowed(&y, largest(&host.v)));
        all.push(Expected { name: "Y", values, source: Source::Library(Operand::Out), tolerance });
    }
    if let Some(qk) = file.find("out.qk_matmul_output")? {
        let values = qk.numbers()?;
        let source = match spec.attributes.qk_matmul_output_mode {
            3 => Source::Library(Operand::Weights),
            mode @ 0..=2 => Source::Checker(scores(problem, &host.borrow(), mode)),
            other => bail!("qk_matmul_output_mode is {other}; it must be from 0 to 3"),
        };
        let tolerance = narrowed(&qk, largest(&values));
        all.push(Expected { name: "qk_matmul_output", values, source, tolerance });
    }
    for (name, file_name, operand, held) in [
        ("present_key", "out.present_key", Operand::K, &host.k),
        ("present_value", "out.present_value", Operand::V, &host.v),
    ] {
        if let Some(present) = file.find(file_name)? {
            let source = Source::Checker(contiguous(problem, operand, held));
            all.push(Expected { name, values: present.numbers()?, source, tolerance: Tolerance::Exact });
        }
    }
    if let Some(lse) = file.find("out.lse")? {
        let source = Source::Library(Operand::Lse);
        all.push(Expected { name: "lse", values: lse.numbers()?, source, tolerance: relative });
    }
    ensure!(
        !all.is_empty(),
        "the file holds no expected output: Y, lse, qk_matmul_output, present_key or present_value"
    );
    Ok(all)
}

/// The type with the larger unit, of those there are.
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
fn contiguous(problem: &Problem, operand: Operand, values: &[f32]) -> Vec<f32> {
    let Some(view) = problem.view(operand) else { return Vec::new() };
    let [batches, heads, rows, dim] = view.extent;
    let starts = (0..batches).flat_map(|b| (0..heads).flat_map(move |h| (0..rows).map(move |row| [b, h, row, 0])));
    starts.flat_map(|at| &values[place(&view, at)..][..dim as usize]).copied().collect()
}

/// The scores in f64: 0 scaled, 1 after the softcap, 2 after bias and masks.
fn scores(problem: &Problem, inputs: &Inputs<'_>, mode: i64) -> Vec<f32> {
    let shape = problem.shape();
    let (q, k) = (contiguous(problem, Operand::Q, inputs.q), contiguous(problem, Operand::K, inputs.k));
    let dim = shape.dim_qk as usize;
    let visibility = Visibility::new(problem, inputs);
    let bias = problem.view(Operand::Bias).zip(inputs.bias);
    let mut scores = Vec::new();
    for (row, q) in (0..).zip(q.chunks(dim)) {
        let (head, i) = (row / shape.len_q, row % shape.len_q);
        let (batch, head) = (head / shape.heads_q, head % shape.heads_q);
        let visible = visibility.range(batch, i);
        let first = (batch * shape.heads_kv + shape.kv_head(head)) as usize * shape.len_kv as usize;
        for (j, k) in (0..shape.len_kv).zip(k[first * dim..].chunks(dim)) {
            let dot: f64 = q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
            let mut score = dot * f64::from(problem.scale());
            if let (Some(cap), 1 | 2) = (problem.softcap().map(f64::from), mode) {
                score = cap * (score / cap).tanh();
            }
            if mode == 2 {
                let at = [batch, head, i, j];
                score += bias.map_or(0.0, |(view, bias)| f64::from(bias[place(&view, at)]));
                // Added, as the operator does: what is NaN stays so.
                score += if visible.contains(&j) && visibility.unmasked(at) { 0.0 } else { f64::NEG_INFINITY };
            }
            #[expect(clippy::cast_possible_truncation, reason = "rounded to the precision of the comparison")]
            scores.push(score as f32);
        }
    }
    scores
}

/// Whether every expected tensor is met, and the largest error or the first that is not.
pub(super) fn judge(expected: &[Expected], outputs: &Outputs) -> (bool, String) {
    let mut largest: f64 = 0.0;
    for Expected { name, values, source, tolerance } in expected {
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
