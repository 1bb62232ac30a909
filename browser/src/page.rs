//! Runs the cases and posts the results to the server that the page was loaded from.

use std::sync::Arc;

use wasm_bindgen::prelude::wasm_bindgen;
use wgpu_attention::{Attention, Call, Operand, Problem, Readback, Variant, submitting};

use crate::{cases, device, families};
use truth::{Case, Expected, Outputs, indices};

#[wasm_bindgen]
extern "C" {
    /// Defined in `index.html`. `xtask/src/browser/report.rs` says what the words mean.
    pub(crate) fn post(word: &str, text: &str);
}

/// The bytes of an output before a kernel writes it: NaN in every element type.
pub(crate) const UNWRITTEN: u8 = 0xff;

/// Starts the page.
pub(crate) fn open() {
    std::panic::set_hook(Box::new(|panic| post("fault", &panic.to_string())));
    wasm_bindgen_futures::spawn_local(run());
}

async fn run() {
    let (device, queue) = open_device().await;
    device.on_uncaptured_error(Arc::new(|error| post("fault", &format!("WebGPU: {error}"))));
    device.set_device_lost_callback(|reason, why| post("fault", &format!("the device is lost: {reason:?}, {why}")));
    let attention = Attention::with_caps(&device, cases::caps(&device.limits()));
    for (name, case) in cases::all() {
        let variants = cases::one_of_each_kernel(attention.candidates(&case.problem).unwrap());
        judge(&attention, &queue, name, &case, &variants).await;
    }
    for (name, case) in cases::of_one_kernel() {
        let variants = &attention.candidates(&case.problem).unwrap()[..1];
        judge(&attention, &queue, name, &case, variants).await;
    }
    families::check(&attention, &queue).await;
    tune(&attention, &queue, &cases::tuned()).await;
    device::check(&attention, &queue).await;
    post("done", "");
}

/// Runs a case by each of these variants.
async fn judge(attention: &Attention, queue: &wgpu::Queue, name: &str, case: &Case, variants: &[Variant]) {
    let expected = Expected::of(case);
    for variant in variants {
        match expected.check(&outputs(attention, queue, case, variant).await) {
            Ok(verdict) => {
                post("right", &format!("{name}: {variant}, {:.2} of the tolerance", verdict.relative_error()))
            }
            Err(wrong) => post("wrong", &format!("{name}: {variant}, {wrong}")),
        }
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

async fn outputs(attention: &Attention, queue: &wgpu::Queue, case: &Case, variant: &Variant) -> Outputs {
    let device = attention.device();
    let plan = attention.plan_variant(&case.problem, variant).unwrap();
    let buffers = case.inputs().upload(device, &case.problem).unwrap();
    let written = Operand::ALL.into_iter().filter(|operand| operand.is_output());
    let written = written.filter_map(|operand| Some((operand, buffers.get(operand)?)));
    for (_, buffer) in written.clone() {
        queue.write_buffer(buffer, 0, &vec![UNWRITTEN; buffer.size() as usize]);
    }
    let call = plan.bind(&buffers.operands()).unwrap();
    let (operands, read): (Vec<Operand>, Vec<&wgpu::Buffer>) = written.unzip();
    let results = finish(device, queue, &[call], &read).await;

    let mut outputs = Outputs::default();
    for (operand, bytes) in operands.into_iter().zip(results) {
        let values = elements(&case.problem, operand, &bytes);
        match operand {
            Operand::Lse => outputs.lse = Some(values),
            Operand::Weights => outputs.weights = Some(values),
            _ => outputs.out = values,
        }
    }
    outputs.owned(case)
}

/// Runs calls one after another and reads buffers back.
pub(crate) async fn finish(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    calls: &[Call],
    read: &[&wgpu::Buffer],
) -> Vec<Vec<u8>> {
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    calls.iter().for_each(|call| call.encode(&mut encoder));
    let readbacks =
        read.iter().map(|buffer| Readback::record(device, &mut encoder, buffer.as_entire_buffer_binding()).unwrap());
    let readbacks: Vec<Readback> = readbacks.collect();
    queue.submit([encoder.finish()]);
    let mut results = Vec::new();
    for readback in readbacks {
        results.push(readback.bytes().await.unwrap());
    }
    results
}

/// The elements of an output in order.
fn elements(problem: &Problem, operand: Operand, bytes: &[u8]) -> Vec<f32> {
    let view = problem.view(operand).unwrap();
    let values = problem.dtype(operand).unwrap().decode(bytes);
    indices(view.extent).map(|at| values[view.index(at) as usize]).collect()
}
