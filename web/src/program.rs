//! The visitor's `mask_mod`, evaluated pair by pair by a kernel of the page, for the CPU's computation, which cannot run
//! WGSL.

use anyhow::{Context as _, Result};
use wgpu_attention::testing::AT;
use wgpu_attention::{Readback, Shape};

use crate::gpu::Gpu;

const KERNEL: &str = include_str!("program.wgsl");

/// Whether `text` lets the query see the key, for each (head, query, key).
pub(crate) async fn seen(gpu: &Gpu, text: &str, shape: Shape) -> Result<Vec<u8>> {
    let device = gpu.device();
    let pairs = shape.heads_q * shape.len_q * shape.len_kv;
    let size = u64::from(pairs) * 4;
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
    let answers = device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false });
    // The crate has checked the program alone. Beside this kernel, it may still declare a name that the kernel has.
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let source = wgpu::ShaderSource::Wgsl(format!("{KERNEL}\n{AT}\n{text}").into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some("mask_mod alone"), source });
    let constants = [("page_queries", f64::from(shape.len_q)), ("page_keys", f64::from(shape.len_kv))];
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some("mask_mod alone"),
        layout: None,
        module: &module,
        entry_point: Some("page_ask"),
        compilation_options: wgpu::PipelineCompilationOptions { constants: &constants, ..Default::default() },
        cache: None,
    });
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource: answers.as_entire_binding() }],
    });
    if let Some(error) = scope.pop().await {
        anyhow::bail!("beside the kernel that evaluates it alone: {error}");
    }
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(pairs.div_ceil(64), 1, 1);
    }
    let answers = Readback::record(device, &mut encoder, answers.as_entire_buffer_binding())?;
    gpu.queue.submit([encoder.finish()]);
    let answers: Vec<u32> = bytemuck::pod_collect_to_vec(&answers.bytes().await?);
    answers.into_iter().map(|answer| u8::try_from(answer).context("an answer is neither 0 nor 1")).collect()
}
