//! Runs attention from host slices to host vectors.

use std::time::{Duration, Instant};

use wgpu::PollType;

use crate::host::inputs::{Buffers, Inputs};
use crate::kernel::error::PlanError;
use crate::kernel::variant::Variant;
use crate::plan::Attention;
use crate::problem::Problem;
use crate::problem::operand::Operand;
use crate::record::call::Call;
use crate::record::error::{BindError, ReadbackError};
use crate::record::readback::Readback;

/// The results that were read back from the device.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    /// The output, laid out as the problem says; gaps between rows are zero.
    pub out: Vec<f32>,
    /// Log-sum-exp (B, Hq, Lq), if the problem requests it.
    pub lse: Option<Vec<f32>>,
    /// Attention weights (B, Hq, Lq, Lk), if the problem requests them.
    pub weights: Option<Vec<f32>>,
}

/// Any error of the functions that run attention from host slices to host vectors.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The device cannot run the problem.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The inputs do not fit the problem.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The result could not be read back.
    #[error(transparent)]
    Readback(#[from] ReadbackError),
    /// A tensor is larger than the device's buffers.
    #[error(
        "`{operand}` takes {need} bytes, but this device's buffers hold at most {granted}; run fewer heads or batches at a time"
    )]
    BufferTooLarge {
        /// The operand that is too large.
        operand: Operand,
        /// Its size, in bytes.
        need: u64,
        /// `max_buffer_size` of the device, in bytes.
        granted: u64,
    },
    /// The device stopped answering.
    #[error("the device stopped answering: {0}")]
    Poll(String),
    /// wgpu or the driver refused a kernel, a buffer or the commands; nothing was computed.
    #[error(
        "the device refused the work: {0}; run less at a time if memory ran out, else try another variant or driver"
    )]
    Refused(String),
}

/// **Blocks and submits.** Uploads the inputs, runs the best variant, waits, and reads the results back.
///
/// # Errors
/// [`RunError`] if the problem cannot be planned, bound, run or read back.
pub fn attention(
    attention: &Attention,
    queue: &wgpu::Queue,
    problem: &Problem,
    inputs: &Inputs<'_>,
) -> Result<Outputs, RunError> {
    attention_with(attention, queue, problem, inputs, &attention.candidates(problem)?[0])
}

/// **Blocks and submits.** Uploads the inputs, runs the given variant, waits, and reads the results back.
///
/// # Errors
/// [`RunError`] if the problem cannot be planned, bound, run or read back.
pub fn attention_with(
    attention: &Attention,
    queue: &wgpu::Queue,
    problem: &Problem,
    inputs: &Inputs<'_>,
    variant: &Variant,
) -> Result<Outputs, RunError> {
    inputs.check(problem)?;
    let device = attention.device();
    fit_buffers(device, problem)?;
    refusals_as_errors(device, || {
        let plan = attention.plan_variant(problem, variant)?;
        let buffers = inputs.upload(device, problem)?;
        submit(device, queue, problem, &plan.bind(&buffers.operands())?, &buffers)
    })
}

/// **Blocks and submits.** Computes the [block mask](crate::BlockMask) of `problem` from its mask and its `mask_mod`,
/// one number per tile. Of the inputs it reads only the mask, `aux` and, if the `mask_mod` uses the diagonal, the
/// lengths.
///
/// # Errors
/// [`RunError`] if the block mask cannot be planned, bound, run or read back.
pub fn block_mask(
    attention: &Attention,
    queue: &wgpu::Queue,
    problem: &Problem,
    inputs: &Inputs<'_>,
) -> Result<Vec<u32>, RunError> {
    let device = attention.device();
    fit_buffers(device, problem)?;
    refusals_as_errors(device, || {
        let plan = attention.plan_block_mask(problem)?;
        let inputs = Inputs { block_mask: None, ..*inputs };
        let reads = |operand| plan.operands.iter().any(|bound| bound.view.operand == operand);
        inputs.check_for(problem, reads, &[Operand::BlockMask])?;
        let buffers = inputs.upload_views(device, problem, plan.operands.iter().map(|bound| bound.view))?;
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        plan.bind(&buffers.operands())?.encode(&mut encoder);
        let made = buffers.get(Operand::BlockMask).ok_or(BindError::Missing { operand: Operand::BlockMask })?;
        let made = Readback::record(device, &mut encoder, made.as_entire_buffer_binding())?;
        submit_and_wait(device, queue, encoder.finish())?;
        let mut tiles: Vec<u32> = bytemuck::pod_collect_to_vec(&pollster::block_on(made.bytes())?);
        let wanted = problem.view(Operand::BlockMask).map_or(0, |view| view.end());
        tiles.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
        Ok(tiles)
    })
}

/// Records a call with the readbacks of its outputs, submits it and waits.
fn submit(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    problem: &Problem,
    call: &Call,
    buffers: &Buffers,
) -> Result<Outputs, RunError> {
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    call.encode(&mut encoder);
    let mut read = |operand| {
        let source = buffers.get(operand).map(wgpu::Buffer::as_entire_buffer_binding);
        source.map(|source| Readback::record(device, &mut encoder, source)).transpose()
    };
    let (out, lse, weights) = (read(Operand::Out)?, read(Operand::Lse)?, read(Operand::Weights)?);
    submit_and_wait(device, queue, encoder.finish())?;

    let values = |operand, readback: Option<Readback>| -> Result<Option<Vec<f32>>, RunError> {
        let (Some(readback), Some(view)) = (readback, problem.view(operand)) else { return Ok(None) };
        let dtype = problem.dtype(operand).unwrap_or_default();
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

/// Submits commands and waits until they have run. Returns how long that took.
pub(super) fn submit_and_wait(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    commands: wgpu::CommandBuffer,
) -> Result<Duration, RunError> {
    let start = Instant::now();
    queue.submit([commands]);
    device.poll(PollType::wait_indefinitely()).map_err(|error| RunError::Poll(error.to_string()))?;
    Ok(start.elapsed())
}

/// Runs `work`, which submits and waits, and fails if wgpu or the driver refused part of it. Without error scopes, such
/// errors would reach only the app's handler, and results would be zeros.
pub(super) fn refusals_as_errors<T>(
    device: &wgpu::Device,
    work: impl FnOnce() -> Result<T, RunError>,
) -> Result<T, RunError> {
    let (done, refusal) = with_error_scopes(device, work);
    match (done, refusal) {
        // The reason says more than the error of a readback that never ran.
        (Ok(_) | Err(RunError::Readback(_)), Some(reason)) => Err(RunError::Refused(reason.to_string())),
        (done, _) => done,
    }
}

/// Runs `work`, and returns its result with an error that wgpu reported meanwhile, if any.
pub(super) fn with_error_scopes<T>(device: &wgpu::Device, work: impl FnOnce() -> T) -> (T, Option<wgpu::Error>) {
    // If a driver refuses what passes wgpu's validation, wgpu reports an internal error.
    let filters = [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation];
    let scopes = filters.map(|filter| device.push_error_scope(filter));
    let done = work();
    let errors: Vec<_> = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).collect();
    (done, errors.into_iter().next())
}

/// Checks that the device can create buffers as large as the operands.
pub(super) fn fit_buffers(device: &wgpu::Device, problem: &Problem) -> Result<(), RunError> {
    let granted = device.limits().max_buffer_size;
    match problem.views().find(|view| view.size_bytes() > granted) {
        Some(view) => Err(RunError::BufferTooLarge { operand: view.operand, need: view.size_bytes(), granted }),
        None => Ok(()),
    }
}
