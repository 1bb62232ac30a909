//! Runs attention from host slices to host vectors.

use crate::device::refusal::scoped;
use crate::host::inputs::{Buffers, Inputs};
use crate::kernel::error::PlanError;
use crate::kernel::variant::Variant;
use crate::plan::Attention;
use crate::problem::Problem;
use crate::problem::gradients::Gradients;
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

/// The gradients that were read back from the device, and the results of the forward pass.
#[derive(Clone, Debug, PartialEq)]
pub struct GradientOutputs {
    /// The results of the forward pass.
    pub forward: Outputs,
    /// The gradient of the queries, laid out as the [`Gradients`] say, if it is wanted.
    pub dq: Option<Vec<f32>>,
    /// The gradient of the keys, if it is wanted.
    pub dk: Option<Vec<f32>>,
    /// The gradient of the values, if it is wanted.
    pub dv: Option<Vec<f32>>,
    /// The gradient of the bias, if it is wanted.
    pub dbias: Option<Vec<f32>>,
    /// The gradient of the sinks, if it is wanted.
    pub dsinks: Option<Vec<f32>>,
}

/// Any error of the functions that run attention from host slices to host vectors.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The device cannot run the problem.
    #[error(transparent)]
    Plan(PlanError),
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

impl From<PlanError> for RunError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Refused { variant, reason } => Self::Refused(format!("{variant}: {reason}")),
            error => Self::Plan(error),
        }
    }
}

/// **Submits.** Uploads the inputs, runs the best variant, and reads the results back.
///
/// # Errors
/// [`RunError`] if the problem cannot be planned, bound, run or read back.
pub async fn attention(
    attention: &Attention,
    queue: &wgpu::Queue,
    problem: &Problem,
    inputs: &Inputs<'_>,
) -> Result<Outputs, RunError> {
    attention_with(attention, queue, problem, inputs, &attention.candidates(problem)?[0]).await
}

/// **Submits.** Uploads the inputs, runs the given variant, and reads the results back.
///
/// # Errors
/// [`RunError`] if the problem cannot be planned, bound, run or read back.
pub async fn attention_with(
    attention: &Attention,
    queue: &wgpu::Queue,
    problem: &Problem,
    inputs: &Inputs<'_>,
    variant: &Variant,
) -> Result<Outputs, RunError> {
    inputs.check(problem)?;
    let device = attention.device();
    fit_buffers(device, problem)?;
    let plan = refusals_as_errors(device, || Ok(attention.plan_variant(problem, variant)?)).await?;
    plan.ready().await?;
    let submitted = refusals_as_errors(device, || {
        let buffers = inputs.upload(device, problem)?;
        submit(device, queue, &[plan.bind(&buffers.operands())?], &buffers)
    });
    submitted.await?.outputs(problem).await
}

/// **Submits.** Uploads the inputs and [`Inputs::dout`], runs the forward pass by its best variant and then the gradients, and
/// reads the results of both back.
///
/// # Errors
/// [`RunError`] if the problem or its gradients cannot be planned, bound, run or read back.
pub async fn gradients(
    attention: &Attention,
    queue: &wgpu::Queue,
    gradients: &Gradients,
    inputs: &Inputs<'_>,
) -> Result<GradientOutputs, RunError> {
    let (device, problem) = (attention.device(), gradients.problem());
    inputs.check(problem)?;
    fit_buffers(device, problem)?;
    let plans = || Ok((attention.plan(gradients.forward())?, attention.plan_gradients(gradients)?));
    let (forward, backward) = refusals_as_errors(device, plans).await?;
    forward.ready().await?;
    backward.ready().await?;
    let submitted = refusals_as_errors(device, || {
        let buffers = inputs.upload(device, problem)?;
        let own = buffers.operands_of(gradients.forward());
        submit(device, queue, &[forward.bind(&own)?, backward.bind(&buffers.operands())?], &buffers)
    });
    submitted.await?.gradients(problem).await
}

