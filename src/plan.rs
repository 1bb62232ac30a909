//! A problem compiled and sized for a device.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use wgpu::BufferUsages;

use crate::call::{Call, Part};
use crate::cut::{Job, Slice, Source, Split};
use crate::family::texture_sizes;
use crate::fill::filled;
use crate::operand::PARAMS_BINDING;
use crate::params::Params;
use crate::scratch::{Scratch, ScratchSize, Space};
use crate::select::{candidates, weights_candidates};
use crate::{BindError, Caps, Family, Operand, Operands, PlanError, Problem, Variant};

/// Plans attention on one device, and keeps the pipelines it compiled. Clones share them.
#[derive(Clone, Debug)]
pub struct Attention {
    device: wgpu::Device,
    caps: Caps,
    cache: Option<wgpu::PipelineCache>,
    pipelines: Arc<Mutex<HashMap<Variant, Arc<OnceLock<Pipeline>>>>>,
}

#[derive(Clone, Debug)]
struct Pipeline {
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

/// A problem ready to be bound, as often as wanted, to buffers. Immutable; cheap to clone.
#[derive(Clone, Debug)]
pub struct Plan {
    device: wgpu::Device,
    problem: Problem,
    variant: Variant,
    binding_alignment: u64,
    split: Split,
    need: ScratchSize,
    steps: Arc<[Step]>,
    /// Bound for an operand without elements, which no kernel reads: wgpu binds no empty range.
    stand_in: Option<wgpu::Buffer>,
}

/// Enough for one element of any type that a kernel may declare its bindings to hold.
const STAND_IN_BYTES: usize = 16;

/// One kernel over all its pieces.
#[derive(Debug)]
struct Step {
    variant: Variant,
    pipeline: Pipeline,
    params: wgpu::Buffer,
    launches: Vec<Launch>,
}

/// One dispatch.
#[derive(Debug)]
struct Launch {
    params_offset: u64,
    slices: Vec<Slice>,
    grid: [u32; 3],
}

impl Attention {
    /// For a device, within the limits it was created with.
    pub fn new(device: &wgpu::Device) -> Self {
        Self::with_caps(device, Caps::of(device))
    }

    /// For a device, within tighter limits than its own, or with a matrix unit. A unit that the device was not created for
    /// is left alone.
    pub fn with_caps(device: &wgpu::Device, mut caps: Caps) -> Self {
        caps.matrix_unit = caps.matrix_unit.filter(|unit| device.features().contains(unit.features()));
        Self { device: device.clone(), caps, cache: None, pipelines: Arc::default() }
    }

    /// Compiles by way of `cache`, in which the driver keeps its work. Where it has no cache of its own, as on Android,
    /// an app then starts without compiling anew.
    ///
    /// The cache is the app's: it asks for `Features::PIPELINE_CACHE` (Vulkan alone has it), creates the cache by
    /// `Device::create_pipeline_cache`, which is unsafe because it trusts the bytes it is given, and keeps what
    /// [`get_data`](wgpu::PipelineCache::get_data) returns after planning on disk, under the name that
    /// `wgpu::util::pipeline_cache_key` gives the adapter. Pipelines compiled before are kept as they are.
    #[must_use]
    pub fn with_pipeline_cache(self, cache: wgpu::PipelineCache) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// The device.
    pub const fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// The limits it plans within.
    pub const fn caps(&self) -> &Caps {
        &self.caps
    }

    /// The variants that can run `problem` here, best first.
    ///
    /// # Errors
    /// Why there is none.
    pub fn candidates(&self, problem: &Problem) -> Result<Vec<Variant>, PlanError> {
        candidates(problem, &self.caps)
    }

    /// Compiles what `problem` needs, unless it already has, and sizes it. The first use of a variant takes as long as
    /// the driver's compiler does.
    ///
    /// A plan uploads its parameters. wgpu holds such an upload, about 7 kB, until the queue's next submit.
    ///
    /// # Errors
    /// [`PlanError`] where this device cannot run it: which limit, what is needed and what is granted.
    pub fn plan(&self, problem: &Problem) -> Result<Plan, PlanError> {
        let best = self.candidates(problem)?;
        self.build(problem, best[0])
    }

    /// The same with the variant given, for tests and tuning.
    ///
    /// # Errors
    /// [`PlanError::VariantMismatch`] unless `variant` is one of [`candidates`](Self::candidates).
    pub fn plan_variant(&self, problem: &Problem, variant: Variant) -> Result<Plan, PlanError> {
        let able = self.candidates(problem)?;
        if !able.contains(&variant) {
            return Err(PlanError::VariantMismatch { variant, selected: able[0] });
        }
        self.build(problem, variant)
    }

