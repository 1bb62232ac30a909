//! Measures how long a problem takes, on a GPU with its buffers already uploaded.

use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::ProgressBar;
use truth::Case;

use crate::device::{Gpu, compiling};

/// Wall-clock times from submission to completion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// The first run, which includes compilation.
    pub(crate) first: Duration,
    pub(crate) median: Duration,
    pub(crate) runs: usize,
}

/// Enough runs for a median. On a slow device the runs end after `PATIENCE`.
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
    pub(crate) fn on_gpu(gpu: &Gpu, case: &Case, progress: &ProgressBar) -> Result<Self> {
        let problem = &case.problem;
        progress.set_message(compiling(&gpu.best(problem)?));
        let device = gpu.attention.device();
        let buffers = case.inputs().upload(device, problem)?;
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
        gpu.opened.take_errors()?;
        timing
    }
}
