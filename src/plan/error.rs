//! Errors in planning a problem with other lengths.

use crate::kernel::error::PlanError;
use crate::problem::error::ProblemError;

/// A plan cannot have the lengths that were asked. Returned by [`crate::Plan::resized`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ResizeError {
    /// With these lengths, the problem is not valid.
    #[error(transparent)]
    Problem(#[from] ProblemError),
    /// The device cannot run the problem with these lengths.
    #[error(transparent)]
    Plan(#[from] PlanError),
}
