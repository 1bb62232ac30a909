//! Times a call on the device: by the device's own timestamps if it has them, and by the clock.

use std::time::Duration;
#[cfg(not(target_arch = "wasm32"))]
use std::time::Instant;

#[cfg(target_arch = "wasm32")]
use web_time::Instant;
use wgpu::{BufferUsages, Features};

use crate::host::run::{RunError, refusals_as_errors};
use crate::record::call::Call;
use crate::record::readback::Readback;

/// How long a call ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Elapsed {
    /// From the submission until its end was noticed.
    pub(super) by_clock: Duration,
    /// From the first dispatch to the last, if the device can tell.
    pub(super) by_device: Option<Duration>,
}

/// What the runs of a tuning share.
pub(super) struct Stopwatch<'a> {
    device: &'a wgpu::Device,
    queue: &'a wgpu::Queue,
    /// The timestamps at the beginning and the end of a pass, if the device has [`Features::TIMESTAMP_QUERY`].
    stamps: Option<wgpu::QuerySet>,
    /// What is read back after each run: the two timestamps, or zeros. Its arrival shows that the call has run.
    marks: wgpu::Buffer,
}

impl<'a> Stopwatch<'a> {
    pub(super) fn new(device: &'a wgpu::Device, queue: &'a wgpu::Queue) -> Self {
        let label = Some("attention times");
        let descriptor = wgpu::QuerySetDescriptor { label, ty: wgpu::QueryType::Timestamp, count: 2 };
        let stamps =
            device.features().contains(Features::TIMESTAMP_QUERY).then(|| device.create_query_set(&descriptor));
        let usage = BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC;
        let size = 2 * u64::from(wgpu::QUERY_SIZE);
        let marks = device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation: false });
        Self { device, queue, stamps, marks }
    }

    /// Submits `call` and waits for its end. The time does not include recording, since an app records among its own
    /// commands.
    pub(super) async fn time(&self, call: &Call) -> Result<Elapsed, RunError> {
        let submitted = refusals_as_errors(self.device, || {
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let marks = self.record(call, &mut encoder)?;
            let commands = encoder.finish();
            let start = Instant::now();
            self.queue.submit([commands]);
            Ok((start, marks))
        });
        let (start, marks) = submitted.await?;
        let marks = marks.bytes().await?;
        let by_clock = start.elapsed();
        let by_device = self.stamps.as_ref().and_then(|_| between(&marks, self.queue.get_timestamp_period(), by_clock));
        Ok(Elapsed { by_clock, by_device })
    }

    fn record(&self, call: &Call, encoder: &mut wgpu::CommandEncoder) -> Result<Readback, RunError> {
        let timestamp_writes = self.stamps.as_ref().map(|query_set| wgpu::ComputePassTimestampWrites {
            query_set,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        let descriptor = wgpu::ComputePassDescriptor { label: Some("attention timed"), timestamp_writes };
        call.dispatch(&mut encoder.begin_compute_pass(&descriptor));
        if let Some(stamps) = &self.stamps {
            encoder.resolve_query_set(stamps, 0..2, &self.marks, 0);
        }
        Ok(Readback::record(self.device, encoder, self.marks.as_entire_buffer_binding())?)
    }
}

/// The time between two timestamps of `period` nanoseconds per tick. `None` if it cannot be right: drivers that do not
/// count return the same number twice, or numbers that have nothing to do with time. It is also `None` if the time is
/// shorter than the tick to which browsers round.
fn between(marks: &[u8], period: f32, at_most: Duration) -> Option<Duration> {
    let stamps: Vec<u64> = bytemuck::pod_collect_to_vec(marks);
    let [start, end] = stamps[..] else { return None };
    let nanoseconds = end.checked_sub(start)? as f64 * f64::from(period);
    let elapsed = Duration::try_from_secs_f64(nanoseconds * 1e-9).ok()?;
    (!elapsed.is_zero() && elapsed <= at_most).then_some(elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_that_cannot_be_right_are_no_time() {
        let second = Duration::from_secs(1);
        let time = |stamps: [u64; 2], period| between(bytemuck::cast_slice(&stamps), period, second);
        assert_eq!(time([1000, 3000], 0.5), Some(Duration::from_micros(1)));
        assert_eq!(time([0, 1_000_000_000], 1.0), Some(second));
        for (stamps, period) in [([7, 7], 1.0), ([7, 6], 1.0), ([0, 1_000_000_001], 1.0), ([0, 5], f32::NAN)] {
            assert_eq!(time(stamps, period), None, "{stamps:?}");
        }
        assert_eq!(between(&[0; 8], 1.0, second), None);
    }
}
