//! Measures how long the device takes for a pass, by its own clock if it has one.

use std::time::Instant;

use anyhow::Result;
use wgpu::{BufferUsages, ComputePass, ComputePassTimestampWrites, Features};
use wgpu_attention::Readback;

use crate::Gpu;

/// Times passes on one device.
#[derive(Debug)]
pub(crate) struct Timer<'a> {
    gpu: &'a Gpu,
    clock: Option<Clock>,
}

/// Timestamp queries at the beginning and the end of a pass.
#[derive(Debug)]
struct Clock {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    seconds_per_tick: f64,
}

impl<'a> Timer<'a> {
    pub(crate) fn new(gpu: &'a Gpu) -> Self {
        // Software drivers write the second timestamp before the work is done: lavapipe (Mesa 22.3.6) gave 26 µs for 119 ms.
        let is_software = gpu.info.device_type == wgpu::DeviceType::Cpu;
        let has_clock = !is_software && gpu.device.features().contains(Features::TIMESTAMP_QUERY);
        Self { gpu, clock: has_clock.then(|| Clock::new(gpu)) }
    }

    /// What is timed: the pass by timestamps, or the submission by the host's clock.
    pub(crate) const fn kind(&self) -> &'static str {
        if self.clock.is_some() { "timestamps" } else { "wall" }
    }

    /// Runs one pass, and waits for it.
    pub(crate) fn pass(&self, record: impl FnOnce(&mut ComputePass<'_>)) -> Result<f64> {
        let Gpu { device, queue, .. } = self.gpu;
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let timestamp_writes = self.clock.as_ref().map(|clock| ComputePassTimestampWrites {
            query_set: &clock.queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        record(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes }));
        let Some(clock) = &self.clock else {
            let commands = encoder.finish();
            let start = Instant::now();
            queue.submit([commands]);
            self.gpu.wait()?;
            return Ok(start.elapsed().as_secs_f64());
        };
        encoder.resolve_query_set(&clock.queries, 0..2, &clock.resolved, 0);
        let ticks = Readback::record(device, &mut encoder, clock.resolved.as_entire_buffer_binding())?;
        queue.submit([encoder.finish()]);
        self.gpu.wait()?;
        let ticks = pollster::block_on(ticks.bytes())?;
        let [begin, end] = [0, 1].map(|i| bytemuck::pod_read_unaligned::<u64>(&ticks[8 * i..8 * i + 8]));
        // A clock that stands still or turns back would otherwise give infinite speeds.
        Ok(end.saturating_sub(begin).max(1) as f64 * clock.seconds_per_tick)
    }
}

impl Clock {
    fn new(gpu: &Gpu) -> Self {
        let queries = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("bench clock"),
            ty: wgpu::QueryType::Timestamp,
            count: 2,
        });
        let resolved = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("bench clock"),
            size: 2 * u64::from(wgpu::QUERY_SIZE),
            usage: BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        Self { queries, resolved, seconds_per_tick: f64::from(gpu.queue.get_timestamp_period()) * 1e-9 }
    }
}
