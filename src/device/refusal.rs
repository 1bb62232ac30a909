//! What wgpu, a compiler or a driver refuses, as a value. Without error scopes it would reach only the app's error handler.

use std::pin::Pin;

use wgpu::{ErrorFilter, ErrorScopeGuard, WasmNotSend};

/// The reason why work was refused, once it is known: natively at once, in a browser later.
pub(crate) type Refusal = Pin<Box<dyn Reason>>;

/// `Send` wherever wgpu's own types are.
pub(crate) trait Reason: Future<Output = Option<String>> + WasmNotSend {}
impl<F: Future<Output = Option<String>> + WasmNotSend> Reason for F {}

/// Runs `work` at once. Also returns why part of it was refused, if it was.
///
/// Nothing can be awaited in `work`: a scope takes every error of its thread, and those that an app causes while it waits
/// are its own.
pub(crate) fn scoped<T>(device: &wgpu::Device, work: impl FnOnce() -> T) -> (T, Refusal) {
    // If a driver refuses what passes wgpu's validation, wgpu reports an internal error.
    let filters = [ErrorFilter::OutOfMemory, ErrorFilter::Internal, ErrorFilter::Validation];
    let scopes = filters.map(|filter| device.push_error_scope(filter));
    let done = work();
    // A scope ends here, not when its error is awaited. The inner one ends first.
    let [memory, internal, validation] = scopes;
    let [validation, internal, memory] = [validation, internal, memory].map(ErrorScopeGuard::pop);
    let refusal = async move {
        let mut error = validation.await;
        // In a browser, wgpu 30 panics when it reads an internal error. What uses the refused object is a validation error there.
        if cfg!(not(target_arch = "wasm32")) && error.is_none() {
            error = internal.await;
        }
        if error.is_none() {
            error = memory.await;
        }
        error.map(|error| error.to_string())
    };
    (done, Box::pin(refusal))
}
