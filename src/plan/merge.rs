//! A merge compiled and sized for a device.

use std::sync::Arc;

use crate::device::caps::Caps;
use crate::kernel::error::PlanError;
use crate::kernel::params::Params;
use crate::kernel::record::Kernel;
use crate::kernel::select::merge_variant;
use crate::kernel::slots::{Slot, binding};
use crate::kernel::variant::Variant;
use crate::plan::cut::MOST_DISPATCHES;
use crate::plan::params::set_view;
use crate::plan::piece::{Piece, count, halve};
use crate::plan::slices::{Slice, slice};
use crate::plan::{Attention, Bound, Step};
use crate::problem::merge::{Merge, Stack};
use crate::problem::operand::Operand;
use crate::problem::shape::Shape;

/// A compiled and sized merge, which can be bound to buffers any number of times. Immutable; cheap to clone.
#[derive(Clone, Debug)]
pub struct MergePlan {
    pub(crate) attention: Attention,
    pub(crate) merge: Merge,
    pub(crate) step: Arc<Step>,
    pub(crate) operands: Arc<[Bound]>,
}

impl MergePlan {
    /// Waits until the device has compiled the kernel: see [`Plan::ready`](crate::Plan::ready).
    ///
    /// # Errors
    /// As for [`Plan::ready`](crate::Plan::ready).
    pub async fn ready(&self) -> Result<(), PlanError> {
        self.attention.ready(std::slice::from_ref(&*self.step)).await
    }

    /// The merge that was planned.
    pub const fn merge(&self) -> &Merge {
        &self.merge
    }

    /// The variant that merges.
    pub fn variant(&self) -> &Variant {
        &self.step.variant
    }

    /// How many dispatches a call records.
    pub fn dispatches(&self) -> usize {
        self.step.launches.len()
    }
}

impl Attention {
    /// Compiles the kernel that merges pairs of an output and its log-sum-exp, unless it is already compiled, and sizes
    /// its dispatches.
    ///
    /// # Errors
    /// [`PlanError`] if this device cannot run the merge. It names the limit, what is needed and what is granted.
    /// [`PlanError::Refused`] if the kernel does not compile, and [`PlanError::DeviceLost`].
    pub fn plan_merge(&self, merge: &Merge) -> Result<MergePlan, PlanError> {
        let variant = merge_variant(merge, &self.caps)?;
        let kernel = variant.kernel();
        let job = Job { merge, kernel: &kernel, caps: &self.caps };
        let sized = job.cut()?.into_iter().map(|piece| {
            let slices: Vec<Slice> = job.slices(&piece).collect();
            (job.params(&piece, &slices), slices, job.grid(&piece))
        });
        let step = self.launched(&variant, &kernel, sized)?;
        let bound = |slot: &Slot| Some(Bound { view: merge.stack(slot.operand()?)?.end(), usage: slot.usage });
        let operands = kernel.slots.iter().filter_map(bound).collect();
        Ok(MergePlan { attention: self.clone(), merge: merge.clone(), step: step.into(), operands })
    }
}

/// The kernel's work on a merge.
struct Job<'a> {
    merge: &'a Merge,
    kernel: &'a Kernel,
    caps: &'a Caps,
}

/// Why a piece cannot be one dispatch.
enum Obstacle {
    Binding(PlanError),
    Size,
}

impl Job<'_> {
    /// Cuts the merge into pieces, in order. The loop ends, because each step adds a piece or halves one.
    fn cut(&self) -> Result<Vec<Piece>, PlanError> {
        let Shape { batch, heads_q, len_q, dim_v, .. } = self.merge.shape();
        let whole = Piece { batch: 0..batch, heads: 0..heads_q, rows: 0..len_q, columns: 0..dim_v };
        let mut waiting = if whole.is_empty() { Vec::new() } else { vec![whole] };
        let mut pieces = Vec::new();
        while let Some(piece) = waiting.pop() {
            match (self.obstacle(&piece), halves(&piece)) {
                (None, _) | (Some(Obstacle::Size), None) => pieces.push(piece),
                (Some(_), Some([first, second])) => waiting.extend([second, first]),
                (Some(Obstacle::Binding(error)), None) => return Err(error),
            }
            if pieces.len() + waiting.len() > MOST_DISPATCHES {
                return Err(PlanError::TooManyDispatches { most: MOST_DISPATCHES });
            }
        }
        Ok(pieces)
    }

    fn obstacle(&self, piece: &Piece) -> Option<Obstacle> {
        // Shaders index elements with 32 bits.
        let granted = self.caps.binding_bytes.min(u64::from(u32::MAX));
        for (slot, slice) in self.kernel.slots.iter().zip(self.slices(piece)) {
            let (need, Some(operand)) = (slice.size_bytes, slot.operand()) else { continue };
            if need > granted {
                let pairs = self.merge.stack(operand).map_or(1, |stack| stack.pairs);
                return Some(Obstacle::Binding(match pairs {
                    1 => PlanError::TooLarge { operand, need, granted },
                    pairs => PlanError::StackTooLarge { operand, pairs, need, granted },
                }));
            }
        }
        let is_wide = self.grid(piece).into_iter().any(|n| n > self.caps.workgroups);
        (is_wide || self.flop(piece) > self.caps.dispatch_flop).then_some(Obstacle::Size)
    }

    /// The workgroups of a dispatch, along (vectors of rows, heads, batches).
    fn grid(&self, piece: &Piece) -> [u32; 3] {
        let vectors = u64::from(count(&piece.rows)) * u64::from(count(&piece.columns).div_ceil(4));
        let groups = vectors.div_ceil(self.kernel.block.rows.into());
        [u32::try_from(groups).unwrap_or(u32::MAX), count(&piece.heads), count(&piece.batch)]
    }

    /// A multiplication and an addition for each element of each pair.
    fn flop(&self, piece: &Piece) -> u64 {
        let axes = [&piece.batch, &piece.heads, &piece.rows, &piece.columns].map(|axis| u64::from(count(axis)));
        axes.into_iter().fold(2 * u64::from(self.merge.pairs()), u64::saturating_mul)
    }

    /// The slices of the kernel's buffers that `piece` binds, in the order of the kernel's slots.
    fn slices(&self, piece: &Piece) -> impl Iterator<Item = Slice> {
        let alignment = self.caps.binding_alignment.max(16);
        let Piece { batch, heads, rows, columns } = piece.clone();
        self.kernel.slots.iter().enumerate().filter_map(move |(n, slot)| {
            let stack = self.merge.stack(slot.operand()?)?;
            let columns = if has_columns(&stack) { columns.clone() } else { 0..1 };
            let axes = [batch.clone(), heads.clone(), rows.clone(), columns];
            Some(slice(slot.resource, binding(n), &stack.first, &axes, stack.further(), alignment))
        })
    }

    fn params(&self, piece: &Piece, slices: &[Slice]) -> Params {
        let stride = |operand| {
            let stride = self.merge.pair_stride(operand).unwrap_or(0);
            // One pair has no next one. Strides of several fit their binding.
            u32::try_from(stride).unwrap_or(0)
        };
        let mut params = Params {
            len_q: count(&piece.rows),
            dim_v: count(&piece.columns),
            parts: self.merge.pairs(),
            pair_out_stride: stride(Operand::PairOut),
            pair_lse_stride: stride(Operand::PairLse),
            negative_infinity: f32::NEG_INFINITY,
            nan: f32::NAN,
            ..Params::default()
        };
        for slice in slices {
            set_view(&mut params, slice);
        }
        params
    }
}

