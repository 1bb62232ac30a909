//! How long a pass takes on the device.

use anyhow::Result;
use web_time::Instant;
use wgpu::{BufferUsages, Features};
use wgpu_attention::{Call, Readback};

use crate::gpu::Gpu;

/// Browsers round timestamps to 0.1 ms, so what is timed must last much longer.
const LONG_ENOUGH: f64 = 20.0;
const MOST_RUNS: u32 = 200;

/// Timestamps of a pass, on devices that have them.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    stamps: Option<(wgpu::QuerySet, f64)>,
    marks: wgpu::Buffer,
}

/// Something that can be recorded any number of times.
pub(crate) trait Timed {
    fn record(&self, pass: &mut wgpu::ComputePass<'_>);
}

impl Timed for Call {
    fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.dispatch(pass);
    }
}

impl Stopwatch {
    pub(crate) fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Self {
        let descriptor = wgpu::QuerySetDescriptor { label: None, ty: wgpu::QueryType::Timestamp, count: 2 };
        let has_them = device.features().contains(Features::TIMESTAMP_QUERY);
        let stamps = has_them.then(|| (device.create_query_set(&descriptor), f64::from(queue.get_timestamp_period())));
        let usage = BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC;
        let marks =
            device.create_buffer(&wgpu::BufferDescriptor { label: None, size: 16, usage, mapped_at_creation: false });
        Self { stamps, marks }
    }

    /// The time of one run in milliseconds: the mean of as many as make a time that can be measured. One run before is not
    /// counted.
    pub(crate) async fn time(&self, gpu: &Gpu, what: &impl Timed) -> Result<f64> {
        let mut runs = 1;
        self.run(gpu, what, runs).await?;
        loop {
            let time = self.run(gpu, what, runs).await?;
            if time >= LONG_ENOUGH || runs >= MOST_RUNS {
                return Ok(time / f64::from(runs));
            }
            // At most tenfold, because a first time that was too short says little.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a saturating cast of a count")]
            let enough = (f64::from(runs) * 1.2 * LONG_ENOUGH / time.max(0.1)).ceil() as u32;
            runs = enough.clamp(runs + 1, runs * 10).min(MOST_RUNS);
        }
    }

    /// The milliseconds that `runs` take in one pass: by the device's clock if it has one, or else until their end is
    /// noticed.
    async fn run(&self, gpu: &Gpu, what: &impl Timed, runs: u32) -> Result<f64> {
        let timestamp_writes = self.stamps.as_ref().map(|(query_set, _)| wgpu::ComputePassTimestampWrites {
            query_set,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            let mut pass = encoder.begin_compute_pass(&descriptor);
            (0..runs).for_each(|_| what.record(&mut pass));
        }
        if let Some((query_set, _)) = &self.stamps {
            encoder.resolve_query_set(query_set, 0..2, &self.marks, 0);
        }
        let marks = Readback::record(gpu.device(), &mut encoder, self.marks.as_entire_buffer_binding())?;
        let commands = encoder.finish();
        let start = Instant::now();
        gpu.queue.submit([commands]);
        let marks: Vec<u64> = bytemuck::pod_collect_to_vec(&marks.bytes().await?);
        let by_clock = start.elapsed().as_secs_f64() * 1e3;
        let Some((_, period)) = &self.stamps else { return Ok(by_clock) };
        let by_device = marks[1].saturating_sub(marks[0]) as f64 * period * 1e-6;
        // Drivers without a clock give the same number twice, or any numbers.
        Ok(if by_device > 0.0 && by_device <= by_clock { by_device } else { by_clock })
    }
}
