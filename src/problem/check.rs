//! Checks a description of a problem.

use crate::problem::Problem;
use crate::problem::append::{Append, Rotary};
use crate::problem::block_mask::BlockMask;
use crate::problem::builder::ProblemBuilder;
use crate::problem::error::ProblemError;
use crate::problem::layout::{ScoreLayout, View};
use crate::problem::number::Number;
use crate::problem::operand::Operand;
use crate::problem::positions::{Diagonal, LONGEST};
use crate::problem::program::mentions;
use crate::problem::sequences::{Keys, Pages, Queries};
use crate::problem::shape::Shape;

/// The kernels compute log₂ e times the scale, which overflows f32 for a larger scale.
const LARGEST_SCALE: f32 = f32::MAX / std::f32::consts::LOG2_E;

/// The keys per tile of a block mask are a multiple of this, so that a tile is a whole number of iterations of every
/// schedule's loop over the keys.
const MASK_KEYS: u32 = 32;
/// The most queries or keys per tile of a block mask. 32 bits can then count its pairs in groups of four.
const LARGEST_TILE: u32 = 1 << 16;

/// A score divided by a larger cap could be too small for f32, and such a cap would have no effect.
const LARGEST_CAP: f32 = 1e30;

impl ProblemBuilder {
    /// Checks the description.
    ///
    /// # Errors
    /// [`ProblemError`] names the field, its value and the bound.
    pub fn build(&self) -> Result<Problem, ProblemError> {
        self.check_shape()?;
        self.check_numbers()?;
        for (operand, layout) in
            [(Operand::Mask, self.mask.map(|(_, layout)| layout)), (Operand::Bias, self.bias.map(|(_, layout)| layout))]
        {
            self.check_broadcast(operand, layout)?;
        }
        self.check_diagonal()?;
        self.programs.check(self.aux.is_some())?;
        self.check_block_mask()?;
        self.check_sequences()?;
        self.check_append()?;
        self.weights_of.as_ref().map_or(Ok(()), |chosen| chosen.check(self.shape))?;
        let problem = Problem { spec: self.clone() };
        for view in problem.views() {
            let View { operand, stride, extent, .. } = view;
            if view.reaches_before_buffer() {
                return Err(ProblemError::BeforeFirst { operand });
            }
            if view.checked_end().is_none() {
                return Err(ProblemError::Unaddressable { operand });
            }
            let is_written = match operand {
                Operand::K | Operand::V => self.append.is_some(),
                Operand::Q => problem.rotary().is_some(),
                _ => operand.is_output(),
            };
            if is_written && !view.is_injective() {
                return Err(ProblemError::Overlapping { operand, stride, extent });
            }
        }
        problem.check_dbias()?;
        Ok(problem)
    }

    fn check_shape(&self) -> Result<(), ProblemError> {
        let Shape { heads_q, heads_kv, len_q, len_kv, dim_qk, dim_v, .. } = self.shape;
        for (axis, value) in [("heads_q", heads_q), ("heads_kv", heads_kv), ("dim_qk", dim_qk), ("dim_v", dim_v)] {
            if value == 0 {
                return Err(ProblemError::Empty { axis });
            }
        }
        for (axis, value) in [("len_q", len_q), ("len_kv", len_kv)] {
            if value > LONGEST {
                return Err(ProblemError::TooLong { axis, value, most: LONGEST });
            }
        }
        if heads_q % heads_kv != 0 {
            return Err(ProblemError::HeadsNotGrouped { heads_q, heads_kv });
        }
        Ok(())
    }

    /// A diagonal that only bounds the visible keys may have any offset. If ALiBi or a program computes with it, it
    /// must fit the shaders' integers.
    fn check_diagonal(&self) -> Result<(), ProblemError> {
        let Diagonal::Offset(offset) = self.diagonal else { return Ok(()) };
        let is_number = self.alibi.is_some() || self.programs.has_any();
        if is_number && offset.unsigned_abs() > LONGEST {
            let (axis, value) = ("diagonal", offset.unsigned_abs());
            return Err(ProblemError::TooLong { axis, value, most: LONGEST });
        }
        Ok(())
    }

