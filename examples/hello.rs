//! Self-attention as introductions write it, y = softmax(x xᵀ) x, for three words of two features each.

use wgpu_attention::{Attention, Inputs, Problem, Shape, blocking};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;

    let x = [1.0, 2.0, 2.0, 3.0, 3.0, 4.0];
    let (words, features) = (3, 2);
    let problem = Problem::builder(Shape::new(1, 1, words, features)).scale(1.0).weights().build()?;
    let inputs = Inputs { q: &x, k: &x, v: &x, ..Inputs::default() };
    let outputs = blocking::attention(&Attention::new(&device), &queue, &problem, &inputs)?;

    let weights = outputs.weights.unwrap_or_default();
    for (word, (y, p)) in outputs.out.chunks(2).zip(weights.chunks(3)).enumerate() {
        println!("word {}: weights {p:.4?} → y {y:.4?}", word + 1);
    }
    Ok(())
}
