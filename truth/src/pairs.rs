//! Pairs to merge, and the mistakes in the kernel that merges them.
//!
//! The merge of a row is attention with the pairs as keys: their log-sum-exps are the scores, and their outputs the values.
//! So merges are judged as attention is.

#![allow(clippy::unwrap_used, reason = "pairs are made by tests, of merges that are valid")]
#![allow(clippy::needless_pass_by_value, reason = "merges are made where they are used")]

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use wgpu_attention::{Dtype, Layout, Merge, MergeBuilder, Operand, Problem, ScoreLayout, Shape};

use crate::case::{Case, indices, stored};
use crate::host::Host;

/// A merge with its pairs, laid out as it says. Gaps hold NaN.
#[derive(Clone, Debug)]
pub struct Pairs {
    /// The merge.
    pub merge: Merge,
    /// Every output.
    pub outs: Vec<f32>,
    /// Every log-sum-exp.
    pub lses: Vec<f32>,
}

impl Pairs {
    /// Outputs from −2 to 2, and log-sum-exps from −`spread` to `spread`.
    pub fn drawn(merge: MergeBuilder, spread: f32, seed: u64) -> Self {
        let merge = merge.build().unwrap();
        let gaps = |operand| {
            let element_bytes = merge.dtype(operand).unwrap().size_bytes();
            vec![f32::NAN; (merge.size_bytes(operand).unwrap() / element_bytes) as usize]
        };
        let (outs, lses) = (gaps(Operand::PairOut), gaps(Operand::PairLse));
        let mut rng = StdRng::seed_from_u64(seed);
        let pairs = Self { merge, outs, lses };
        pairs
            .edited(Operand::PairOut, |_, _, _| rng.random_range(-2.0..2.0))
            .edited(Operand::PairLse, |_, _, _| rng.random_range(-1.0..=1.0) * spread)
    }

    /// Replaces each element of an operand by the result of `new`, which gets its pair, its index and its value.
    pub fn edited(mut self, operand: Operand, mut new: impl FnMut(u32, [u32; 4], f32) -> f32) -> Self {
        let (view, stride) = (self.merge.view(operand).unwrap(), self.merge.pair_stride(operand).unwrap());
        let dtype = self.merge.dtype(operand).unwrap();
        let values = if operand == Operand::PairOut { &mut self.outs } else { &mut self.lses };
        for pair in 0..self.merge.pairs() {
            for at in indices(view.extent) {
                let place = (u64::from(pair) * stride + view.index(at)) as usize;
                values[place] = stored(dtype, new(pair, at, values[place]));
            }
        }
        self
    }

    /// The number of a pair at an index.
    pub fn get(&self, operand: Operand, pair: u32, at: [u32; 4]) -> f32 {
        let (view, stride) = (self.merge.view(operand).unwrap(), self.merge.pair_stride(operand).unwrap());
        let values = if operand == Operand::PairOut { &self.outs } else { &self.lses };
        values[(u64::from(pair) * stride + view.index(at)) as usize]
    }

    /// The attention whose keys are the pairs. Each row is a head, since each has other keys.
    pub fn as_attention(&self) -> Case {
        let (merge, out) = (&self.merge, self.merge.view(Operand::PairOut).unwrap());
        let [batches, heads, rows, dim] = out.extent;
        let shape = Shape::new(1, batches * heads * rows, 1, 1).kv_len(merge.pairs()).value_dim(dim);
        let (pair, out_dtype) = (merge.dtype(Operand::PairOut).unwrap(), merge.dtype(Operand::Out).unwrap());
        let scores = ScoreLayout::broadcast([1, shape.heads_q, 1, shape.len_kv]);
        let problem = Problem::builder(shape).kv_dtype(pair).out_dtype(out_dtype).bias(Dtype::F32, scores).lse();
        let of_rows = indices([batches, heads, rows, 1]);
        let of_pairs: Vec<_> = of_rows.flat_map(|at| (0..merge.pairs()).map(move |pair| (pair, at))).collect();
        let columns = |&(pair, [b, h, i, _]): &(u32, [u32; 4])| {
            (0..dim).map(move |d| self.get(Operand::PairOut, pair, [b, h, i, d]))
        };
        let host = Host {
            q: vec![0.0; shape.heads_q as usize],
            k: vec![0.0; of_pairs.len()],
            v: of_pairs.iter().flat_map(columns).collect(),
            bias: Some(of_pairs.iter().map(|&(pair, at)| self.get(Operand::PairLse, pair, at)).collect()),
            ..Host::default()
        };
        Case::new(problem.build().unwrap(), host)
    }
}

