//! Which code: everything that changes the shader's text or its arrays, and nothing else.

use crate::{Dtype, Operand, Problem};

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
    /// Head size of queries and keys, rounded up to what the family's arrays come in.
    pub dim_qk: u32,
    /// Head size of values, rounded up likewise; 0 where the kernel reads none.
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
}

/// A shader and its launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// `attention.wgsl`: K/V tiles through workgroup memory; runs on every WebGPU device.
    Tiled,
    /// `weights.wgsl`: the attention weights.
    Weights,
}

/// How a thread moves elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Four at a time: every row of every operand starts at a multiple of four elements and is a multiple of four long.
    Vec4,
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
            Operand::Q | Operand::K => true,
            Operand::V | Operand::Out => self.family != Family::Weights,
            Operand::Weights => self.family == Family::Weights,
            Operand::Lse => self.lse,
            Operand::Mask => self.mask,
            Operand::Bias => self.bias.is_some(),
            Operand::KvLengths => self.kv_lengths,
        }
    }

    /// The variant of `family` for `problem` with the given access.
    pub(crate) fn of(family: Family, access: Access, problem: &Problem) -> Self {
        let shape = problem.shape();
        let writes_output = family != Family::Weights;
        Self {
            family,
            dtype: problem.dtype(),
            access,
            dim_qk: shape.dim_qk.next_multiple_of(family.dim_step()),
            dim_v: if writes_output { shape.dim_v.next_multiple_of(family.dim_step()) } else { 0 },
            softcap: problem.softcap().is_some(),
            mask: problem.uses(Operand::Mask),
            bias: problem.bias_dtype(),
            kv_lengths: problem.uses(Operand::KvLengths),
            lse: writes_output && problem.uses(Operand::Lse),
        }
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
        let family = match self.family {
            Family::Tiled => "tiled",
            Family::Weights => "weights",
        };
        let access = match self.access {
            Access::Vec4 => "x4",
            Access::Scalar => "",
        };
        write!(f, "{family}.{}{access}.d{}", self.dtype, self.dim_qk)?;
        if self.dim_v != 0 && self.dim_v != self.dim_qk {
            write!(f, "v{}", self.dim_v)?;
        }
        if let Some(bias) = self.bias {
            write!(f, ".bias-{bias}")?;
        }
        let flags =
            [(self.softcap, ".softcap"), (self.mask, ".mask"), (self.kv_lengths, ".lengths"), (self.lse, ".lse")];
        flags.iter().filter(|(on, _)| *on).try_for_each(|(_, name)| f.write_str(name))
    }
}
