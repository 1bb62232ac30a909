//! Copying a buffer to another, by the driver's own means.

use anyhow::Result;

use super::kernel::buffer;
use crate::Gpu;

/// From the first half of the buffer that is read to one of its own.
#[derive(Debug)]
pub(super) struct Copier {
    source: wgpu::Buffer,
    target: wgpu::Buffer,
}

impl Copier {
    pub(super) fn new(gpu: &Gpu, source: &wgpu::Buffer) -> Self {
        Self { source: source.clone(), target: buffer(gpu, source.size() / 2) }
    }

    /// Waits for it: there are no timestamps around a copy.
    pub(super) fn copy(&self, gpu: &Gpu) -> Result<()> {
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let half = self.target.size();
        // Both halves, so that submitting weighs less.
        encoder.copy_buffer_to_buffer(&self.source, 0, &self.target, 0, half);
        encoder.copy_buffer_to_buffer(&self.source, half, &self.target, 0, half);
        gpu.queue.submit([encoder.finish()]);
        gpu.wait()
    }

    /// Read and written.
    pub(super) fn bytes(&self) -> f64 {
        4.0 * self.target.size() as f64
    }
}
