//! The caller's buffers, and the checks wgpu would otherwise make less kindly.

use wgpu::{BufferBinding, BufferUsages};

use crate::{BindError, Operand, Problem};

/// A buffer for each operand the problem uses. `q`, `k` and `v` may be the same buffer.
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
        let used = || Operand::ALL.into_iter().filter_map(|operand| Some((operand, self.get(operand)?.buffer)));
        for (output, buffer) in used().filter(|(operand, _)| operand.is_output()) {
            if let Some((other, _)) = used().find(|&(other, shared)| other != output && shared == buffer) {
                return Err(BindError::Aliased { output, other });
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
