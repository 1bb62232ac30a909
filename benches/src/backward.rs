//! The backward pass of a shape, beside the forward pass that it follows: checked, then timed.

use anyhow::{Context as _, Result, ensure};
use truth::Case;
use wgpu::util::{BufferInitDescriptor, DeviceExt as _};
use wgpu::{BufferUsages, CommandEncoderDescriptor};
use wgpu_attention::{Gradients, Operand, Problem, Readback, Variant, reference};

use crate::guard::{allowed, excess};
use crate::measure::{Bench, Measurement};
use crate::samples::{Effort, Samples};
use crate::workload::bytes;
use crate::{Workload, input};

/// Five products of the size of Q Kᵀ, where the forward pass has two.
const PRODUCTS: f64 = 2.5;

impl Bench<'_> {
    /// Measures the variants of the forward pass, which keeps its log-sum-exp, and the gradients of queries, keys and values.
    pub(crate) fn backward(
        &self,
        workload: &Workload,
        problem: &Problem,
        chosen: &[Variant],
    ) -> Result<Vec<Measurement>> {
        let gradients = problem.gradients().build()?;
        let mut case = input::case(workload, problem);
        let mut measured = self.measure(workload, problem, chosen)?;

        case.host.dout = Some(input::dout(&gradients));
        let buffers = case.forward_inputs().upload(&self.gpu.device, problem)?;
        let own: Vec<(Operand, wgpu::Buffer)> = [Operand::Dout, Operand::Dq, Operand::Dk, Operand::Dv]
            .map(|operand| Ok((operand, self.buffer(&gradients, &case, operand)?)))
            .into_iter()
            .collect::<Result<_>>()?;
        let mut operands = buffers.operands();
        operands.extend(own.iter().map(|(operand, buffer)| (*operand, buffer.as_entire_buffer_binding())));
        let forward = self.attention.plan(problem)?.bind(&buffers.operands())?;
        let plan = self.attention.plan_gradients(&gradients)?;
        let call = plan.bind(&operands)?;
        let read = |operand: Operand| -> Result<Vec<f32>> {
            let (_, buffer) = own.iter().find(|(other, _)| *other == operand).context("a gradient has a buffer")?;
            let mut encoder = self.gpu.device.create_command_encoder(&CommandEncoderDescriptor::default());
            forward.encode(&mut encoder);
            call.encode(&mut encoder);
            let readback = Readback::record(&self.gpu.device, &mut encoder, buffer.as_entire_buffer_binding())?;
            self.gpu.queue.submit([encoder.finish()]);
            self.gpu.wait()?;
            Ok(pollster::block_on(readback.values(gradients.dtype(operand).unwrap_or_default()))?)
        };
        check(&case, &gradients, &read(Operand::Dq)?, &read(Operand::Dv)?)?;
        self.gpu.take_errors()?;

        let pass = Samples::of(Effort::RUN, || self.timer.pass(|pass| call.dispatch(pass)))?;
        let wall = Samples::timed(Effort::WALL, || read(Operand::Dk).map(drop))?;
        let planning = Samples::timed(Effort::HOST, || Ok(self.attention.plan_gradients(&gradients).map(drop)?))?;
        let record = Samples::timed(Effort::HOST, || {
            self.record(&call);
            Ok(())
        })?;
        self.gpu.take_errors()?;
        let kernels: Vec<String> = plan.variants().map(name).collect();
        measured.push(Measurement {
            variant: kernels.join(" + "),
            is_on_matrix_unit: false,
            flop: PRODUCTS * workload.flop(),
            bytes: bytes(problem)
                + [Operand::Dout, Operand::Dq, Operand::Dk, Operand::Dv, Operand::Lse]
                    .into_iter()
                    .map(|operand| gradients.view(operand).map_or(0.0, |view| view.size_bytes() as f64))
                    .sum::<f64>(),
            pass,
            cold: None,
            wall,
            plan: planning,
            record,
            extra_bytes: plan.scratch_bytes(),
        });
        Ok(measured)
    }

    fn buffer(&self, gradients: &Gradients, case: &Case, operand: Operand) -> Result<wgpu::Buffer> {
        let view = gradients.view(operand).context("the gradients use it")?;
        let mut contents = vec![0; usize::try_from(view.size_bytes())?.next_multiple_of(4)];
        if let (Operand::Dout, Some(dout)) = (operand, &case.host.dout) {
            let encoded = gradients.dtype(operand).unwrap_or_default().encode(dout);
            contents[..encoded.len()].copy_from_slice(&encoded);
        }
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
        Ok(self.gpu.device.create_buffer_init(&BufferInitDescriptor {
            label: Some(operand.name()),
            contents: &contents,
            usage,
        }))
    }
}

/// The schedule of a kernel, without what all kernels of a problem share.
fn name(variant: &Variant) -> String {
    let name = variant.to_string();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// Compares a few rows of dQ with the reference. The columns of dV add up to those of dO, because each row's weights add up to 1.
fn check(case: &Case, gradients: &Gradients, dq: &[f32], dv: &[f32]) -> Result<()> {
    let shape = gradients.shape();
    let extent = [shape.batch, shape.heads_q, shape.len_q];
    let rows = [[0; 3], extent.map(|extent| extent / 2), extent.map(|extent| extent - 1)];
    let exact = reference::gradients_of_rows(gradients, &case.inputs(), &reference::Programs::default(), rows)?;
    let allowed = 2.0 * allowed(gradients.dtype(Operand::Dq).unwrap_or_default());
    let dim = shape.dim_qk as usize;
    // Together, because the gradient of a row that sees one key is 0.
    let mut compared = (Vec::new(), Vec::new());
    for [batch, head, row] in rows {
        let first = ((batch * shape.heads_q + head) * shape.len_q + row) as usize * dim;
        compared.0.extend_from_slice(&dq[first..][..dim]);
        compared.1.extend_from_slice(&exact.dq[first..][..dim]);
    }
    let error = excess(&compared.0, &compared.1);
    ensure!(
        error <= allowed,
        "dq is wrong in some of the rows (batch, head, row) {rows:?} of {shape:?}: off by {error:.1e} of their largest value, \
         allowed {allowed:.1e}"
    );
    let dout = case.host.dout.as_deref().unwrap_or_default();
    let columns = |values: &[f32]| -> f64 { values.iter().map(|&x| f64::from(x)).sum() };
    let size: f64 = dout.iter().map(|&x| f64::from(x).abs()).sum();
    let error = (columns(dv) - columns(dout)).abs() / size;
    ensure!(
        error <= allowed,
        "the sum of dv is off by {error:.1e} of that of dout's magnitudes, allowed {allowed:.1e}"
    );
    Ok(())
}