    /// The candidate whose `Display` is `name`: what an app stored of a [tuning](crate::blocking::tune), to pin it by
    /// [`plan_variant`](Self::plan_variant).
    ///
    /// # Errors
    /// [`PlanError::UnknownVariant`] where there is none, as on another device or driver, or after an update.
    pub fn named(&self, problem: &Problem, name: &str) -> Result<Variant, PlanError> {
        let able = self.candidates(problem)?;
        let found = able.iter().find(|variant| variant.to_string() == name);
        found.copied().ok_or_else(|| PlanError::UnknownVariant { name: name.to_owned(), selected: able[0] })
    }

    fn build(&self, problem: &Problem, variant: Variant) -> Result<Plan, PlanError> {
        let split = Split::of(&variant, problem, &self.caps);
        let need = self.need(problem, &variant, split)?;
        let mut steps = Vec::new();
        let [before, after] = variant.companions();
        for kernel in [before, Some(variant), after].into_iter().flatten() {
            steps.push(self.step(problem, kernel.with_access_of(problem), split)?);
        }
        if problem.view(Operand::Weights).is_some_and(|view| !view.is_empty()) {
            let weights = weights_candidates(problem, &self.caps)?;
            // Pinning the access pins it for both kernels, where the weights allow it.
            let same = weights.iter().find(|weights| weights.access == variant.access);
            let weights = *same.unwrap_or(&weights[0]);
            steps.push(self.step(problem, weights, Split::of(&weights, problem, &self.caps))?);
        }
        let stand_in = if problem.views().any(|view| view.is_empty()) {
            let buffer = filled(&self.device, "attention without keys", vec![0; STAND_IN_BYTES], BufferUsages::STORAGE);
            Some(buffer.ok_or(PlanError::DeviceLost)?)
        } else {
            None
        };
        Ok(Plan {
            device: self.device.clone(),
            stand_in,
            problem: *problem,
            variant,
            binding_alignment: self.caps.binding_alignment,
            split,
            need,
            steps: steps.into(),
        })
    }

    fn need(&self, problem: &Problem, variant: &Variant, split: Split) -> Result<ScratchSize, PlanError> {
        let partial_bytes = if variant.partial { split.view(problem).size_bytes() } else { 0 };
        let granted = self.caps.buffer_bytes;
        if partial_bytes > granted {
            return Err(PlanError::Limit { variant: *variant, limit: "max_buffer_size", need: partial_bytes, granted });
        }
        let stages = matches!(variant.family, Family::Lanes { .. });
        Ok(ScratchSize { partial_bytes, staged: stages.then(|| texture_sizes(variant, problem)) })
    }

    fn step(&self, problem: &Problem, variant: Variant, split: Split) -> Result<Step, PlanError> {
        let job = Job { problem, variant, split, caps: &self.caps };
        let pieces = job.cut()?;
        let stride = size_of::<Params>().next_multiple_of(self.caps.uniform_alignment.max(4) as usize);
        let (need, granted) = ((pieces.len() as u64).saturating_mul(stride as u64), self.caps.buffer_bytes);
        if need > granted {
            return Err(PlanError::Limit { variant, limit: "max_buffer_size", need, granted });
        }
        let mut contents = Vec::new();
        let mut launches = Vec::new();
        for piece in &pieces {
            let slices: Vec<Slice> = job.slices(piece).collect();
            let params = Params::new(&job, piece, slices.iter().copied());
            contents.resize(launches.len() * stride, 0);
            launches.push(Launch { params_offset: contents.len() as u64, slices, grid: job.grid(piece) });
            contents.extend_from_slice(bytemuck::bytes_of(&params));
        }
        let params = filled(&self.device, &format!("{variant} params"), contents, BufferUsages::UNIFORM);
        let params = params.ok_or(PlanError::DeviceLost)?;
        Ok(Step { variant, pipeline: self.pipeline(variant), params, launches })
    }

    /// Two threads that want one variant share its compilation; two variants compile side by side.
    fn pipeline(&self, variant: Variant) -> Pipeline {
        let slot = self.slots().entry(variant).or_default().clone();
        slot.get_or_init(|| compile(&self.device, self.cache.as_ref(), &variant, variant.wgsl())).clone()
    }

    /// Compiles other text for a variant than its own: how the tests plant a mistake and see that they notice.
    #[doc(hidden)]
    pub fn substitute(&self, variant: Variant, wgsl: String) {
        let pipeline = compile(&self.device, self.cache.as_ref(), &variant, wgsl);
        self.slots().insert(variant, Arc::new(OnceLock::from(pipeline)));
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<Variant, Arc<OnceLock<Pipeline>>>> {
        self.pipelines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn compile(device: &wgpu::Device, cache: Option<&wgpu::PipelineCache>, variant: &Variant, wgsl: String) -> Pipeline {
    let label = variant.to_string();
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some(&label),
        source: wgpu::ShaderSource::Wgsl(wgsl.into()),
    });
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some(&label),
        entries: &layout_entries(variant),
    });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(&label),
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(&label),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            // Every kernel writes its workgroup memory before it reads it.
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache,
    });
    Pipeline { pipeline, layout }
}

