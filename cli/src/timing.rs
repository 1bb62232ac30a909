//! How long a problem takes on a GPU, with its buffers already there.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use wgpu::util::DeviceExt as _;
use wgpu_attention::{Inputs, Operand, Operands, Problem, View};

use crate::device::Gpu;

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
    pub(crate) fn on_gpu(gpu: &Gpu, problem: &Problem, inputs: &Inputs<'_>) -> Result<Self> {
        let device = gpu.attention.device();
        let buffers: Vec<(Operand, wgpu::Buffer)> =
            problem.views().map(|view| (view.operand, buffer(device, problem, inputs, &view))).collect();
        let mut operands = Operands::default();
        for (operand, buffer) in &buffers {
            operands = operands.with(*operand, buffer.as_entire_buffer_binding());
        }
        let mut call = None;
        let timing = Self::of(|| {
            let call = match &call {
                Some(call) => call,
                None => call.insert(gpu.attention.plan(problem)?.bind(&operands)?),
            };
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            call.encode(&mut encoder);
            gpu.queue.submit([encoder.finish()]);
            device.poll(wgpu::PollType::wait_indefinitely()).map_err(|error| anyhow!("the device stopped: {error}"))?;
            Ok(())
        });
        gpu.complaints()?;
        timing
    }
}

fn buffer(device: &wgpu::Device, problem: &Problem, inputs: &Inputs<'_>, view: &View) -> wgpu::Buffer {
    let mut contents = match view.operand {
        Operand::Q => problem.dtype().encode(inputs.q),
        Operand::K => problem.dtype().encode(inputs.k),
        Operand::V => problem.dtype().encode(inputs.v),
        Operand::Mask => inputs.mask.unwrap_or_default().iter().map(|&attend| u8::from(attend)).collect(),
        Operand::Bias => problem.bias_dtype().unwrap_or_default().encode(inputs.bias.unwrap_or_default()),
        Operand::KvLengths => inputs.kv_lengths.unwrap_or_default().iter().flat_map(|n| n.to_le_bytes()).collect(),
        Operand::Out | Operand::Lse | Operand::Weights => Vec::new(),
    };
    contents.resize(usize::try_from(view.size_bytes()).unwrap_or(usize::MAX), 0);
    device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: Some(view.operand.name()),
        contents: &contents,
        usage: wgpu::BufferUsages::STORAGE,
    })
}
