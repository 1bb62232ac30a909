//! Host data for those without buffers of their own, and for the reference.

use crate::{BindError, Operand, Problem};

/// The inputs of a problem as host slices, each laid out as the problem says. Values are given in f32 and stored as the
/// problem's types.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inputs<'a> {
    /// Queries.
    pub q: &'a [f32],
    /// Keys.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
    /// Boolean mask, `true` = attend.
    pub mask: Option<&'a [bool]>,
    /// Additive bias.
    pub bias: Option<&'a [f32]>,
    /// Valid keys per batch.
    pub kv_lengths: Option<&'a [u32]>,
}

impl Inputs<'_> {
    /// Whether every operand the problem uses is here and long enough, and no other.
    ///
    /// # Errors
    /// [`BindError`] names the operand.
    pub fn check(&self, problem: &Problem) -> Result<(), BindError> {
        let given = [
            (Operand::Q, Some(self.q.len())),
            (Operand::K, Some(self.k.len())),
            (Operand::V, Some(self.v.len())),
            (Operand::Mask, self.mask.map(<[_]>::len)),
            (Operand::Bias, self.bias.map(<[_]>::len)),
            (Operand::KvLengths, self.kv_lengths.map(<[_]>::len)),
        ];
        for (operand, got) in given {
            match (problem.view(operand), got) {
                (None, None) => {}
                (None, Some(_)) => return Err(BindError::Unused { operand }),
                (Some(_), None) => return Err(BindError::Missing { operand }),
                (Some(view), Some(got)) if view.end() > got as u64 => {
                    return Err(BindError::TooShort { operand, need: view.end(), got: got as u64 });
                }
                (Some(_), Some(_)) => {}
            }
        }
        Ok(())
    }
}
