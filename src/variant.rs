//! Which code: everything that changes the shader's text or its arrays, and nothing else.

use crate::cut::Split;
use crate::family::VALUE_COLUMNS;
pub use crate::family::decode::Decode;
pub use crate::family::matrix::Matrix;
use crate::scratch::{Space, SpaceUse};
use crate::{Caps, Dtype, Multiplier, Operand, Problem, Tiles};

/// One compiled kernel's identity. It has forgotten the problem's lengths.
///
/// Its `Display` names the pipeline, the debug group, the test and the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Variant {
    /// Which shader.
    pub family: Family,
    /// How the elements are stored.
    pub dtype: Dtype,
    /// How many of them a thread moves at once.
    pub access: Access,
    /// How threads that share a row or a key tell each other, where the family has a choice.
    pub exchange: Exchange,
    /// Head size of queries and keys, rounded up to what the family's arrays come in.
    pub dim_qk: u32,
    /// Head size of values, as far as one dispatch computes them, rounded up likewise; 0 where the kernel reads none.
    pub dim_v: u32,
    /// Caps the scores.
    pub softcap: bool,
    /// Reads a boolean mask.
    pub mask: bool,
    /// Reads a bias stored so.
    pub bias: Option<Dtype>,
    /// Reads per-batch key lengths.
    pub kv_lengths: bool,
    /// Writes the log-sum-exp.
    pub lse: bool,
    /// Leaves its result, over all of the keys or a part of them, for a merge.
    pub partial: bool,
}

/// A shader and its launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// `attention.wgsl`: K/V tiles through workgroup memory; runs on every WebGPU device.
    Tiled,
    /// `lanes.wgsl`: for CPUs that play a GPU. A workgroup is one subgroup of `size` lanes.
    Lanes {
        /// Lanes of a subgroup.
        size: u32,
    },
    /// `decode.wgsl`: few query rows, those of a group's heads together.
    Decode(Decode),
    /// `streams.wgsl`: the same for CPUs that play a GPU. A workgroup is one subgroup of `size` lanes.
    Streams {
        /// Lanes of a subgroup.
        size: u32,
        /// Query rows of a workgroup.
        rows: u32,
    },
    /// `matrix.wgsl`: both products on a matrix unit, those of a group's heads together.
    Matrix(Matrix),
    /// `weights.wgsl`: the attention weights.
    Weights,
    /// `stage.wgsl`: copies keys and values to textures, for [`Family::Lanes`].
    Stage,
    /// `merge.wgsl`: combines the parts of split keys.
    Merge,
}

/// How threads tell each other numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exchange {
    /// Through workgroup memory, with barriers.
    Workgroup,
    /// By shuffles within a subgroup, of whatever size from eight lanes on.
    Subgroup,
}

/// How a thread moves elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Four at a time: every row of every operand starts at a multiple of four elements and is a multiple of four long.
    Vec4,
    /// The same, as 64-bit words: half as many loads, for a driver that takes the numbers of a vector one by one.
    Words,
    /// One at a time, wherever they lie.
    Scalar,
}

impl Variant {
    /// The operands its kernel binds, in slot order.
    pub fn operands(&self) -> impl Iterator<Item = Operand> + use<> {
        let variant = *self;
        Operand::ALL.into_iter().filter(move |&operand| variant.binds(operand))
    }

    fn binds(&self, operand: Operand) -> bool {
        match operand {
            Operand::Q => !matches!(self.family, Family::Stage | Family::Merge),
            Operand::K => !matches!(self.family, Family::Lanes { .. } | Family::Merge),
            Operand::V => !matches!(self.family, Family::Lanes { .. } | Family::Merge | Family::Weights),
            Operand::Out => !matches!(self.family, Family::Stage | Family::Weights) && !self.partial,
            Operand::Weights => self.family == Family::Weights,
            Operand::Lse => self.lse && !self.partial,
            Operand::Mask => self.mask,
            Operand::Bias => self.bias.is_some(),
            Operand::KvLengths => self.kv_lengths,
        }
    }

    /// The space of its own that its kernel binds, beside the operands.
    pub(crate) fn spaces(&self) -> impl Iterator<Item = (Space, SpaceUse)> + use<> {
        let partial = match self.family {
            Family::Merge => Some(SpaceUse::Read),
            _ => self.partial.then_some(SpaceUse::Write),
        };
        let staged = match self.family {
            Family::Stage => Some(SpaceUse::Write),
            Family::Lanes { .. } => Some(SpaceUse::Read),
            _ => None,
        };
        [(Space::Partial, partial), (Space::StagedK, staged), (Space::StagedV, staged)]
            .into_iter()
            .filter_map(|(space, how)| Some((space, how?)))
    }

