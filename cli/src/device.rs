//! Which device computes: the adapters there are, the one asked for, and running a problem on it.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use indicatif::ProgressBar;
use wgpu::{Adapter, AdapterInfo, Backend, Backends, DeviceType, DownlevelFlags, Features};
use wgpu_attention::blocking::{self, Outputs};
use wgpu_attention::{Attention, Inputs, Problem, Variant};

use crate::cpu;

/// What computes.
pub(crate) enum Engine {
    Gpu(Box<Gpu>),
    Cpu,
}

/// An opened adapter.
pub(crate) struct Gpu {
    pub(crate) info: AdapterInfo,
    pub(crate) attention: Attention,
    pub(crate) queue: wgpu::Queue,
    /// What wgpu reported outside any call's result, such as running out of memory.
    errors: Arc<Mutex<Vec<String>>>,
}

const NO_ADAPTER: &str = "note: no GPU driver was found, so this runs on the CPU; install your GPU's Vulkan driver \
     (or mesa-vulkan-drivers for a software one) to use it";

impl Engine {
    /// Opens the device asked for, or the best there is, or falls back to the CPU with a note.
    pub(crate) fn open(request: Option<&str>) -> Result<Self> {
        match request {
            Some(cpu) if cpu.eq_ignore_ascii_case("cpu") => Ok(Self::Cpu),
            Some(request) => Ok(Self::Gpu(Box::new(Gpu::open(&find(request)?)?))),
            None => {
                let mut able = with_compute(adapters(Backends::PRIMARY));
                if able.is_empty() {
                    able = with_compute(adapters(Backends::GL));
                }
                able.sort_by_key(|adapter| rank(&adapter.get_info()));
                let mut opened = able.iter().map(Gpu::open);
                match opened.find_map(Result::ok) {
                    Some(gpu) => Ok(Self::Gpu(Box::new(gpu))),
                    None => {
                        eprintln!("{NO_ADAPTER}");
                        Ok(Self::Cpu)
                    }
                }
            }
        }
    }

    /// Computes on the best variant, or the CPU path.
    pub(crate) fn run(&self, problem: &Problem, inputs: &Inputs<'_>, progress: &ProgressBar) -> Result<Outputs> {
        match self {
            Self::Gpu(gpu) => gpu.run(problem, inputs, gpu.best(problem)?),
            Self::Cpu => cpu::attention(problem, inputs, progress),
        }
    }

    /// What computes `problem`, in words: the variant on a GPU.
    pub(crate) fn variant(&self, problem: &Problem) -> Result<String> {
        match self {
            Self::Gpu(gpu) => Ok(gpu.best(problem)?.to_string()),
            Self::Cpu => Ok(CPU_PATH.into()),
        }
    }

    /// Whether a first run compiles, uploads and reads back besides computing.
    pub(crate) fn is_gpu(&self) -> bool {
        matches!(self, Self::Gpu(_))
    }

    /// The device, its backend and its driver.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Gpu(gpu) => {
                let AdapterInfo { name, backend, driver_info, .. } = &gpu.info;
                let driver = if driver_info.is_empty() { &gpu.info.driver } else { driver_info };
                format!("{name} · {} · {driver}", backend_name(*backend))
            }
            Self::Cpu => format!("CPU, {} threads", rayon::current_num_threads()),
        }
    }
}

/// What stands for a variant where no kernel runs.
pub(crate) const CPU_PATH: &str = "cpu.f32";

impl Gpu {
    pub(crate) fn open(adapter: &Adapter) -> Result<Self> {
        let wanted = Features::SUBGROUP | Features::SHADER_F16 | Features::TIMESTAMP_QUERY;
        let info = adapter.get_info();
        let opened = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("wgpu-attention"),
            required_features: adapter.features() & wanted,
            // All it has: large tensors are bound whole where the adapter can.
            required_limits: adapter.limits(),
            ..Default::default()
        }));
        let (device, queue) = opened.with_context(|| format!("{} does not open", info.name))?;
        let errors = Arc::new(Mutex::new(Vec::new()));
        let log = errors.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            log.lock().unwrap_or_else(PoisonError::into_inner).push(error.to_string());
        }));
        Ok(Self { info, attention: Attention::new(&device), queue, errors })
    }

    pub(crate) fn best(&self, problem: &Problem) -> Result<Variant> {
        let candidates =
            self.attention.candidates(problem).map_err(|error| anyhow!("{error}; --device cpu can compute it"))?;
        candidates.first().copied().ok_or_else(|| anyhow!("{} runs no such problem; use --device cpu", self.info.name))
    }

    pub(crate) fn run(&self, problem: &Problem, inputs: &Inputs<'_>, variant: Variant) -> Result<Outputs> {
        let outputs = blocking::attention_with(&self.attention, &self.queue, problem, inputs, variant);
        self.complaints()?;
        Ok(outputs?)
    }

    /// Whatever wgpu reported since the last call.
    pub(crate) fn complaints(&self) -> Result<()> {
        let errors = std::mem::take(&mut *self.errors.lock().unwrap_or_else(PoisonError::into_inner));
        ensure!(errors.is_empty(), "{} reported: {}", self.info.name, errors.join("; "));
        Ok(())
    }
}

/// Every adapter of these backends, in the drivers' order.
pub(crate) fn adapters(backends: Backends) -> Vec<Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(backends))
}

/// Every adapter there is, as `devices` numbers them: those of OpenGL last.
pub(crate) fn all_adapters() -> Vec<Adapter> {
    let mut found = adapters(Backends::PRIMARY);
    found.extend(adapters(Backends::GL));
    found
}

fn with_compute(mut adapters: Vec<Adapter>) -> Vec<Adapter> {
    adapters.retain(|adapter| adapter.get_downlevel_capabilities().flags.contains(DownlevelFlags::COMPUTE_SHADERS));
    adapters
}

/// The adapter asked for by index, backend or part of its name. OpenGL is left alone unless nothing else fits, as its
/// drivers are slow to start and noisy where there is no display.
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
    bail!("--device {request:?} matches nothing here; there is {there_is}")
}

/// A number is an index and nothing else: part of a name, it would match by accident.
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

pub(crate) fn backend_name(backend: Backend) -> &'static str {
    match backend {
        Backend::Vulkan => "Vulkan",
        Backend::Metal => "Metal",
        Backend::Dx12 => "DX12",
        Backend::Gl => "OpenGL",
        Backend::BrowserWebGpu => "WebGPU",
        Backend::Noop => "noop",
    }
}
