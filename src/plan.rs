//! A problem compiled and sized for a device.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::call::{Call, Part};
use crate::cut::{Slice, cut, grid, slices};
use crate::fill::filled;
use crate::operand::PARAMS_BINDING;
use crate::params::Params;
use crate::select::{candidates, weights_candidates};
use crate::{BindError, Caps, Operand, Operands, PlanError, Problem, Variant};

/// Plans attention on one device, and keeps the pipelines it compiled. Clones share them.
#[derive(Clone, Debug)]
pub struct Attention {
    device: wgpu::Device,
    caps: Caps,
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
    steps: Arc<[Step]>,
}

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

    /// For a device, within tighter limits than its own.
    pub fn with_caps(device: &wgpu::Device, caps: Caps) -> Self {
        Self { device: device.clone(), caps, pipelines: Arc::default() }
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

    fn build(&self, problem: &Problem, variant: Variant) -> Result<Plan, PlanError> {
        let mut steps = vec![self.step(problem, variant)?];
        if problem.uses(Operand::Weights) {
            let weights = weights_candidates(problem, &self.caps)?;
            // Pinning the access pins it for both kernels, where the weights allow it.
            let same = weights.iter().find(|weights| weights.access == variant.access);
            steps.push(self.step(problem, *same.unwrap_or(&weights[0]))?);
        }
        Ok(Plan {
            device: self.device.clone(),
            problem: *problem,
            variant,
            binding_alignment: self.caps.binding_alignment,
            steps: steps.into(),
        })
    }

    fn step(&self, problem: &Problem, variant: Variant) -> Result<Step, PlanError> {
        let pieces = cut(problem, &variant, &self.caps)?;
        let stride = size_of::<Params>().next_multiple_of(self.caps.uniform_alignment.max(4) as usize);
        let mut contents = Vec::new();
        let mut launches = Vec::new();
        for piece in &pieces {
            let slices: Vec<Slice> = slices(piece, problem, &variant, &self.caps).collect();
            let params = Params::new(problem, piece, slices.iter().copied());
            contents.resize(launches.len() * stride, 0);
            launches.push(Launch { params_offset: contents.len() as u64, slices, grid: grid(piece, &variant) });
            contents.extend_from_slice(bytemuck::bytes_of(&params));
        }
        let params = filled(&self.device, &format!("{variant} params"), contents, wgpu::BufferUsages::UNIFORM);
        let params = params.ok_or(PlanError::DeviceLost)?;
        Ok(Step { variant, pipeline: self.pipeline(variant), params, launches })
    }

    /// Two threads that want one variant share its compilation; two variants compile side by side.
    fn pipeline(&self, variant: Variant) -> Pipeline {
        let slot = self.slots().entry(variant).or_default().clone();
        slot.get_or_init(|| compile(&self.device, &variant, variant.wgsl())).clone()
    }

    /// Compiles other text for a variant than its own: how the tests plant a mistake and see that they notice.
    #[doc(hidden)]
    pub fn substitute(&self, variant: Variant, wgsl: String) {
        let pipeline = compile(&self.device, &variant, wgsl);
        self.slots().insert(variant, Arc::new(OnceLock::from(pipeline)));
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<Variant, Arc<OnceLock<Pipeline>>>> {
        self.pipelines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn compile(device: &wgpu::Device, variant: &Variant, wgsl: String) -> Pipeline {
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
        cache: None,
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
    std::iter::once(params).chain(storage).collect()
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

    /// Binds buffers. Offsets and sizes are the operands' own; layouts count from the binding's start.
    ///
    /// # Errors
    /// [`BindError`] names the operand that is missing, too small, misaligned, aliased or lacks a usage.
    pub fn bind(&self, operands: &Operands<'_>) -> Result<Call, BindError> {
        operands.check(&self.problem, self.binding_alignment)?;
        let mut parts = Vec::new();
        for step in self.steps.iter() {
            for launch in &step.launches {
                parts.push(self.part(step, launch, operands));
            }
        }
        Ok(Call::new(self.variant, parts))
    }

    fn part(&self, step: &Step, launch: &Launch, operands: &Operands<'_>) -> Part {
        let label = step.variant.to_string();
        let params = wgpu::BufferBinding {
            buffer: &step.params,
            offset: launch.params_offset,
            size: wgpu::BufferSize::new(size_of::<Params>() as u64),
        };
        let mut entries =
            vec![wgpu::BindGroupEntry { binding: PARAMS_BINDING, resource: wgpu::BindingResource::Buffer(params) }];
        for slice in &launch.slices {
            let Some(given) = operands.get(slice.operand) else { continue };
            let binding = wgpu::BufferBinding {
                buffer: given.buffer,
                offset: given.offset + slice.offset_bytes,
                size: wgpu::BufferSize::new(slice.size_bytes),
            };
            let resource = wgpu::BindingResource::Buffer(binding);
            entries.push(wgpu::BindGroupEntry { binding: slice.operand.binding(), resource });
        }
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&label),
            layout: &step.pipeline.layout,
            entries: &entries,
        });
        Part::new(step.pipeline.pipeline.clone(), group, launch.grid, label)
    }
}
