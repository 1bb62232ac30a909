//! The schedules: who multiplies what, in which order, with which memory. Each is a file here and one in `shaders`; this is the
//! list of them.

use crate::device::caps::Caps;
use crate::kernel::choices::{Access, Choices, Results};
use crate::kernel::decode::Decode;
use crate::kernel::matrix::Matrix;
use crate::kernel::record::Kernel;
use crate::kernel::streams::Streams;
use crate::kernel::tiled::Exchange;
use crate::kernel::{DIM_STEP, lanes, matrix, merge, stage, tiled};

/// A schedule, with what it can do in several ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Schedule {
    /// K and V tiles through workgroup memory.
    Tiled(Exchange),
    /// Few query rows, those of a group's heads together.
    Decode(Decode),
    /// The same on software GPUs.
    Streams(Streams),
    /// Many query rows on software GPUs, on subgroups of `size` lanes.
    Lanes {
        /// Lanes of a subgroup.
        size: u32,
    },
    /// Both products on a matrix unit.
    Matrix(Matrix),
    /// The attention weights.
    Weights,
    /// Copies keys and values to textures.
    Stage,
    /// Combines the results of split keys.
    Merge,
}

impl Schedule {
    /// The kernel for such choices.
    pub(super) fn kernel(self, choices: &Choices) -> Kernel {
        match self {
            Self::Tiled(exchange) => tiled::kernel(choices, exchange),
            Self::Decode(decode) => decode.kernel(choices),
            Self::Streams(streams) => streams.kernel(choices),
            Self::Lanes { size } => lanes::kernel(choices, size),
            Self::Matrix(matrix) => matrix::kernel(choices, matrix),
            Self::Weights => tiled::weights(choices),
            Self::Stage => stage::kernel(choices),
            Self::Merge => merge::kernel(choices),
        }
    }

    /// Its name, without the ways in which it does what it can do in several.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tiled(_) => "tiled",
            Self::Decode(_) => "decode",
            Self::Streams(_) => "streams",
            Self::Lanes { .. } => "lanes",
            Self::Matrix(_) => "matrix",
            Self::Weights => "weights",
            Self::Stage => "stage",
            Self::Merge => "merge",
        }
    }

    /// Its name and that of the hardware it is written for: what is a text of its own, whatever the sizes in it.
    pub(super) fn kind(self) -> String {
        match self {
            Self::Decode(decode) => format!("{}{}", self.name(), decode.exchange.suffix()),
            Self::Streams(streams) => format!("{}{}", self.name(), streams.size),
            Self::Matrix(matrix) => matrix.kind(),
            Self::Tiled(_) | Self::Lanes { .. } | Self::Weights | Self::Stage | Self::Merge => self.to_string(),
        }
    }

    /// How it can move elements on such a device, best first. With shuffles, in fours or not at all: fewer kernels, and problems
    /// that do not lie in fours are few.
    pub(super) fn accesses(self, caps: &Caps) -> &'static [Access] {
        match self {
            Self::Tiled(Exchange::Subgroup) => &[Access::Vec4],
            Self::Decode(decode) if decode.exchange == Exchange::Subgroup => &[Access::Vec4],
            Self::Streams(_) | Self::Lanes { .. } if caps.has_int64 => &[Access::Words, Access::Scalar],
            _ => &[Access::Vec4, Access::Scalar],
        }
    }

    /// Where it leaves the results of its rows, as long as one workgroup sees all of a row's keys.
    pub(super) const fn results(self, access: Access) -> Results {
        match self {
            Self::Lanes { .. } => lanes::results(access),
            _ => Results::Whole,
        }
    }

    /// Whether it multiplies on a matrix unit.
    pub(super) const fn is_on_matrix_unit(self) -> bool {
        matches!(self, Self::Matrix(_))
    }

    /// What head sizes are rounded up to.
    pub(super) const fn dim_step(self) -> u32 {
        match self {
            Self::Matrix(_) => matrix::DIM_STEP,
            _ => DIM_STEP,
        }
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tiled(exchange) => write!(f, "{}{}", self.name(), exchange.suffix()),
            Self::Decode(decode) => write!(f, "{decode}"),
            Self::Streams(streams) => write!(f, "{streams}"),
            Self::Lanes { size } => write!(f, "{}{size}", self.name()),
            Self::Matrix(matrix) => write!(f, "{matrix}"),
            Self::Weights | Self::Stage | Self::Merge => f.write_str(self.name()),
        }
    }
}
