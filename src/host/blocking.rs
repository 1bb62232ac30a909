//! The functions that block and submit, for scripts, tests and programs without their own encoder. Everything else in
//! the crate records and returns. Not on wasm32: a browser's main thread may not block.

pub use crate::host::probe::{NoMatrixUnit, matrix_unit, try_matrix_unit};
pub use crate::host::run::{Outputs, RunError, attention, attention_with, block_mask};
pub use crate::host::tune::{Tuning, tune};
