//! Memory that a plan needs besides its operands. The caller requests it, and may share it between calls.

use wgpu::{BufferUsages, Device, TextureUsages};

use crate::kernel::slots::{Space, TEXELS};

const TEXEL_BYTES: u64 = 16;

/// The size of the scratch that a plan needs, or that a [`Scratch`] has. Its `Display` lists the size of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScratchSize {
    pub(crate) partial_bytes: u64,
    /// Statistics of each row that gradients share.
    pub(crate) sums_bytes: u64,
    /// Width and height of the textures of keys and of values, in texels.
    pub(crate) staged: Option<[[u32; 2]; 2]>,
    /// Those of queries and the gradients of their outputs.
    pub(crate) staged_rows: Option<[[u32; 2]; 2]>,
}

impl ScratchSize {
    /// The total size, in bytes.
    pub fn bytes(&self) -> u64 {
        let bytes = |[width, height]: [u32; 2]| (u64::from(width) * u64::from(height)).saturating_mul(TEXEL_BYTES);
        let staged = [self.staged, self.staged_rows].into_iter().flatten().flatten().map(bytes);
        staged.fold(self.partial_bytes.saturating_add(self.sums_bytes), u64::saturating_add)
    }

    /// Whether scratch of this size is enough for a plan that needs `need`. Textures may be larger than needed: the
    /// shader addresses texels by a constant width, which is at most the width of any texture that was made for it.
    fn covers(&self, need: &Self) -> bool {
        let large_enough = |(had, needed): (&[u32; 2], &[u32; 2])| had[0] >= needed[0] && had[1] >= needed[1];
        self.partial_bytes >= need.partial_bytes
            && self.sums_bytes >= need.sums_bytes
            && [(&self.staged, &need.staged), (&self.staged_rows, &need.staged_rows)].into_iter().all(|sizes| {
                match sizes {
                    (_, None) => true,
                    (None, Some(_)) => false,
                    (Some(had), Some(needed)) => had.iter().zip(needed).all(large_enough),
                }
            })
    }
}

impl std::fmt::Display for ScratchSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes of partial results", self.partial_bytes)?;
        if self.sums_bytes > 0 {
            write!(f, ", {} of sums of rows", self.sums_bytes)?;
        }
        if (self.staged, self.staged_rows) == (None, None) {
            return f.write_str(" and no textures");
        }
        let textures = [(self.staged, "keys", "values"), (self.staged_rows, "queries", "gradients of their outputs")];
        for (sizes, one, other) in textures {
            if let Some([[width, height], [other_width, other_height]]) = sizes {
                write!(f, ", {width} × {height} texels of {one} and {other_width} × {other_height} of {other}")?;
            }
        }
        Ok(())
    }
}

/// Memory for one call at a time. Calls that share it must run one after another, as they do on one queue.
///
/// Created by [`Plan::scratch`](crate::Plan::scratch). Calls do not depend on its earlier contents.
#[derive(Clone, Debug)]
pub struct Scratch {
    pub(crate) size: ScratchSize,
    pub(crate) partial: Option<wgpu::Buffer>,
    pub(crate) sums: Option<wgpu::Buffer>,
    pub(crate) staged: Option<[wgpu::TextureView; 2]>,
    pub(crate) staged_rows: Option<[wgpu::TextureView; 2]>,
}

impl Scratch {
    pub(crate) fn new(device: &Device, size: ScratchSize) -> Self {
        let buffer = |label, size| {
            (size > 0).then(|| {
                device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some(label),
                    size,
                    usage: BufferUsages::STORAGE,
                    mapped_at_creation: false,
                })
            })
        };
        let partial = buffer("attention parts", size.partial_bytes);
        let sums = buffer("attention sums of rows", size.sums_bytes);
        let texture = |[width, height]: [u32; 2]| {
            let texture = device.create_texture(&wgpu::TextureDescriptor {
                label: Some("attention keys and values"),
                size: wgpu::Extent3d { width, height, depth_or_array_layers: 1 },
                mip_level_count: 1,
                sample_count: 1,
                dimension: wgpu::TextureDimension::D2,
                format: TEXELS,
                usage: TextureUsages::STORAGE_BINDING,
                view_formats: &[],
            });
            texture.create_view(&wgpu::TextureViewDescriptor::default())
        };
        let [staged, staged_rows] = [size.staged, size.staged_rows].map(|sizes| sizes.map(|sizes| sizes.map(texture)));
        Self { size, partial, sums, staged, staged_rows }
    }

    /// The size of each kind of scratch.
    pub const fn size(&self) -> ScratchSize {
        self.size
    }

    /// The total size, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size.bytes()
    }

    pub(crate) fn covers(&self, need: &ScratchSize) -> bool {
        self.size.covers(need)
    }

    pub(crate) fn texture(&self, space: Space) -> Option<&wgpu::TextureView> {
        match space {
            Space::Partial | Space::Sums => None,
            Space::StagedK => self.staged.as_ref().map(|[k, _]| k),
            Space::StagedV => self.staged.as_ref().map(|[_, v]| v),
            Space::StagedQ => self.staged_rows.as_ref().map(|[q, _]| q),
            Space::StagedDout => self.staged_rows.as_ref().map(|[_, dout]| dout),
        }
    }
}
