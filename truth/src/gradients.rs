//! The exact gradients of a case, and how far from them a result may be.
//!
//! The rule is that of the forward pass: `err ≤ 3·err(naive) + 4ε·scale` per row, both errors against f64. The naive
//! computation forms the whole matrices P and dS in f32 from the stored inputs and the stored output, in several orders of
//! summation. The scale is the sum of the magnitudes of what a row is a sum of, for its largest element. A weight `P` counts
//! `max(1, |score|)` times, because the error of `exp(score − LSE)` grows with the score. With `|·|` inside sums of products:
//!
//! - `dq`, `dk`: `|scale| · Σ P (|dO| · |V| + |dO| · |O| + |dLSE|) · max |k|` (or `q`);
//! - `dv`: `Σ P · max |dO|`;
//! - `dbias`, `dsinks`: `Σ P (|dO| · |V| + |dO| · |O| + |dLSE|)`.

use rayon::prelude::*;
use wgpu_attention::reference::{self, ReferenceGradients};
use wgpu_attention::{BindError, Dtype, Gradients, Operand, View};

use crate::case::{Case, epsilon, indices};
use crate::naive::{Row, Way};
use crate::sequences::Sequences;

/// The gradients of a case, contiguous for any layouts: rows are counted within their sequences. Those of rows that have
/// none, or that are not wanted, are empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GradientOutputs {
    /// (B, Hq, Lq, Dqk)
    pub dq: Vec<f32>,
    /// (B, Hkv, Lk, Dqk)
    pub dk: Vec<f32>,
    /// (B, Hkv, Lk, Dv)
    pub dv: Vec<f32>,
    /// (B, Hq, Lq, Lk), with 1 for each axis that the bias broadcasts.
    pub dbias: Vec<f32>,
    /// (Hq)
    pub dsinks: Vec<f32>,
}

/// The exact gradients and the tolerance of each of their rows.
#[derive(Debug)]
pub struct ExpectedGradients {
    gradients: [Expected; 5],
}

#[derive(Debug)]
struct Expected {
    operand: Operand,
    width: usize,
    exact: Vec<f64>,
    tolerance: Vec<f64>,
}

/// Sums in f32 in a way's order, and the sums of the terms' magnitudes.
struct Sums {
    values: Vec<f32>,
    magnitudes: Vec<f32>,
    width: usize,
}

impl Sums {
    fn new(rows: usize, width: usize) -> Self {
        Self { values: vec![0.0; rows * width], magnitudes: vec![0.0; rows], width }
    }

    /// Adds `factor · x` to a row, whose terms are as large as `size`.
    fn add(&mut self, row: usize, factor: f32, x: &[f32], size: f32) {
        let values = &mut self.values[row * self.width..][..self.width];
        values.iter_mut().zip(x).for_each(|(sum, x)| *sum += factor * x);
        self.magnitudes[row] += size * x.iter().fold(0.0, |most, x| x.abs().max(most));
    }
}

