//! Reading a buffer back. The copy is recorded like any other command, and the result is a future that resolves after
//! the caller's submit.
//!
//! wgpu maps the copy even if the commands never ran, because the encoder or another command buffer of the submission
//! was invalid, or a buffer was destroyed. The copy then holds zeros. The encoder therefore copies a known word as
//! well, and the readback is an error if that word did not arrive.

use futures_intrusive::channel::shared::{OneshotReceiver, oneshot_channel};
use wgpu::{BufferAddress, BufferBinding, BufferUsages};

use crate::plan::upload::filled;
use crate::problem::dtype::Dtype;
use crate::record::error::ReadbackError;

/// The word that shows that the encoder's commands ran. A buffer that nothing was copied to holds 0.
const RAN: [u8; 4] = 0x7a77_e57e_u32.to_le_bytes();

/// A pending copy of a buffer to the host.
///
/// [`record`](Self::record) it into the encoder that holds the [`Call`](crate::Call), submit, then await it. The copy
/// and the call then run both or neither, and awaiting returns an error if they did not run. It cannot tell whether a
/// call in another encoder ran. The future resolves only if the device is polled. Natively, an app's frame loop or
/// `device.poll` does so; a browser does so by itself.
#[derive(Debug)]
#[must_use = "the copy is read by awaiting `bytes` or `values`"]
pub struct Readback {
    data: Staging,
    ran: Staging,
}

impl Readback {
    /// Records a copy of `source` to a staging buffer, which is mapped when the encoder's commands have run.
    ///
    /// # Errors
    /// [`ReadbackError::Usage`] or [`ReadbackError::Range`] if the source cannot be copied, and
    /// [`ReadbackError::DeviceLost`] if the device cannot create a buffer.
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
        let ran = filled(device, "attention ran", RAN.into(), BufferUsages::COPY_SRC);
        let ran = ran.ok_or(ReadbackError::DeviceLost)?;
        Ok(Self {
            data: Staging::record(device, encoder, buffer, offset, size),
            ran: Staging::record(device, encoder, &ran, 0, ran.size()),
        })
    }

    /// The bytes, once the copy has arrived.
    ///
    /// # Errors
    /// [`ReadbackError::NeverSubmitted`] if the encoder was dropped, [`ReadbackError::NeverRan`] if its commands were
    /// submitted and refused, [`ReadbackError::Map`] if the device was lost.
    pub async fn bytes(self) -> Result<Vec<u8>, ReadbackError> {
        let bytes = self.data.bytes().await?;
        if self.ran.bytes().await? == RAN { Ok(bytes) } else { Err(ReadbackError::NeverRan) }
    }

    /// The values, once the copy has arrived. The buffer holds elements of type `dtype`.
    ///
    /// # Errors
    /// As for [`bytes`](Self::bytes).
    pub async fn values(self, dtype: Dtype) -> Result<Vec<f32>, ReadbackError> {
        Ok(dtype.decode(&self.bytes().await?))
    }
}

/// A buffer that the encoder copies to, and the receiver of the result of its mapping.
#[derive(Debug)]
struct Staging {
    buffer: wgpu::Buffer,
    mapped: OneshotReceiver<Result<(), wgpu::BufferAsyncError>>,
}

impl Staging {
    fn record(
        device: &wgpu::Device,
        encoder: &mut wgpu::CommandEncoder,
        source: &wgpu::Buffer,
        offset: BufferAddress,
        size: BufferAddress,
    ) -> Self {
        let buffer = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("attention readback"),
            size,
            usage: BufferUsages::COPY_DST | BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        encoder.copy_buffer_to_buffer(source, offset, &buffer, 0, size);
        let (sender, mapped) = oneshot_channel();
        encoder.map_buffer_on_submit(&buffer, wgpu::MapMode::Read, .., move |result| {
            // Sending fails only if the caller dropped the readback, and then nothing needs the result.
            let _ = sender.send(result);
        });
        Self { buffer, mapped }
    }

    async fn bytes(self) -> Result<Vec<u8>, ReadbackError> {
        let mapped = self.mapped.receive().await.ok_or(ReadbackError::NeverSubmitted)?;
        mapped.map_err(|error| ReadbackError::Map(error.to_string()))?;
        let view = self.buffer.get_mapped_range(..).map_err(|error| ReadbackError::Map(error.to_string()))?;
        Ok(view.to_vec())
    }
}
