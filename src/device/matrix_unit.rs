//! Matrix units, which multiply small matrices in one operation: tensor cores, matrix cores, simdgroup matrices.

/// A matrix unit as kernels use it: f16 factors, f32 sums. [`submitting::matrix_unit`](crate::submitting::matrix_unit)
/// finds it and tests that it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatrixUnit {
    /// The size of the matrices that it multiplies.
    pub fragment: Fragment,
    /// Number of threads that hold one fragment together: the subgroup size, which must be the only size that the
    /// adapter has. A power of two, and no less than a fragment's side.
    pub subgroup: u32,
    /// How the workgroup memory that fragments are read from is declared.
    pub tiles: Tiles,
    /// Whether the unit or the threads multiply.
    pub multiplier: Multiplier,
}

/// The size of a fragment, which is a square matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// 8 × 8: Metal, and Mesa's software driver.
    Side8,
    /// 16 × 16: GPUs on Vulkan.
    Side16,
}

/// How workgroup memory that fragments are read from is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tiles {
    /// As vectors of four, which threads write whole.
    Vectors,
    /// As single numbers: Metal reads fragments from no other type.
    Scalars,
}

/// What multiplies fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Multiplier {
    /// The device's matrix unit.
    Unit,
    /// The threads, each of which multiplies part of a fragment. The kernel keeps its whole schedule, so that it can be
    /// tested on a device without a matrix unit. Slow. Needs `Features::SHADER_F16`.
    Emulated,
}

impl MatrixUnit {
    /// The features that kernels on a matrix unit need.
    pub(super) const FEATURES: wgpu::Features =
        wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16);

    /// Whether kernels support a unit of these sizes.
    pub(crate) const fn is_possible(self) -> bool {
        self.subgroup.is_power_of_two() && self.subgroup >= self.fragment.side()
    }

    /// The features that kernels for this unit need.
    pub(crate) const fn features(self) -> wgpu::Features {
        match self.multiplier {
            Multiplier::Unit => Self::FEATURES,
            Multiplier::Emulated => wgpu::Features::SHADER_F16,
        }
    }
}

impl Fragment {
    /// Number of rows, and of columns.
    pub const fn side(self) -> u32 {
        match self {
            Self::Side8 => 8,
            Self::Side16 => 16,
        }
    }
}

impl std::fmt::Display for MatrixUnit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let by = if self.multiplier == Multiplier::Emulated { ", emulated" } else { "" };
        write!(f, "{0} × {0}, f16 into f32, in subgroups of {1}{by}", self.fragment.side(), self.subgroup)
    }
}
