//! What multiplies small matrices at once, on devices that have such a thing: tensor cores, matrix cores, simdgroup matrices.

/// A matrix unit as kernels use it: f16 factors, f32 sums. Found, and found to work, by
/// [`blocking::matrix_unit`](crate::blocking::matrix_unit).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatrixUnit {
    /// The matrices it multiplies.
    pub fragment: Fragment,
    /// Threads that hold one between them: the size of a subgroup, which must be the only one the adapter has. A power of two,
    /// and no less than a fragment's side.
    pub subgroup: u32,
    /// What fragments can be read from.
    pub tiles: Tiles,
    /// Who multiplies.
    pub multiplier: Multiplier,
}

/// Square matrices of a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// 8 × 8: Metal, and Mesa's software driver.
    Side8,
    /// 16 × 16: GPUs by Vulkan.
    Side16,
}

/// How workgroup memory that fragments are read from is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tiles {
    /// As vectors of four, which threads write whole.
    Vectors,
    /// As single numbers: Metal reads fragments from nothing else.
    Scalars,
}

/// Who multiplies fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Multiplier {
    /// The device's matrix unit.
    Unit,
    /// The threads, each its share of a fragment: the kernel's whole schedule without a matrix unit, to try it where there
    /// is none. Slow. Needs `Features::SHADER_F16`.
    Emulated,
}

impl MatrixUnit {
    /// What kernels that multiply on it need.
    pub(super) const FEATURES: wgpu::Features =
        wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16);

    /// Whether kernels can be written for it.
    pub(crate) const fn is_possible(self) -> bool {
        self.subgroup.is_power_of_two() && self.subgroup >= self.fragment.side()
    }

    /// The features without which no kernel that is written for it runs.
    pub(crate) const fn features(self) -> wgpu::Features {
        match self.multiplier {
            Multiplier::Unit => Self::FEATURES,
            Multiplier::Emulated => wgpu::Features::SHADER_F16,
        }
    }
}

impl Fragment {
    /// Rows, and columns.
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
