//! The caller's buffers, and checks whose errors are clearer than those of wgpu.

use std::ops::Range;

use wgpu::{BufferAddress, BufferBinding, BufferSize, BufferUsages};

use crate::device::loss::is_lost;
use crate::kernel::slots::Usage;
use crate::plan::{Attention, Bound};
use crate::problem::layout::View;
use crate::problem::operand::Operand;
use crate::record::error::BindError;

/// A buffer for each operand the problem uses. `q`, `k` and `v` may be the same buffer.
///
/// The buffers must belong to the device that the plan was made for. wgpu identifies objects by numbers that each
/// [`wgpu::Instance`] assigns separately. It therefore reports an object of another device of the same instance, but
/// may mistake an object of another instance for the one that has the same number.
#[derive(Clone, Debug, Default)]
pub struct Operands<'a> {
    given: [Option<BufferBinding<'a>>; Operand::ALL.len()],
}

impl<'a> Operands<'a> {
    /// The operands every problem has. A `&wgpu::Buffer` binds as `buffer.as_entire_buffer_binding()`.
    pub fn new(q: BufferBinding<'a>, k: BufferBinding<'a>, v: BufferBinding<'a>, out: BufferBinding<'a>) -> Self {
        Self::default().with(Operand::Q, q).with(Operand::K, k).with(Operand::V, v).with(Operand::Out, out)
    }

    /// The operands every [`Merge`](crate::Merge) has: the stacked outputs and log-sum-exps, and the merged output.
    pub fn of_pairs(pair_out: BufferBinding<'a>, pair_lse: BufferBinding<'a>, out: BufferBinding<'a>) -> Self {
        let pairs = Self::default().with(Operand::PairOut, pair_out).with(Operand::PairLse, pair_lse);
        pairs.with(Operand::Out, out)
    }

    /// Adds the binding of an operand, or replaces it.
    #[must_use]
    pub fn with(mut self, operand: Operand, binding: BufferBinding<'a>) -> Self {
        self.given[operand as usize] = Some(binding);
        self
    }

    /// The binding that was given for an operand.
    pub fn get(&self, operand: Operand) -> Option<&BufferBinding<'a>> {
        self.given[operand as usize].as_ref()
    }

    /// The same bindings, which keep their buffers.
    pub(crate) fn owned(&self) -> OwnedOperands {
        let given = self
            .given
            .each_ref()
            .map(|given| given.as_ref().map(|&BufferBinding { buffer, offset, size }| (buffer.clone(), offset, size)));
        OwnedOperands { given }
    }

    /// Checks the given bindings for a plan whose calls bind `wanted`, of what its problem `uses`, on a device that binds
    /// at multiples of `alignment`.
    pub(crate) fn check(
        &self,
        uses: impl Fn(Operand) -> bool,
        wanted: &[Bound],
        attention: &Attention,
    ) -> Result<(), BindError> {
        if let Some(bound) = wanted.first().filter(|_| is_lost(attention.device())) {
            return Err(BindError::DeviceLost { operand: bound.view.operand });
        }
        let alignment = attention.caps().binding_alignment;
        for operand in Operand::ALL {
            let bound = wanted.iter().find(|bound| bound.view.operand == operand);
            match (bound, self.get(operand)) {
                (None, None) => {}
                // The problem uses this operand, but the plan computes a result that does not need it.
                (None, Some(_)) if uses(operand) => {}
                (None, Some(_)) => return Err(BindError::Unused { operand }),
                (Some(_), None) => return Err(BindError::Missing { operand }),
                (Some(bound), Some(binding)) => check(operand, binding, bound.view.size_bytes(), alignment)?,
            }
        }
        self.check_aliases(wanted)
    }

    /// Checks that outputs do not overlap other operands. wgpu allows a dispatch to bind a buffer that it may write a
    /// second time only if it may also write it there, and does not check that the two ranges are disjoint.
    fn check_aliases(&self, wanted: &[Bound]) -> Result<(), BindError> {
        // An operand without elements is not bound.
        let bound = || wanted.iter().filter(|bound| !bound.view.is_empty());
        let used = || bound().filter_map(|bound| Some((bound, self.get(bound.view.operand)?)));
        let by_usage = |usage| used().filter(move |(bound, _)| bound.usage == usage);
        for (writable, binding) in by_usage(Usage::Write).chain(by_usage(Usage::ReadShared)) {
            for (other, range) in used().filter(|(other, _)| other.view.operand != writable.view.operand) {
                let (one, another) = (bytes(&writable.view, binding), bytes(&other.view, range));
                let apart = one.end <= another.start || another.end <= one.start;
                // An input may overlap inputs. That it overlaps an output is found where the output is the writable one.
                let allowed = other.usage != Usage::Read && (writable.usage == Usage::ReadShared || apart);
                if range.buffer == binding.buffer && !allowed {
                    return Err(BindError::Aliased { output: writable.view.operand, other: other.view.operand });
                }
            }
        }
        Ok(())
    }
}

/// Later bindings of an operand replace earlier ones.
impl<'a> Extend<(Operand, BufferBinding<'a>)> for Operands<'a> {
    fn extend<T: IntoIterator<Item = (Operand, BufferBinding<'a>)>>(&mut self, bindings: T) {
        for (operand, binding) in bindings {
            self.given[operand as usize] = Some(binding);
        }
    }
}

/// Operands from a list, such as a buffer for each of [`Problem::views`](crate::Problem::views).
impl<'a> FromIterator<(Operand, BufferBinding<'a>)> for Operands<'a> {
    fn from_iter<T: IntoIterator<Item = (Operand, BufferBinding<'a>)>>(bindings: T) -> Self {
        let mut operands = Self::default();
        operands.extend(bindings);
        operands
    }
}

/// [`Operands`] that keep their buffers.
#[derive(Clone, Debug)]
pub(crate) struct OwnedOperands {
    given: [Option<(wgpu::Buffer, BufferAddress, Option<BufferSize>)>; Operand::ALL.len()],
}

impl OwnedOperands {
    pub(crate) fn borrowed(&self) -> Operands<'_> {
        let given = self
            .given
            .each_ref()
            .map(|given| given.as_ref().map(|&(ref buffer, offset, size)| BufferBinding { buffer, offset, size }));
        Operands { given }
    }
}

/// The bytes of a buffer from the first element of an operand to the end of the word that holds its last. The binding may
/// begin before them, because a device binds only at certain multiples.
fn bytes(view: &View, binding: &BufferBinding<'_>) -> Range<u64> {
    // The view of `aux` is that of its last element.
    let first = if view.operand == Operand::Aux { 0 } else { view.first() };
    // These sums do not overflow, since each range was found to lie within its buffer.
    binding.offset + first * view.element_bytes..binding.offset + view.size_bytes()
}

fn check(operand: Operand, binding: &BufferBinding<'_>, need: u64, alignment: u64) -> Result<(), BindError> {
    let &BufferBinding { buffer, offset, size } = binding;
    let missing = BufferUsages::STORAGE - buffer.usage();
    if !missing.is_empty() {
        return Err(BindError::Usage { operand, missing });
    }
    if !offset.is_multiple_of(alignment) {
        return Err(BindError::Misaligned { operand, offset, alignment });
    }
    let rest = buffer.size().saturating_sub(offset);
    let got = size.map_or(rest, |size| size.get().min(rest));
    if need > got {
        return Err(BindError::TooSmall { operand, need, got });
    }
    Ok(())
}
