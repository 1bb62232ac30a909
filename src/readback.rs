//! Reading a buffer back: recorded like any other command, a future that resolves after the caller's submit.

use futures_intrusive::channel::shared::{OneshotReceiver, oneshot_channel};
use wgpu::{BufferAddress, BufferBinding, BufferUsages};

use crate::ReadbackError;

/// A copy on its way to the host.
///
/// [`record`](Self::record) it into the encoder that holds the [`Call`](crate::Call), submit, then await it. The future
/// needs someone to drive the device: an app's frame loop does, and so does `device.poll` natively; a browser does by
/// itself.
#[derive(Debug)]
#[must_use = "the copy is read by awaiting `bytes` or `values`"]
pub struct Readback {
    staging: wgpu::Buffer,
    mapped: OneshotReceiver<Result<(), wgpu::BufferAsyncError>>,
}

impl Readback {
    /// Records a copy of `source` to a staging buffer, which is mapped when the encoder's commands have run.
    ///
    /// # Errors
    /// [`ReadbackError::Usage`] or [`ReadbackError::Range`] where the source cannot be copied.
    #[expect(clippy::needless_pass_by_value, reason = "wgpu hands bindings out by value")]
    pub fn record(
        device: &wgpu::Device,
        encoder: &mut wgpu::CommandEncoder,
        source: BufferBinding<'_>,
    ) -> Result<Self, ReadbackError> {
        let BufferBinding { buffer, offset, size } = source;
        let missing = BufferUsages::COPY_SRC - buffer.usage();
        if !missing.is_empty() {
            return Err(ReadbackError::Usage(missing));
        }
        let size = size.map_or_else(|| buffer.size().saturating_sub(offset), BufferAddress::from);
        let fits = offset.checked_add(size).is_some_and(|end| end <= buffer.size());
        if size == 0 || !fits || !offset.is_multiple_of(4) || !size.is_multiple_of(4) {
            return Err(ReadbackError::Range { offset, size, buffer: buffer.size() });
        }
        let staging = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("attention readback"),
            size,
            usage: BufferUsages::COPY_DST | BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        encoder.copy_buffer_to_buffer(buffer, offset, &staging, 0, size);
        let (sender, mapped) = oneshot_channel();
        encoder.map_buffer_on_submit(&staging, wgpu::MapMode::Read, .., move |result| {
            // The receiver is gone when the caller dropped the readback: nobody to tell.
            let _ = sender.send(result);
        });
        Ok(Self { staging, mapped })
    }

    /// The bytes, once they are here.
    ///
    /// # Errors
    /// [`ReadbackError::NeverSubmitted`] if the encoder was dropped, [`ReadbackError::Map`] if the device was lost.
    pub async fn bytes(self) -> Result<Vec<u8>, ReadbackError> {
        let mapped = self.mapped.receive().await.ok_or(ReadbackError::NeverSubmitted)?;
        mapped.map_err(|error| ReadbackError::Map(error.to_string()))?;
        let view = self.staging.get_mapped_range(..).map_err(|error| ReadbackError::Map(error.to_string()))?;
        Ok(view.to_vec())
    }

    /// The values, stored as `dtype`.
    ///
    /// # Errors
    /// As for [`bytes`](Self::bytes).
    pub async fn values(self, dtype: crate::Dtype) -> Result<Vec<f32>, ReadbackError> {
        Ok(dtype.decode(&self.bytes().await?))
    }
}
