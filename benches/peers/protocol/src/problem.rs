//! The inputs, the same in every run, and the reference.

use crate::{Dtype, Shape};

/// Checked rows: enough to meet every tile and head, few enough for one core in f64.
const CHECKED_ROWS: usize = 2048;

/// A shape and its numbers: f32 values that the dtype can hold.
#[derive(Debug)]
pub struct Problem {
    pub shape: Shape,
    pub dtype: Dtype,
    /// (B, Hq, Lq, D)
    pub q: Vec<f32>,
    /// (B, Hkv, Lk, D)
    pub k: Vec<f32>,
    /// (B, Hkv, Lk, D)
    pub v: Vec<f32>,
    /// (B, Lk), true where a key counts; absent without a mask.
    pub keep: Option<Vec<bool>>,
}

impl Problem {
    pub(crate) fn new(shape: Shape, dtype: Dtype) -> Self {
        let mut random = Random(1);
        let mut normal = |heads: usize, length: usize| {
            let count = shape.batch * heads * length * shape.dim;
            (0..count).map(|_| rounded(random.normal(), dtype)).collect::<Vec<f32>>()
        };
        let (q, k) = (normal(shape.heads_q, shape.len_q), normal(shape.heads_kv, shape.len_k));
        let v = normal(shape.heads_kv, shape.len_k);
        let keep = shape.mask.then(|| {
            // Three quarters of the keys, then all but five, in turn.
            let kept = |batch| if batch % 2 == 0 { shape.len_k * 3 / 4 } else { shape.len_k.saturating_sub(5).max(1) };
            (0..shape.batch).flat_map(|batch| (0..shape.len_k).map(move |key| key < kept(batch))).collect()
        });
        Self { shape, dtype, q, k, v, keep }
    }

    /// K or V with each head repeated for its group, (B, Hq, Lk, D), for peers without grouped queries.
    pub fn repeated(&self, tensor: &[f32]) -> Vec<f32> {
        let group = self.shape.heads_q / self.shape.heads_kv;
        tensor.chunks(self.shape.len_k * self.shape.dim).flat_map(|head| head.repeat(group)).collect()
    }

    /// Largest |out − reference| over evenly spaced rows; not finite if a row is not.
    pub(crate) fn max_error(&self, out: &[f32]) -> f64 {
        let total = self.q.len() / self.shape.dim;
        if out.len() != self.q.len() {
            return f64::NAN;
        }
        // An odd step meets every position within a tile.
        let rows = (0..total).step_by((total / CHECKED_ROWS) | 1).chain([total - 1]);
        let mut worst = 0.0_f64;
        for row in rows {
            let computed = &out[row * self.shape.dim..][..self.shape.dim];
            for (value, expected) in computed.iter().zip(self.reference(row)) {
                let error = (f64::from(*value) - expected).abs();
                // `max` would pass over NaN.
                worst = if error.is_finite() { worst.max(error) } else { f64::INFINITY };
            }
        }
        worst
    }

    /// One row of the output, from the definition in f64.
    fn reference(&self, row: usize) -> Vec<f64> {
        let Shape { heads_q, heads_kv, len_q, len_k, dim, .. } = self.shape;
        let (query, head, batch) = (row % len_q, row / len_q % heads_q, row / len_q / heads_q);
        let first_key = (batch * heads_kv + head / (heads_q / heads_kv)) * len_k;
        let q = &self.q[row * dim..][..dim];
        let visible = |key: usize| {
            (!self.shape.causal || key <= query) && self.keep.as_ref().is_none_or(|keep| keep[batch * len_k + key])
        };
        let scores: Vec<(usize, f64)> = (0..len_k)
            .filter(|&key| visible(key))
            .map(|key| {
                let k = &self.k[(first_key + key) * dim..][..dim];
                let dot: f64 = q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                (key, dot / (dim as f64).sqrt())
            })
            .collect();
        let max = scores.iter().map(|score| score.1).fold(f64::NEG_INFINITY, f64::max);
        let mut out = vec![0.0; dim];
        let mut sum = 0.0;
        for (key, score) in scores {
            let weight = (score - max).exp();
            sum += weight;
            let v = &self.v[(first_key + key) * dim..][..dim];
            out.iter_mut().zip(v).for_each(|(out, v)| *out += weight * f64::from(*v));
        }
        out.iter_mut().for_each(|out| *out /= sum);
        out
    }
}

/// To the nearest value of the dtype, ties to even.
fn rounded(x: f32, dtype: Dtype) -> f32 {
    let drop_bits = |count: u32| {
        let bits = x.to_bits();
        let half = (1 << (count - 1)) - 1 + (bits >> count & 1);
        f32::from_bits((bits + half) >> count << count)
    };
    // Below 2⁻¹⁴ f16 is a fixed-point number in units of 2⁻²⁴.
    let unit = 2.0_f32.powi(-24);
    match dtype {
        Dtype::F32 => x,
        Dtype::F16 if x.abs() < 2.0_f32.powi(-14) => (x / unit).round_ties_even() * unit,
        Dtype::F16 => drop_bits(13),
        Dtype::Bf16 => drop_bits(16),
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// In (0, 1].
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (((z ^ (z >> 31)) >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// N(0, 1), by Box and Muller.
    fn normal(&mut self) -> f32 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        (radius * (std::f64::consts::TAU * self.uniform()).cos()) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_nearest_even() {
        assert_eq!(rounded(1.0 + 2.0_f32.powi(-11), Dtype::F16), 1.0);
        assert_eq!(rounded(1.0 + 3.0 * 2.0_f32.powi(-11), Dtype::F16), 1.0 + 2.0_f32.powi(-9));
        assert_eq!(rounded(-1.0 - 3.0 * 2.0_f32.powi(-8), Dtype::Bf16), -1.0 - 2.0_f32.powi(-6));
        assert_eq!(rounded(1.5 * 2.0_f32.powi(-24), Dtype::F16), 2.0_f32.powi(-23));
    }
}
