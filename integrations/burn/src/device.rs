//! The devices that this crate knows: the queue, the kernels and the plans of each.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use burn::backend::DispatchDevice;
use burn::tensor::Device;
use burn::tensor::wgpu::{WgpuInitError, WgpuOptions, WgpuSetup, wgpu};
use burn_cubecl::CubeDevice;
use burn_cubecl::cubecl::device::WgpuDevice;
use wgpu_attention::{Attention, BindError, Call, Gradients, Operands, Plan, PlanError, Problem, Scratch};

use crate::check::Reason;
use crate::describe::{Forward, refused};

/// Plans are kept per shape. A model whose shapes never repeat, such as a decoder with a growing cache, starts again at
/// this number; compiled kernels stay.
const PLANS: usize = 256;
/// Plans that need scratch of different kinds each find theirs.
const SCRATCHES: usize = 4;

static DEVICES: LazyLock<Mutex<HashMap<WgpuDevice, Arc<Attached>>>> = LazyLock::new(Mutex::default);

/// Initializes burn's wgpu runtime, and lets [`attention`](crate::attention) compute on it.
///
/// ```no_run
/// use burn::tensor::Device;
/// # fn main() -> Result<(), burn::tensor::wgpu::WgpuInitError> {
/// let device = wgpu_attention_burn::init(Device::wgpu_options())?;
/// # let _ = device;
/// # Ok(()) }
/// ```
///
/// # Errors
/// Those of [`WgpuOptions::init`], for example if the runtime is initialized already.
#[cfg(not(target_family = "wasm"))]
pub fn init(options: WgpuOptions) -> Result<Device, WgpuInitError> {
    let (device, setup) = options.init_with_setup()?;
    attach(&device, &setup);
    Ok(device)
}

/// [`init`] for browsers and async apps.
///
/// # Errors
/// Those of [`WgpuOptions::init_async`].
pub async fn init_async(options: WgpuOptions) -> Result<Device, WgpuInitError> {
    let (device, setup) = options.init_with_setup_async().await?;
    attach(&device, &setup);
    Ok(device)
}

/// Lets [`attention`](crate::attention) compute on a device whose setup the app has: from `WgpuOptions::init_with_setup`, or
/// because the app made it. The setup must be that of the device. A device that is not of wgpu is left alone, and one that is
/// attached already keeps its first setup.
pub fn attach(device: &Device, setup: &WgpuSetup) {
    if let DispatchDevice::Cube(CubeDevice::Wgpu(key)) = device.clone().inner().as_dispatch() {
        lock(&DEVICES).entry(key.clone()).or_insert_with(|| Arc::new(Attached::new(setup)));
    }
}

pub(crate) fn find(device: &WgpuDevice) -> Option<Arc<Attached>> {
    lock(&DEVICES).get(device).cloned()
}

/// What is kept for a device. burn never gives a device back, so neither is this.
pub(crate) struct Attached {
    attention: Attention,
    queue: wgpu::Queue,
    plans: Mutex<HashMap<Problem, Plan>>,
    gradients: Mutex<HashMap<Gradients, Plan>>,
    scratches: Mutex<Vec<Scratch>>,
}

impl Attached {
    fn new(setup: &WgpuSetup) -> Self {
        Self {
            attention: Attention::new(&setup.device),
            queue: setup.queue.clone(),
            plans: Mutex::default(),
            gradients: Mutex::default(),
            scratches: Mutex::default(),
        }
    }

    pub(crate) const fn attention(&self) -> &Attention {
        &self.attention
    }

    pub(crate) fn accepts(&self, forward: &Forward) -> Result<(), Reason> {
        self.plan(&forward.problem()?).map(drop)
    }

    pub(crate) fn accepts_training(&self, forward: &Forward) -> Result<(), Reason> {
        let problem = forward.training()?;
        self.plan(&problem)?;
        self.plan_gradients(&problem.gradients().build().map_err(refused)?).map(drop)
    }

    pub(crate) fn plan(&self, problem: &Problem) -> Result<Plan, Reason> {
        known(&self.plans, problem, |problem| self.attention.plan(problem))
    }

    pub(crate) fn plan_gradients(&self, gradients: &Gradients) -> Result<Plan, Reason> {
        known(&self.gradients, gradients, |gradients| self.attention.plan_gradients(gradients))
    }

    /// Submits a call. The work that it depends on must have been submitted.
    pub(crate) fn submit(&self, plan: &Plan, operands: &Operands<'_>) -> Result<(), BindError> {
        let call = self.bind(plan, operands)?;
        let mut encoder = self.attention.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        call.encode(&mut encoder);
        self.queue.submit([encoder.finish()]);
        Ok(())
    }

    /// Calls share their scratch, because they follow one another on the queue.
    fn bind(&self, plan: &Plan, operands: &Operands<'_>) -> Result<Call, BindError> {
        let mut scratches = lock(&self.scratches);
        for scratch in scratches.iter() {
            match plan.bind_in(operands, scratch) {
                Err(BindError::Scratch { .. }) => {}
                bound => return bound,
            }
        }
        let scratch = plan.scratch();
        if scratches.len() == SCRATCHES {
            scratches.remove(0);
        }
        scratches.push(scratch.clone());
        plan.bind_in(operands, &scratch)
    }
}

fn known<K: Clone + Eq + Hash>(
    plans: &Mutex<HashMap<K, Plan>>,
    key: &K,
    plan: impl FnOnce(&K) -> Result<Plan, PlanError>,
) -> Result<Plan, Reason> {
    if let Some(known) = lock(plans).get(key) {
        return Ok(known.clone());
    }
    // Not under the lock: compiling takes long.
    let new = plan(key).map_err(|error| Reason::Refused(error.to_string()))?;
    let mut plans = lock(plans);
    if plans.len() >= PLANS {
        plans.clear();
    }
    plans.insert(key.clone(), new.clone());
    Ok(new)
}

/// What these locks guard is whole at any time, so a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
