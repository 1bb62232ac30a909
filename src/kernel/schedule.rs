//! The list of the schedules. A schedule says what each thread computes, in which order and with which memory. Each has
//! a file in `shaders`, and a file here that may serve several.

use crate::device::caps::Caps;
use crate::kernel::choices::{Access, Choices, Results};
use crate::kernel::decode::Decode;
use crate::kernel::gradient::Gradient;
use crate::kernel::gradient_lanes::{Own, Pairs};
use crate::kernel::matrix::Matrix;
use crate::kernel::record::Kernel;
use crate::kernel::streams::Streams;
use crate::kernel::tiled::{Exchange, Tiled};
use crate::kernel::{
    DIM_STEP, IN_BROWSER, append, block_mask, combine, gradient, gradient_lanes, lanes, matrix, merge, stage, tiled,
};

/// A schedule with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Schedule {
    /// K and V tiles through workgroup memory.
    Tiled(Tiled),
    /// Few query rows; a block has those of all heads of a group.
    Decode(Decode),
    /// Few query rows on software GPUs; a block has those of all heads of a group.
    Streams(Streams),
    /// Many query rows on software GPUs, on subgroups of `size` lanes.
    Lanes {
        /// Lanes per subgroup.
        size: u32,
    },
    /// Both products on a matrix unit.
    Matrix(Matrix),
    /// Computes the attention weights.
    Weights,
    /// Copies keys and values to textures.
    Stage,
    /// Combines the results of split keys.
    Merge,
    /// Computes the block mask.
    BlockMask,
    /// Merges pairs of the caller.
    Combine,
    /// Appends new keys and values to a cache.
    Append,
    /// Computes what the gradients need of each row.
    RowSums,
    /// Computes the gradient of queries, keys, values or the bias.
    Gradient(Gradient),
    /// Computes the gradient of the sinks.
    GradientOfSinks,
    /// Copies pairs to textures, for gradients on software GPUs.
    StagePairs(Pairs),
    /// Computes gradients on software GPUs, on subgroups of `size` lanes.
    GradientLanes {
        /// What the lanes own.
        own: Own,
        /// Lanes per subgroup.
        size: u32,
    },
}

impl Schedule {
    /// The kernel for `choices`.
    pub(super) fn kernel(self, choices: &Choices) -> Kernel {
        match self {
            Self::Streams(_) | Self::Lanes { .. } | Self::Stage | Self::StagePairs(_) | Self::GradientLanes { .. }
                if IN_BROWSER =>
            {
                unreachable!("`software_lanes` finds none in a browser")
            }
            Self::Matrix(_) if IN_BROWSER => unreachable!("`on_matrices` finds none in a browser"),
            Self::Tiled(tiled) => tiled.kernel(choices),
            Self::Decode(decode) => decode.kernel(choices),
            Self::Streams(streams) => streams.kernel(choices),
            Self::Lanes { size } => lanes::kernel(choices, size),
            Self::Matrix(matrix) => matrix::kernel(choices, matrix),
            Self::Weights => tiled::weights(choices),
            Self::Stage => stage::kernel(choices),
            Self::Merge => merge::kernel(choices),
            Self::BlockMask => block_mask::kernel(choices),
            Self::Combine => combine::kernel(choices),
            Self::Append => append::kernel(choices),
            Self::RowSums => gradient::row_sums(choices),
            Self::Gradient(gradient) => gradient::kernel(choices, gradient),
            Self::GradientOfSinks => gradient::sinks(choices),
            Self::StagePairs(pairs) => gradient_lanes::stage_pairs(choices, pairs),
            Self::GradientLanes { own, size } => gradient_lanes::kernel(choices, own, size),
        }
    }

    /// Its name, without its parameters.
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
            Self::BlockMask => "block_mask",
            Self::Combine => "combine",
            Self::Append => "append",
            Self::RowSums => "row_sums",
            Self::Gradient(gradient) => gradient.name(),
            Self::GradientOfSinks => "gradient_sinks",
            Self::StagePairs(Pairs::Keys) => "stage_keys",
            Self::StagePairs(Pairs::Rows) => "stage_rows",
            Self::GradientLanes { own: Own::Rows, .. } => "gradient_lanes_queries",
            Self::GradientLanes { own: Own::KeysAndValues, .. } => "gradient_lanes_keys_values",
            Self::GradientLanes { own: Own::Keys, .. } => "gradient_lanes_keys",
            Self::GradientLanes { own: Own::Values, .. } => "gradient_lanes_values",
        }
    }

    /// Its name, and the hardware that it is written for. Schedules of one kind have the same text, apart from sizes.
    pub(super) fn kind(self) -> String {
        match self {
            Self::Decode(decode) => format!("{}{}", self.name(), decode.exchange.suffix()),
            Self::Streams(streams) => format!("{}{}", self.name(), streams.size),
            Self::Matrix(matrix) => matrix.kind(),
            Self::Tiled(tiled) => tiled.kind(),
            Self::Gradient(gradient) => gradient.kind(),
            other => other.to_string(),
        }
    }

    /// How it can move elements on a device, best first. Schedules that use shuffles move elements only in fours. This
    /// keeps the kernels few, and few problems need single elements.
    pub(super) fn accesses(self, caps: &Caps) -> &'static [Access] {
        match self {
            Self::Tiled(tiled) if tiled.exchange == Exchange::Subgroup => &[Access::Vec4],
            Self::Decode(decode) if decode.exchange == Exchange::Subgroup => &[Access::Vec4],
            Self::Streams(_) | Self::Lanes { .. } if caps.has_int64 => &[Access::Words, Access::Scalar],
            _ => &[Access::Vec4, Access::Scalar],
        }
    }

    /// Where it writes the results of its rows, if one workgroup processes all keys of a row.
    pub(super) const fn results(self, access: Access) -> Results {
        match self {
            Self::Lanes { .. } => lanes::results(access),
            _ => Results::Whole,
        }
    }

    /// Whether it reads keys and values that another kernel has staged.
    pub(super) const fn reads_staged_keys(self) -> bool {
        matches!(self, Self::Lanes { .. })
    }

    /// Whether it multiplies on a matrix unit.
    pub(super) const fn is_on_matrix_unit(self) -> bool {
        matches!(self, Self::Matrix(_))
    }

    /// Head sizes are rounded up to a multiple of this.
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
            Self::Tiled(tiled) => write!(f, "{tiled}"),
            Self::Decode(decode) => write!(f, "{decode}"),
            Self::Streams(streams) => write!(f, "{streams}"),
            Self::Lanes { size } | Self::GradientLanes { size, .. } => write!(f, "{}{size}", self.name()),
            Self::Matrix(matrix) => write!(f, "{matrix}"),
            Self::Gradient(gradient) => write!(f, "{gradient}"),
            other => f.write_str(other.name()),
        }
    }
}
