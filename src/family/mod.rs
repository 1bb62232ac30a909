//! The kernels. Each family is a shader and a launch file here; what follows asks them for their text, their needs and
//! their grid.

pub(crate) mod decode;
mod lanes;
pub(crate) mod matrix;
mod merge;
mod stage;
pub(crate) mod streams;
mod tiled;
mod weights;

pub(crate) use stage::{fits as textures_fit, sizes as texture_sizes};

use crate::scratch::Space;
use crate::{Caps, Family, PlanError, Variant};

/// The WGSL sources of a kernel, and the constants generated for it.
pub(crate) struct Kernel {
    /// What must stand before everything else.
    pub(crate) directives: &'static str,
    pub(crate) sources: Vec<&'static str>,
    pub(crate) constants: Vec<(&'static str, Constant)>,
    pub(crate) workgroup_bytes: u32,
    /// Rounds of its loops for each tile of keys, and at most so many besides.
    pub(crate) rounds_per_tile: u32,
}

/// What keys are counted in, in every family.
pub(crate) const TILE_KEYS: u32 = 32;
/// More than any family's loops that do not go over the keys.
const OTHER_ROUNDS: u32 = 64;

/// A value of a generated `const`.
pub(crate) enum Constant {
    U32(u32),
    Bool(bool),
}

/// Head sizes are rounded up to a multiple of this: fewer pipelines, and whole vectors everywhere.
pub(crate) const DIM_STEP: u32 = 32;
/// The largest head size.
pub(crate) const DIM_MOST: u32 = 576;
/// Columns of the values, and so of the output, that a kernel has room for; wider heads are computed in several dispatches.
pub(crate) const VALUE_COLUMNS: u32 = 256;
/// The largest head size of queries and keys for kernels that keep whole rows of them where there is little room.
pub(crate) const DIM_QK_KEPT: u32 = 256;

impl Family {
    /// Whether the heads that share a KV head are rows of the same workgroups.
    pub(crate) const fn takes_groups(self) -> bool {
        matches!(self, Self::Decode(_) | Self::Streams { .. } | Self::Matrix(_))
    }

    /// What head sizes are rounded up to.
    pub(crate) const fn dim_step(self) -> u32 {
        if matches!(self, Self::Matrix(_)) { matrix::DIM_STEP } else { DIM_STEP }
    }
}

/// What a workgroup covers: query rows, or keys to stage, by so many threads.
pub(crate) struct Block {
    pub(crate) rows: u32,
    pub(crate) threads: u32,
}

impl Variant {
    pub(crate) fn kernel(&self) -> Kernel {
        match self.family {
            Family::Tiled => tiled::kernel(self),
            Family::Lanes { size } => lanes::kernel(self, size),
            Family::Decode(decode) => decode::kernel(self, decode),
            Family::Streams { size, rows } => streams::kernel(self, size, rows),
            Family::Matrix(matrix) => matrix::kernel(self, matrix),
            Family::Weights => weights::kernel(self),
            Family::Stage => stage::kernel(self),
            Family::Merge => merge::kernel(self),
        }
    }

    pub(crate) fn block(&self) -> Block {
        match self.family {
            Family::Tiled | Family::Weights => Block { rows: tiled::ROWS, threads: tiled::THREADS },
            Family::Lanes { size } => Block { rows: size * lanes::rows(self), threads: size },
            Family::Decode(decode) => Block { rows: decode.rows, threads: decode.threads },
            Family::Streams { size, rows } => Block { rows, threads: size },
            Family::Matrix(matrix) => Block { rows: matrix.rows(), threads: matrix.threads() },
            Family::Stage => Block { rows: stage::KEYS, threads: stage::KEYS },
            Family::Merge => Block { rows: merge::rows(self), threads: merge::THREADS },
        }
    }

    /// Workgroup memory its kernel declares.
    pub fn workgroup_bytes(&self) -> u32 {
        self.kernel().workgroup_bytes
    }

    /// Threads of a workgroup.
    pub fn invocations(&self) -> u32 {
        self.block().threads
    }

    /// Whether a device can run it.
    pub(crate) fn check(&self, caps: &Caps) -> Result<(), PlanError> {
        let parts = self.spaces().filter(|(space, _)| *space == Space::Partial);
        let buffers = u32::try_from(self.operands().count() + parts.count()).unwrap_or(u32::MAX);
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

    /// How many keys one workgroup may see before a driver that ends loops early ends its own.
    pub(crate) fn most_keys(&self, caps: &Caps) -> u32 {
        let other = match self.family {
            Family::Decode(decode) => decode::final_rounds(self, decode),
            Family::Matrix(matrix) => matrix::other_rounds(self, matrix),
            _ => OTHER_ROUNDS,
        };
        let tiles = caps.loop_rounds.saturating_sub(other) / self.kernel().rounds_per_tile;
        tiles.saturating_mul(TILE_KEYS)
    }

    /// Whether the loops of its workgroups reach every key: one workgroup, or as many as a grid can count where the keys
    /// are split.
    pub(crate) fn check_rounds(&self, len_kv: u32, caps: &Caps) -> Result<(), PlanError> {
        let most = match self.family {
            Family::Stage | Family::Merge => u32::MAX,
            _ if self.partial => (self.most_keys(caps) / TILE_KEYS * TILE_KEYS).saturating_mul(caps.workgroups),
            _ => self.most_keys(caps),
        };
        if len_kv > most { Err(PlanError::TooManyKeys { variant: *self, len_kv, most }) } else { Ok(()) }
    }
}
