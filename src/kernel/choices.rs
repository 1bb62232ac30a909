//! What a problem chooses among the alternatives of a kernel. The choices do not depend on the problem's lengths.

use crate::kernel::MAX_DIM;
use crate::kernel::record::Counts;
use crate::problem::Problem;
use crate::problem::append::RotaryPairs;
use crate::problem::builder::Sharing;
use crate::problem::dropout::{self, Dropout};
use crate::problem::dtype::Dtype;
use crate::problem::mask::MaskFormat;
use crate::problem::merge::Merge;
use crate::problem::operand::Operand;
use crate::problem::program::{Programs, fingerprint};
use crate::problem::quantization::Quantization;
use crate::problem::sequences;

/// The choices that are the same for every schedule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Choices {
    /// The element types.
    pub(crate) storage: Storage,
    /// How a thread moves these elements.
    pub(crate) access: Access,
    /// Head size of queries and keys, rounded up to the step of the schedule.
    pub(crate) dim_qk: u32,
    /// Columns of the values that one dispatch computes, rounded up to the step of the schedule.
    pub(crate) dim_v: u32,
    /// Whether the scores are capped.
    pub(crate) softcap: bool,
    /// How the boolean mask is stored, if there is one.
    pub(crate) mask: Option<MaskFormat>,
    /// Queries and keys per tile of the block mask, if there is one.
    pub(crate) block_mask: Option<[u32; 2]>,
    /// The element type of the bias, if there is one.
    pub(crate) bias: Option<Dtype>,
    /// Whether there are per-batch key lengths.
    pub(crate) kv_lengths: bool,
    /// How many queries a sequence has, and where they lie.
    pub(crate) queries: Queries,
    /// Where the keys of a sequence lie.
    pub(crate) keys: Keys,
    /// Whether the log-sum-exp is written.
    pub(crate) lse: bool,
    /// Whether `ALiBi` lowers the scores by distance.
    pub(crate) alibi: bool,
    /// Whether each row's softmax has a sink.
    pub(crate) sinks: bool,
    /// The user's programs that the kernel calls.
    pub(crate) programs: Programs,
    /// Whether these programs read `aux`.
    pub(crate) aux: bool,
    /// Where dropout takes its random numbers from, if there is dropout.
    pub(crate) dropout: Option<RngState>,
    /// Where lengths of keys and ALiBi slopes are read.
    pub(crate) tables: Tables,
    /// Whether a gradient of the log-sum-exp comes in.
    pub(crate) dlse: bool,
    /// What is appended to a cache, if anything is.
    pub(crate) append: Option<Appended>,
    /// Where the results are written.
    pub(crate) results: Results,
    /// Whether operands may be parts of the same buffers.
    pub(crate) sharing: Sharing,
}

/// The element types of what a kernel moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Storage {
    pub(crate) q: Dtype,
    /// Of the keys and the values, or of the outputs that are merged.
    pub(crate) kv: Elements,
    /// Of the output or the weights.
    pub(crate) out: Dtype,
}

/// How elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Elements {
    Of(Dtype),
    Quantized(Quantization),
}

impl Storage {
    fn of(problem: &Problem) -> Self {
        let of = |operand| problem.dtype(operand).unwrap_or_default();
        let kv = match problem.quantization() {
            Some(quantization) => Elements::Quantized(quantization),
            None => Elements::Of(of(Operand::K)),
        };
        Self { q: of(Operand::Q), kv, out: of(Operand::Out) }
    }

    /// For a kernel that moves elements of one type only.
    pub(crate) const fn uniform(dtype: Dtype) -> Self {
        Self { q: dtype, kv: Elements::Of(dtype), out: dtype }
    }

    /// For a kernel that moves keys and values only.
    pub(crate) const fn of_keys(self) -> Self {
        match self.kv {
            Elements::Of(dtype) => Self::uniform(dtype),
            kv @ Elements::Quantized(_) => Self { q: Dtype::F32, kv, out: Dtype::F32 },
        }
    }

    pub(crate) fn elements(self, operand: Operand) -> Elements {
        match operand {
            Operand::Q | Operand::NewQ | Operand::NewK | Operand::NewV | Operand::Dq => Elements::Of(self.q),
            Operand::K | Operand::V | Operand::PairOut | Operand::Dk | Operand::Dv => self.kv,
            _ => Elements::Of(self.out),
        }
    }
}

impl std::fmt::Display for Elements {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Of(dtype) => write!(f, "{dtype}"),
            Self::Quantized(quantization) => write!(f, "{quantization}"),
        }
    }
}

