//! The functions that block and submit, for scripts, tests and those without an encoder of their own. Everything else in
//! the crate records and returns.

use wgpu::util::DeviceExt as _;
use wgpu::{BufferUsages, PollType};

use crate::{
    Attention, BindError, Dtype, Inputs, Operand, Operands, PlanError, Problem, Readback, ReadbackError, Variant,
};

/// What came back from the device.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    /// The output, laid out as the problem says; gaps between rows are zero.
    pub out: Vec<f32>,
    /// Log-sum-exp (B, Hq, Lq), where the problem asks for it.
    pub lse: Option<Vec<f32>>,
    /// Attention weights (B, Hq, Lq, Lk), where the problem asks for them.
    pub weights: Option<Vec<f32>>,
}

/// Anything that can go wrong from host slices to host vectors.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The device cannot run the problem.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The inputs do not fit the problem.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The result did not come back.
    #[error(transparent)]
    Readback(#[from] ReadbackError),
    /// A tensor is larger than the device's buffers.
    #[error(
        "`{operand}` takes {need} bytes, but this device's buffers hold at most {granted}; run fewer heads or batches at a time"
    )]
    BufferTooLarge {
        /// Which operand.
        operand: Operand,
        /// Its size.
        need: u64,
        /// `max_buffer_size`.
        granted: u64,
    },
    /// The device stopped answering.
    #[error("the device stopped answering: {0}")]
    Poll(String),
}

/// **Blocks and submits.** Uploads the inputs, runs the best variant, waits, and reads everything back.
///
/// # Errors
/// [`RunError`].
pub fn attention(
    attention: &Attention,
    queue: &wgpu::Queue,
    problem: &Problem,
    inputs: &Inputs<'_>,
) -> Result<Outputs, RunError> {
    let best = attention.candidates(problem)?[0];
    attention_with(attention, queue, problem, inputs, best)
}

/// **Blocks and submits.** The same with the variant given.
///
/// # Errors
/// [`RunError`].
pub fn attention_with(
    attention: &Attention,
    queue: &wgpu::Queue,
    problem: &Problem,
    inputs: &Inputs<'_>,
    variant: Variant,
) -> Result<Outputs, RunError> {
    inputs.check(problem)?;
    let device = attention.device();
    let granted = device.limits().max_buffer_size;
    if let Some(view) = problem.views().find(|view| view.size_bytes() > granted) {
        return Err(RunError::BufferTooLarge { operand: view.operand, need: view.size_bytes(), granted });
    }
    let plan = attention.plan_variant(problem, variant)?;

    let buffers: Vec<(Operand, wgpu::Buffer)> =
        problem.views().map(|view| (view.operand, buffer(device, problem, inputs, view.operand))).collect();
    let binding = |operand| {
        let (_, buffer) = buffers.iter().find(|&&(other, _)| other == operand)?;
        Some(buffer.as_entire_buffer_binding())
    };
    let mut operands = Operands::default();
    for (operand, buffer) in &buffers {
        operands = operands.with(*operand, buffer.as_entire_buffer_binding());
    }
    let call = plan.bind(&operands)?;

    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    call.encode(&mut encoder);
    let mut read = |operand| binding(operand).map(|source| Readback::record(device, &mut encoder, source)).transpose();
    let (out, lse, weights) = (read(Operand::Out)?, read(Operand::Lse)?, read(Operand::Weights)?);
    queue.submit([encoder.finish()]);
    device.poll(PollType::wait_indefinitely()).map_err(|error| RunError::Poll(error.to_string()))?;

    let values = |operand, readback: Option<Readback>| -> Result<Option<Vec<f32>>, RunError> {
        let (Some(readback), Some(view)) = (readback, problem.view(operand)) else { return Ok(None) };
        let dtype = if operand == Operand::Lse { Dtype::F32 } else { problem.dtype() };
        let mut values = pollster::block_on(readback.values(dtype))?;
        values.truncate(usize::try_from(view.end()).unwrap_or(usize::MAX));
        Ok(Some(values))
    };
    Ok(Outputs {
        out: values(Operand::Out, out)?.unwrap_or_default(),
        lse: values(Operand::Lse, lse)?,
        weights: values(Operand::Weights, weights)?,
    })
}

fn buffer(device: &wgpu::Device, problem: &Problem, inputs: &Inputs<'_>, operand: Operand) -> wgpu::Buffer {
    let contents = match operand {
        Operand::Q => problem.dtype().encode(inputs.q),
        Operand::K => problem.dtype().encode(inputs.k),
        Operand::V => problem.dtype().encode(inputs.v),
        Operand::Mask => inputs.mask.unwrap_or_default().iter().map(|&attend| u8::from(attend)).collect(),
        Operand::Bias => problem.bias_dtype().unwrap_or_default().encode(inputs.bias.unwrap_or_default()),
        Operand::KvLengths => bytemuck::cast_slice(inputs.kv_lengths.unwrap_or_default()).to_vec(),
        Operand::Out | Operand::Lse | Operand::Weights => {
            return device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(operand.name()),
                size: problem.view(operand).map_or(0, |view| view.size_bytes()),
                usage: BufferUsages::STORAGE | BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
        }
    };
    device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: Some(operand.name()),
        contents: &padded(contents),
        usage: BufferUsages::STORAGE,
    })
}

/// Storage bindings are whole words.
fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
