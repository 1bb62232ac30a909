//! A kernel is right before it is fast: a few rows of its output against the definition.

use anyhow::{Result, ensure};
use wgpu_attention::{Call, Dtype, Inputs, Operand, Problem, Readback, Variant, reference};

use crate::Gpu;

/// Errors relative to the largest value of a row: of f32 arithmetic over the longest rows, and two units of the type.
const fn allowed(dtype: Dtype) -> f64 {
    let unit = match dtype {
        Dtype::F32 => 0.0,
        Dtype::F16 => 1.0 / 1024.0,
        Dtype::Bf16 => 1.0 / 128.0,
    };
    2e-4 + 2.0 * unit
}

/// Runs `call` and compares the first, a middle and the last row.
pub(crate) fn check(
    gpu: &Gpu,
    problem: &Problem,
    inputs: &Inputs<'_>,
    (variant, call): (&Variant, &Call),
    out: &wgpu::Buffer,
) -> Result<()> {
    let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    // Whatever another variant left there is not this one's.
    encoder.clear_buffer(out, 0, None);
    gpu.queue.submit([encoder.finish()]);
    let values = output(gpu, call, out, problem.dtype())?;
    gpu.complaints()?;

    let shape = problem.shape();
    let extent = [shape.batch, shape.heads_q, shape.len_q];
    for at in [[0; 3], extent.map(|extent| extent / 2), extent.map(|extent| extent - 1)] {
        let truth = reference::row(problem, inputs, at)?;
        let Some(view) = problem.view(Operand::Out) else { continue };
        let first = usize::try_from(view.index([at[0], at[1], at[2], 0]))?;
        let error = excess(&values[first..first + truth.out.len()], &truth.out);
        let allowed = allowed(problem.dtype());
        ensure!(
            error <= allowed,
            "{variant} is wrong at (batch, head, row) {at:?} of {shape:?}: off by {error:.1e} of the row's largest value, \
             allowed {allowed:.1e}"
        );
    }
    Ok(())
}

/// Runs `call` and reads the output: what a caller waits for.
pub(crate) fn output(gpu: &Gpu, call: &Call, out: &wgpu::Buffer, dtype: Dtype) -> Result<Vec<f32>> {
    let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    call.encode(&mut encoder);
    let readback = Readback::record(&gpu.device, &mut encoder, out.as_entire_buffer_binding())?;
    gpu.queue.submit([encoder.finish()]);
    gpu.wait()?;
    Ok(pollster::block_on(readback.values(dtype))?)
}

/// The largest difference, as a part of the largest true value; NaN where the output is.
fn excess(row: &[f32], truth: &[f64]) -> f64 {
    let largest = truth.iter().fold(f64::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    let differences = row.iter().zip(truth).map(|(got, want)| (f64::from(*got) - want).abs() / largest);
    // `max` would drop a NaN.
    differences.fold(0.0, |most: f64, difference| if most.is_nan() || difference <= most { most } else { difference })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_errors_pass_and_wrong_rows_do_not() {
        let truth = [0.5, -0.25, 0.125];
        assert!(excess(&[0.500_01, -0.25, 0.125], &truth) <= allowed(Dtype::F32));
        for wrong in [[0.0; 3], [0.5, -0.25, 0.126], [0.5, f32::NAN, 0.125], [f32::NAN, -0.25, 0.125]] {
            let error = excess(&wrong, &truth);
            assert!(error.is_nan() || error > allowed(Dtype::F32), "{wrong:?} passed");
        }
    }
}