impl std::fmt::Display for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { q, kv, out } = self;
        if *self == Self::uniform(*q) { write!(f, "{q}") } else { write!(f, "{q}-{kv}-{out}-") }
    }
}

/// How many queries a sequence has, and where they lie: a problem's, but for its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Queries {
    All,
    Lengths,
    Ragged,
}

/// Where the keys of a sequence lie: a problem's, but for its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Keys {
    Dense,
    Ragged,
    /// The keys per page are part of the text: every key is divided by them.
    Paged(u32),
    Ring,
}

impl Queries {
    const fn of(problem: &Problem) -> Self {
        match problem.queries() {
            sequences::Queries::All => Self::All,
            sequences::Queries::Lengths => Self::Lengths,
            sequences::Queries::Ragged { .. } => Self::Ragged,
        }
    }
}

impl Keys {
    pub(crate) const fn of(problem: &Problem) -> Self {
        match problem.keys() {
            sequences::Keys::Dense => Self::Dense,
            sequences::Keys::Ragged { .. } => Self::Ragged,
            sequences::Keys::Paged(pages) => Self::Paged(pages.size),
            sequences::Keys::Ring { .. } => Self::Ring,
        }
    }

    /// For a kernel that reads no keys, but needs to know which there are.
    pub(crate) const fn without_places(self) -> Self {
        match self {
            Self::Paged(_) => Self::Dense,
            Self::Dense | Self::Ragged | Self::Ring => self,
        }
    }
}

/// Where the state of a generator lies: a problem's, but for the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RngState {
    InParams,
    Bound,
}

impl RngState {
    const fn of(dropout: Dropout) -> Self {
        match dropout.state {
            dropout::RngState::Fixed(_) => Self::InParams,
            dropout::RngState::Buffer => Self::Bound,
        }
    }
}

/// What a kernel appends, and how it rotates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Appended {
    pub(crate) rows: NewRows,
    pub(crate) rotary: Option<RotaryPairs>,
}

/// The new rows that a kernel moves. One kernel moves all of them if a device binds enough buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum NewRows {
    All,
    Keys,
    Queries,
}

/// Where a kernel reads the lengths of keys and the `ALiBi` slopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Tables {
    /// From the caller's buffers.
    Bound,
    /// From the sums of rows.
    InSums,
}

/// Where a kernel writes the results of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Results {
    /// To the output, over all keys.
    Whole,
    /// To scratch memory, over all keys or a part of them, for another kernel to merge.
    Partial,
}

/// How a thread moves elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    /// Four at a time. Every row of every operand must start at a multiple of four elements, and its length must be a
    /// multiple of four.
    Vec4,
    /// Four at a time, as 64-bit words: half as many loads, for a driver that loads the numbers of a vector one by one.
    Words,
    /// One at a time, at any alignment.
    Scalar,
}

/// Columns of the values, and so of the output, that one dispatch computes; wider heads are computed in several
/// dispatches.
pub(crate) const VALUE_COLUMNS: u32 = 256;

impl Choices {
    /// The choices of `problem` for a kernel whose head sizes are multiples of `dim_step`.
    pub(crate) fn of(problem: &Problem, access: Access, dim_step: u32) -> Self {
        let shape = problem.shape();
        Self {
            storage: Storage::of(problem),
            access,
            // Larger head sizes are refused elsewhere.
            dim_qk: shape.dim_qk.min(MAX_DIM).next_multiple_of(dim_step),
            dim_v: shape.dim_v.min(VALUE_COLUMNS).next_multiple_of(dim_step),
            softcap: problem.softcap().is_some(),
            mask: problem.mask_format(),
            block_mask: problem.block_mask().map(|tiles| [tiles.rows, tiles.keys]),
            bias: problem.dtype(Operand::Bias),
            kv_lengths: problem.uses(Operand::KvLengths),
            queries: Queries::of(problem),
            keys: Keys::of(problem),
            lse: problem.uses(Operand::Lse),
            alibi: problem.uses(Operand::AlibiSlopes),
            sinks: problem.uses(Operand::Sinks),
            programs: problem.programs().clone(),
            aux: problem.programs().has_any() && problem.uses(Operand::Aux),
            dropout: problem.dropout().map(RngState::of),
            tables: Tables::Bound,
            dlse: false,
            append: None,
            results: Results::Whole,
            sharing: problem.sharing(),
        }
    }

