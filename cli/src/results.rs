//! The results as tensors of a file: their names, shapes and types.

use anyhow::Result;
use wgpu_attention::blocking::{GradientOutputs, Outputs};
use wgpu_attention::{Dtype, Gradients, Operand, Problem};

use crate::args::RunArgs;
use crate::output::Named;
use crate::tensors::TensorFile;

/// The shape of `output`, and of the gradient that comes in for it: (B, H, L, D), or (T, H, D) for ragged queries.
pub(crate) fn output_shape(problem: &Problem) -> Vec<usize> {
    let shape = with(rows(problem), problem.shape().dim_v);
    match (problem.ragged_queries(), shape.as_slice()) {
        (Some(_), &[heads, total, dim]) => vec![total, heads, dim],
        _ => shape,
    }
}

/// The shape of `lse`, and of the gradient that comes in for it: (B, H, L), or (H, T) for ragged queries.
pub(crate) fn lse_shape(problem: &Problem) -> Vec<usize> {
    rows(problem)
}

fn rows(problem: &Problem) -> Vec<usize> {
    let shape = problem.shape();
    let [batch, heads, queries] = [shape.batch, shape.heads_q, shape.len_q].map(|size| size as usize);
    match problem.ragged_queries() {
        Some(total) => vec![heads, total as usize],
        None => vec![batch, heads, queries],
    }
}

fn with(mut rows: Vec<usize>, last: u32) -> Vec<usize> {
    rows.push(last as usize);
    rows
}

/// The results of the forward pass that were asked for.
pub(crate) fn forward<'a>(args: &RunArgs, problem: &Problem, element: Dtype, outputs: &'a Outputs) -> Vec<Named<'a>> {
    let mut tensors = vec![Named { name: "output", element, shape: output_shape(problem), values: &outputs.out }];
    if let Some(values) = outputs.lse.as_ref().filter(|_| args.lse) {
        // An LSE is always f32: beyond the range of f16 it could become −∞, the LSE of a row that sees no key.
        tensors.push(Named { name: "lse", element: Dtype::F32, shape: lse_shape(problem), values });
    }
    if let Some(values) = outputs.weights.as_ref().filter(|_| args.weights) {
        tensors.push(Named { name: "weights", element, shape: with(rows(problem), problem.shape().len_kv), values });
    }
    tensors
}

/// A gradient with the shape and the type of the tensor that it is the gradient of.
pub(crate) struct Gradient {
    operand: Operand,
    element: Dtype,
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Gradient {
    pub(crate) fn named(&self) -> Named<'_> {
        let Self { operand, element, shape, values } = self;
        Named { name: operand.name(), element: *element, shape: shape.clone(), values }
    }
}

/// The results of the forward pass, and the gradients of this file's tensors.
pub(crate) fn of_both_passes(
    file: &TensorFile<'_>,
    description: &Gradients,
    outputs: GradientOutputs,
) -> Result<(Outputs, Vec<Gradient>)> {
    let GradientOutputs { forward, dq, dk, dv, dbias, dsinks } = outputs;
    let all = [
        (Operand::Dq, "q", dq),
        (Operand::Dk, "k", dk),
        (Operand::Dv, "v", dv),
        (Operand::Dbias, "bias", dbias),
        (Operand::Dsinks, "sinks", dsinks),
    ];
    let mut gradients = Vec::new();
    for (operand, name, values) in all {
        let (Some(values), Some(view)) = (values, description.view(operand)) else { continue };
        let tensor = file.need(name)?;
        let values = summed(values, view.extent, tensor.aligned()?);
        let shape = tensor.shape.iter().map(|&size| size as usize).collect();
        gradients.push(Gradient { operand, element: tensor.element()?, shape, values });
    }
    Ok((forward, gradients))
}

/// Sums a gradient of shape `from` over the axes along which its tensor, of shape `to`, was broadcast.
fn summed(values: Vec<f32>, from: [u32; 4], to: [u32; 4]) -> Vec<f32> {
    let count = |shape: [u32; 4]| shape.iter().map(|&size| size as usize).product::<usize>();
    // As many elements are the same elements, which ragged batches hold in another order of axes.
    if count(from) == count(to) {
        return values;
    }
    let mut sums = vec![0.0_f64; count(to)];
    for (at, value) in truth::indices(from).zip(values) {
        let own = at.into_iter().zip(to);
        let place = own.fold(0, |place, (i, size)| place * size as usize + if size == 1 { 0 } else { i as usize });
        sums[place] += f64::from(value);
    }
    #[expect(clippy::cast_possible_truncation, reason = "the nearest f32 is what is wanted")]
    sums.into_iter().map(|sum| sum as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::summed;

    #[test]
    fn what_was_broadcast_is_summed() {
        let values: Vec<f32> = (0..12_u8).map(f32::from).collect();
        assert_eq!(summed(values.clone(), [2, 1, 2, 3], [2, 1, 2, 3]), values);
        assert_eq!(summed(values.clone(), [2, 1, 2, 3], [1, 1, 2, 3]), [6.0, 8.0, 10.0, 12.0, 14.0, 16.0]);
        assert_eq!(summed(values.clone(), [2, 1, 2, 3], [2, 1, 1, 1]), [15.0, 51.0]);
        assert_eq!(summed(values, [2, 1, 2, 3], [1; 4]), [66.0]);
        // Of no batch at all.
        assert_eq!(summed(vec![], [0, 1, 2, 1], [1, 1, 2, 1]), [0.0, 0.0]);
    }
}