/// What the naive computation gives: dq, dk, dv, dbias, dsinks.
fn naive(case: &Case, gradients: &Gradients, way: Way) -> [Sums; 5] {
    let (problem, host, sequences) = (&case.problem, &case.host, Sequences::new(case));
    let shape = problem.shape();
    let scale = problem.scale();
    let rows = |heads: u32, len: u32| (shape.batch * heads * len) as usize;
    let bias = gradients.view(Operand::Dbias);
    let mut all = [
        Sums::new(rows(shape.heads_q, shape.len_q), shape.dim_qk as usize),
        Sums::new(rows(shape.heads_kv, shape.len_kv), shape.dim_qk as usize),
        Sums::new(rows(shape.heads_kv, shape.len_kv), shape.dim_v as usize),
        Sums::new(bias.map_or(0, |view| view.end() as usize), 1),
        Sums::new(shape.heads_q as usize, 1),
    ];
    let dtype = case.dtype(Operand::Out);
    let dout_view = gradients.view(Operand::Dout).expect("gradients start from dout");
    let value_order = way.order(shape.dim_v as usize);
    let dot = |a: &[f32], b: &[f32]| value_order.iter().fold(0.0, |sum, &d| sum + a[d] * b[d]);
    let size_of_dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a * b).abs()).sum::<f32>();
    for b in 0..shape.batch {
        for h in 0..shape.heads_q {
            for i in way.order(shape.len_q as usize).into_iter().map(|i| i as u32) {
                if i >= sequences.queries(b) {
                    continue;
                }
                let row = Row::new(case, [b, h, i]);
                let computed = row.computed(way);
                let [q_batch, q_row] = sequences.query_place(b, i);
                let start = dout_view.index([q_batch, h, q_row, 0]) as usize;
                let dout = &host.dout.as_ref().expect("a gradient of the output")[start..][..shape.dim_v as usize];
                let dlse = gradients.view(Operand::Dlse).zip(host.dlse.as_ref());
                let dlse = dlse.map_or(0.0, |(view, dlse)| dlse[view.index([q_batch, h, q_row, 0]) as usize]);
                let out = dtype.decode(&dtype.encode(&computed.out));
                let seen = row.scores(way);
                let mean = if seen.is_empty() { 0.0 } else { dot(dout, &out) };
                let size = if seen.is_empty() { 0.0 } else { size_of_dot(dout, &out) } + dlse.abs();
                if let Some(sink) = host.sinks.as_ref().map(|sinks| sinks[h as usize]) {
                    let p = (sink - computed.lse).exp();
                    all[4].add(h as usize, p * (dlse - mean), &[1.0], p * sink.abs().max(1.0) * size);
                }
                let q = case.row(Operand::Q, [b, h, i]);
                let kv_head = shape.kv_head(h);
                for (j, score) in seen {
                    let [k, v] = [Operand::K, Operand::V].map(|operand| case.row(operand, [b, kv_head, j as u32]));
                    let p = (score - computed.lse).exp();
                    let factor = row.dropout_factor(j);
                    let dp = dot(dout, &v) * factor;
                    let ds = p * (dp - mean + dlse);
                    let weight = p * score.abs().max(1.0);
                    let size = weight * (size_of_dot(dout, &v) * factor + size);
                    if let Some(view) = bias {
                        let at = [b, h, i, j as u32];
                        let own = std::array::from_fn(|axis| if view.extent[axis] > 1 { at[axis] } else { 0 });
                        all[3].add(view.index(own) as usize, ds, &[1.0], size);
                    }
                    let slope = row.slope(way, j);
                    let gradient = row.unmodified(j, way, ds) * slope * scale;
                    let size = size * (row.unmodified(j, way, 1.0) * slope * scale).abs();
                    let query = ((b * shape.heads_q + h) * shape.len_q + i) as usize;
                    let key = ((b * shape.heads_kv + kv_head) * shape.len_kv) as usize + j;
                    all[0].add(query, gradient, &k, size);
                    all[1].add(key, gradient, &q, size);
                    all[2].add(key, p * factor, dout, weight * factor);
                }
            }
        }
    }
    all
}

impl ExpectedGradients {
    /// Computes the gradients of a case in f64, and several times in f32.
    ///
    /// # Errors
    /// If the inputs do not fit the gradients.
    pub fn new(case: &Case, gradients: &Gradients) -> Result<Self, BindError> {
        let ReferenceGradients { dq, dk, dv, dbias, dsinks } =
            case.with_programs(|programs| reference::gradients(gradients, &case.inputs(), programs))?;
        let naives: Vec<[Sums; 5]> = Way::ALL.into_par_iter().map(|way| naive(case, gradients, way)).collect();
        let all = [
            (Operand::Dq, dq),
            (Operand::Dk, dk),
            (Operand::Dv, dv),
            (Operand::Dbias, dbias),
            (Operand::Dsinks, dsinks),
        ];
        let mut n = 0;
        let gradients = all.map(|(operand, exact)| {
            let sums: Vec<&Sums> = naives.iter().map(|naive| &naive[n]).collect();
            n += 1;
            let dtype = gradients.dtype(operand).unwrap_or(Dtype::F32);
            let width = sums[0].width;
            let stored: Vec<Vec<f32>> = sums.iter().map(|sums| dtype.decode(&dtype.encode(&sums.values))).collect();
            let tolerance = exact.chunks(width).enumerate().map(|(row, exact)| {
                let errors = stored.iter().map(|stored| error(&stored[row * width..][..width], exact));
                3.0 * errors.fold(0.0, f64::max) + 4.0 * epsilon(dtype) * f64::from(sums[0].magnitudes[row])
            });
            Expected { operand, width, tolerance: tolerance.collect(), exact }
        });
        Ok(Self { gradients })
    }

