//! Binding a plan to the caller's buffers.

use wgpu::{BindGroupEntry, BindingResource, BufferBinding, BufferSize};

use crate::kernel::params::Params;
use crate::kernel::record::Kernel;
use crate::kernel::slots::{PARAMS_BINDING, Resource, Space, binding};
use crate::plan::scratch::Scratch;
use crate::plan::slices::Slice;
use crate::plan::{Attention, Launch, Plan, Step};
use crate::record::call::{Call, Dispatch};
use crate::record::error::BindError;
use crate::record::operands::Operands;

impl Attention {
    /// The binding of what begins at any byte of a buffer, and the index of its first element within that binding.
    ///
    /// A device binds buffers only at multiples of an [alignment](crate::Caps::binding_alignment). So the binding begins
    /// at the last multiple at or before that byte, and the layout begins at the element that this returns:
    ///
    /// ```
    /// # use wgpu_attention::{Attention, BindError, Layout, ScoreLayout};
    /// # fn place(attention: &Attention, pool: &wgpu::Buffer) -> Result<(), BindError> {
    /// // A tensor of f32 that begins at byte 1000 of a framework's pool, with strides in elements.
    /// let (binding, first) = attention.binding_at(pool, 1000, 4)?;
    /// let layout = Layout::strided([4096, 64, 128]).at(first);
    /// # let _ = (binding, layout);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`BindError::PartOfElement`] if no whole number of elements fits between the binding's begin and that byte.
    pub fn binding_at<'a>(
        &self,
        buffer: &'a wgpu::Buffer,
        byte: u64,
        element_bytes: u64,
    ) -> Result<(BufferBinding<'a>, u64), BindError> {
        let alignment = self.caps().binding_alignment.max(1);
        let offset = byte / alignment * alignment;
        let rest = byte - offset;
        if element_bytes == 0 || !rest.is_multiple_of(element_bytes) {
            return Err(BindError::PartOfElement { byte, element_bytes });
        }
        Ok((BufferBinding { buffer, offset, size: None }, rest / element_bytes))
    }
}

impl Plan {
    /// Binds the plan to buffers. Offsets and sizes are those of the bindings in `operands`; layouts count from the
    /// start of the binding. If the plan needs [`scratch`](Self::scratch), it is allocated for this call alone.
    ///
    /// # Errors
    /// [`BindError`] names the operand that is missing, too small, misaligned, aliased or lacks a usage.
    pub fn bind(&self, operands: &Operands<'_>) -> Result<Call, BindError> {
        self.bind_in(operands, &self.scratch())
    }

    /// Binds the plan like [`bind`](Self::bind), but with scratch that other calls may use too.
    ///
    /// # Errors
    /// As for [`bind`](Self::bind), and [`BindError::Scratch`] if the scratch is too small.
    pub fn bind_in(&self, operands: &Operands<'_>, scratch: &Scratch) -> Result<Call, BindError> {
        if !scratch.covers(&self.need) {
            return Err(BindError::Scratch { need: self.need, got: scratch.size() });
        }
        operands.check(&self.problem, &self.operands, self.attention.caps().binding_alignment)?;
        let mut dispatches = Vec::new();
        for step in self.steps.iter() {
            for launch in &step.launches {
                dispatches.push(self.dispatch(step, launch, operands, scratch));
            }
        }
        Ok(Call::new(self.clone(), operands.owned(), scratch.clone(), dispatches))
    }

    fn dispatch(&self, step: &Step, launch: &Launch, operands: &Operands<'_>, scratch: &Scratch) -> Dispatch {
        let label = step.variant.to_string();
        let params = BufferBinding {
            buffer: &step.params,
            offset: launch.params_offset,
            size: BufferSize::new(size_of::<Params>() as u64),
        };
        let mut entries = vec![BindGroupEntry { binding: PARAMS_BINDING, resource: BindingResource::Buffer(params) }];
        let buffers =
            launch.slices.iter().filter_map(|slice| Some((slice, self.range(&step.kernel, slice, operands, scratch)?)));
        entries.extend(
            buffers.map(|(slice, range)| BindGroupEntry {
                binding: slice.binding,
                resource: BindingResource::Buffer(range),
            }),
        );
        let textures = step.kernel.slots.iter().enumerate().filter_map(|(n, slot)| Some((n, slot.space()?)));
        let textures = textures.filter_map(|(n, space)| Some((n, scratch.texture(space)?)));
        entries.extend(textures.map(|(n, texture)| BindGroupEntry {
            binding: binding(n),
            resource: BindingResource::TextureView(texture),
        }));
        let group = self.attention.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&label),
            layout: &step.pipeline.layout,
            entries: &entries,
        });
        Dispatch::new(step.pipeline.pipeline.clone(), group, launch.grid, label)
    }

    /// The range of a buffer that a slice covers; `None` for a texture, and for a buffer that was not given, which the
    /// checks have refused.
    fn range<'a>(
        &'a self,
        kernel: &Kernel,
        slice: &Slice,
        operands: &'a Operands<'_>,
        scratch: &'a Scratch,
    ) -> Option<BufferBinding<'a>> {
        let (buffer, offset) = match slice.resource {
            Resource::Operand(operand) => operands.get(operand).map(|given| (given.buffer, given.offset))?,
            Resource::Space(Space::Partial) => (scratch.partial.as_ref()?, 0),
            Resource::Space(Space::StagedK | Space::StagedV) => return None,
        };
        Some(match (BufferSize::new(slice.size_bytes), &self.stand_ins) {
            (None, Some(stand_ins)) => {
                let slot = kernel.slots.iter().find(|slot| slot.resource == slice.resource)?;
                stand_ins.range(slice.binding, slot.usage)
            }
            (size, _) => BufferBinding { buffer, offset: offset + slice.offset_bytes, size },
        })
    }
}
