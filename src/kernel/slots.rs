//! The resources that kernels bind. A binding is a position in a kernel's list of slots, and the declarations in its
//! text are printed from that list.

use std::fmt::Write as _;

use crate::problem::builder::Sharing;
use crate::problem::operand::Operand;

/// `@binding` of the parameters; slot `n` has the binding `n + 1`.
pub(crate) const PARAMS_BINDING: u32 = 0;

/// A resource that a kernel binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) resource: Resource,
    pub(crate) usage: Usage,
    /// Its type in the shader.
    wgsl: &'static str,
}

/// The resource of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// A buffer of the caller.
    Operand(Operand),
    /// Scratch memory that one kernel writes and another reads.
    Space(Space),
}

/// Scratch memory that one kernel writes and another reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// Each row's result over each part of the keys.
    Partial,
    /// The keys, four elements per texel.
    StagedK,
    /// The values, four elements per texel.
    StagedV,
    /// The queries and the gradients of their outputs, four elements per texel.
    StagedQ,
    StagedDout,
    /// Each row's statistics that the gradients share.
    Sums,
}

/// How a kernel uses a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    Read,
    /// Reads, but is declared like what writes, since another part of the buffer may be written.
    ReadShared,
    Write,
}

impl Usage {
    /// How attention uses an operand of a problem.
    pub(crate) fn of(operand: Operand, sharing: Sharing) -> Self {
        if operand.is_output() { Self::Write } else { Self::of_input(operand, sharing) }
    }

    /// How a kernel uses an operand that it reads.
    const fn of_input(operand: Operand, sharing: Sharing) -> Self {
        match (operand, sharing) {
            // These decide which threads reach a barrier, which WGSL allows only for what is read-only.
            (
                Operand::KvLengths
                | Operand::QLengths
                | Operand::CuSeqlensQ
                | Operand::CuSeqlensK
                | Operand::BlockTable
                | Operand::BlockMask,
                _,
            )
            | (_, Sharing::Apart) => Self::Read,
            (_, Sharing::Shared) => Self::ReadShared,
        }
    }
}

/// The texel format of the staged keys and values.
pub(crate) const TEXELS: wgpu::TextureFormat = wgpu::TextureFormat::Rgba32Float;

impl Slot {
    /// A buffer of the caller, which the shader declares as `wgsl`.
    pub(crate) fn of(operand: Operand, wgsl: &'static str) -> Self {
        Self { resource: Resource::Operand(operand), usage: Usage::of(operand, Sharing::Apart), wgsl }
    }

    /// A buffer of the caller that a kernel reads, even if attention writes it.
    pub(crate) const fn read(operand: Operand, wgsl: &'static str) -> Self {
        Self { resource: Resource::Operand(operand), usage: Usage::Read, wgsl }
    }

    /// A buffer of the caller that a kernel writes for other kernels to read.
    pub(crate) const fn made(operand: Operand, wgsl: &'static str) -> Self {
        Self { resource: Resource::Operand(operand), usage: Usage::Write, wgsl }
    }

    /// The same slot in a problem whose operands may share buffers.
    pub(crate) fn shared(self) -> Self {
        match (self.resource, self.usage) {
            (Resource::Operand(operand), Usage::Read) => {
                Self { usage: Usage::of_input(operand, Sharing::Shared), ..self }
            }
            _ => self,
        }
    }

    pub(crate) const fn of_space(space: Space, usage: Usage) -> Self {
        let wgsl = match (space, usage) {
            (Space::Partial, _) => "array<vec4<f32>>",
            (Space::Sums, _) => "array<vec4<f32>>",
            (_, Usage::Read | Usage::ReadShared) => "texture_storage_2d<rgba32float, read>",
            (_, Usage::Write) => "texture_storage_2d<rgba32float, write>",
        };
        Self { resource: Resource::Space(space), usage, wgsl }
    }

    pub(crate) const fn operand(&self) -> Option<Operand> {
        match self.resource {
            Resource::Operand(operand) => Some(operand),
            Resource::Space(_) => None,
        }
    }

    pub(crate) const fn space(&self) -> Option<Space> {
        match self.resource {
            Resource::Operand(_) => None,
            Resource::Space(space) => Some(space),
        }
    }

    pub(crate) const fn is_buffer(&self) -> bool {
        matches!(self.resource, Resource::Operand(_) | Resource::Space(Space::Partial | Space::Sums))
    }

    pub(crate) fn ty(&self) -> wgpu::BindingType {
        let read_only = self.usage == Usage::Read;
        if self.is_buffer() {
            return wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only },
                has_dynamic_offset: false,
                min_binding_size: None,
            };
        }
        // A storage texture, not a sampled one: without levels of detail to choose from, a software GPU does half the
        // work.
        wgpu::BindingType::StorageTexture {
            access: if read_only {
                wgpu::StorageTextureAccess::ReadOnly
            } else {
                wgpu::StorageTextureAccess::WriteOnly
            },
            format: TEXELS,
            view_dimension: wgpu::TextureViewDimension::D2,
        }
    }

    /// Its name in the shader. The output and the weights share a name: different kernels write them, and each kernel
    /// writes only one tensor in the elements' type.
    pub(crate) const fn name(&self) -> &'static str {
        match self.resource {
            Resource::Operand(Operand::Weights) => Operand::Out.name(),
            Resource::Operand(operand) => operand.name(),
            Resource::Space(Space::Partial) => "parts",
            Resource::Space(Space::StagedK) => "staged_k",
            Resource::Space(Space::StagedV) => "staged_v",
            Resource::Space(Space::StagedQ) => "staged_q",
            Resource::Space(Space::StagedDout) => "staged_dout",
            Resource::Space(Space::Sums) => "sums",
        }
    }

    /// The shape, for the comment beside the declaration.
    const fn shape(&self) -> &'static str {
        match self.resource {
            Resource::Operand(operand) => operand.shape(),
            Resource::Space(Space::Partial) => "(B, Hq, Lq, parts): (m, l, saw, 0), O",
            Resource::Space(Space::StagedK | Space::StagedV) => "(B, Hkv, Lk), in rows of texels",
            Resource::Space(Space::StagedQ | Space::StagedDout) => "(B, Hq, Lq), in rows of texels",
            Resource::Space(Space::Sums) => "(B, Hq, Lq): see row_sums.wgsl",
        }
    }
}

/// The `@binding` of the `n`th slot.
pub(crate) fn binding(n: usize) -> u32 {
    PARAMS_BINDING + 1 + u32::try_from(n).unwrap_or(u32::MAX)
}

/// The declarations of all resources that a kernel binds.
pub(crate) fn declarations(slots: &[Slot]) -> String {
    let mut text = format!("@group(0) @binding({PARAMS_BINDING}) var<uniform> params: Params;\n");
    for (n, slot) in slots.iter().enumerate() {
        let space = match (slot.is_buffer(), slot.usage) {
            (false, _) => "",
            (true, Usage::Read) => "<storage, read>",
            (true, Usage::ReadShared | Usage::Write) => "<storage, read_write>",
        };
        let (name, ty, shape) = (slot.name(), slot.wgsl, slot.shape());
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "@group(0) @binding({}) var{space} {name}: {ty};  // {shape}", binding(n));
    }
    text
}
