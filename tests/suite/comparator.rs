//! How a result is judged.
//!
//! A row passes where `err ≤ 2·err(naive) + 4ε·scale`. Both errors are the largest over the row, against the f64
//! reference. The naive is the textbook formula in f32 on the stored inputs, its result rounded to the storage type; ε is
//! that type's. What the scale is, in words: the size of the numbers that the result is made of.
//!
//! - output: the largest |V| the row sees;
//! - weights: the largest weight of the row (they are the output for one-hot V, sharpened);
//! - LSE, always f32: the largest |score| the row sees, and at least 1, for a sum of exponentials near 1.
//!
//! One naive is not enough where scores are large: its rounding may happen to cancel, and twice nothing is nothing. So the
//! naive is run in several ways, all equally good, and the worst of them counts: three orders of summation, and one in
//! which every score is off by its ε, the row's largest upwards and the others downwards; by two where it is capped, for
//! no GPU promises a tanh as good as the host's.
//!
//! A row that sees no key has scale 0 and no error: its output must be 0 and its LSE −∞, exactly.

use wgpu_attention::{Dtype, Operand};

use crate::case::{Case, epsilon};

/// What was computed, contiguous in (batch, head, row) order whatever the layouts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    pub out: Vec<f32>,
    pub lse: Option<Vec<f32>>,
    pub weights: Option<Vec<f32>>,
    /// What was written that belongs to no row, if anything was.
    pub stray: Option<String>,
}

impl Outputs {
    /// For comparisons to the last bit, NaN included.
    pub fn bits(&self) -> [Vec<u32>; 3] {
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect();
        let of = |values: &Option<Vec<f32>>| bits(values.as_deref().unwrap_or_default());
        [bits(&self.out), of(&self.lse), of(&self.weights)]
    }
}

/// What is right for a case, and how far from it is still right.
#[derive(Debug)]
pub struct Expected {
    rows: Vec<[u32; 3]>,
    out: Quantity,
    lse: Quantity,
    weights: Quantity,
}

/// One of the three results: exact values, `width` to a row, and a tolerance for each row.
#[derive(Debug)]
struct Quantity {
    name: &'static str,
    width: usize,
    exact: Vec<f64>,
    tolerance: Vec<f64>,
}

/// How the naive rounds.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Forward,
    Backward,
    /// Every eighth, then every eighth from the next on: as the lanes of a vector machine would.
    Strided,
    /// Forward, each score off by its ε, or two.
    Nudged,
}

impl Way {
    const ALL: [Self; 4] = [Self::Forward, Self::Backward, Self::Strided, Self::Nudged];

    /// The order in which sums of `n` terms are taken.
    fn order(self, n: usize) -> Vec<usize> {
        match self {
            Self::Forward | Self::Nudged => (0..n).collect(),
            Self::Backward => (0..n).rev().collect(),
            Self::Strided => (0..8).flat_map(|lane| (lane..n).step_by(8)).collect(),
        }
    }
}

/// One row by the formula in f32, before the result is rounded to the storage type.
struct NaiveRow {
    out: Vec<f32>,
    lse: f32,
    weights: Vec<f32>,
    largest_score: f32,
    largest_v: f32,
}

