//! Attention that keeps all scores in memory, for comparison.

use anyhow::{Result, ensure};
use wgpu::util::DeviceExt as _;
use wgpu_attention::Shape;

use crate::gpu::Gpu;
use crate::stopwatch::Timed;

/// The three kernels, bound to buffers.
pub(crate) struct Naive {
    scores: wgpu::Buffer,
    group: wgpu::BindGroup,
    steps: [(wgpu::ComputePipeline, [u32; 3]); 3],
}

/// The bytes that the scores take.
pub(crate) fn score_bytes(shape: Shape) -> u64 {
    u64::from(shape.heads_q) * u64::from(shape.len_q) * u64::from(shape.len_kv) * 4
}

impl Naive {
    /// Prepares attention of `shape`, with as many queries as keys.
    ///
    /// # Errors
    /// If the scores are larger than the device's buffers.
    pub(crate) fn new(gpu: &Gpu, shape: Shape, [q, k, v, out]: [&wgpu::Buffer; 4]) -> Result<Self> {
        let device = gpu.device();
        let (need, limits) = (score_bytes(shape), device.limits());
        let granted = limits.max_buffer_size.min(limits.max_storage_buffer_binding_size);
        ensure!(need <= granted, "does not fit: the scores take {need} bytes, and a buffer holds at most {granted}");
        let scores = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("naive scores"),
            size: need,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        });
        let scale = 1.0 / (shape.dim_qk as f32).sqrt();
        let sizes = device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: Some("naive sizes"),
            contents: bytemuck::cast_slice(&[shape.len_q, shape.dim_qk, scale.to_bits(), 0]),
            usage: wgpu::BufferUsages::UNIFORM,
        });
        let buffers = [(1, q), (2, k), (3, v), (4, &scores), (5, out)];
        let entry = |binding, ty| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty,
            count: None,
        };
        let buffer = |ty| wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None };
        let storage = |read_only| buffer(wgpu::BufferBindingType::Storage { read_only });
        let mut entries = vec![entry(0, buffer(wgpu::BufferBindingType::Uniform))];
        entries.extend(buffers.map(|(binding, _)| entry(binding, storage(binding < 4))));
        let layout =
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
        let bound = |(binding, buffer): (u32, &wgpu::Buffer)| (binding, buffer.clone());
        let bound: Vec<_> = [(0, &sizes)].into_iter().chain(buffers).map(bound).collect();
        let entries: Vec<_> = bound
            .iter()
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding: *binding, resource: buffer.as_entire_binding() })
            .collect();
        let group =
            device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries });

        let module = device.create_shader_module(wgpu::include_wgsl!("naive.wgsl"));
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let step = |name, grid| {
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(name),
                layout: Some(&layout),
                module: &module,
                entry_point: Some(name),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            });
            (pipeline, grid)
        };
        let [rows, keys, columns] = [shape.len_q, shape.len_kv, shape.dim_v].map(|size| size.div_ceil(8));
        let steps = [
            step("multiply_keys", [keys, rows, shape.heads_q]),
            step("softmax", [shape.len_q, shape.heads_q, 1]),
            step("multiply_values", [columns, rows, shape.heads_q]),
        ];
        Ok(Self { scores, group, steps })
    }

    /// Frees the memory of the scores.
    pub(crate) fn destroy(&self) {
        self.scores.destroy();
    }
}

impl Timed for Naive {
    fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_bind_group(0, &self.group, &[]);
        for (pipeline, [x, y, z]) in &self.steps {
            pass.set_pipeline(pipeline);
            pass.dispatch_workgroups(*x, *y, *z);
        }
    }
}
