//! Opting in to the device's matrix unit: tensor cores, matrix cores, simdgroup matrices. f16 only.
//!
//! Prints what it found, and the kernel that f16 attention gets; without a unit, everything works as before.

use wgpu_attention::{Attention, Caps, Dtype, Inputs, Problem, Shape, blocking, reference};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    // The fastest tiles take more than WebGPU's 16 KiB.
    let max_compute_workgroup_storage_size = adapter.limits().max_compute_workgroup_storage_size;
    let required_limits = wgpu::Limits { max_compute_workgroup_storage_size, ..wgpu::Limits::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: adapter.features() & (Caps::FEATURES | Caps::MATRIX_FEATURES),
        required_limits,
        // SAFETY: faults of wgpu's cooperative matrices may be hit, and will be reported to wgpu.
        #[expect(unsafe_code, reason = "what wgpu asks of those who want cooperative matrices")]
        experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
        ..Default::default()
    }))?;

    let mut caps = Caps::of(&device);
    match blocking::matrix_unit(&adapter, &device, &queue) {
        Ok(unit) => {
            println!("matrix unit: {unit}");
            caps.matrix_unit = Some(unit);
        }
        Err(why) => println!("no matrix unit: {why}"),
    }
    let attention = Attention::with_caps(&device, caps);

    let problem = Problem::builder(Shape::new(1, 2, 64, 64)).dtype(Dtype::F16).build()?;
    let x: Vec<f32> = (0..2 * 64 * 64).map(|i| (i * 7 % 31) as f32 / 16.0 - 1.0).collect();
    let inputs = Inputs { q: &x, k: &x, v: &x, ..Inputs::default() };
    let got = blocking::attention(&attention, &queue, &problem, &inputs)?.out;
    let wanted = reference::attention(&problem, &inputs)?.out;
    let error = got.iter().zip(&wanted).map(|(got, wanted)| (f64::from(*got) - wanted).abs()).fold(0.0, f64::max);
    println!("{}: largest error {error:.1e}", attention.candidates(&problem)?[0]);
    if caps.matrix_unit.is_some() && caps.is_software {
        println!("(a CPU plays this GPU: kernels of its own are faster, and the unit is not used)");
    }
    assert!(error < 2e-3, "wrong");
    Ok(())
}