/// The shape of most merges.
pub fn shape(dim: u32) -> Shape {
    Shape::new(2, 3, 5, dim)
}

/// Pairs side by side in each row of (B, L, H, D), and everything with gaps.
pub fn gappy(dim: u32, pairs: u32) -> MergeBuilder {
    let wide = dim + 3;
    let all = u64::from(wide * pairs);
    Merge::builder(shape(dim), pairs)
        .pair_out(Layout::strided([15 * all + 5, all, 3 * all + 1]).at(2))
        .pair_out_stride(wide.into())
        .pair_lse(Layout::strided([3, 1, 7]).at(1))
        .pair_lse_stride(41)
        .out(Layout::blhd(3, 5, wide).at(1))
        .lse_in(Layout::blhd(3, 5, 2).at(3))
}

/// The longest log-sum-exps of which the others still count.
pub const SPREAD: f32 = 3.0;

/// Which rows of which pairs saw no key, for every kind of row: none, some, all but one, and all.
fn saw_none(pair: u32, [batch, head, row, _]: [u32; 4]) -> bool {
    match (batch * 15 + head * 5 + row) % 5 {
        0 => false,
        1 => pair == 1,
        2 => pair != 2,
        3 => pair < 3,
        _ => true,
    }
}

/// Pairs of which some saw nothing, whose outputs hold `unseen`.
pub fn partly_empty(merge: MergeBuilder, unseen: f32) -> Pairs {
    let pairs = Pairs::drawn(merge, SPREAD, 10);
    let pairs = pairs.edited(Operand::PairLse, |n, at, x| if saw_none(n, at) { f32::NEG_INFINITY } else { x });
    pairs.edited(Operand::PairOut, |n, at, x| if saw_none(n, at) { unseen } else { x })
}

/// What exposes a mistake.
pub type Question = fn() -> Pairs;

/// Mistakes in `combine.wgsl`: what is replaced, by what, and the pairs that expose it.
pub const MISTAKES: [(&str, &str, Question); 13] = [
    ("m = max(m, pair_lse[", "m = (pair_lse[", far_apart),
    ("lse_at + i * params.pair_lse_stride], m)", "lse_at + params.pair_lse_stride], m)", plain),
    ("out_at + i * params.pair_out_stride", "out_at + i", plain),
    ("exp(below)", "exp2(below)", plain),
    ("l += weight;", "l += 1.0;", plain),
    ("select(vec4(0.0), x, weight > 0.0)", "x", poisoned),
    ("0.0, saw_none(lse))", "1.0, saw_none(lse))", poisoned),
    ("vec4(0.0), l == 0.0)", "vec4(1.0), l == 0.0)", poisoned),
    ("params.negative_infinity, l == 0.0)", "0.0, l == 0.0)", poisoned),
    ("select(m + natural_log(l)", "select(natural_log(l)", plain),
    ("let dim = n % vectors * 4u;", "let dim = 0u;", plain),
    ("if (row >= params.len_q) { return; }", "", heads_apart),
    ("if (dim == 0u) {", "if (dim == 4u) {", poisoned),
];

fn plain() -> Pairs {
    Pairs::drawn(gappy(7, 3), SPREAD, 18)
}

/// With room for another row after the last of each head.
fn heads_apart() -> Pairs {
    let out = Layout::strided([300, 100, 12]);
    Pairs::drawn(Merge::builder(shape(12), 3).out(out).lse(), SPREAD, 19)
}

/// The first pair is the largest by far.
fn far_apart() -> Pairs {
    plain().edited(Operand::PairLse, |pair, _, lse| lse - 200.0 * pair as f32)
}

fn poisoned() -> Pairs {
    partly_empty(gappy(3, 4), f32::NAN)
}
