//! Whether every variant of attention that this browser can get is right in it, gradients and appending too.

use wasm_bindgen::prelude::{JsValue, wasm_bindgen};
use wgpu_attention_browser::{Which, judge};

use crate::gpu::Gpu;

#[wasm_bindgen]
impl Gpu {
    /// Runs them on small problems. Calls `tell(isRight, text, done, all)` after each, and returns how many were
    /// wrong.
    pub async fn check(&self, tell: js_sys::Function) -> Result<usize, JsValue> {
        let (mut done, mut wrong, mut failed) = (0, 0, None);
        judge(&self.attention, &self.queue, Which::Every, |outcome, all| {
            let is_right = outcome.is_ok();
            let (Ok(text) | Err(text)) = outcome;
            done += 1;
            wrong += usize::from(!is_right);
            let told = tell.call4(&JsValue::NULL, &is_right.into(), &text.into(), &done.into(), &all.into());
            failed = failed.take().or(told.err());
        })
        .await;
        failed.map_or(Ok(wrong), Err)
    }
}
