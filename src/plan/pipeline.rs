//! Compiling a kernel.

use futures_util::FutureExt as _;
use futures_util::future::Shared;

use crate::device::refusal::{Refusal, scoped};
use crate::kernel::params::Params;
use crate::kernel::record::Kernel;
use crate::kernel::slots::{PARAMS_BINDING, binding};

/// A compiled kernel and what it binds.
#[derive(Clone, Debug)]
pub(crate) struct Pipeline {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
    /// Shared by all plans of the kernel.
    refusal: Shared<Refusal>,
}

impl Pipeline {
    /// Compiles `wgsl` as the text of `kernel`.
    pub(super) fn new(
        device: &wgpu::Device,
        cache: Option<&wgpu::PipelineCache>,
        label: &str,
        kernel: &Kernel,
        wgsl: String,
    ) -> Self {
        let ((pipeline, layout), refusal) = scoped(device, || compile(device, cache, label, kernel, wgsl));
        Self { pipeline, layout, refusal: refusal.shared() }
    }

    /// Why the kernel was refused, as far as it is known by now: natively always, in a browser once it is compiled and the app
    /// has returned to its event loop.
    pub(super) fn refusal_by_now(&self) -> Option<String> {
        self.refusal.clone().now_or_never().flatten()
    }

    /// Waits until the kernel is compiled, and returns why it was refused, if it was.
    pub(super) async fn refusal(&self) -> Option<String> {
        self.refusal.clone().await
    }
}

fn compile(
    device: &wgpu::Device,
    cache: Option<&wgpu::PipelineCache>,
    label: &str,
    kernel: &Kernel,
    wgsl: String,
) -> (wgpu::ComputePipeline, wgpu::BindGroupLayout) {
    let label = Some(label);
    let source = wgpu::ShaderSource::Wgsl(wgsl.into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label, source });
    let entries = layout_entries(kernel);
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label,
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label,
        layout: Some(&pipeline_layout),
        module: &module,
        // The module has only one entry point. If the user has programs, it is not called `main`.
        entry_point: None,
        compilation_options: wgpu::PipelineCompilationOptions {
            // Every kernel writes its workgroup memory before it reads it.
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache,
    });
    if cfg!(target_arch = "wasm32") {
        // A validation error if the driver's compiler refused the kernel, as `scoped` reads no other error of it there.
        pipeline.get_bind_group_layout(0);
    }
    (pipeline, layout)
}

fn layout_entries(kernel: &Kernel) -> Vec<wgpu::BindGroupLayoutEntry> {
    let entry =
        |binding, ty| wgpu::BindGroupLayoutEntry { binding, visibility: wgpu::ShaderStages::COMPUTE, ty, count: None };
    let params = wgpu::BindingType::Buffer {
        ty: wgpu::BufferBindingType::Uniform,
        has_dynamic_offset: false,
        min_binding_size: wgpu::BufferSize::new(size_of::<Params>() as u64),
    };
    let slots = kernel.slots.iter().enumerate().map(|(n, slot)| entry(binding(n), slot.ty()));
    std::iter::once(entry(PARAMS_BINDING, params)).chain(slots).collect()
}
