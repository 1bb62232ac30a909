//! Runs the cases and posts the results to the server that the page was loaded from.

use std::sync::Arc;

use wasm_bindgen::prelude::wasm_bindgen;
use wgpu_attention::{Attention, Problem, submitting};

use crate::judge::{self, Which};
use crate::{cases, device, families};

#[wasm_bindgen]
extern "C" {
    /// Defined in `index.html`. `xtask/src/browser/report.rs` says what the words mean.
    pub(crate) fn post(word: &str, text: &str);
}

/// Starts the page.
pub fn open() {
    std::panic::set_hook(Box::new(|panic| post("fault", &panic.to_string())));
    wasm_bindgen_futures::spawn_local(run());
}

async fn run() {
    let (device, queue) = open_device().await;
    device.on_uncaptured_error(Arc::new(|error| post("fault", &format!("WebGPU: {error}"))));
    device.set_device_lost_callback(|reason, why| post("fault", &format!("the device is lost: {reason:?}, {why}")));
    let attention = Attention::with_caps(&device, cases::caps(&device.limits()));
    judge::judge(&attention, &queue, Which::OneOfEachKernel, |outcome, _| post_outcome(outcome)).await;
    let mistakes = families::mistakes(&attention, &queue).await;
    post_outcome(judge::named("the mistakes in the kernel that merges pairs", mistakes));
    tune(&attention, &queue, &cases::tuned()).await;
    device::check(&attention, &queue).await;
    post("done", "");
}

fn post_outcome(outcome: Result<String, String>) {
    match outcome {
        Ok(how) => post("right", &how),
        Err(wrong) => post("wrong", &wrong),
    }
}

/// Times every candidate for `problem`, which awaits each run.
async fn tune(attention: &Attention, queue: &wgpu::Queue, problem: &Problem) {
    let candidates = attention.candidates(problem).unwrap().len();
    match submitting::tune(attention, queue, problem).await {
        Ok(tuning) if tuning.rows().len() == candidates && tuning.rows().iter().all(|(_, time)| !time.is_zero()) => {
            let (best, time) = &tuning.rows()[0];
            post("right", &format!("tuning: {best} is the fastest of {candidates}, {time:?}"));
        }
        other => post("wrong", &format!("tuning {candidates} candidates: {other:?}")),
    }
}

/// A device of the browser, with WebGPU's default limits and no feature that kernels use. Tuning reads timestamps if there
/// are any. An adapter opens one device only.
pub(crate) async fn open_device() -> (wgpu::Device, wgpu::Queue) {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = instance.request_adapter(&wgpu::RequestAdapterOptions::default()).await;
    let adapter = adapter.unwrap_or_else(|error| panic!("the browser has no WebGPU adapter: {error}"));
    let required_features = adapter.features() & wgpu::Features::TIMESTAMP_QUERY;
    let descriptor = wgpu::DeviceDescriptor { required_features, ..Default::default() };
    adapter.request_device(&descriptor).await.unwrap()
}
