//! Attention inside an app's frame: the app's encoder, one pass with the app's dispatches before and after, one submit.
//!
//! The "app" updates a field of particles. Its first shader turns each particle's state into a query, a key and a value,
//! packed in one buffer. Attention mixes them, and the app's second shader adds the result to the state, all in one pass.

use wgpu::util::DeviceExt as _;
use wgpu_attention::{Attention, Dtype, Layout, Operands, Problem, Readback, Shape};

const PARTICLES: u32 = 1000;
const HEADS: u32 = 4;
const DIM: u32 = 16;

/// The app's shaders: state → packed (q, k, v), and state += attention's output.
const APP: &str = "
@group(0) @binding(0) var<storage, read_write> state: array<f32>;
@group(0) @binding(1) var<storage, read_write> other: array<f32>;  // qkv, or attention's output

@compute @workgroup_size(64) fn project(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= arrayLength(&state)) { return; }
    let row = id.x / 64u * 192u + id.x % 64u;
    other[row] = state[id.x];
    other[row + 64u] = 0.5 * state[id.x];
    other[row + 128u] = -state[id.x];
}
@compute @workgroup_size(64) fn add(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < arrayLength(&state)) { state[id.x] += other[id.x]; }
}";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // What every app already has.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;
    let start: Vec<f32> = (0..PARTICLES * HEADS * DIM).map(|i| (i as f32 * 0.37).sin()).collect();
    let state = device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: Some("state"),
        contents: bytemuck::cast_slice(&start),
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
    });
    let scratch = |label, elements: u32| {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: u64::from(elements) * 4,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        })
    };
    let (qkv, mixed) = (scratch("qkv", PARTICLES * HEADS * DIM * 3), scratch("mixed", PARTICLES * HEADS * DIM));
    let project = AppPass::new(&device, "project", &state, &qkv);
    let add = AppPass::new(&device, "add", &state, &mixed);

    // Once: describe, plan, bind.
    let shape = Shape::new(1, HEADS, PARTICLES, DIM);
    let [q, k, v] = Layout::packed_qkv(&shape);
    let problem = Problem::builder(shape).q(q).k(k).v(v).out(Layout::blhd(HEADS, PARTICLES, DIM)).build()?;
    let plan = Attention::new(&device).plan(&problem)?;
    let packed = || qkv.as_entire_buffer_binding();
    let call = plan.bind(&Operands::new(packed(), packed(), packed(), mixed.as_entire_buffer_binding()))?;

    // Every frame: record among the app's own work, submit once.
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for _ in 0..3 {
            project.dispatch(&mut pass);
            call.dispatch(&mut pass);
            add.dispatch(&mut pass);
        }
    }
    let readback = Readback::record(&device, &mut encoder, state.as_entire_buffer_binding())?;
    queue.submit([encoder.finish()]);
    device.poll(wgpu::PollType::wait_indefinitely())?;

    let end = pollster::block_on(readback.values(Dtype::F32))?;
    println!(
        "{} on {}: particle 0 went from {:.3?} to {:.3?}",
        plan.variant(),
        adapter.get_info().name,
        &start[..4],
        &end[..4]
    );
    Ok(())
}

struct AppPass {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
}

impl AppPass {
    fn new(device: &wgpu::Device, entry_point: &str, state: &wgpu::Buffer, other: &wgpu::Buffer) -> Self {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("app"),
            source: wgpu::ShaderSource::Wgsl(APP.into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(entry_point),
            layout: None,
            module: &module,
            entry_point: Some(entry_point),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(entry_point),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[
                wgpu::BindGroupEntry { binding: 0, resource: state.as_entire_binding() },
                wgpu::BindGroupEntry { binding: 1, resource: other.as_entire_binding() },
            ],
        });
        Self { pipeline, group }
    }

    fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups((PARTICLES * HEADS * DIM).div_ceil(64), 1, 1);
    }
}
