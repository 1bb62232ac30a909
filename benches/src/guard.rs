//! Checks that a kernel is right before it is timed: a few rows of its output, against the reference.

use anyhow::{Result, ensure};
use truth::Case;
use wgpu_attention::{Call, Dtype, Operand, Problem, Readback, Variant};

use crate::Gpu;

/// The most that a row may be off by, as a share of its largest output: f32 arithmetic over the longest rows, and two units of the
/// type. The tests' tolerance (`truth`) is no help here: it is relative to the values, and the output of a long row is a mean of so
/// many of them that even zeros would pass.
pub(crate) const fn allowed(dtype: Dtype) -> f64 {
    let unit = match dtype {
        Dtype::F32 => 0.0,
        Dtype::F16 => 1.0 / 1024.0,
        Dtype::Bf16 => 1.0 / 128.0,
    };
    2e-4 + 2.0 * unit
}

/// The rows that are compared.
#[derive(Debug)]
pub(crate) struct Guard<'a> {
    case: &'a Case,
    /// Each with its exact output.
    rows: Vec<([u32; 3], Vec<f64>)>,
}

impl<'a> Guard<'a> {
    /// The first, a middle and the last row.
    pub(crate) fn new(case: &'a Case) -> Result<Self> {
        let shape = case.problem.shape();
        let extent = [shape.batch, shape.heads_q, shape.len_q];
        let rows = [[0; 3], extent.map(|extent| extent / 2), extent.map(|extent| extent - 1)];
        let rows = rows.into_iter().map(|at| Ok((at, case.exact(at)?.out)));
        Ok(Self { case, rows: rows.collect::<Result<_>>()? })
    }

    pub(crate) const fn problem(&self) -> &Problem {
        &self.case.problem
    }

    /// Runs `call` and compares those rows of its output.
    pub(crate) fn check(&self, gpu: &Gpu, (variant, call): (&Variant, &Call), out: &wgpu::Buffer) -> Result<()> {
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        // Removes what another variant left there.
        encoder.clear_buffer(out, 0, None);
        gpu.queue.submit([encoder.finish()]);
        let values = output(gpu, call, out, self.problem().dtype(Operand::Out).unwrap_or_default())?;
        gpu.take_errors()?;

        let (view, shape) = (self.case.view(Operand::Out), self.problem().shape());
        for (at, exact) in &self.rows {
            let first = usize::try_from(view.index([at[0], at[1], at[2], 0]))?;
            let (error, allowed) = (
                excess(&values[first..first + exact.len()], exact),
                allowed(self.problem().dtype(Operand::Out).unwrap_or_default()),
            );
            ensure!(
                error <= allowed,
                "{variant} is wrong at (batch, head, row) {at:?} of {shape:?}: off by {error:.1e} of the row's largest \
                 value, allowed {allowed:.1e}"
            );
        }
        Ok(())
    }
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

/// The largest difference, as a share of the largest exact value; NaN if the output has NaN.
pub(crate) fn excess(row: &[f32], exact: &[f64]) -> f64 {
    let largest = exact.iter().fold(f64::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    let differences = row.iter().zip(exact).map(|(got, want)| (f64::from(*got) - want).abs() / largest);
    // `max` would drop a NaN.
    differences.fold(0.0, |most: f64, difference| if most.is_nan() || difference <= most { most } else { difference })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_errors_pass_and_wrong_rows_do_not() {
        let exact = [0.5, -0.25, 0.125];
        assert!(excess(&[0.500_01, -0.25, 0.125], &exact) <= allowed(Dtype::F32));
        for wrong in [[0.0; 3], [0.5, -0.25, 0.126], [0.5, f32::NAN, 0.125], [f32::NAN, -0.25, 0.125]] {
            let error = excess(&wrong, &exact);
            assert!(error.is_nan() || error > allowed(Dtype::F32), "{wrong:?} passed");
        }
        assert!(excess(&[0.0; 3], &exact) > allowed(Dtype::Bf16), "zeros of a long row");
    }
}