/// The scores of the keys that a row sees.
fn naive_scores(case: &Case, at: [u32; 3], way: Way) -> Vec<(u32, f32)> {
    let shape = case.problem.shape();
    let [b, h, i] = at;
    let dims = way.order(shape.dim_qk as usize);
    let keys = way.order(shape.len_kv as usize).into_iter().map(|j| j as u32);
    let q = case.row(Operand::Q, at);
    let slope = case
        .alibi_slopes
        .as_ref()
        .map_or(0.0, |slopes| slopes[case.view(Operand::AlibiSlopes).index([b, h, 0, 0]) as usize]);
    let distance = |j| (case.stands_at(b, i) - i64::from(j)).abs() as f32;
    let bias = |j| {
        let bias = if case.bias.is_some() { case.get(Operand::Bias, [b, h, i, j]) } else { 0.0 };
        bias - slope * distance(j)
    };
    let mut scores = Vec::new();
    for j in keys.filter(|&j| case.sees([b, h, i, j])) {
        let k = case.row(Operand::K, [b, h / (shape.heads_q / shape.heads_kv), j]);
        let mut score = dims.iter().fold(0.0, |sum, &d| sum + q[d] * k[d]) * case.problem.scale();
        if let Some(cap) = case.problem.softcap() {
            score = cap * (score / cap).tanh();
        }
        if let Some(score_mod) = &case.programs.score_mod {
            score = score_mod(score.into(), case.place([b, h, i, j]), case.aux()) as f32;
            if score == f32::NEG_INFINITY {
                continue;
            }
        }
        scores.push((j, score));
    }
    if way == Way::Nudged {
        let largest = scores.iter().fold(f32::NEG_INFINITY, |most, &(j, s)| most.max(s + bias(j)));
        let is_shaped = case.problem.softcap().is_some() || case.programs.score_mod.is_some();
        let nudge = f32::EPSILON * if is_shaped { 2.0 } else { 1.0 };
        for (j, score) in &mut scores {
            let is_largest = *score + bias(*j) == largest;
            *score += score.abs() * if is_largest { nudge } else { -nudge };
        }
    }
    scores.iter().map(|&(j, score)| (j, score + bias(j))).collect()
}

fn naive_row(case: &Case, at: [u32; 3], way: Way) -> NaiveRow {
    let shape = case.problem.shape();
    let [b, h, _] = at;
    let kv_head = h / (shape.heads_q / shape.heads_kv);
    let scores = naive_scores(case, at, way);
    let sink = case.sinks.as_ref().map(|sinks| sinks[h as usize]);
    let with_sink = scores.iter().map(|&(_, s)| s).chain(sink);
    let m = with_sink.clone().fold(f32::NEG_INFINITY, f32::max);
    let l = with_sink.fold(0.0, |l, s| l + (s - m).exp());
    let mut row = NaiveRow {
        out: vec![0.0; shape.dim_v as usize],
        lse: if scores.is_empty() { sink.unwrap_or(f32::NEG_INFINITY) } else { m + l.ln() },
        weights: vec![0.0; shape.len_kv as usize],
        largest_score: scores.iter().map(|&(_, s)| s).chain(sink).fold(0.0, |most, s| s.abs().max(most)),
        largest_v: 0.0,
    };
    for &(j, score) in &scores {
        let p = (score - m).exp();
        row.weights[j as usize] = p / l;
        for (out, &v) in row.out.iter_mut().zip(case.row(Operand::V, [b, kv_head, j])) {
            *out += p * v;
            row.largest_v = row.largest_v.max(v.abs());
        }
    }
    row.out.iter_mut().filter(|_| !scores.is_empty()).for_each(|out| *out /= l);
    row
}

