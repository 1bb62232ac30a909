//! What is bound in place of operands without elements, since wgpu does not bind empty ranges. No kernel reads it.

use wgpu::{Buffer, BufferBinding, BufferDescriptor, BufferSize, BufferUsages, Device};

use crate::kernel::slots::Usage;

/// Enough for one element of any type that a kernel declares for a binding.
const RANGE_BYTES: u64 = 16;
/// More than the bindings of any kernel. Each has a range of its own, because browsers refuse writable ranges that overlap.
const RANGES: u32 = 32;

/// There are two buffers, because a dispatch must not bind one as read-only and as writable.
#[derive(Clone, Debug)]
pub(crate) struct StandIns {
    read: Buffer,
    writable: Buffer,
    /// From the start of one range to the next, in bytes.
    step: u64,
}

impl StandIns {
    /// Buffers for a device that binds at multiples of `alignment`.
    pub(crate) fn new(device: &Device, alignment: u64) -> Self {
        let step = alignment.max(RANGE_BYTES);
        let buffer = || {
            device.create_buffer(&BufferDescriptor {
                label: Some("attention without keys"),
                size: u64::from(RANGES) * step,
                usage: BufferUsages::STORAGE,
                mapped_at_creation: false,
            })
        };
        Self { read: buffer(), writable: buffer(), step }
    }

    /// The range for one binding of a dispatch.
    pub(crate) fn range(&self, binding: u32, usage: Usage) -> BufferBinding<'_> {
        let buffer = match usage {
            Usage::Read => &self.read,
            Usage::ReadShared | Usage::Write => &self.writable,
        };
        BufferBinding { buffer, offset: u64::from(binding) * self.step, size: BufferSize::new(RANGE_BYTES) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some devices bind at multiples of 4.
    #[test]
    fn no_two_bindings_share_a_byte() {
        let (device, _queue) = Device::noop(&wgpu::DeviceDescriptor::default());
        for alignment in [1, 4, 16, 32, 256] {
            let stand_ins = StandIns::new(&device, alignment);
            let mut end = 0;
            for binding in 0..RANGES {
                let range = stand_ins.range(binding, Usage::Write);
                assert!(range.offset >= end && range.offset.is_multiple_of(alignment), "{binding} at {alignment}");
                end = range.offset + range.size.map_or(0, BufferSize::get);
            }
            assert!(end <= stand_ins.writable.size());
        }
    }
}