/// Whether it holds outputs rather than one log-sum-exp per row.
const fn has_columns(stack: &Stack) -> bool {
    matches!(stack.first.operand, Operand::PairOut | Operand::Out)
}

/// Halves a piece along the outermost axis that can be halved. Each piece of a row's columns writes its log-sum-exp again.
fn halves(piece: &Piece) -> Option<[Piece; 2]> {
    if let Some(halves) = halve(&piece.batch, 1) {
        return Some(halves.map(|batch| Piece { batch, ..piece.clone() }));
    }
    if let Some(halves) = halve(&piece.heads, 1) {
        return Some(halves.map(|heads| Piece { heads, ..piece.clone() }));
    }
    if let Some(halves) = halve(&piece.rows, 1) {
        return Some(halves.map(|rows| Piece { rows, ..piece.clone() }));
    }
    halve(&piece.columns, 4).map(|halves| halves.map(|columns| Piece { columns, ..piece.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(shape: Shape, pairs: u32, caps: &Caps) -> Result<Vec<Piece>, PlanError> {
        let merge = Merge::builder(shape, pairs).build().expect("valid");
        let kernel = merge_variant(&merge, caps).expect("runs everywhere").kernel();
        Job { merge: &merge, kernel: &kernel, caps }.cut()
    }

    #[test]
    fn each_limit_is_met_exactly() {
        let caps = Caps { dispatch_flop: u64::MAX, ..Caps::from_limits(&wgpu::Limits::default()) };
        let shape = Shape::new(5, 3, 7, 8);
        let count = |caps: &Caps| pieces(shape, 3, caps).expect("can be cut").len();
        let elements = 5 * 3 * 7 * 8;
        assert_eq!(count(&Caps { dispatch_flop: elements * 2 * 3, ..caps }), 1);
        assert_eq!(count(&Caps { dispatch_flop: elements * 2 * 3 - 1, ..caps }), 2);
        assert_eq!(count(&Caps { workgroups: 5, ..caps }), 1);
        assert_eq!(count(&Caps { workgroups: 4, ..caps }), 2);
        // Shaders index elements with 32 bits, whatever the device binds.
        let wide = Caps { binding_bytes: 1 << 40, ..caps };
        assert!(pieces(Shape::new(24, 1, 1 << 17, 256), 2, &wide).expect("can be cut").len() > 1);
        let hasty = Caps { dispatch_flop: 1, ..caps };
        let narrow = Caps { binding_alignment: 4, ..hasty };
        let merge = Merge::builder(Shape::new(1, 1, 7, 1), 3).build().expect("valid");
        let kernel = merge_variant(&merge, &narrow).expect("runs everywhere").kernel();
        let job = Job { merge: &merge, kernel: &kernel, caps: &narrow };
        let pieces_of_rows = job.cut().expect("can be cut");
        assert_eq!(pieces_of_rows.len(), 7);
        let mut slices = pieces_of_rows.iter().flat_map(|piece| job.slices(piece));
        assert!(slices.all(|slice| slice.offset_bytes % 16 == 0));
        let many = |batch| pieces(Shape::new(batch, 1, 1, 4), 3, &hasty).map(|pieces| pieces.len());
        assert_eq!(many(1 << 16), Ok(1 << 16));
        assert_eq!(many((1 << 16) + 1), Err(PlanError::TooManyDispatches { most: MOST_DISPATCHES }));
    }
}