    /// The choices of a merge, which has no scores and works on heads of any size.
    pub(crate) fn of_merge(merge: &Merge, access: Access) -> Self {
        let of = |operand| merge.dtype(operand).unwrap_or_default();
        let pair = of(Operand::PairOut);
        Self {
            storage: Storage { q: pair, kv: Elements::Of(pair), out: of(Operand::Out) },
            access,
            dim_qk: 0,
            dim_v: 0,
            softcap: false,
            mask: None,
            block_mask: None,
            bias: None,
            kv_lengths: false,
            queries: Queries::All,
            keys: Keys::Dense,
            lse: merge.uses(Operand::Lse),
            alibi: false,
            sinks: false,
            programs: Programs::default(),
            aux: false,
            dropout: None,
            tables: Tables::Bound,
            dlse: false,
            append: None,
            results: Results::Whole,
            sharing: Sharing::Apart,
        }
    }

    /// Loop iterations that a block mask adds each time a block of `rows` rows looks up its tiles.
    pub(crate) fn block_mask_iterations(&self, rows: u32, counts: Counts) -> u32 {
        let Some([mask_rows, _]) = self.block_mask else { return 0 };
        if counts == Counts::GroupedRows {
            // Heads times rows of tiles: at most twice the rows, and per head the same extra iterations as below.
            return rows * 8 + 6;
        }
        // The rows of tiles, those at the ends of the block, and the iterations in which the loops end.
        rows / mask_rows + 6
    }

    /// These choices without those that concern the scores and the sequences, for kernels that only move elements.
    pub(crate) fn of_elements(&self) -> Self {
        let (softcap, mask, block_mask, bias, kv_lengths) = (false, None, None, None, false);
        let (alibi, sinks, programs, aux) = (false, false, Programs::default(), false);
        let (lse, dropout, results) = (false, None, Results::Whole);
        let (queries, keys) = (Queries::All, Keys::Dense);
        let scores = Self { softcap, mask, block_mask, bias, alibi, sinks, programs, aux, ..self.clone() };
        Self { kv_lengths, queries, keys, lse, dropout, results, ..scores }
    }
}

impl Access {
    /// Whether rows must start at a multiple of four elements and be a multiple of four long.
    pub(crate) const fn is_in_fours(self) -> bool {
        matches!(self, Self::Vec4 | Self::Words)
    }

    /// The features that a kernel with this access needs.
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
        write!(f, ".{}{access}.d{}", self.storage, self.dim_qk)?;
        if self.dim_v != 0 && self.dim_v != self.dim_qk {
            write!(f, "v{}", self.dim_v)?;
        }
        if let Some(bias) = self.bias {
            write!(f, ".bias-{bias}")?;
        }
        if let Some([rows, keys]) = self.block_mask {
            write!(f, ".tiles{rows}x{keys}")?;
        }
        if self.softcap {
            f.write_str(".softcap")?;
        }
        if let Some(mask) = self.mask {
            write!(f, ".{mask}")?;
        }
        match self.keys {
            Keys::Dense => Ok(()),
            Keys::Ragged => f.write_str(".ragged-kv"),
            Keys::Paged(size) => write!(f, ".page{size}"),
            Keys::Ring => f.write_str(".ring"),
        }?;
        if let Some(Appended { rows, rotary }) = self.append {
            f.write_str(match rows {
                NewRows::All => "",
                NewRows::Keys => ".keys",
                NewRows::Queries => ".queries",
            })?;
            f.write_str(match rotary {
                None => "",
                Some(RotaryPairs::Halves) => ".halves",
                Some(RotaryPairs::Neighbours) => ".neighbours",
            })?;
        }
        let flags = [
            (self.queries == Queries::Lengths, ".q-lengths"),
            (self.queries == Queries::Ragged, ".ragged-q"),
            (self.alibi, ".alibi"),
            (self.sinks, ".sinks"),
            (self.aux, ".aux"),
            (self.kv_lengths, ".lengths"),
            (self.dropout == Some(RngState::InParams), ".dropout"),
            (self.dropout == Some(RngState::Bound), ".dropout-rng"),
            (self.lse, ".lse"),
            (self.dlse, ".dlse"),
            (self.results == Results::Partial, ".part"),
            (self.sharing == Sharing::Shared, ".shared"),
        ];
        flags.iter().filter(|(on, _)| *on).try_for_each(|(_, name)| f.write_str(name))?;
        let Programs { score_mod, mask_mod, score_mod_grad } = &self.programs;
        for (name, text) in [("score", score_mod), ("mask", mask_mod), ("grad", score_mod_grad)] {
            if let Some(text) = text {
                write!(f, ".{name}-{:08x}", fingerprint(text))?;
            }
        }
        Ok(())
    }
}
