//! The capabilities of a device, which are all that selection and planning know of it.

pub(crate) mod caps;
pub(crate) mod loss;
pub(crate) mod matrix_unit;
pub(crate) mod refusal;
