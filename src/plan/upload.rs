//! Buffers created with their contents, on a device that may be lost.

use wgpu::{Buffer, BufferDescriptor, BufferUsages};

use crate::device::loss::is_lost;

/// Creates a buffer that holds `contents`, padded to whole words and to at least one word, since wgpu does not map or
/// bind empty buffers. Returns `None` if the device is lost or out of memory, where wgpu's own helper panics.
pub(crate) fn filled(device: &wgpu::Device, label: &str, mut contents: Vec<u8>, usage: BufferUsages) -> Option<Buffer> {
    if is_lost(device) {
        return None;
    }
    contents.resize(contents.len().next_multiple_of(4).max(4), 0);
    let size = contents.len() as u64;
    let buffer = device.create_buffer(&BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: true });
    buffer.get_mapped_range_mut(..).ok()?.copy_from_slice(&contents);
    buffer.unmap();
    Some(buffer)
}
