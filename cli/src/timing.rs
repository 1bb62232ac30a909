//! How long a problem takes on a GPU, with its buffers already there.

use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::ProgressBar;
use wgpu_attention::{Inputs, Problem};

use crate::device::{Gpu, compiling};

/// Wall-clock times from submission to completion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// With compilation.
    pub(crate) first: Duration,
    pub(crate) median: Duration,
    pub(crate) runs: usize,
}

/// Enough for a median, and not so many that a slow device keeps anyone waiting.
const RUNS: usize = 21;
const PATIENCE: Duration = Duration::from_secs(2);

impl Timing {
    /// Times `once`, which compiles what it needs the first time.
    pub(crate) fn of(mut once: impl FnMut() -> Result<()>) -> Result<Self> {
        let start = Instant::now();
        once()?;
        let first = start.elapsed();
        let mut times = Vec::new();
        while times.len() < RUNS && (times.is_empty() || start.elapsed() < PATIENCE) {
            let start = Instant::now();
            once()?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        Ok(Self { first, median: times[times.len() / 2], runs: times.len() })
    }

    /// Times the best variant.
    pub(crate) fn on_gpu(gpu: &Gpu, problem: &Problem, inputs: &Inputs<'_>, progress: &ProgressBar) -> Result<Self> {
        progress.set_message(compiling(&gpu.best(problem)?));
        let device = gpu.attention.device();
        let buffers = inputs.upload(device, problem)?;
        let mut call = None;
        let timing = Self::of(|| {
            let call = match &call {
                Some(call) => call,
                None => call.insert(gpu.attention.plan(problem)?.bind(&buffers.operands())?),
            };
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            call.encode(&mut encoder);
            gpu.opened.queue.submit([encoder.finish()]);
            gpu.opened.wait()
        });
        gpu.opened.complaints()?;
        timing
    }
}
