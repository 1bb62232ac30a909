//! Lists the adapters, finds the requested one, and opens it with all its limits.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use wgpu::{Adapter, AdapterInfo, Backend, Backends, DeviceType, DownlevelFlags, Features};
use wgpu_attention::blocking::{self, NoMatrixUnit};
use wgpu_attention::{Caps, MatrixUnit};

/// An opened adapter.
#[derive(Debug)]
pub struct Gpu {
    /// The adapter's description.
    pub info: AdapterInfo,
    /// The device.
    pub device: wgpu::Device,
    /// Its queue.
    pub queue: wgpu::Queue,
    adapter: Adapter,
    /// The matrix unit, which is looked for when it is first requested.
    matrix_unit: OnceLock<Result<MatrixUnit, NoMatrixUnit>>,
    /// What wgpu reported outside any call's result, such as running out of memory.
    errors: Arc<Mutex<Vec<String>>>,
}

impl Gpu {
    /// Opens an adapter with its full limits, the features that make kernels faster, including matrix units, and those of
    /// `wanted` that it has.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn open(adapter: &Adapter, wanted: Features) -> Result<Self> {
        let info = adapter.get_info();
        let opened = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("wgpu-attention"),
            required_features: adapter.features() & (Caps::FEATURES | Caps::MATRIX_FEATURES | wanted),
            // The full limits, so that large tensors are bound whole if the adapter can do so.
            required_limits: adapter.limits(),
            // SAFETY: faults of wgpu's cooperative matrices may be hit, and will be reported to wgpu.
            #[expect(unsafe_code, reason = "what wgpu asks of those who want cooperative matrices")]
            experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
            ..Default::default()
        }));
        let (device, queue) = opened.with_context(|| format!("cannot open {}", info.name))?;
        let errors = Arc::new(Mutex::new(Vec::new()));
        let log = errors.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            log.lock().unwrap_or_else(PoisonError::into_inner).push(error.to_string());
        }));
        Ok(Self { info, device, queue, adapter: adapter.clone(), matrix_unit: OnceLock::new(), errors })
    }

    /// Opens the requested adapter, or the best one by default. `None` if there is no adapter.
    ///
    /// # Errors
    /// If the requested adapter does not exist or does not open.
    pub fn request(request: Option<&str>, wanted: Features) -> Result<Option<Self>> {
        match request {
            Some(request) => Ok(Some(Self::open(&find(request)?, wanted)?)),
            None => Ok(best().iter().find_map(|adapter| Self::open(adapter, wanted).ok())),
        }
    }

    /// Its matrix unit, which is tried on the first call, or why it has none.
    ///
    /// # Errors
    /// Why it has none.
    pub fn matrix_unit(&self) -> Result<MatrixUnit, NoMatrixUnit> {
        self.matrix_unit.get_or_init(|| blocking::matrix_unit(&self.adapter, &self.device, &self.queue)).clone()
    }

    /// The device's capabilities, including its matrix unit.
    pub fn caps(&self) -> Caps {
        let mut caps = Caps::of(&self.device);
        caps.matrix_unit = self.matrix_unit().ok();
        caps
    }

    /// Waits for all that was submitted.
    ///
    /// # Errors
    /// If the device stopped.
    pub fn wait(&self) -> Result<()> {
        let polled = self.device.poll(wgpu::PollType::wait_indefinitely());
        polled.map(|_| ()).map_err(|error| anyhow!("the device stopped: {error}"))
    }

    /// Fails with the errors that wgpu reported since the last call.
    ///
    /// # Errors
    /// If it reported anything.
    pub fn take_errors(&self) -> Result<()> {
        let errors = std::mem::take(&mut *self.errors.lock().unwrap_or_else(PoisonError::into_inner));
        ensure!(errors.is_empty(), "{} reported: {}", self.info.name, errors.join("; "));
        Ok(())
    }

    /// The driver's name and version, as far as they are known.
    pub fn driver(&self) -> String {
        format!("{} {}", self.info.driver, self.info.driver_info).trim().to_owned()
    }
}

/// Every adapter of these backends, in the drivers' order.
fn adapters(backends: Backends) -> Vec<Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(backends))
}

/// Every adapter there is, in the order of their indices: those of OpenGL last.
pub fn all_adapters() -> Vec<Adapter> {
    let mut found = adapters(Backends::PRIMARY);
    found.extend(adapters(Backends::GL));
    found
}

/// The adapters that can compute, best first.
fn best() -> Vec<Adapter> {
    let mut able = with_compute(adapters(Backends::PRIMARY));
    if able.is_empty() {
        able = with_compute(adapters(Backends::GL));
    }
    able.sort_by_key(|adapter| rank(&adapter.get_info()));
    able
}

fn with_compute(mut adapters: Vec<Adapter>) -> Vec<Adapter> {
    adapters.retain(|adapter| adapter.get_downlevel_capabilities().flags.contains(DownlevelFlags::COMPUTE_SHADERS));
    adapters
}

/// Finds an adapter by index, backend or part of its name. OpenGL is tried only if nothing else fits, because its drivers
/// are slow to start and print warnings if there is no display.
fn find(request: &str) -> Result<Adapter> {
    let primary = adapters(Backends::PRIMARY);
    if let Some(adapter) = pick(&primary, 0, request) {
        return Ok(adapter);
    }
    let gl = adapters(Backends::GL);
    if let Some(adapter) = pick(&gl, primary.len(), request) {
        return Ok(adapter);
    }
    let names: Vec<String> = (primary.iter().chain(&gl).enumerate())
        .map(|(index, adapter)| (index, adapter.get_info()))
        .map(|(index, info)| format!("{index} = {} ({})", info.name, backend_name(info.backend)))
        .collect();
    let there_is = names.into_iter().chain(["cpu".into()]).collect::<Vec<_>>().join(", ");
    bail!("--device {request:?} matches nothing here; the devices are {there_is}")
}

/// A number is always an index. As part of a name, it would match by accident.
fn pick(adapters: &[Adapter], first_index: usize, request: &str) -> Option<Adapter> {
    if let Ok(index) = request.parse::<usize>() {
        return adapters.get(index.checked_sub(first_index)?).cloned();
    }
    let wanted = request.to_lowercase();
    let fits = |info: &AdapterInfo| {
        let backend = backend_name(info.backend).to_lowercase();
        !wanted.is_empty() && (info.name.to_lowercase().contains(&wanted) || backend.contains(&wanted))
    };
    let matching = adapters.iter().filter(|adapter| fits(&adapter.get_info()));
    matching.min_by_key(|adapter| rank(&adapter.get_info())).cloned()
}

/// Lower is better: real hardware first, then the backend its driver is best at.
fn rank(info: &AdapterInfo) -> (u8, u8) {
    let device = match info.device_type {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    };
    let backend = match info.backend {
        Backend::Vulkan | Backend::Metal => 0,
        Backend::Dx12 => 1,
        _ => 2,
    };
    (device, backend)
}

/// What a backend is called.
pub const fn backend_name(backend: Backend) -> &'static str {
    match backend {
        Backend::Vulkan => "Vulkan",
        Backend::Metal => "Metal",
        Backend::Dx12 => "DX12",
        Backend::Gl => "OpenGL",
        Backend::BrowserWebGpu => "WebGPU",
        Backend::Noop => "noop",
    }
}
