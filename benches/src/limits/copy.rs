//! Copying a buffer to another, with the driver's own copy.

use anyhow::Result;

use super::kernel::buffer;
use crate::Gpu;

/// Copies the halves of the buffer that the read probe uses to a buffer of half the size.
#[derive(Debug)]
pub(super) struct Copier {
    source: wgpu::Buffer,
    target: wgpu::Buffer,
}

impl Copier {
    pub(super) fn new(gpu: &Gpu, source: &wgpu::Buffer) -> Self {
        Self { source: source.clone(), target: buffer(gpu, source.size() / 2) }
    }

    /// Copies, and waits for it, because there are no timestamps around a copy.
    pub(super) fn copy(&self, gpu: &Gpu) -> Result<()> {
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let half = self.target.size();
        // Both halves, so that the cost of submitting matters less.
        encoder.copy_buffer_to_buffer(&self.source, 0, &self.target, 0, half);
        encoder.copy_buffer_to_buffer(&self.source, half, &self.target, 0, half);
        gpu.queue.submit([encoder.finish()]);
        gpu.wait()
    }

    /// Bytes read and bytes written.
    pub(super) fn bytes(&self) -> f64 {
        4.0 * self.target.size() as f64
    }
}
