//! A variant: a schedule with its choices, which does not depend on the problem's lengths.

use std::sync::Arc;

use crate::device::caps::Caps;
use crate::kernel::choices::{Access, Appended, Choices, Elements, Keys, NewRows, Results, RngState, Storage, Tables};
use crate::kernel::gradient_lanes::Pairs;
use crate::kernel::record::Kernel;
use crate::kernel::schedule::Schedule;
use crate::kernel::slots::Space;
use crate::kernel::{block_mask, gradient_lanes, stage, text};
use crate::problem::Problem;
use crate::problem::builder::Sharing;
use crate::problem::merge::Merge;
use crate::problem::operand::Operand;

/// The identity of one compiled kernel: everything that changes its text, and nothing else.
///
/// Its `Display` names the pipeline, the debug group, the test and the benchmark.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Shared, since every error and every map of pipelines keeps one.
    identity: Arc<Identity>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    schedule: Schedule,
    choices: Choices,
}

impl Variant {
    fn new(schedule: Schedule, choices: Choices) -> Self {
        Self { identity: Arc::new(Identity { schedule, choices }) }
    }

    /// The variant of a schedule for `problem` that moves elements by `access`.
    pub(super) fn of(schedule: Schedule, access: Access, problem: &Problem) -> Self {
        let choices = Choices::of(problem, access, schedule.dim_step());
        let keys = if schedule.reads_staged_keys() { choices.keys.without_places() } else { choices.keys };
        let choices = Choices { keys, ..choices };
        let results = schedule.results(access);
        if schedule == Schedule::Weights {
            // It writes no output.
            return Self::new(schedule, Choices { dim_v: 0, lse: false, ..choices });
        }
        // With partial results, the merge writes the log-sum-exp, with the sinks.
        let is_whole = results == Results::Whole;
        let (lse, sinks) = (choices.lse && is_whole, choices.sinks && is_whole);
        Self::new(schedule, Choices { results, lse, sinks, ..choices })
    }

    /// The variant that computes the block mask of a problem, if the problem has one.
    pub(crate) fn of_block_mask(problem: &Problem) -> Option<Self> {
        let all = Choices::of(problem, Access::Vec4, Schedule::BlockMask.dim_step());
        problem.block_mask().map(|_| Self::new(Schedule::BlockMask, block_mask::choices(&all)))
    }

    /// The variant that merges pairs.
    pub(crate) fn of_merge(merge: &Merge) -> Self {
        let moved = [Operand::PairOut, Operand::Out].into_iter().filter_map(|operand| merge.stack(operand));
        let access = if moved.into_iter().all(|stack| stack.is_in_fours()) { Access::Vec4 } else { Access::Scalar };
        Self::new(Schedule::Combine, Choices::of_merge(merge, access))
    }

    /// The variant that appends some of the new rows of a problem by `access`, if the problem appends.
    pub(super) fn of_append(problem: &Problem, rows: NewRows, access: Access) -> Option<Self> {
        let all = Choices::of(problem, access, Schedule::Append.dim_step());
        let append = Some(Appended { rows, rotary: problem.appends()?.rotary.map(|rotary| rotary.pairs) });
        let Choices { kv_lengths, queries, .. } = all;
        let keys = if rows == NewRows::Queries { all.keys.without_places() } else { all.keys };
        // All columns of the values, which are not cut.
        let dim_v = problem.shape().dim_v.next_multiple_of(Schedule::Append.dim_step());
        let storage = Storage { out: all.storage.q, ..all.storage };
        let moved = Choices { storage, dim_v, append, ..all.of_elements() };
        Some(Self::new(Schedule::Append, Choices { kv_lengths, queries, keys, ..moved }))
    }

    /// The variant that computes a gradient of a problem by `access`, or what all gradients need of each row.
    pub(super) fn of_gradient(schedule: Schedule, problem: &Problem, access: Access) -> Self {
        let all = Choices::of(problem, access, schedule.dim_step());
        // A gradient of the weights is a product with all columns of a value.
        let dim_v = problem.shape().dim_v.next_multiple_of(schedule.dim_step());
        if let Schedule::StagePairs(pairs) = schedule {
            let moved = Choices { dim_v, ..all.of_elements() };
            return Self::new(
                schedule,
                match pairs {
                    Pairs::Keys => {
                        Choices { storage: all.storage.of_keys(), keys: all.keys, kv_lengths: all.kv_lengths, ..moved }
                    }
                    Pairs::Rows => {
                        Choices { storage: Storage { kv: Elements::Of(all.storage.q), ..all.storage }, ..moved }
                    }
                },
            );
        }
        if matches!(schedule, Schedule::Gradient(_) | Schedule::GradientLanes { .. }) {
            return Self::new(schedule, Choices { dim_v, lse: false, sinks: false, tables: Tables::InSums, ..all });
        }
        let storage = Storage::uniform(all.storage.out);
        let of_rows = Choices { storage, dim_qk: 0, dim_v: 0, queries: all.queries, ..all.of_elements() };
        if schedule != Schedule::RowSums {
            return Self::new(schedule, of_rows);
        }
        let (dlse, kv_lengths, alibi) = (problem.uses(Operand::Dlse), all.kv_lengths, all.alibi);
        Self::new(schedule, Choices { dlse, kv_lengths, alibi, ..of_rows })
    }

    /// The kernel itself.
    pub(crate) fn kernel(&self) -> Kernel {
        let kernel = self.schedule().kernel(self.choices());
        match self.choices().sharing {
            Sharing::Apart => kernel,
            Sharing::Shared => kernel.with_shared_buffers(),
        }
    }

