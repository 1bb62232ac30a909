//! The kernels. Each family is a shader and a launch file here; what follows asks them for their text, their needs and
//! their grid.

mod tiled;
mod weights;

use crate::{Caps, Family, PlanError, Variant};

/// The WGSL sources of a kernel, and the constants generated for it.
pub(crate) struct Kernel {
    pub(crate) sources: Vec<&'static str>,
    pub(crate) constants: Vec<(&'static str, Constant)>,
    pub(crate) workgroup_bytes: u32,
    /// Rounds of its loops for each tile of keys, and at most so many besides.
    pub(crate) rounds_per_tile: u32,
}

/// Keys of a tile, in every family.
const TILE_KEYS: u32 = 32;
/// More than any family's loops that do not go over the keys.
const OTHER_ROUNDS: u32 = 64;

/// A value of a generated `const`.
pub(crate) enum Constant {
    U32(u32),
    Bool(bool),
}

impl Family {
    /// Head sizes are rounded up to a multiple of this: fewer pipelines, and whole vectors everywhere.
    pub(crate) const fn dim_step(self) -> u32 {
        match self {
            Self::Tiled | Self::Weights => 32,
        }
    }

    /// The largest head size it covers.
    pub(crate) const fn dim_most(self) -> u32 {
        match self {
            Self::Tiled | Self::Weights => 256,
        }
    }

    /// Query rows and threads of a workgroup.
    pub(crate) const fn block(self) -> Block {
        match self {
            Self::Tiled | Self::Weights => Block { rows: tiled::ROWS, threads: tiled::THREADS },
        }
    }
}

/// What a workgroup covers.
pub(crate) struct Block {
    pub(crate) rows: u32,
    pub(crate) threads: u32,
}

impl Variant {
    pub(crate) fn kernel(&self) -> Kernel {
        match self.family {
            Family::Tiled => tiled::kernel(self),
            Family::Weights => weights::kernel(self),
        }
    }

    /// Workgroup memory its kernel declares.
    pub fn workgroup_bytes(&self) -> u32 {
        self.kernel().workgroup_bytes
    }

    /// Threads of a workgroup.
    pub const fn invocations(&self) -> u32 {
        self.family.block().threads
    }

    /// Whether a device can run it.
    pub(crate) fn check(&self, caps: &Caps) -> Result<(), PlanError> {
        let buffers = u32::try_from(self.operands().count()).unwrap_or(u32::MAX);
        let limits = [
            ("max_storage_buffers_per_shader_stage", buffers, caps.storage_buffers),
            ("max_compute_workgroup_storage_size", self.workgroup_bytes(), caps.workgroup_bytes),
            ("max_compute_invocations_per_workgroup", self.invocations(), caps.invocations),
            ("max_compute_workgroups_per_dimension", 1, caps.workgroups),
        ];
        for (limit, need, granted) in limits {
            if need > granted {
                let (need, granted) = (need.into(), granted.into());
                return Err(PlanError::Limit { variant: *self, limit, need, granted });
            }
        }
        Ok(())
    }

    /// Whether a driver that ends loops early lets the kernel see all keys.
    pub(crate) fn check_rounds(&self, len_kv: u32, caps: &Caps) -> Result<(), PlanError> {
        let tiles = caps.loop_rounds.saturating_sub(OTHER_ROUNDS) / self.kernel().rounds_per_tile;
        let most = tiles.saturating_mul(TILE_KEYS);
        if len_kv > most { Err(PlanError::TooManyKeys { variant: *self, len_kv, most }) } else { Ok(()) }
    }
}
