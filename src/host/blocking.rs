//! The functions that block and submit, for scripts, tests and programs without their own encoder. Everything else in
//! the crate records and returns, except [`submitting`], whose futures these functions run to their end. Not on wasm32: a
//! browser's main thread may not block.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use wgpu::PollType;

use crate::device::matrix_unit::MatrixUnit;
use crate::host::inputs::Inputs;
pub use crate::host::probe::NoMatrixUnit;
pub use crate::host::run::{GradientOutputs, Outputs, RunError};
use crate::host::submitting;
pub use crate::host::tune::Tuning;
use crate::kernel::variant::Variant;
use crate::plan::Attention;
use crate::problem::Problem;
use crate::problem::gradients::Gradients;

/// **Blocks and submits.** Uploads the inputs, runs the best variant, waits, and reads the results back.
///
/// # Errors
/// [`RunError`] if the problem cannot be planned, bound, run or read back.
pub fn attention(
    attention: &Attention,
    queue: &wgpu::Queue,
    problem: &Problem,
    inputs: &Inputs<'_>,
) -> Result<Outputs, RunError> {
    wait(attention.device(), submitting::attention(attention, queue, problem, inputs))
}

/// **Blocks and submits.** Uploads the inputs, runs the given variant, waits, and reads the results back.
///
/// # Errors
/// [`RunError`] if the problem cannot be planned, bound, run or read back.
pub fn attention_with(
    attention: &Attention,
    queue: &wgpu::Queue,
    problem: &Problem,
    inputs: &Inputs<'_>,
    variant: &Variant,
) -> Result<Outputs, RunError> {
    wait(attention.device(), submitting::attention_with(attention, queue, problem, inputs, variant))
}

/// **Blocks and submits.** Runs the forward pass and its [`Gradients`]: see [`submitting::gradients`].
///
/// # Errors
/// [`RunError`] if the problem or its gradients cannot be planned, bound, run or read back.
pub fn gradients(
    attention: &Attention,
    queue: &wgpu::Queue,
    gradients: &Gradients,
    inputs: &Inputs<'_>,
) -> Result<GradientOutputs, RunError> {
    wait(attention.device(), submitting::gradients(attention, queue, gradients, inputs))
}

/// **Blocks and submits.** Computes the [block mask](crate::BlockMask) of `problem`: see [`submitting::block_mask`].
///
/// # Errors
/// [`RunError`] if the block mask cannot be planned, bound, run or read back.
pub fn block_mask(
    attention: &Attention,
    queue: &wgpu::Queue,
    problem: &Problem,
    inputs: &Inputs<'_>,
) -> Result<Vec<u32>, RunError> {
    wait(attention.device(), submitting::block_mask(attention, queue, problem, inputs))
}

/// **Blocks and submits.** Runs and times every candidate for `problem` on buffers that it fills itself, up to twenty
/// times or for a fifth of a second each: see [`submitting::tune`]. Leave the device otherwise idle.
///
/// Tune once per device, driver and problem, with the lengths that you run, and store the name of the best variant:
///
/// ```
/// use wgpu_attention::{Attention, Problem, Shape, blocking};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
/// # let attention = Attention::new(&device);
/// let problem = Problem::builder(Shape::new(1, 8, 100, 64)).build()?;
/// let stored = blocking::tune(&attention, &queue, &problem)?.best().to_string();
///
/// // In a later run. It is an error if the name is no longer that of a candidate; then tune again.
/// let plan = attention.plan_variant(&problem, &attention.named(&problem, &stored)?)?;
/// # assert_eq!(plan.variant().to_string(), stored);
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`RunError`], even if only one of the candidates cannot be planned.
pub fn tune(attention: &Attention, queue: &wgpu::Queue, problem: &Problem) -> Result<Tuning, RunError> {
    wait(attention.device(), submitting::tune(attention, queue, problem))
}

/// **Blocks and submits.** Finds the matrix unit of `device`, which was opened on `adapter`, and tests it: see
/// [`submitting::matrix_unit`]. Call it once and keep the result in [`Caps::matrix_unit`](crate::Caps::matrix_unit).
///
/// # Errors
/// [`NoMatrixUnit`] says what is missing or wrong.
pub fn matrix_unit(
    adapter: &wgpu::Adapter,
    device: &wgpu::Device,
    queue: &wgpu::Queue,
) -> Result<MatrixUnit, NoMatrixUnit> {
    wait(device, submitting::matrix_unit(adapter, device, queue))
}

/// **Blocks and submits.** Tests a unit that is already known, or an emulated one.
///
/// # Errors
/// [`NoMatrixUnit`] says what is wrong.
pub fn try_matrix_unit(device: &wgpu::Device, queue: &wgpu::Queue, unit: MatrixUnit) -> Result<(), NoMatrixUnit> {
    wait(device, submitting::try_matrix_unit(device, queue, unit))
}

/// Runs a future of [`submitting`] to its end. All that it waits for is work of the device.
fn wait<T, E: From<RunError>>(device: &wgpu::Device, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let mut work = pin!(work);
    loop {
        // Nothing needs to wake this thread: polling the device returns when its work is done.
        if let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
        device.poll(PollType::wait_indefinitely()).map_err(|error| RunError::Poll(error.to_string()))?;
    }
}
