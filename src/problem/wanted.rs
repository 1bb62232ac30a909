//! What is wanted of the gradients of a problem.

use crate::problem::layout::Layout;
use crate::problem::operand::Operand;

/// What is wanted of the gradients of a problem.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    /// The gradients to compute, without repetitions.
    pub(super) of: Vec<Operand>,
    /// Whether a gradient of the log-sum-exp comes in.
    pub(super) dlse: bool,
    /// Layouts, contiguous unless given.
    pub(super) dout: Option<Layout>,
    pub(super) dq: Option<Layout>,
    pub(super) dk: Option<Layout>,
    pub(super) dv: Option<Layout>,
}

impl Wanted {
    /// Whether the gradients read or write an operand that attention does not have.
    pub(super) fn uses(&self, operand: Operand) -> bool {
        match operand {
            Operand::Dout => true,
            Operand::Dlse => self.dlse,
            _ => self.of.contains(&operand),
        }
    }
}
