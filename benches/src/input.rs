//! The inputs of the kernels: standard normal values, the same in every run, cheap to make for large shapes.

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use rand_distr::{Distribution as _, StandardNormal};
use truth::{Case, Host};
use wgpu_attention::{Gradients, Operand, Problem, View};

use crate::Workload;

/// A prime, so that the repeated table gives rows that differ.
const TABLE: usize = 65_521;

/// Numbers for a tensor. Each seed begins elsewhere in the table.
fn normal(view: Option<View>, seed: usize) -> Vec<f32> {
    let table: Vec<f32> = StandardNormal.sample_iter(SmallRng::seed_from_u64(1)).take(TABLE).collect();
    let count = usize::try_from(view.map_or(0, |view| view.end())).expect("a tensor that fits the memory");
    table.iter().copied().cycle().skip(seed).take(count).collect()
}

/// The gradient of the output.
pub(crate) fn dout(gradients: &Gradients) -> Vec<f32> {
    normal(gradients.view(Operand::Dout), 60_013)
}

/// The inputs of one problem.
pub(crate) fn case(workload: &Workload, problem: &Problem) -> Case {
    let values = |operand, seed| normal(problem.view(operand), seed);
    let shape = problem.shape();
    let mask = problem.uses(Operand::Mask).then(|| {
        let batches = 0..shape.batch;
        batches.flat_map(|batch| (0..shape.len_kv).map(move |key| key < workload.kept_keys(batch))).collect()
    });
    let (q, k, v) = (values(Operand::Q, 0), values(Operand::K, 20_011), values(Operand::V, 40_009));
    Case::new(problem.clone(), Host { q, k, v, mask, ..Host::default() })
}

#[cfg(test)]
mod tests {
    use wgpu_attention::Dtype;

    use super::*;

    #[test]
    fn inputs_fit_their_problem_and_are_normal() {
        let workload: Workload = "2,4,2,96,200,64,mask".parse().expect("a shape");
        let problem = workload.problem(Dtype::F16).expect("a problem");
        let Case { problem, host } = case(&workload, &problem);
        host.inputs().check(&problem).expect("inputs that fit");
        let count = host.q.len() as f32;
        let mean = host.q.iter().sum::<f32>() / count;
        let variance = host.q.iter().map(|q| (q - mean).powi(2)).sum::<f32>() / count;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.05, "mean {mean}, variance {variance}");
        assert_eq!(host.mask.iter().flatten().filter(|&&kept| kept).count(), 150 + 195);
    }
}
