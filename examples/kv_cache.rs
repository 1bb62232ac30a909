//! Decoding with a KV cache: one plan and one bound call for all steps; only `kv_lengths` changes.
//!
//! Eight tokens are decoded one at a time against a cache with room for 64, then compared with the same tokens attended
//! all at once.

use wgpu::BufferUsages;
use wgpu_attention::{Attention, Diagonal, Inputs, Layout, Operand, Operands, Problem, Readback, Shape, reference};

const CAPACITY: u32 = 64;
const STEPS: u32 = 8;
const HEADS: u32 = 8;
const KV_HEADS: u32 = 2;
const DIM: u32 = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;
    let buffer = |label, elements: u32| {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: u64::from(elements) * 4,
            usage: BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        })
    };

    // The cache is (capacity, KV heads, dim): a new token's keys are one contiguous row.
    let row = KV_HEADS * DIM;
    let (q, out) = (buffer("q", HEADS * DIM), buffer("out", HEADS * DIM));
    let (keys, values) = (buffer("keys", CAPACITY * row), buffer("values", CAPACITY * row));
    let lengths = buffer("lengths", 1);

    let shape = Shape::new(1, HEADS, 1, DIM).kv_heads(KV_HEADS).kv_len(CAPACITY);
    let cache = Layout::blhd(KV_HEADS, CAPACITY, DIM);
    let problem = Problem::builder(shape).k(cache).v(cache).causal(Diagonal::BottomRight).kv_lengths().build()?;
    let plan = Attention::new(&device).plan(&problem)?;
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let operands = Operands::new(whole(&q), whole(&keys), whole(&values), whole(&out));
    let call = plan.bind(&operands.with(Operand::KvLengths, whole(&lengths)))?;

    // A model would compute these.
    let tokens = |seed: f32, width: u32| -> Vec<f32> { (0..STEPS * width).map(|i| (i as f32 * seed).sin()).collect() };
    let (all_q, all_k, all_v) = (tokens(0.7, HEADS * DIM), tokens(0.9, row), tokens(1.1, row));
    let mut decoded = Vec::new();
    for step in 0..STEPS {
        let token = |all: &[f32], width: u32| -> Vec<u8> {
            bytemuck::cast_slice(&all[(step * width) as usize..((step + 1) * width) as usize]).to_vec()
        };
        queue.write_buffer(&q, 0, &token(&all_q, HEADS * DIM));
        queue.write_buffer(&keys, u64::from(step * row) * 4, &token(&all_k, row));
        queue.write_buffer(&values, u64::from(step * row) * 4, &token(&all_v, row));
        queue.write_buffer(&lengths, 0, bytemuck::bytes_of(&(step + 1)));

        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        call.encode(&mut encoder);
        let readback = Readback::record(&device, &mut encoder, whole(&out))?;
        queue.submit([encoder.finish()]);
        device.poll(wgpu::PollType::wait_indefinitely())?;
        decoded.extend(pollster::block_on(readback.values(problem.dtype(Operand::Out).unwrap_or_default()))?);
    }

    let at_once = Problem::builder(Shape::new(1, HEADS, STEPS, DIM).kv_heads(KV_HEADS))
        .q(Layout::blhd(HEADS, STEPS, DIM))
        .k(Layout::blhd(KV_HEADS, STEPS, DIM))
        .v(Layout::blhd(KV_HEADS, STEPS, DIM))
        .causal(Diagonal::TopLeft)
        .build()?;
    let inputs = Inputs { q: &all_q, k: &all_k, v: &all_v, ..Inputs::default() };
    let mut worst = 0.0_f64;
    for step in 0..STEPS {
        for head in 0..HEADS {
            let row = reference::row(&at_once, &inputs, [0, head, step])?;
            let start = ((step * HEADS + head) * DIM) as usize;
            let errors = row.out.iter().zip(&decoded[start..]).map(|(wanted, &got)| (wanted - f64::from(got)).abs());
            worst = errors.fold(worst, f64::max);
        }
    }
    println!("{} on {}: {STEPS} steps, largest error {worst:.1e}", plan.variant(), adapter.get_info().name);
    Ok(())
}