    /// The operands its kernel binds.
    pub fn operands(&self) -> impl Iterator<Item = Operand> + use<> {
        self.kernel().operands().collect::<Vec<_>>().into_iter()
    }

    /// The complete WGSL that it compiles.
    pub fn wgsl(&self) -> String {
        text::text(&self.to_string(), &self.kernel())
    }

    /// Bytes of workgroup memory that its kernel declares.
    pub fn workgroup_bytes(&self) -> u32 {
        self.kernel().needs.workgroup_bytes
    }

    /// Threads per workgroup.
    pub fn invocations(&self) -> u32 {
        self.kernel().block.threads
    }

    /// Whether it multiplies on a matrix unit.
    pub fn is_on_matrix_unit(&self) -> bool {
        self.schedule().is_on_matrix_unit()
    }

    pub(crate) fn choices(&self) -> &Choices {
        &self.identity.choices
    }

    pub(super) fn schedule(&self) -> Schedule {
        self.identity.schedule
    }

    pub(crate) fn schedule_name(&self) -> &'static str {
        self.schedule().name()
    }

    pub(crate) fn schedule_kind(&self) -> String {
        self.schedule().kind()
    }

    /// This variant, but with its results left for a merge.
    pub(crate) fn in_parts(&self) -> Self {
        // The merge writes the log-sum-exp, with the sinks.
        let choices = Choices { results: Results::Partial, lse: false, sinks: false, ..self.choices().clone() };
        Self::new(self.schedule(), choices)
    }

    /// The kernel that stages what this one reads, if any.
    pub(crate) fn prepared_by(&self, problem: &Problem) -> Option<Self> {
        let storage = self.choices().storage.of_keys();
        let (kv_lengths, keys) = (self.choices().kv_lengths, Keys::of(problem));
        let stage = Self::new(Schedule::Stage, Choices { storage, kv_lengths, keys, ..self.choices().of_elements() });
        self.kernel().binds(Space::StagedK).then(|| stage.with_access_of(problem))
    }

    /// The kernel that merges what this one leaves, if any.
    pub(crate) fn merged_by(&self, problem: &Problem) -> Option<Self> {
        // The merge reads no elements, so it does not need 64-bit words.
        let access = if self.choices().access == Access::Words { Access::Vec4 } else { self.choices().access };
        let (lse, sinks) = (problem.uses(Operand::Lse), problem.uses(Operand::Sinks));
        let storage = Storage::uniform(self.choices().storage.out);
        let &Choices { kv_lengths, queries, keys, dropout, .. } = self.choices();
        let choices = Choices { storage, access, dim_qk: 0, lse, sinks, ..self.choices().of_elements() };
        // It draws no numbers.
        let dropout = dropout.map(|_| RngState::InParams);
        let choices = Choices { kv_lengths, queries, keys: keys.without_places(), dropout, ..choices };
        let merge = Self::new(Schedule::Merge, choices);
        (self.choices().results == Results::Partial).then(|| merge.with_access_of(problem))
    }

    /// Widths and heights of the textures that it reads staged keys and values from.
    pub(crate) fn staged_texels(&self, problem: &Problem) -> Option<[[u32; 2]; 2]> {
        self.kernel().binds(Space::StagedK).then(|| stage::sizes(self.choices(), problem))
    }

    /// Widths and heights of the textures of keys with values, and of queries with the gradients of their outputs, that it
    /// reads or fills for gradients. They are larger than those of attention.
    pub(crate) fn staged_pairs(&self, problem: &Problem) -> [Option<[[u32; 2]; 2]>; 2] {
        let streams = match self.schedule() {
            Schedule::GradientLanes { own, .. } => Some(own.streams()),
            Schedule::StagePairs(pairs) => Some(pairs),
            _ => None,
        };
        [Pairs::Keys, Pairs::Rows]
            .map(|pairs| (streams == Some(pairs)).then(|| gradient_lanes::sizes(self.choices(), problem, pairs)))
    }

    /// Whether it moves elements like another variant.
    pub(crate) fn moves_elements_like(&self, other: &Self) -> bool {
        self.choices().access == other.choices().access
    }

    /// This variant, or the same with single elements if the operands do not have the multiples of four that it needs.
    fn with_access_of(self, problem: &Problem) -> Self {
        if self.suits(&self.kernel(), problem) {
            return self;
        }
        Self::new(self.schedule(), Choices { access: Access::Scalar, ..self.choices().clone() })
    }

    /// Whether the operands that this variant's `kernel` moves have offsets, strides and rows in multiples of four
    /// elements, if the variant needs that.
    pub(super) fn suits(&self, kernel: &Kernel, problem: &Problem) -> bool {
        let in_fours = |operand| {
            let is_in_words = matches!(operand, Operand::K | Operand::V) && problem.quantization().is_some();
            is_in_words || problem.view(operand).is_none_or(|view| view.is_in_fours())
        };
        let are_elements = |operand: &Operand| {
            use Operand::{Dk, Dout, Dq, Dv, K, NewK, NewQ, NewV, Out, Q, V, Weights};
            matches!(operand, Q | K | V | NewQ | NewK | NewV | Out | Weights | Dout | Dq | Dk | Dv)
        };
        !self.choices().access.is_in_fours() || kernel.operands().filter(are_elements).all(in_fours)
    }

    /// Whether the textures that its `kernel` reads can hold all keys and values on the device.
    pub(super) fn has_room(&self, kernel: &Kernel, problem: &Problem, caps: &Caps) -> bool {
        !kernel.binds(Space::StagedK) || stage::fits(self.choices(), problem, caps)
    }
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.schedule(), self.choices())
    }
}
