//! What the app does.

use wasm_bindgen::prelude::wasm_bindgen;
use wgpu::{BufferUsages, Device, Queue};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console)]
    fn log(bytes: &[u8]);
}

const DOUBLE: &str = "@group(0) @binding(0) var<storage, read_write> numbers: array<f32>;
@compute @workgroup_size(4) fn main(@builtin(global_invocation_id) id: vec3<u32>) { numbers[id.x] *= 2.0; }";

pub(crate) async fn run() {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let Ok(adapter) = instance.request_adapter(&wgpu::RequestAdapterOptions::default()).await else { return };
    let Ok((device, queue)) = adapter.request_device(&wgpu::DeviceDescriptor::default()).await else { return };
    double(&device, &queue);
    #[cfg(feature = "attention")]
    attend(&device, &queue).await;
}

/// Doubles four numbers on the device and logs them.
fn double(device: &Device, queue: &Queue) {
    let buffer = |usage| {
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size: 16, usage, mapped_at_creation: false })
    };
    let numbers = buffer(BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST);
    let copy = buffer(BufferUsages::MAP_READ | BufferUsages::COPY_DST);
    queue.write_buffer(&numbers, 0, &[0; 16]);
    let source = wgpu::ShaderSource::Wgsl(DOUBLE.into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource: numbers.as_entire_binding() }],
    });
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
    }
    encoder.copy_buffer_to_buffer(&numbers, 0, &copy, 0, 16);
    queue.submit([encoder.finish()]);
    let mapped = copy.clone();
    copy.map_async(wgpu::MapMode::Read, .., move |_| {
        if let Ok(bytes) = mapped.get_mapped_range(..) {
            log(&bytes);
        }
    });
}

#[cfg(feature = "attention")]
async fn attend(device: &Device, queue: &Queue) {
    use wgpu_attention::{Attention, Diagonal, Inputs, Problem, Shape, submitting};

    let Ok(problem) = Problem::builder(Shape::new(1, 1, 4, 32)).causal(Diagonal::TopLeft).build() else { return };
    let x = [1.0; 4 * 32];
    let inputs = Inputs { q: &x, k: &x, v: &x, ..Inputs::default() };
    if let Ok(outputs) = submitting::attention(&Attention::new(device), queue, &problem, &inputs).await {
        log(&outputs.out.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
    }
}
