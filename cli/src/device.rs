//! Chooses what computes, a GPU or this program's own CPU path, and runs problems on it.

use anyhow::{Result, anyhow};
use indicatif::ProgressBar;
use truth::Case;
use wgpu::{AdapterInfo, DeviceType, Features};
use wgpu_attention::blocking::{self, GradientOutputs, Outputs};
use wgpu_attention::{Attention, BindError, Caps, Gradients, Inputs, Problem, Variant};
use wgpu_attention_bench::device::{self, backend_name};

use crate::{cpu, cpu_gradients, progress};

/// What computes: a GPU or the CPU path.
pub(crate) enum Engine {
    Gpu(Box<Gpu>),
    Cpu,
}

/// An opened adapter, and the library on it.
pub(crate) struct Gpu {
    pub(crate) opened: device::Gpu,
    pub(crate) attention: Attention,
}

const NO_ADAPTER: &str = "note: no GPU driver was found, so this runs on the CPU; to use a GPU, install its Vulkan \
     driver (or mesa-vulkan-drivers, a software GPU)";

impl Engine {
    /// Opens the requested device, or the best one by default. Falls back to the CPU, with a note, if there is no GPU.
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

    /// The progress display. A GPU reports nothing before it has finished, so it gets a spinner.
    pub(crate) fn progress(&self) -> ProgressBar {
        match self {
            Self::Gpu(_) => progress::spinner(),
            Self::Cpu => progress::bar("rows"),
        }
    }

    /// Computes with the best variant, or on the CPU path.
    pub(crate) fn run(&self, case: &Case, progress: &ProgressBar) -> Result<Outputs> {
        match self {
            Self::Gpu(gpu) => gpu.run(case, &gpu.best(&case.problem)?, progress),
            Self::Cpu => cpu::attention(case, progress).map_err(without_wgsl),
        }
    }

    /// Computes the forward pass and its gradients.
    pub(crate) fn gradients(
        &self,
        case: &Case,
        gradients: &Gradients,
        progress: &ProgressBar,
    ) -> Result<GradientOutputs> {
        match self {
            Self::Gpu(gpu) => gpu.gradients(case, gradients, progress),
            Self::Cpu => cpu_gradients::gradients(case, gradients, progress).map_err(without_wgsl),
        }
    }

    /// The name of what computes `problem`: the variant on a GPU, or [`CPU_PATH`].
    pub(crate) fn variant(&self, problem: &Problem) -> Result<String> {
        match self {
            Self::Gpu(gpu) => Ok(gpu.best(problem)?.to_string()),
            Self::Cpu => Ok(CPU_PATH.into()),
        }
    }

    /// The names of what computes the gradients, in the order in which it runs.
    pub(crate) fn backward_variants(&self, gradients: &Gradients) -> Result<Vec<String>> {
        match self {
            Self::Gpu(gpu) => gpu.backward_variants(gradients),
            Self::Cpu => Ok(vec![CPU_PATH.into()]),
        }
    }

    /// Whether this is a GPU. Its first run also compiles, uploads and reads back.
    pub(crate) fn is_gpu(&self) -> bool {
        matches!(self, Self::Gpu(_))
    }

    /// The names of the device, its backend and its driver.
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

/// Says what to do about a program, which the CPU path does not run.
fn without_wgsl(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref() {
        Some(BindError::MissingProgram { function }) => {
            anyhow!("`{function}` is WGSL, which --device cpu does not run; it needs a GPU driver")
        }
        _ => error,
    }
}

/// The progress message of a run. Some drivers compile when the pipeline is created and some when it first runs.
pub(crate) fn compiling(variant: &Variant) -> String {
    format!("compiling and running {variant}")
}

/// The name that replaces a variant's name on the CPU path.
pub(crate) const CPU_PATH: &str = "cpu.f32";

impl Gpu {
    pub(crate) fn new(opened: device::Gpu) -> Self {
        // A software GPU has kernels that are faster than its matrix unit, and trying the unit takes seconds.
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
            .ok_or_else(|| anyhow!("{} cannot run this problem; use --device cpu", self.opened.info.name))
    }

    /// Computes with this variant and names it in the progress display, because the first run compiles it, which may take
    /// long.
    pub(crate) fn run(&self, case: &Case, variant: &Variant, progress: &ProgressBar) -> Result<Outputs> {
        progress.set_message(compiling(variant));
        let (attention, queue, problem) = (&self.attention, &self.opened.queue, &case.problem);
        let tiles = self.tiles(case)?;
        let inputs = case.forward_inputs();
        let inputs = Inputs { block_mask: inputs.block_mask.or(tiles.as_deref()), ..inputs };
        let outputs = blocking::attention_with(attention, queue, problem, &inputs, variant);
        self.opened.take_errors()?;
        Ok(outputs?)
    }

    /// Computes the forward pass and its gradients.
    pub(crate) fn gradients(
        &self,
        case: &Case,
        gradients: &Gradients,
        progress: &ProgressBar,
    ) -> Result<GradientOutputs> {
        progress.set_message(compiling(&self.best(&case.problem)?) + " and its gradients");
        // Its error says that the CPU path has no limits.
        self.backward_variants(gradients)?;
        let tiles = self.tiles(case)?;
        let inputs = case.inputs();
        let inputs = Inputs { block_mask: inputs.block_mask.or(tiles.as_deref()), ..inputs };
        let outputs = blocking::gradients(&self.attention, &self.opened.queue, gradients, &inputs);
        self.opened.take_errors()?;
        Ok(outputs?)
    }

    /// The names of the kernels that compute gradients, in their order.
    pub(crate) fn backward_variants(&self, gradients: &Gradients) -> Result<Vec<String>> {
        let plan = self.attention.plan_gradients(gradients);
        self.opened.take_errors()?;
        let plan = plan.map_err(|error| anyhow!("{error}; --device cpu can compute it"))?;
        Ok(plan.variants().map(Variant::to_string).collect())
    }

    /// The block mask of a case, if its problem has one whose contents the case lacks.
    fn tiles(&self, case: &Case) -> Result<Option<Vec<u32>>> {
        let (problem, inputs) = (&case.problem, case.forward_inputs());
        if problem.block_mask().is_none() || inputs.block_mask.is_some() {
            return Ok(None);
        }
        Ok(Some(blocking::block_mask(&self.attention, &self.opened.queue, problem, &inputs)?))
    }
}