    /// Batches or heads that share tiles must have the same masks.
    fn check_block_mask(&self) -> Result<(), ProblemError> {
        let Some(BlockMask { rows, keys, per_batch, per_head }) = self.block_mask else { return Ok(()) };
        let in_range = |size: u32| (1..=LARGEST_TILE).contains(&size);
        if !in_range(rows) || !in_range(keys) || !keys.is_multiple_of(MASK_KEYS) {
            return Err(ProblemError::BlockSize { rows, keys, step: MASK_KEYS, most: LARGEST_TILE });
        }
        let Shape { batch, heads_q, .. } = self.shape;
        let axes = [
            (0, per_batch, batch, "per_batch", &["batch"][..]),
            (1, per_head, heads_q, "per_head", &["head", "kv_head"]),
        ];
        for (axis, has_own, count, remedy, members) in axes {
            if has_own || count <= 1 {
                continue;
            }
            if self.mask.is_some_and(|(_, mask)| mask.stride[axis] != 0) {
                return Err(ProblemError::BlockMaskShared { what: "the mask", member: members[0], remedy });
            }
            let mask_mod = self.programs.mask_mod.as_deref().unwrap_or_default();
            // With lengths, the diagonal may differ by batch, since it may be measured from the valid keys.
            let has_lengths = self.kv_lengths || self.queries == Queries::Lengths || self.keys != Keys::Dense;
            if axis == 0 && has_lengths && mentions(mask_mod, "diagonal") {
                return Err(ProblemError::BlockMaskShared { what: "the `mask_mod`", member: "batch", remedy });
            }
            if let Some(member) = members.iter().find(|member| mentions(mask_mod, member)) {
                return Err(ProblemError::BlockMaskShared { what: "the `mask_mod`", member, remedy });
            }
        }
        Ok(())
    }

    /// Lengths, totals and pages are in range, and what counts rows or keys through all sequences is not combined with
    /// what needs a tensor of all pairs.
    fn check_sequences(&self) -> Result<(), ProblemError> {
        if let Queries::Ragged { total } = self.queries {
            // Shaders count the rows of a group's heads, and one more block per sequence, with 32 bits.
            let most = ((u32::MAX - self.shape.batch) / self.shape.group()).min(LONGEST);
            if total > most {
                return Err(ProblemError::TooLong { axis: "the total of the ragged queries", value: total, most });
            }
            for (is_asked, what) in [(self.weights, "weights"), (self.block_mask.is_some(), "block_mask")] {
                if is_asked {
                    let remedy = "lay the queries out as (B, Hq, Lq, D), with `q_lengths`";
                    return Err(ProblemError::Combined { one: what, other: "ragged_q", remedy });
                }
            }
        }
        match self.keys {
            Keys::Dense => Ok(()),
            Keys::Ragged { total } if total > LONGEST => {
                Err(ProblemError::TooLong { axis: "the total of the ragged keys", value: total, most: LONGEST })
            }
            Keys::Ragged { .. } if self.kv_lengths => {
                let remedy = "leave out `kv_lengths`: `cu_seqlens_k` says how many keys each sequence has";
                Err(ProblemError::Combined { one: "kv_lengths", other: "ragged_kv", remedy })
            }
            Keys::Paged(Pages { size: 0, .. }) => Err(ProblemError::Empty { axis: "size of the pages" }),
            Keys::Ring { capacity: 0 } => Err(ProblemError::Empty { axis: "capacity of the ring" }),
            Keys::Ring { capacity } if capacity > LONGEST => {
                Err(ProblemError::TooLong { axis: "capacity of the ring", value: capacity, most: LONGEST })
            }
            Keys::Ring { .. } if self.weights || self.block_mask.is_some() => {
                let one = if self.weights { "weights" } else { "block_mask" };
                let remedy = "compute them from a cache that keeps every key";
                Err(ProblemError::Combined { one, other: "ring_kv", remedy })
            }
            Keys::Ragged { .. } | Keys::Paged(_) | Keys::Ring { .. } => Ok(()),
        }
    }

