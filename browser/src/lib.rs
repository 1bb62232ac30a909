//! A few attention problems, run with the kernels that a browser's device gets and judged row by row against the f64 reference;
//! gradients and appending. The public page runs them for visitors ([`judge`]). The page that `cargo xtask browser` opens ([`open`])
//! also merges pairs, tunes a problem, and looks at what happens to a kernel that is refused and to a device that is lost.
//!
//! Cases are made and results are judged by `truth`, as in the tests.

#![allow(clippy::unwrap_used, reason = "a page that cannot go on should stop where it stands")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes here are far below any bound")]
#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "elsewhere only the tests use the cases"))]

mod cases;
#[cfg(target_arch = "wasm32")]
mod device;
#[cfg(target_arch = "wasm32")]
mod families;
#[cfg(target_arch = "wasm32")]
mod judge;
#[cfg(target_arch = "wasm32")]
mod page;

#[cfg(target_arch = "wasm32")]
pub use judge::{Which, judge};
#[cfg(target_arch = "wasm32")]
pub use page::open;