/// **Submits.** Computes the [block mask](crate::BlockMask) of `problem` from its mask and its `mask_mod`,
/// one number per tile. Of the inputs it reads only the mask, `aux` and, if the `mask_mod` uses the diagonal, the
/// lengths.
///
/// # Errors
/// [`RunError`] if the block mask cannot be planned, bound, run or read back.
pub async fn block_mask(
    attention: &Attention,
    queue: &wgpu::Queue,
    problem: &Problem,
    inputs: &Inputs<'_>,
) -> Result<Vec<u32>, RunError> {
    let device = attention.device();
    fit_buffers(device, problem)?;
    let plan = refusals_as_errors(device, || Ok(attention.plan_block_mask(problem)?)).await?;
    plan.ready().await?;
    let submitted = refusals_as_errors(device, || {
        let inputs = Inputs { block_mask: None, ..*inputs };
        let reads = |operand| plan.operands.iter().any(|bound| bound.view.operand == operand);
        inputs.check_for(problem, reads, &[Operand::BlockMask])?;
        let buffers = inputs.upload_views(device, problem, plan.operands.iter().map(|bound| bound.view))?;
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        plan.bind(&buffers.operands())?.encode(&mut encoder);
        let made = buffers.get(Operand::BlockMask).ok_or(BindError::Missing { operand: Operand::BlockMask })?;
        let made = Readback::record(device, &mut encoder, made.as_entire_buffer_binding())?;
        queue.submit([encoder.finish()]);
        Ok(made)
    });
    let mut tiles: Vec<u32> = bytemuck::pod_collect_to_vec(&submitted.await?.bytes().await?);
    let wanted = problem.view(Operand::BlockMask).map_or(0, |view| view.end());
    tiles.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
    Ok(tiles)
}

/// The outputs of calls that were submitted.
struct Submitted {
    outputs: Vec<(Operand, Readback)>,
}

/// Records calls with the readbacks of their outputs, and submits them.
fn submit(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    calls: &[Call],
    buffers: &Buffers,
) -> Result<Submitted, RunError> {
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    calls.iter().for_each(|call| call.encode(&mut encoder));
    let written = Operand::ALL.into_iter().filter(|operand| operand.is_output());
    let sources = written.filter_map(|operand| Some((operand, buffers.get(operand)?.as_entire_buffer_binding())));
    let outputs = sources.map(|(operand, source)| Ok((operand, Readback::record(device, &mut encoder, source)?)));
    let submitted = Submitted { outputs: outputs.collect::<Result<_, ReadbackError>>()? };
    queue.submit([encoder.finish()]);
    Ok(submitted)
}

impl Submitted {
    async fn outputs(mut self, problem: &Problem) -> Result<Outputs, RunError> {
        Ok(Outputs {
            out: self.values(problem, Operand::Out).await?.unwrap_or_default(),
            lse: self.values(problem, Operand::Lse).await?,
            weights: self.values(problem, Operand::Weights).await?,
        })
    }

    async fn gradients(mut self, problem: &Problem) -> Result<GradientOutputs, RunError> {
        Ok(GradientOutputs {
            dq: self.values(problem, Operand::Dq).await?,
            dk: self.values(problem, Operand::Dk).await?,
            dv: self.values(problem, Operand::Dv).await?,
            dbias: self.values(problem, Operand::Dbias).await?,
            dsinks: self.values(problem, Operand::Dsinks).await?,
            forward: self.outputs(problem).await?,
        })
    }

    /// The values of an output, if it was written.
    async fn values(&mut self, problem: &Problem, operand: Operand) -> Result<Option<Vec<f32>>, RunError> {
        let at = self.outputs.iter().position(|(other, _)| *other == operand);
        let (Some(at), Some(view)) = (at, problem.view(operand)) else { return Ok(None) };
        let (_, readback) = self.outputs.swap_remove(at);
        let mut values = readback.values(problem.dtype(operand).unwrap_or_default()).await?;
        values.truncate(usize::try_from(view.end()).unwrap_or(usize::MAX));
        Ok(Some(values))
    }
}

/// Runs `work` at once. The future fails if wgpu or the driver refused part of it, where results would be zeros.
pub(super) fn refusals_as_errors<T>(
    device: &wgpu::Device,
    work: impl FnOnce() -> Result<T, RunError>,
) -> impl Future<Output = Result<T, RunError>> {
    let (done, refusal) = scoped(device, work);
    async move {
        match (done, refusal.await) {
            // The reason says more than the error of a readback that cannot be recorded.
            (Ok(_) | Err(RunError::Readback(_)), Some(reason)) => Err(RunError::Refused(reason)),
            (done, _) => done,
        }
    }
}

/// Checks that the device can create buffers as large as the operands.
pub(super) fn fit_buffers(device: &wgpu::Device, problem: &Problem) -> Result<(), RunError> {
    let granted = device.limits().max_buffer_size;
    match problem.views().find(|view| view.size_bytes() > granted) {
        Some(view) => Err(RunError::BufferTooLarge { operand: view.operand, need: view.size_bytes(), granted }),
        None => Ok(()),
    }
}