    /// The largest error in units of its tolerance, or which row is off. Gradients that are not wanted are empty.
    ///
    /// # Errors
    /// A description of the first row that is off.
    pub fn check(&self, got: &GradientOutputs) -> Result<f64, String> {
        let GradientOutputs { dq, dk, dv, dbias, dsinks } = got;
        let mut worst: f64 = 0.0;
        for (expected, got) in self.gradients.iter().zip([dq, dk, dv, dbias, dsinks]) {
            let Expected { operand, width, exact, tolerance } = expected;
            if got.is_empty() {
                continue;
            }
            if got.len() != exact.len() {
                return Err(format!("{operand}: {} values, not {}", got.len(), exact.len()));
            }
            for (row, allowed) in tolerance.iter().enumerate() {
                let (got, exact) = (&got[row * width..][..*width], &exact[row * width..][..*width]);
                let off = error(got, exact);
                // NaN fails.
                if off > *allowed || off.is_nan() {
                    let first = got.iter().zip(exact).position(|(&x, &exact)| {
                        let off = distance(x, exact);
                        off > *allowed || off.is_nan()
                    });
                    let first = first.unwrap_or(0);
                    return Err(format!(
                        "{operand}: row {row} is off by {off:e} > {allowed:e}, first at [{first}]: {} instead of {}",
                        got[first], exact[first]
                    ));
                }
                if off > 0.0 {
                    worst = worst.max(off / allowed);
                }
            }
        }
        Ok(worst)
    }
}

/// Where each row of the gradient of queries, keys or values begins in its buffer. Rows are counted within their sequences;
/// `None` is a row that a ragged sequence does not have.
pub fn gradient_rows(case: &Case, view: &View) -> Vec<Option<usize>> {
    let (shape, sequences, host) = (case.problem.shape(), Sequences::new(case), &case.host);
    let is_of_queries = view.operand == Operand::Dq;
    let [heads, len] = if is_of_queries { [shape.heads_q, shape.len_q] } else { [shape.heads_kv, shape.len_kv] };
    let place = |[b, h, n, _]: [u32; 4]| {
        let (bounds, count, [batch, row]) = if is_of_queries {
            (&host.cu_seqlens_q, sequences.queries(b), sequences.query_place(b, n))
        } else {
            (&host.cu_seqlens_k, sequences.keys(b), sequences.key_place(b, n))
        };
        (bounds.is_none() || n < count).then(|| view.index([batch, h, row, 0]) as usize)
    };
    indices([shape.batch, heads, len, 1]).map(place).collect()
}

fn distance(got: f32, exact: f64) -> f64 {
    if f64::from(got) == exact { 0.0 } else { (f64::from(got) - exact).abs() }
}

/// The largest distance between a row and its exact values, or NaN if any distance is NaN.
fn error(got: &[f32], exact: &[f64]) -> f64 {
    let distances = got.iter().zip(exact).map(|(&x, &exact)| distance(x, exact));
    distances.fold(0.0, |most: f64, distance| if distance > most || distance.is_nan() { distance } else { most })
}

impl GradientOutputs {
    /// Whether all values have the same bits.
    pub fn bits(&self) -> Vec<u32> {
        let Self { dq, dk, dv, dbias, dsinks } = self;
        [dq, dk, dv, dbias, dsinks].into_iter().flatten().map(|x| x.to_bits()).collect()
    }

    /// Gathers gradients that were read in the order of their elements in the buffers, of each operand that is given. Rows
    /// that a case's sequences do not have are 0.
    pub fn gathered(case: &Case, gradients: &Gradients, mut read: impl FnMut(Operand) -> Option<Vec<f32>>) -> Self {
        let mut take = |operand: Operand| -> Vec<f32> {
            let (Some(values), Some(view)) = (read(operand), gradients.view(operand)) else { return Vec::new() };
            let width = view.extent[3] as usize;
            let row = |start: Option<usize>| match start {
                Some(start) => values[start..start + width].to_vec(),
                None => vec![0.0; width],
            };
            gradient_rows(case, &view).into_iter().flat_map(row).collect()
        };
        Self {
            dq: take(Operand::Dq),
            dk: take(Operand::Dk),
            dv: take(Operand::Dv),
            dbias: read(Operand::Dbias).unwrap_or_default(),
            dsinks: read(Operand::Dsinks).unwrap_or_default(),
        }
    }
}
