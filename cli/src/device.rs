//! What computes: the device asked for or this program's own CPU path, and running a problem on it.

use anyhow::{Result, anyhow};
use indicatif::ProgressBar;
use wgpu::{AdapterInfo, DeviceType, Features};
use wgpu_attention::blocking::{self, Outputs};
use wgpu_attention::reference::Programs;
use wgpu_attention::{Attention, BindError, Caps, Inputs, Problem, Variant};
use wgpu_attention_bench::device::{self, backend_name};

use crate::{cpu, progress};

/// What computes.
pub(crate) enum Engine {
    Gpu(Box<Gpu>),
    Cpu,
}

/// An opened adapter, and attention on it.
pub(crate) struct Gpu {
    pub(crate) opened: device::Gpu,
    pub(crate) attention: Attention,
}

const NO_ADAPTER: &str = "note: no GPU driver was found, so this runs on the CPU; install your GPU's Vulkan driver \
     (or mesa-vulkan-drivers for a software one) to use it";

impl Engine {
    /// Opens the device asked for, or the best there is, or falls back to the CPU with a note.
    pub(crate) fn open(request: Option<&str>) -> Result<Self> {
        if request.is_some_and(|request| request.eq_ignore_ascii_case("cpu")) {
            return Ok(Self::Cpu);
        }
        match device::Gpu::request(request, Features::empty())? {
            Some(opened) => Ok(Self::Gpu(Box::new(Gpu::new(opened)))),
            None => {
                eprintln!("{NO_ADAPTER}");
                Ok(Self::Cpu)
            }
        }
    }

    /// Progress as this device can tell it: a GPU says nothing before it has finished.
    pub(crate) fn progress(&self) -> ProgressBar {
        match self {
            Self::Gpu(_) => progress::spinner(),
            Self::Cpu => progress::bar("rows"),
        }
    }

    /// Computes on the best variant, or the CPU path.
    pub(crate) fn run(&self, problem: &Problem, inputs: &Inputs<'_>, progress: &ProgressBar) -> Result<Outputs> {
        match self {
            Self::Gpu(gpu) => gpu.run(problem, inputs, &gpu.best(problem)?, progress),
            Self::Cpu => {
                let outputs = cpu::attention(problem, inputs, &Programs::default(), progress);
                outputs.map_err(|error| match error.downcast_ref() {
                    Some(BindError::MissingProgram { function }) => {
                        anyhow!("`{function}` is WGSL, which --device cpu does not run; it takes a GPU driver")
                    }
                    _ => error,
                })
            }
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
                let AdapterInfo { name, backend, driver_info, .. } = &gpu.opened.info;
                let driver = if driver_info.is_empty() { &gpu.opened.info.driver } else { driver_info };
                format!("{name} · {} · {driver}", backend_name(*backend))
            }
            Self::Cpu => format!("CPU, {} threads", rayon::current_num_threads()),
        }
    }
}

/// What a user waits for. Some drivers compile when a kernel is made and some when it first runs.
pub(crate) fn compiling(variant: &Variant) -> String {
    format!("compiling and running {variant}")
}

/// What stands for a variant where no kernel runs.
pub(crate) const CPU_PATH: &str = "cpu.f32";

impl Gpu {
    pub(crate) fn new(opened: device::Gpu) -> Self {
        // A software GPU has kernels that are faster than its matrices, and takes seconds to try those.
        let is_software = opened.info.device_type == DeviceType::Cpu;
        let caps = if is_software { Caps::of(&opened.device) } else { opened.caps() };
        Self { attention: Attention::with_caps(&opened.device, caps), opened }
    }

    pub(crate) fn best(&self, problem: &Problem) -> Result<Variant> {
        let candidates =
            self.attention.candidates(problem).map_err(|error| anyhow!("{error}; --device cpu can compute it"))?;
        candidates
            .into_iter()
            .next()
            .ok_or_else(|| anyhow!("{} runs no such problem; use --device cpu", self.opened.info.name))
    }

    /// Computes on this variant, and says so: the first time it is compiled, which may take long.
    pub(crate) fn run(
        &self,
        problem: &Problem,
        inputs: &Inputs<'_>,
        variant: &Variant,
        progress: &ProgressBar,
    ) -> Result<Outputs> {
        progress.set_message(compiling(variant));
        let outputs = blocking::attention_with(&self.attention, &self.opened.queue, problem, inputs, variant);
        self.opened.complaints()?;
        Ok(outputs?)
    }
}
