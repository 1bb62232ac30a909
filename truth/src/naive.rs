//! The formula in plain f32: what a correct implementation without tiles would compute on the same stored inputs.
//!
//! The tolerance is a multiple of the error of this computation. One computation is not enough for that if scores are
//! large: its rounding errors may happen to cancel, which would leave no tolerance. So there are several, all equally good:
//! three orders of summation, and one in which every score is off by its ε, the row's largest upwards and the others
//! downwards. Scores that a softcap or a program changes are off by 2ε, because no GPU promises a tanh as good as the
//! host's.

use wgpu_attention::{Operand, Philox};

use crate::case::Case;
use crate::dropout::dropout_factor;
use crate::expected::Outputs;
use crate::sequences::Sequences;
use crate::visibility::Visibility;

/// A way of computing, which decides how the result is rounded.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Way {
    Forward,
    Backward,
    /// Every eighth term, then every eighth from the next one on, as in the lanes of a vector unit.
    Strided,
    /// Forward, with each score off by its ε or 2ε.
    Nudged,
}

impl Way {
    pub(crate) const ALL: [Self; 4] = [Self::Forward, Self::Backward, Self::Strided, Self::Nudged];

    /// The order in which sums of `n` terms are taken.
    pub(crate) fn order(self, n: usize) -> Vec<usize> {
        match self {
            Self::Forward | Self::Nudged => (0..n).collect(),
            Self::Backward => (0..n).rev().collect(),
            Self::Strided => (0..8).flat_map(|lane| (lane..n).step_by(8)).collect(),
        }
    }
}

/// One row, before the result is rounded to the storage type.
pub(crate) struct NaiveRow {
    pub(crate) out: Vec<f32>,
    pub(crate) lse: f32,
    pub(crate) weights: Vec<f32>,
    pub(crate) largest_score: f32,
    /// After dropout.
    pub(crate) largest_v: f32,
}

/// What all ways of computing one row share.
pub(crate) struct Row<'a> {
    case: &'a Case,
    visibility: Visibility<'a>,
    at: [u32; 3],
    kv_head: u32,
    /// Which keys it sees; a `score_mod` may hide more.
    sees: Vec<bool>,
    /// What is added to each key's score: the bias minus the ALiBi term.
    added: Vec<f32>,
    sink: Option<f32>,
    /// Of dropout, if there is any.
    generator: Option<Philox>,
}

impl<'a> Row<'a> {
    pub(crate) fn new(case: &'a Case, at: [u32; 3]) -> Self {
        let (shape, visibility) = (case.problem.shape(), Visibility::new(case));
        let [b, h, i] = at;
        let sees: Vec<bool> = (0..shape.len_kv).map(|j| visibility.sees([b, h, i, j])).collect();
        let bias = case.problem.view(Operand::Bias).zip(case.host.bias.as_ref());
        let slope = case.host.alibi_slopes.as_ref();
        let slope = slope.map_or(0.0, |all| all[case.view(Operand::AlibiSlopes).index([b, h, 0, 0]) as usize]);
        let stands_at = visibility.stands_at(b, i);
        let added = |j| {
            let bias = bias.map_or(0.0, |(view, bias)| bias[view.index([b, h, i, j]) as usize]);
            bias - slope * (stands_at - i64::from(j)).abs() as f32
        };
        let added = (0..shape.len_kv).map(added).collect();
        // A row past the queries of its sequence has no sink.
        let is_query = i < Sequences::new(case).queries(b);
        let sink = case.host.sinks.as_ref().map(|sinks| sinks[h as usize]).filter(|_| is_query);
        let generator = case.generator();
        Self { case, visibility, at, kv_head: shape.kv_head(h), sees, added, sink, generator }
    }

    /// The scores of the keys that it sees.
    pub(crate) fn scores(&self, way: Way) -> Vec<(usize, f32)> {
        let Self { case: Case { problem, host }, at: at @ [b, h, i], sees, added, .. } = self;
        let dims = way.order(problem.shape().dim_qk as usize);
        let q = self.case.row(Operand::Q, *at);
        let (score_mod, is_capped) = (host.programs.score_mod.as_ref(), problem.softcap().is_some());
        let mut scores = Vec::new();
        for j in way.order(sees.len()).into_iter().filter(|&j| sees[j]) {
            let k = self.case.row(Operand::K, [*b, self.kv_head, j as u32]);
            let mut score = dims.iter().fold(0.0, |sum, &d| sum + q[d] * k[d]) * problem.scale();
            if let Some(cap) = problem.softcap() {
                score = cap * (score / cap).tanh();
            }
            if let Some(score_mod) = score_mod {
                let place = self.visibility.place([*b, *h, *i, j as u32]);
                score = score_mod(score.into(), place, host.aux()) as f32;
                if score == f32::NEG_INFINITY {
                    continue;
                }
            }
            scores.push((j, score));
        }
        if way == Way::Nudged {
            let largest = scores.iter().fold(f32::NEG_INFINITY, |most, &(j, s)| most.max(s + added[j]));
            let nudge = f32::EPSILON * if is_capped || score_mod.is_some() { 2.0 } else { 1.0 };
            for (j, score) in &mut scores {
                let is_largest = *score + added[*j] == largest;
                *score += score.abs() * if is_largest { nudge } else { -nudge };
            }
        }
        scores.iter().map(|&(j, score)| (j, score + added[j])).collect()
    }

