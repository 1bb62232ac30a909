//! A plan bound to buffers and recorded into the caller's commands.

mod bind;
pub(crate) mod call;
pub(crate) mod error;
pub(crate) mod operands;
pub(crate) mod readback;
