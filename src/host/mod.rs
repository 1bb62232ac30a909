//! The host-side interface: slices instead of buffers, functions that block, and the reference.

#[cfg(not(target_arch = "wasm32"))]
pub mod blocking;
pub(crate) mod inputs;
pub mod reference;
#[cfg(not(target_arch = "wasm32"))]
mod run;
#[cfg(not(target_arch = "wasm32"))]
mod tune;
#[cfg(not(target_arch = "wasm32"))]
mod probe;
