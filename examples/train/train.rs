//! The training loop: each step is one submission of one pass, and the losses come back a few steps late.

use indicatif::{ProgressBar, ProgressStyle};
use rand::{SeedableRng as _, rngs::StdRng};
use wgpu_attention::{Dtype, Readback};

use crate::kernels::{self, Kernels, Tensor, Work};
use crate::model::{Activations, Weights};
use crate::text::Text;
use crate::{Result, attention, backward};

pub(crate) const STEPS: u32 = 800;
/// How many steps' losses are read together.
const READ_EVERY: u32 = 10;
const WARM_UP: u32 = 20;
const RATE: f32 = 0.01;

/// A smoothed loss is the mean of so many steps.
pub(crate) const SMOOTHED: usize = 20;

/// What the kernels know of a step, as `loss.wgsl` and `adamw.wgsl` declare it.
#[derive(Clone, Copy, Debug, bytemuck::NoUninit)]
#[repr(C)]
struct Step {
    number: u32,
    rate: f32,
}

/// The learning rate rises to [`RATE`], then falls towards 0.
fn rate(step: u32) -> f32 {
    let (rising, falling) = ((step + 1) as f32 / WARM_UP as f32, (STEPS - step) as f32 / (STEPS - WARM_UP) as f32);
    RATE * rising.min(falling)
}

/// Trains the weights, and returns the loss of each step.
pub(crate) fn train(
    kernels: &Kernels,
    text: &Text,
    weights: &Weights,
    activations: &Activations,
    attention: &attention::Training,
    forward: &[Work],
) -> Result<Vec<f32>> {
    let tensor = |label, rows, columns| Tensor::new(&kernels.device, label, [rows, columns]);
    let gradients = Weights::new(kernels, "gradients");
    let row_losses = tensor("row losses", activations.logits.rows, 1);
    let step = tensor("step", 1, 2);
    let losses = tensor("losses", STEPS, 1);
    // wgpu's buffers begin as zeros.
    let moments = ["means", "squares"].map(|label| tensor(label, weights.all.rows, 1));
    let backward = backward::backward(kernels, attention, weights, activations, &gradients, &row_losses)?;
    let update =
        [kernels.mean_loss(&row_losses, &step, &losses), kernels.adamw(&step, &gradients.all, &weights.all, &moments)];

    let mut random = StdRng::seed_from_u64(1);
    let style = ProgressStyle::with_template("{bar:40} step {pos} of {len}, {elapsed}{msg}")?;
    let bar = ProgressBar::new(STEPS.into()).with_style(style);
    let (mut known, mut waiting) = (Vec::new(), None);
    for number in 0..STEPS {
        let tokens = &activations.tokens;
        tokens.write(&kernels.queue, &text.passages(&mut random, tokens.rows, tokens.columns));
        step.write(&kernels.queue, &[Step { number, rate: rate(number) }]);

        let mut encoder = kernels.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        kernels::record(&mut encoder, forward.iter().chain(&backward).chain(&update));
        let done = number + 1;
        let read_now = done.is_multiple_of(READ_EVERY) || done == STEPS;
        let readback =
            read_now.then(|| Readback::record(&kernels.device, &mut encoder, losses.binding())).transpose()?;
        let submission = kernels.queue.submit([encoder.finish()]);
        let Some(readback) = readback else { continue };
        // The device already has the next steps, so it does not idle while the host waits for earlier ones.
        if let Some(earlier) = waiting.replace((readback, submission, done)) {
            known = read(kernels, earlier)?;
            let loss = known.last().copied().unwrap_or_default();
            bar.set_position(known.len() as u64);
            bar.set_message(format!(", loss {loss:.3}"));
        }
    }
    if let Some(last) = waiting {
        known = read(kernels, last)?;
    }
    bar.finish_and_clear();
    Ok(known)
}

/// The mean of each [`SMOOTHED`] steps in a row.
pub(crate) fn smoothed(losses: &[f32]) -> impl DoubleEndedIterator<Item = f32> {
    losses.windows(SMOOTHED).map(|steps| steps.iter().sum::<f32>() / SMOOTHED as f32)
}

/// Waits for the losses of the first steps.
fn read(kernels: &Kernels, (readback, submission, done): (Readback, wgpu::SubmissionIndex, u32)) -> Result<Vec<f32>> {
    kernels.device.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None })?;
    let mut losses = pollster::block_on(readback.values(Dtype::F32))?;
    losses.truncate(done as usize);
    Ok(losses)
}