pub(crate) fn layout_entries(variant: &Variant) -> Vec<wgpu::BindGroupLayoutEntry> {
    let entry = |binding, ty, size| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: wgpu::BufferSize::new(size) },
        count: None,
    };
    let params = entry(PARAMS_BINDING, wgpu::BufferBindingType::Uniform, size_of::<Params>() as u64);
    let storage = variant.operands().map(|operand| {
        let read_only = !operand.is_output();
        entry(operand.binding(), wgpu::BufferBindingType::Storage { read_only }, 0)
    });
    let spaces = variant.spaces().map(|(space, how)| wgpu::BindGroupLayoutEntry {
        ty: space.layout(how),
        ..entry(space.binding(), wgpu::BufferBindingType::Uniform, 0)
    });
    std::iter::once(params).chain(storage).chain(spaces).collect()
}

impl Plan {
    /// The problem.
    pub const fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The variant that computes the output.
    pub const fn variant(&self) -> Variant {
        self.variant
    }

    /// Every variant a call runs, in order.
    pub fn variants(&self) -> impl Iterator<Item = Variant> {
        self.steps.iter().map(|step| step.variant)
    }

    /// How many dispatches a call records.
    pub fn dispatches(&self) -> usize {
        self.steps.iter().map(|step| step.launches.len()).sum()
    }

    /// How many workgroups share the keys of a row, whose results are then merged.
    pub fn parts(&self) -> u32 {
        self.split.parts
    }

    /// Device memory that a call needs beside its operands and the plan's parameters, in bytes. It grows with the lengths,
    /// never with their product.
    pub fn scratch_bytes(&self) -> u64 {
        self.need.bytes()
    }

    /// Creates that memory, for [`bind_in`](Self::bind_in): calls that run one after another may share it.
    pub fn scratch(&self) -> Scratch {
        Scratch::new(&self.device, self.need)
    }

    /// Binds buffers. Offsets and sizes are the operands' own; layouts count from the binding's start. The call gets
    /// [`scratch`](Self::scratch) of its own, where the plan needs any.
    ///
    /// # Errors
    /// [`BindError`] names the operand that is missing, too small, misaligned, aliased or lacks a usage.
    pub fn bind(&self, operands: &Operands<'_>) -> Result<Call, BindError> {
        self.bind_in(operands, &self.scratch())
    }

    /// The same, in scratch that other calls use too.
    ///
    /// # Errors
    /// As for [`bind`](Self::bind), and [`BindError::Scratch`] where the scratch is too small.
    pub fn bind_in(&self, operands: &Operands<'_>, scratch: &Scratch) -> Result<Call, BindError> {
        if !scratch.covers(&self.need) {
            return Err(BindError::Scratch { need: self.need, got: scratch.size() });
        }
        operands.check(&self.problem, self.binding_alignment)?;
        let mut parts = Vec::new();
        for step in self.steps.iter() {
            for launch in &step.launches {
                parts.push(self.part(step, launch, operands, scratch));
            }
        }
        Ok(Call::new(self.variant, parts))
    }

    fn part(&self, step: &Step, launch: &Launch, operands: &Operands<'_>, scratch: &Scratch) -> Part {
        let label = step.variant.to_string();
        let params = wgpu::BufferBinding {
            buffer: &step.params,
            offset: launch.params_offset,
            size: wgpu::BufferSize::new(size_of::<Params>() as u64),
        };
        let mut entries =
            vec![wgpu::BindGroupEntry { binding: PARAMS_BINDING, resource: wgpu::BindingResource::Buffer(params) }];
        for slice in &launch.slices {
            let (binding, buffer, offset) = match slice.source {
                Source::Operand(operand) => {
                    let Some(given) = operands.get(operand) else { continue };
                    (operand.binding(), given.buffer, given.offset)
                }
                Source::Partial => {
                    let Some(buffer) = &scratch.partial else { continue };
                    (Space::Partial.binding(), buffer, 0)
                }
            };
            let range = match (wgpu::BufferSize::new(slice.size_bytes), &self.stand_in) {
                (None, Some(stand_in)) => stand_in.as_entire_buffer_binding(),
                (size, _) => wgpu::BufferBinding { buffer, offset: offset + slice.offset_bytes, size },
            };
            entries.push(wgpu::BindGroupEntry { binding, resource: wgpu::BindingResource::Buffer(range) });
        }
        for (space, _) in step.variant.spaces().filter(|(space, _)| *space != Space::Partial) {
            let Some(texture) = scratch.texture(space) else { continue };
            let resource = wgpu::BindingResource::TextureView(texture);
            entries.push(wgpu::BindGroupEntry { binding: space.binding(), resource });
        }
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&label),
            layout: &step.pipeline.layout,
            entries: &entries,
        });
        Part::new(step.pipeline.pipeline.clone(), group, launch.grid, label)
    }
}
