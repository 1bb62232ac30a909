//! What `run --backward` reads beside the tensors of attention: the gradients that come in.

use anyhow::{Context as _, Result, ensure};
use truth::Host;
use wgpu_attention::{Gradients, GradientsBuilder, Operand, Problem};

use crate::results::{lse_shape, output_shape};
use crate::tensors::TensorFile;

/// Completes the description of the gradients of a problem that was read from this file, and reads those that come in.
pub(crate) fn read(
    file: &TensorFile<'_>,
    problem: &Problem,
    gradients: GradientsBuilder,
    host: &mut Host,
) -> Result<Gradients> {
    let mut wanted = vec![Operand::Dq, Operand::Dk, Operand::Dv];
    // A padding mask may have become a bias, which is no tensor of the file.
    for (operand, input) in [(Operand::Dbias, "bias"), (Operand::Dsinks, "sinks")] {
        if file.find(input)?.is_some() {
            wanted.push(operand);
        }
    }
    let mut gradients = gradients.of(wanted);
    if file.find("dlse")?.is_some() {
        gradients = gradients.dlse();
    }
    let gradients = gradients.build().context("--backward")?;
    host.dout = incoming(file, problem, "dout", ("output", output_shape(problem)))?;
    host.dlse = incoming(file, problem, "dlse", ("lse", lse_shape(problem)))?;
    ensure!(
        host.dout.is_some(),
        "--backward needs the tensor `dout`, the gradient of `output`; the file holds {}",
        file.names().join(", ")
    );
    Ok(gradients)
}

/// The gradient of a result, in its shape. A batch of 1 is repeated for each batch of the result.
fn incoming(
    file: &TensorFile<'_>,
    problem: &Problem,
    name: &str,
    (result, shape): (&str, Vec<usize>),
) -> Result<Option<Vec<f32>>> {
    let Some(tensor) = file.find(name)? else { return Ok(None) };
    let given: Vec<usize> = tensor.shape.iter().map(|&size| size as usize).collect();
    let values = tensor.floats()?;
    if given == shape {
        return Ok(Some(values));
    }
    let is_one_batch = problem.ragged_queries().is_none() && given.first() == Some(&1) && given[1..] == shape[1..];
    ensure!(is_one_batch, "`{name}` has shape {given:?}; it must be {shape:?}, that of `{result}`");
    Ok(Some(values.repeat(shape[0])))
}
