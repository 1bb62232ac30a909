//! What only a browser's device does: it compiles while the page goes on, and tells of a loss later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wgpu_attention::submitting::{self, RunError};
use wgpu_attention::{Attention, BindError, Buffers, Caps, Inputs, Operand, PlanError, Problem, testing};

use crate::page::{open_device, post};

/// How many round trips to the browser's GPU process a loss may take.
const TURNS: usize = 100;

/// Checks what the page is told of its device, of kernels that are refused, and of another device that is lost.
pub(crate) async fn check(attention: &Attention, queue: &wgpu::Queue) {
    expect("the adapter of the page is SwiftShader", knows_its_adapter(attention.device()));
    expect("a kernel that is refused is an error of `ready`", refused_when_ready(attention).await);
    expect("a kernel that is refused is an error without `ready`", refused_without_waiting(attention).await);
    expect("a kernel that is refused is an error of `attention`", refused_when_run(attention, queue).await);
    expect("a device that is lost is an error", lost(attention.device()).await);
}

fn expect(what: &str, outcome: Result<(), String>) {
    match outcome {
        Ok(()) => post("right", what),
        Err(got) => post("wrong", &format!("{what}, but it is {got}")),
    }
}

fn holds(condition: bool, got: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(got()) }
}

/// One that another part of the page has compiled.
fn problem() -> Problem {
    crate::cases::tuned()
}

/// Runs `act` with inputs of ones.
async fn with_ones<T>(act: impl AsyncFnOnce(&Inputs<'_>) -> T) -> T {
    let ones = |operand| vec![1.0; problem().view(operand).unwrap().end() as usize];
    let [q, k, v] = [Operand::Q, Operand::K, Operand::V].map(ones);
    act(&Inputs { q: &q, k: &k, v: &v, ..Inputs::default() }).await
}

async fn upload(device: &wgpu::Device) -> Result<Buffers, BindError> {
    with_ones(async |inputs| inputs.upload(device, &problem())).await
}

/// Waits until the browser has done what `device` was asked before.
async fn turn(device: &wgpu::Device) -> Option<wgpu::Error> {
    device.push_error_scope(wgpu::ErrorFilter::Validation).pop().await
}

fn knows_its_adapter(device: &wgpu::Device) -> Result<(), String> {
    let caps = Caps::of(device);
    let is_known = caps.is_software && caps.loop_iterations == u32::MAX && caps.dispatch_flop == 1 << 32;
    holds(is_known, || format!("{caps:?}"))
}

/// Whether the error has the compiler's own words.
fn is_refusal<T>(outcome: &Result<T, PlanError>) -> bool {
    matches!(outcome, Err(PlanError::Refused { reason, .. }) if reason.contains("WGSL"))
}

fn refuse(attention: &Attention) -> Result<(), String> {
    let variant = &attention.candidates(&problem()).unwrap()[0];
    let known = testing::substitute(attention, variant, "no shader".to_owned());
    holds(known.is_none(), || format!("known at once, {known:?}"))
}

async fn compiles_again(attention: &Attention) -> Result<(), String> {
    let again = attention.plan(&problem()).map_err(|error| format!("refused again: {error}"))?.ready().await;
    holds(again == Ok(()), || format!("refused again: {again:?}"))
}

async fn refused_when_ready(attention: &Attention) -> Result<(), String> {
    refuse(attention)?;
    let problem = problem();
    // Two plans of one kernel wait for one compilation.
    let (one, other) = (attention.plan(&problem).unwrap(), attention.plan(&problem).unwrap());
    for plan in [one, other] {
        let ready = plan.ready().await;
        holds(is_refusal(&ready), || format!("{ready:?}"))?;
    }
    compiles_again(attention).await
}

async fn refused_without_waiting(attention: &Attention) -> Result<(), String> {
    refuse(attention)?;
    let device = attention.device();
    let plan = attention.plan(&problem()).unwrap();
    let buffers = upload(device).await.unwrap();
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    plan.bind(&buffers.operands()).unwrap().encode(&mut encoder);
    let _ = encoder.finish();
    let error = scope.pop().await;
    holds(error.is_some(), || "no error of its calls".to_owned())?;
    let next = attention.plan(&problem());
    holds(is_refusal(&next), || format!("{:?}", next.map(|plan| plan.variant().to_string())))?;
    compiles_again(attention).await
}

async fn refused_when_run(attention: &Attention, queue: &wgpu::Queue) -> Result<(), String> {
    refuse(attention)?;
    let run =
        async || with_ones(async |inputs| submitting::attention(attention, queue, &problem(), inputs).await).await;
    let refused = run().await;
    holds(matches!(&refused, Err(RunError::Refused(reason)) if reason.contains("WGSL")), || format!("{refused:?}"))?;
    let again = run().await;
    holds(again.is_ok_and(|outputs| outputs.out.iter().all(|x| (x - 1.0).abs() < 1e-5)), || "wrong again".to_owned())
}

/// The page's own callback is called too.
async fn lost(other: &wgpu::Device) -> Result<(), String> {
    let (device, _queue) = open_device().await;
    let was_told = Arc::new(AtomicBool::new(false));
    let tell = was_told.clone();
    device.set_device_lost_callback(move |_, _| tell.store(true, Ordering::Relaxed));
    let attention = Attention::new(&device);
    let plan = attention.plan(&problem()).unwrap();
    let buffers = upload(&device).await.unwrap();
    device.destroy();
    let mut turns = 0;
    while attention.plan(&problem()).is_ok() && turns < TURNS {
        turn(other).await;
        turns += 1;
    }
    let planned = attention.plan(&problem()).map(|plan| plan.dispatches());
    holds(planned == Err(PlanError::DeviceLost), || format!("{planned:?} after {turns} turns"))?;
    let ready = plan.ready().await;
    holds(ready == Err(PlanError::DeviceLost), || format!("{ready:?}"))?;
    let bound = plan.bind(&buffers.operands());
    holds(matches!(bound, Err(BindError::DeviceLost { .. })), || format!("{bound:?}"))?;
    let uploaded = upload(&device).await;
    holds(matches!(uploaded, Err(BindError::DeviceLost { .. })), || format!("{uploaded:?}"))?;
    holds(was_told.load(Ordering::Relaxed), || "not told to the page".to_owned())
}
