//! What the public page computes: attention of a real sentence encoder in the visitor's browser, on its GPU and on the CPU,
//! how long longer sequences take, and whether every kernel is right there.
//!
//! The scripts in `web/` draw, listen and keep the state; they call the exported types of this crate. In reading order: a
//! [`Model`] holds the encoder's queries, keys and values, [`Settings`] are the visitor's choices, and both make a problem.
//! `gpu` computes it, `program` evaluates the visitor's program by itself, `long` times long sequences beside `naive`
//! attention, and `check` judges every kernel.

#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "elsewhere only the tests use the model"))]
#![allow(missing_docs, reason = "wasm-bindgen writes functions without documentation")]

mod model;
mod settings;

#[cfg(target_arch = "wasm32")]
mod check;
#[cfg(target_arch = "wasm32")]
mod gpu;
#[cfg(target_arch = "wasm32")]
mod long;
#[cfg(target_arch = "wasm32")]
mod naive;
#[cfg(target_arch = "wasm32")]
mod program;
#[cfg(target_arch = "wasm32")]
mod stopwatch;

pub use model::{Attended, Model};
pub use settings::Settings;

/// Tells of a panic in the browser's words; without this, a script would only learn that the program ended.
#[cfg(target_arch = "wasm32")]
#[wasm_bindgen::prelude::wasm_bindgen(start)]
fn start() {
    std::panic::set_hook(Box::new(|panic| wasm_bindgen::throw_str(&panic.to_string())));
}