    /// The product with a key, after the scale.
    fn product(&self, way: Way, j: usize) -> f32 {
        let Self { case: Case { problem, .. }, at: at @ [b, ..], .. } = self;
        let (q, k) = (self.case.row(Operand::Q, *at), self.case.row(Operand::K, [*b, self.kv_head, j as u32]));
        let dims = way.order(problem.shape().dim_qk as usize);
        dims.iter().fold(0.0, |sum, &d| sum + q[d] * k[d]) * problem.scale()
    }

    /// The slope of the softcap at a key.
    pub(crate) fn slope(&self, way: Way, j: usize) -> f32 {
        let Some(cap) = self.case.problem.softcap() else { return 1.0 };
        let tanh = (self.product(way, j) / cap).tanh();
        1.0 - tanh * tanh
    }

    /// The gradient of a score before the `score_mod`, if there is one, from that of the score after it.
    pub(crate) fn unmodified(&self, j: usize, way: Way, gradient: f32) -> f32 {
        let Self { case: Case { problem, host }, at: [b, h, i], .. } = self;
        let Some(score_mod_grad) = &host.programs.score_mod_grad else { return gradient };
        let product = self.product(way, j);
        let score = problem.softcap().map_or(product, |cap| cap * (product / cap).tanh());
        let place = self.visibility.place([*b, *h, *i, j as u32]);
        score_mod_grad(score.into(), place, gradient.into(), host.aux()) as f32
    }

    /// What dropout multiplies the weight of a key by.
    pub(crate) fn dropout_factor(&self, j: usize) -> f32 {
        let [b, h, i] = self.at;
        self.generator.map_or(1.0, |state| dropout_factor(self.case, [b, h, i, j as u32], state))
    }

    pub(crate) fn computed(&self, way: Way) -> NaiveRow {
        let Self { case, sink, at, .. } = self;
        let shape = case.problem.shape();
        let scores = self.scores(way);
        let with_sink = scores.iter().map(|&(_, s)| s).chain(*sink);
        let m = with_sink.clone().fold(f32::NEG_INFINITY, f32::max);
        let l = with_sink.fold(0.0, |l, s| l + (s - m).exp());
        let mut row = NaiveRow {
            out: vec![0.0; shape.dim_v as usize],
            lse: if scores.is_empty() { sink.unwrap_or(f32::NEG_INFINITY) } else { m + l.ln() },
            weights: vec![0.0; shape.len_kv as usize],
            largest_score: scores.iter().map(|&(_, s)| s).chain(*sink).fold(0.0, |most, s| s.abs().max(most)),
            largest_v: 0.0,
        };
        for &(j, score) in &scores {
            let factor = self.dropout_factor(j);
            let p = (score - m).exp() * factor;
            row.weights[j] = p / l;
            for (out, &v) in row.out.iter_mut().zip(case.row(Operand::V, [at[0], self.kv_head, j as u32]).iter()) {
                *out += p * v;
                row.largest_v = row.largest_v.max(factor * v.abs());
            }
        }
        row.out.iter_mut().filter(|_| !scores.is_empty()).for_each(|out| *out /= l);
        row
    }
}

/// The results of the naive computation, as a kernel would store them.
pub fn naive(case: &Case) -> Outputs {
    let dtype = case.dtype(Operand::Out);
    let (mut out, mut lse, mut all_weights) = (Vec::new(), Vec::new(), Vec::new());
    let rows: Vec<[u32; 3]> = case.rows().collect();
    for &at in &rows {
        let row = Row::new(case, at).computed(Way::Forward);
        out.extend(dtype.decode(&dtype.encode(&row.out)));
        lse.push(row.lse);
        all_weights.push(dtype.decode(&dtype.encode(&row.weights)));
    }
    let weights = case.weight_order(&rows).into_iter().flat_map(|n| all_weights[n].clone()).collect();
    let problem = &case.problem;
    Outputs {
        out,
        lse: problem.uses(Operand::Lse).then_some(lse),
        weights: problem.uses(Operand::Weights).then_some(weights),
        stray: None,
    }
}