/// The naive's own result, as a kernel would store it.
pub fn naive(case: &Case) -> Outputs {
    let dtype = case.problem.dtype();
    let (mut out, mut lse, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    for at in case.rows() {
        let row = naive_row(case, at, Way::Forward);
        out.extend(dtype.decode(&dtype.encode(&row.out)));
        lse.push(row.lse);
        weights.extend(dtype.decode(&dtype.encode(&row.weights)));
    }
    let problem = &case.problem;
    Outputs {
        out,
        lse: problem.uses(Operand::Lse).then_some(lse),
        weights: problem.uses(Operand::Weights).then_some(weights),
        stray: None,
    }
}

/// The largest distance between a row and what is exact; NaN if any is.
fn error(got: &[f32], exact: &[f64]) -> f64 {
    let distances = got.iter().zip(exact).map(|(&x, &exact)| {
        // Equal infinities are no distance apart, though their difference is NaN.
        if f64::from(x) == exact { 0.0 } else { (f64::from(x) - exact).abs() }
    });
    distances.fold(0.0, |most, distance| if distance > most || distance.is_nan() { distance } else { most })
}

/// Whether an error is too large. NaN compares to nothing, and so is.
#[allow(clippy::neg_cmp_op_on_partial_ord, reason = "that NaN fails is the point")]
fn beyond(err: f64, tolerance: f64) -> bool {
    !(err <= tolerance)
}

impl Quantity {
    fn new(name: &'static str, width: u32) -> Self {
        Self { name, width: width as usize, exact: Vec::new(), tolerance: Vec::new() }
    }

    /// Takes in a row: its exact values, the naive ones as stored, and the scale.
    fn push(&mut self, exact: Vec<f64>, naives: &[Vec<f32>], dtype: Dtype, scale: f32) {
        let naive = naives.iter().map(|naive| error(naive, &exact)).fold(0.0, f64::max);
        self.tolerance.push(2.0 * naive + 4.0 * epsilon(dtype) * f64::from(scale));
        self.exact.extend(exact);
    }

    /// The largest error in units of the tolerance, over `rows`.
    fn check(&self, got: &[f32], rows: &[[u32; 3]], judged: &dyn Fn([u32; 3]) -> bool) -> Result<f64, String> {
        if got.len() != self.exact.len() {
            return Err(format!("{}: {} values, not {}", self.name, got.len(), self.exact.len()));
        }
        let mut worst: f64 = 0.0;
        for (row, &at) in rows.iter().enumerate().filter(|&(_, &at)| judged(at)) {
            let range = row * self.width..(row + 1) * self.width;
            let err = error(&got[range.clone()], &self.exact[range.clone()]);
            let tol = self.tolerance[row];
            if beyond(err, tol) {
                let (name, got, exact) = (self.name, &got[range.clone()], &self.exact[range]);
                let j = (0..got.len()).find(|&j| beyond((f64::from(got[j]) - exact[j]).abs(), tol)).unwrap_or(0);
                let first = format!("first at [{j}]: {} instead of {}", got[j], exact[j]);
                return Err(format!(
                    "{name} of row (batch, head, query) = {at:?} is off by {err:e} > {tol:e}, {first}"
                ));
            }
            worst = worst.max(if err > 0.0 { err / tol } else { 0.0 });
        }
        Ok(worst)
    }
}

impl Expected {
    pub fn of(case: &Case) -> Self {
        let (shape, dtype) = (case.problem.shape(), case.problem.dtype());
        let mut expected = Self {
            rows: case.rows().collect(),
            out: Quantity::new("out", shape.dim_v),
            lse: Quantity::new("lse", 1),
            weights: Quantity::new("weights", shape.len_kv),
        };
        for at in case.rows() {
            let exact = case.exact(at);
            let naives = Way::ALL.map(|way| naive_row(case, at, way));
            let store = |values: &[f32]| dtype.decode(&dtype.encode(values));
            let largest_weight = exact.weights.iter().fold(0.0_f32, |most, &p| most.max(p as f32));
            let largest_score = if exact.lse == f64::NEG_INFINITY { 0.0 } else { naives[0].largest_score.max(1.0) };
            expected.out.push(exact.out, &naives.each_ref().map(|row| store(&row.out)), dtype, naives[0].largest_v);
            expected.lse.push(vec![exact.lse], &naives.each_ref().map(|row| vec![row.lse]), Dtype::F32, largest_score);
            let weights = naives.each_ref().map(|row| store(&row.weights));
            expected.weights.push(exact.weights, &weights, dtype, largest_weight);
        }
        expected
    }

    /// The largest error in units of its tolerance, or what is wrong.
    pub fn check(&self, got: &Outputs) -> Result<f64, String> {
        self.check_rows(got, |_| true)
    }

    /// The same over the rows (batch, head, query) that `judged` picks.
    pub fn check_rows(&self, got: &Outputs, judged: impl Fn([u32; 3]) -> bool) -> Result<f64, String> {
        if let Some(stray) = &got.stray {
            return Err(stray.clone());
        }
        let mut worst = self.out.check(&got.out, &self.rows, &judged)?;
        for (quantity, got) in [(&self.lse, &got.lse), (&self.weights, &got.weights)] {
            if let Some(got) = got {
                worst = worst.max(quantity.check(got, &self.rows, &judged)?);
            }
        }
        Ok(worst)
    }
}
