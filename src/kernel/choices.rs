//! What a problem chooses of the alternatives that kernels have. It has forgotten the problem's lengths.

use crate::problem::Problem;
use crate::problem::dtype::Dtype;
use crate::problem::operand::Operand;
use crate::problem::program::{Programs, fingerprint};

/// What is chosen, whatever the schedule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Choices {
    /// How the elements are stored.
    pub(crate) dtype: Dtype,
    /// How many of them a thread moves at once.
    pub(crate) access: Access,
    /// Head size of queries and keys, rounded up to what the schedule's arrays come in.
    pub(crate) dim_qk: u32,
    /// Head size of values, as far as one dispatch computes them, rounded up likewise.
    pub(crate) dim_v: u32,
    /// Caps the scores.
    pub(crate) softcap: bool,
    /// Reads a boolean mask.
    pub(crate) mask: bool,
    /// Reads a bias stored so.
    pub(crate) bias: Option<Dtype>,
    /// Reads per-batch key lengths.
    pub(crate) kv_lengths: bool,
    /// Writes the log-sum-exp.
    pub(crate) lse: bool,
    /// Lowers scores by distance.
    pub(crate) alibi: bool,
    /// Has a sink in each row's softmax.
    pub(crate) sinks: bool,
    /// Calls the user's programs.
    pub(crate) programs: Programs,
    /// Which read the user's own numbers.
    pub(crate) aux: bool,
    /// Where results go.
    pub(crate) results: Results,
}

/// Where a kernel leaves the results of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Results {
    /// In the output, over all keys.
    Whole,
    /// In a space, over all keys or a part of them, for another kernel to merge.
    Partial,
}

/// How a thread moves elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    /// Four at a time: every row of every operand starts at a multiple of four elements and is a multiple of four long.
    Vec4,
    /// The same, as 64-bit words: half as many loads, for a driver that takes the numbers of a vector one by one.
    Words,
    /// One at a time, wherever they lie.
    Scalar,
}

/// Columns of the values, and so of the output, that a kernel has room for; wider heads are computed in several dispatches.
pub(crate) const VALUE_COLUMNS: u32 = 256;

impl Choices {
    /// What `problem` chooses for a kernel whose head sizes come in multiples of `dim_step`.
    pub(crate) fn of(problem: &Problem, access: Access, dim_step: u32) -> Self {
        let shape = problem.shape();
        Self {
            dtype: problem.dtype(),
            access,
            dim_qk: shape.dim_qk.next_multiple_of(dim_step),
            dim_v: shape.dim_v.min(VALUE_COLUMNS).next_multiple_of(dim_step),
            softcap: problem.softcap().is_some(),
            mask: problem.uses(Operand::Mask),
            bias: problem.bias_dtype(),
            kv_lengths: problem.uses(Operand::KvLengths),
            lse: problem.uses(Operand::Lse),
            alibi: problem.uses(Operand::AlibiSlopes),
            sinks: problem.uses(Operand::Sinks),
            programs: problem.programs().clone(),
            aux: problem.programs().has_any() && problem.uses(Operand::Aux),
            results: Results::Whole,
        }
    }

    /// The same without scores: for kernels that only move elements.
    pub(crate) fn of_elements(&self) -> Self {
        let (softcap, mask, bias, kv_lengths) = (false, false, None, false);
        let (alibi, sinks, programs, aux) = (false, false, Programs::default(), false);
        let (lse, results) = (false, Results::Whole);
        Self { softcap, mask, bias, kv_lengths, alibi, sinks, programs, aux, lse, results, ..self.clone() }
    }
}

impl Access {
    /// Whether rows must lie in fours.
    pub(crate) const fn is_in_fours(self) -> bool {
        matches!(self, Self::Vec4 | Self::Words)
    }

    /// What a kernel that moves elements so needs.
    pub(crate) const fn features(self) -> wgpu::Features {
        match self {
            Self::Vec4 | Self::Scalar => wgpu::Features::empty(),
            Self::Words => wgpu::Features::SHADER_INT64,
        }
    }
}

impl std::fmt::Display for Choices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let access = match self.access {
            Access::Vec4 => "x4",
            Access::Words => "x4w",
            Access::Scalar => "",
        };
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
            (self.alibi, ".alibi"),
            (self.sinks, ".sinks"),
            (self.aux, ".aux"),
            (self.kv_lengths, ".lengths"),
            (self.lse, ".lse"),
            (self.results == Results::Partial, ".part"),
        ];
        flags.iter().filter(|(on, _)| *on).try_for_each(|(_, name)| f.write_str(name))?;
        let Programs { score_mod, mask_mod } = &self.programs;
        for (name, text) in [("score", score_mod), ("mask", mask_mod)] {
            if let Some(text) = text {
                write!(f, ".{name}-{:08x}", fingerprint(text))?;
            }
        }
        Ok(())
    }
}
