//! Binding a plan to the caller's buffers.

use wgpu::{BindGroupEntry, BindingResource, BufferBinding, BufferSize};

use crate::kernel::params::Params;
use crate::kernel::record::Kernel;
use crate::kernel::slots::{PARAMS_BINDING, Resource, Space, binding};
use crate::plan::merge::MergePlan;
use crate::plan::scratch::Scratch;
use crate::plan::slices::Slice;
use crate::plan::{Attention, Launch, Plan, Step};
use crate::problem::merge::Merge;
use crate::problem::operand::Operand;
use crate::record::call::{Call, Dispatch, Planned};
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

/// A dispatch of a step that binds its parameters and `resources`.
fn bound<'a>(
    device: &wgpu::Device,
    step: &'a Step,
    launch: &Launch,
    resources: impl Iterator<Item = BindGroupEntry<'a>>,
) -> Dispatch {
    let label = step.variant.to_string();
    let params = BufferBinding {
        buffer: &step.params,
        offset: launch.params_offset,
        size: BufferSize::new(size_of::<Params>() as u64),
    };
    let params = BindGroupEntry { binding: PARAMS_BINDING, resource: BindingResource::Buffer(params) };
    let entries: Vec<_> = std::iter::once(params).chain(resources).collect();
    let layout = &step.pipeline.layout;
    let descriptor = wgpu::BindGroupDescriptor { label: Some(&label), layout, entries: &entries };
    Dispatch::new(step.pipeline.pipeline.clone(), device.create_bind_group(&descriptor), launch.grid, label)
}

impl MergePlan {
    /// Binds the plan to buffers: [`Operands::of_pairs`], and [`Operand::Lse`] if the merge writes it. Offsets and sizes
    /// are those of the bindings; layouts count from the start of the binding.
    ///
    /// # Errors
    /// [`BindError`] names the operand that is missing, too small, misaligned, aliased or lacks a usage. On a lost device, as for
    /// [`Plan::bind`].
    pub fn bind(&self, operands: &Operands<'_>) -> Result<Call, BindError> {
        let uses = |operand| self.merge.uses(operand);
        operands.check(uses, &self.operands, &self.attention)?;
        let dispatches = self.step.launches.iter().map(|launch| {
            let buffers = launch.slices.iter().filter_map(|slice| {
                let Resource::Operand(operand) = slice.resource else { return None };
                let &BufferBinding { buffer, offset, .. } = operands.get(operand)?;
                let size = BufferSize::new(slice.size_bytes);
                let range = BufferBinding { buffer, offset: offset + slice.offset_bytes, size };
                Some(BindGroupEntry { binding: slice.binding, resource: BindingResource::Buffer(range) })
            });
            bound(self.attention.device(), &self.step, launch, buffers)
        });
        let label = self.variant().to_string();
        Ok(Call::new(label, Planned::Merge(self.clone()), operands.owned(), dispatches.collect()))
    }
}

impl Merge {
    /// The binding of pair `n` of [`Operand::PairOut`] or [`Operand::PairLse`] in a buffer that begins with the first
    /// pair, for the attention that computes this pair: its [`Operand::Out`] or its [`Operand::Lse`].
    ///
    /// # Errors
    /// [`BindError::NoSuchPair`] if there are not so many pairs, and [`BindError::Unused`] for another operand.
    pub fn pair<'a>(&self, operand: Operand, n: u32, buffer: &'a wgpu::Buffer) -> Result<BufferBinding<'a>, BindError> {
        let (Some(stride), Some(first)) = (self.pair_stride(operand), self.view(operand)) else {
            return Err(BindError::Unused { operand });
        };
        if n >= self.pairs() {
            return Err(BindError::NoSuchPair { n, pairs: self.pairs() });
        }
        // The last pair ends within 64 bits, unless pairs have no elements.
        let offset = stride.saturating_mul(n.into()).saturating_mul(first.element_bytes);
        Ok(BufferBinding { buffer, offset, size: BufferSize::new(first.size_bytes()) })
    }
}

impl Plan {
    /// Binds the plan to buffers. Offsets and sizes are those of the bindings in `operands`; layouts count from the
    /// start of the binding. If the plan needs [`scratch`](Self::scratch), it is allocated for this call alone.
    ///
    /// # Errors
    /// [`BindError`] names the operand that is missing, too small, misaligned, aliased or lacks a usage. In a browser it is
    /// [`BindError::DeviceLost`] if the device is lost, once the page's event loop has turned since. Natively, a lost device binds,
    /// and what is recorded on it cannot be read back.
    pub fn bind(&self, operands: &Operands<'_>) -> Result<Call, BindError> {
        self.bind_in(operands, &self.scratch())
    }

    /// Binds the plan like [`bind`](Self::bind), but with scratch that other calls may use too: any that run before or after it,
    /// such as those of all layers, forwards and backwards. Nothing in it outlives a call.
    ///
    /// # Errors
    /// As for [`bind`](Self::bind), and [`BindError::Scratch`] if the scratch is too small.
    pub fn bind_in(&self, operands: &Operands<'_>, scratch: &Scratch) -> Result<Call, BindError> {
        if !scratch.covers(&self.need) {
            return Err(BindError::Scratch { need: self.need, got: scratch.size() });
        }
        let uses = |operand| self.problem.uses(operand);
        operands.check(uses, &self.operands, &self.attention)?;
        let mut dispatches = Vec::new();
        for step in self.steps.iter() {
            for launch in &step.launches {
                dispatches.push(self.dispatch(step, launch, operands, scratch));
            }
        }
        let planned = Planned::Attention { plan: Box::new(self.clone()), scratch: scratch.clone() };
        Ok(Call::new(self.variant().to_string(), planned, operands.owned(), dispatches))
    }

    fn dispatch(&self, step: &Step, launch: &Launch, operands: &Operands<'_>, scratch: &Scratch) -> Dispatch {
        let buffers =
            launch.slices.iter().filter_map(|slice| Some((slice, self.range(&step.kernel, slice, operands, scratch)?)));
        let buffers = buffers
            .map(|(slice, range)| BindGroupEntry { binding: slice.binding, resource: BindingResource::Buffer(range) });
        let textures = step.kernel.slots.iter().enumerate().filter_map(|(n, slot)| Some((n, slot.space()?)));
        let textures = textures.filter_map(|(n, space)| Some((n, scratch.texture(space)?)));
        let textures = textures.map(|(n, texture)| BindGroupEntry {
            binding: binding(n),
            resource: BindingResource::TextureView(texture),
        });
        bound(self.attention.device(), step, launch, buffers.chain(textures))
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
        if let (0, Some(stand_ins)) = (slice.size_bytes, &self.stand_ins) {
            let slot = kernel.slots.iter().find(|slot| slot.resource == slice.resource)?;
            return Some(stand_ins.range(slice.binding, slot.usage));
        }
        let (buffer, offset) = match slice.resource {
            Resource::Operand(operand) => operands.get(operand).map(|given| (given.buffer, given.offset))?,
            Resource::Space(Space::Partial) => (scratch.partial.as_ref()?, 0),
            Resource::Space(Space::Sums) => (scratch.sums.as_ref()?, 0),
            Resource::Space(Space::StagedK | Space::StagedV | Space::StagedQ | Space::StagedDout) => return None,
        };
        let size = BufferSize::new(slice.size_bytes);
        Some(BufferBinding { buffer, offset: offset + slice.offset_bytes, size })
    }
}