    /// New rows fit the cache, and a rotary embedding its head size and its table.
    fn check_append(&self) -> Result<(), ProblemError> {
        let Some(Append { rotary, .. }) = self.append else { return Ok(()) };
        let Shape { len_q, len_kv, dim_qk, .. } = self.shape;
        if len_q > len_kv {
            return Err(ProblemError::CacheTooShort { len_q, len_kv });
        }
        let Some(Rotary { dims, pairs, positions }) = rotary else { return Ok(()) };
        let step = pairs.step();
        if dims == 0 || dims > dim_qk || !dims.is_multiple_of(step) {
            return Err(ProblemError::RotaryDims { dims, step, dim_qk });
        }
        if positions < len_kv {
            return Err(ProblemError::RotaryPositions { positions, len_kv });
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), ProblemError> {
        if let Some(scale) =
            self.scale.map(|Number(scale)| scale).filter(|scale| scale.is_nan() || scale.abs() > LARGEST_SCALE)
        {
            return Err(ProblemError::Scale(scale));
        }
        if let Some(cap) = self.softcap.map(|Number(cap)| cap).filter(|&cap| !(cap > 0.0 && cap <= LARGEST_CAP)) {
            return Err(ProblemError::Softcap(cap));
        }
        if let Some(dropout) = self.dropout.filter(|dropout| !dropout.is_valid()) {
            return Err(ProblemError::Dropout(dropout.p()));
        }
        Ok(())
    }

    fn check_broadcast(&self, operand: Operand, layout: Option<ScoreLayout>) -> Result<(), ProblemError> {
        let Some(dims) = layout.and_then(|layout| layout.dims) else { return Ok(()) };
        let axes = ["batch", "heads_q", "len_q", "len_kv"];
        for ((axis, got), want) in axes.into_iter().zip(dims).zip(self.shape.scores()) {
            if got != 1 && got != want {
                return Err(ProblemError::NotBroadcastable { operand, axis, got, want });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::dropout::RngState;
    use crate::problem::layout::Layout;

    #[test]
    fn errors_name_the_field_the_value_and_the_bound() {
        let shape = Shape::new(2, 4, 8, 16);
        let text = |builder: ProblemBuilder| builder.build().expect_err("must be refused").to_string();
        let cases = [
            (Problem::builder(Shape { heads_q: 0, ..shape }), "`heads_q` is 0"),
            (Problem::builder(Shape { dim_v: 0, ..shape }), "`dim_v` is 0"),
            (Problem::builder(shape.kv_len(LONGEST + 1)), "`len_kv` is 536870913, and at most 536870912"),
            (Problem::builder(shape.kv_heads(3)), "heads_q = 4 is not a multiple of heads_kv = 3"),
            (Problem::builder(shape).scale(f32::NAN), "scale = NaN must be at most"),
            (Problem::builder(shape).scale(f32::NEG_INFINITY), "scale = -inf must be at most"),
            (Problem::builder(shape).scale(2.5e38), "2.3e38"),
            (Problem::builder(shape).softcap(0.0), "softcap = 0 must be positive"),
            (Problem::builder(shape).softcap(f32::NAN), "softcap = NaN must be positive"),
            (Problem::builder(shape).dropout(1.0, RngState::Buffer), "probability of dropout, 1, must be"),
            (Problem::builder(shape).dropout(f32::NAN, RngState::Buffer), "probability of dropout, NaN, must be"),
            (
                Problem::builder(shape).mask(ScoreLayout::broadcast([2, 1, 1, 7])),
                "`mask` has 7 along `len_kv`, but the scores have 8",
            ),
            (
                Problem::builder(shape).q(Layout { batch: u64::MAX, ..Layout::bhld(4, 8, 16) }),
                "the strides of `q` reach past 2^64",
            ),
            (
                Problem::builder(shape).mask(ScoreLayout::strided([0; 4]).at(u64::MAX - 1)),
                "the strides of `mask` reach past 2^64",
            ),
            (
                Problem::builder(shape).out(Layout { row: 15, ..Layout::bhld(4, 8, 16) }),
                "the layout of `out` lets elements overlap",
            ),
        ];
        for (builder, wanted) in cases {
            let got = text(builder);
            assert!(got.contains(wanted), "{got:?} should contain {wanted:?}");
        }
    }
}
