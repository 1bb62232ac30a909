//! The asynchronous functions that **submit**, for browsers, frame loops and async programs without their own encoder.
//! `blocking` has the same functions for programs that can wait; a browser lacks it.
//!
//! They never block or poll. They upload, compile and submit when the future is polled, and await the results. In a
//! browser, results arrive by themselves. Natively, they arrive only if the app polls its device meanwhile: each submit
//! of its own does, and so does [`wgpu::Device::poll`], once per frame with `PollType::Poll`, or on a thread in a loop with
//! `PollType::wait_indefinitely()`. The callback wakes the future, so any executor can run it. An app that awaits on its only
//! thread and polls nowhere waits forever.
//!
//! A future that is dropped leaves the device as it was: what was submitted runs to its end, and no error scope is open
//! while a future waits. So errors that the app itself causes meanwhile reach the app. If the device is lost, the future
//! fails.
//!
//! Natively, the futures are `Send`, and may be polled on any thread. In a browser they are not, as wgpu's types are not.

pub use crate::host::probe::{NoMatrixUnit, matrix_unit, try_matrix_unit};
pub use crate::host::run::{GradientOutputs, Outputs, RunError, attention, attention_with, block_mask, gradients};
pub use crate::host::tune::{Tuning, tune};
