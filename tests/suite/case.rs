//! Problems that many tests use.

use truth::{Case, Fill};
use wgpu_attention::{Dtype, Problem, ProblemBuilder, ScoreLayout, Shape};

/// A problem with numbers drawn for it.
pub fn drawn(problem: ProblemBuilder, fill: Fill, seed: u64) -> Case {
    Case::filled(&problem.build().unwrap_or_else(|error| panic!("{error}: {problem:?}")), fill, seed)
}

/// The layout of a mask or a bias with an element for every score.
pub fn full(shape: Shape) -> ScoreLayout {
    ScoreLayout::broadcast([shape.batch, shape.heads_q, shape.len_q, shape.len_kv])
}

/// Every feature at once, so that many tests share one kernel, which is compiled once.
pub fn everything(shape: Shape, dtype: Dtype) -> ProblemBuilder {
    Problem::builder(shape).dtype(dtype).softcap(5.0).mask(full(shape)).bias(dtype, full(shape)).kv_lengths().lse()
}
