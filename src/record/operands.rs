//! The caller's buffers, and the checks wgpu would otherwise make less kindly.

use wgpu::{BufferBinding, BufferUsages};

use crate::problem::Problem;
use crate::problem::operand::Operand;
use crate::record::error::BindError;

/// A buffer for each operand the problem uses. `q`, `k` and `v` may be the same buffer.
///
/// The buffers must belong to the device that the plan was made for. wgpu tells objects apart by numbers that each
/// [`wgpu::Instance`] hands out for itself, so it reports the objects of another device of the same instance, but may take an
/// object of another instance for one of its own that has the same number.
#[derive(Clone, Debug, Default)]
pub struct Operands<'a> {
    given: [Option<BufferBinding<'a>>; Operand::ALL.len()],
}

impl<'a> Operands<'a> {
    /// The operands every problem has. A `&wgpu::Buffer` binds as `buffer.as_entire_buffer_binding()`.
    pub fn new(q: BufferBinding<'a>, k: BufferBinding<'a>, v: BufferBinding<'a>, out: BufferBinding<'a>) -> Self {
        Self::default().with(Operand::Q, q).with(Operand::K, k).with(Operand::V, v).with(Operand::Out, out)
    }

    /// Adds another, or replaces it.
    #[must_use]
    pub fn with(mut self, operand: Operand, binding: BufferBinding<'a>) -> Self {
        self.given[operand as usize] = Some(binding);
        self
    }

    /// What was given for an operand.
    pub fn get(&self, operand: Operand) -> Option<&BufferBinding<'a>> {
        self.given[operand as usize].as_ref()
    }

    pub(crate) fn check(&self, problem: &Problem, alignment: u64) -> Result<(), BindError> {
        for operand in Operand::ALL {
            match (problem.view(operand), self.get(operand)) {
                (None, None) => {}
                (None, Some(_)) => return Err(BindError::Unused { operand }),
                (Some(_), None) => return Err(BindError::Missing { operand }),
                (Some(view), Some(binding)) => check(operand, binding, view.size_bytes(), alignment)?,
            }
        }
        self.check_aliases(problem)
    }

    /// wgpu lets a dispatch write a buffer that it also binds elsewhere only if it writes there too, and leaves it to us
    /// that the two places are apart.
    fn check_aliases(&self, problem: &Problem) -> Result<(), BindError> {
        // An operand without elements is not bound.
        let bound = || problem.views().filter(|view| !view.is_empty());
        let used = || bound().filter_map(|view| Some((view, self.get(view.operand)?)));
        for (view, binding) in used().filter(|(view, _)| view.operand.is_output()) {
            for (other_view, other) in used().filter(|(other, _)| other.operand != view.operand) {
                // These sums fit, since each range was found to lie within its buffer.
                let apart = binding.offset + view.size_bytes() <= other.offset
                    || other.offset + other_view.size_bytes() <= binding.offset;
                if other.buffer == binding.buffer && !(other_view.operand.is_output() && apart) {
                    return Err(BindError::Aliased { output: view.operand, other: other_view.operand });
                }
            }
        }
        Ok(())
    }
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
