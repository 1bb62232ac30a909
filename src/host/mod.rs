//! The host-side interface: slices instead of buffers, functions that submit or block, and the reference.

pub(crate) mod inputs;
pub(crate) mod reference;
pub(crate) mod reference_gradients;
mod reference_places;
mod run;
mod stopwatch;
mod tune;
mod probe;
pub mod submitting;
#[cfg(not(target_arch = "wasm32"))]
pub mod blocking;