    /// The variant of `family` for `problem` with the given access, on one such device.
    pub(crate) fn of((family, exchange): (Family, Exchange), access: Access, problem: &Problem, caps: &Caps) -> Self {
        let shape = problem.shape();
        let writes_output = family != Family::Weights;
        let whole = Self {
            family,
            dtype: problem.dtype(),
            access,
            exchange,
            dim_qk: shape.dim_qk.next_multiple_of(family.dim_step()),
            dim_v: if writes_output { shape.dim_v.min(VALUE_COLUMNS).next_multiple_of(family.dim_step()) } else { 0 },
            softcap: problem.softcap().is_some(),
            mask: problem.uses(Operand::Mask),
            bias: problem.bias_dtype(),
            kv_lengths: problem.uses(Operand::KvLengths),
            lse: writes_output && problem.uses(Operand::Lse),
            partial: false,
        };
        // Storing elements one at a time is so much text, written out for every number of O, that a software GPU compiles it
        // for half a minute, and again for every head size. The small kernel that merges does it instead.
        let stores_by_merging = matches!(family, Family::Lanes { .. }) && access == Access::Scalar;
        Self { partial: stores_by_merging || Split::of(&whole, problem, caps).parts > 1, ..whole }
    }

    /// The kernels that prepare for this one and finish its work; neither looks at scores.
    pub fn companions(&self) -> [Option<Self>; 2] {
        let exchange = Exchange::Workgroup;
        let plain =
            Self { exchange, softcap: false, mask: false, bias: None, kv_lengths: false, partial: false, ..*self };
        let stage = Self { family: Family::Stage, lse: false, ..plain };
        // It reads none of the elements.
        let access = if self.access == Access::Words { Access::Vec4 } else { self.access };
        let merge = Self { family: Family::Merge, access, dim_qk: 0, ..plain };
        [matches!(self.family, Family::Lanes { .. }).then_some(stage), self.partial.then_some(merge)]
    }

    /// This variant, or the one without the demand that elements lie in fours, where those it moves do not.
    pub(crate) fn with_access_of(self, problem: &Problem) -> Self {
        if self.suits(problem) { self } else { Self { access: Access::Scalar, ..self } }
    }

    /// Whether the elements this variant moves lie in fours.
    pub(crate) fn suits(&self, problem: &Problem) -> bool {
        let in_fours = |operand| {
            problem.view(operand).is_none_or(|view| {
                let [batch, head, row, _] = view.stride;
                [view.offset, batch, head, row, view.extent[3].into()].iter().all(|n| n % 4 == 0)
            })
        };
        let elements = [Operand::Q, Operand::K, Operand::V, Operand::Out, Operand::Weights];
        self.access == Access::Scalar || elements.into_iter().filter(|&o| self.binds(o)).all(in_fours)
    }
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let access = match self.access {
            Access::Vec4 => "x4",
            Access::Words => "x4w",
            Access::Scalar => "",
        };
        match self.family {
            Family::Tiled => write!(f, "tiled")?,
            Family::Lanes { size } => write!(f, "lanes{size}")?,
            Family::Decode(Decode { rows, share, threads }) => write!(f, "decode{rows}x{share}of{threads}")?,
            Family::Streams { size, rows } => write!(f, "streams{size}x{rows}")?,
            Family::Matrix(matrix) => write!(f, "{matrix}")?,
            Family::Weights => write!(f, "weights")?,
            Family::Stage => write!(f, "stage")?,
            Family::Merge => write!(f, "merge")?,
        }
        if self.exchange == Exchange::Subgroup {
            write!(f, "-sub")?;
        }
        write!(f, ".{}{access}.d{}", self.dtype, self.dim_qk)?;
        if self.dim_v != 0 && self.dim_v != self.dim_qk {
            write!(f, "v{}", self.dim_v)?;
        }
        if let Some(bias) = self.bias {
            write!(f, ".bias-{bias}")?;
        }
        let flags = [
            (self.softcap, ".softcap"),
            (self.mask, ".mask"),
            (self.kv_lengths, ".lengths"),
            (self.lse, ".lse"),
            (self.partial, ".part"),
        ];
        flags.iter().filter(|(on, _)| *on).try_for_each(|(_, name)| f.write_str(name))
    }
}

impl std::fmt::Display for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { unit, subgroups, row_fragments, keys } = self;
        write!(f, "matrix{}in{}-{subgroups}x{row_fragments}x{keys}", unit.fragment.side(), unit.subgroup)?;
        f.write_str(if unit.tiles == Tiles::Scalars { "-scalars" } else { "" })?;
        f.write_str(if unit.multiplier == Multiplier::Emulated { "-emulated" } else { "" })
    }
}
