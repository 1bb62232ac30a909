//! Attention to more keys than the device has room for: four times what its largest buffer holds, in chunks that are
//! uploaded one after another into the same two buffers. The results are merged at the end, and some rows are compared with
//! the definition over all keys.

use wgpu::BufferUsages;
use wgpu_attention::{Attention, Dtype, Inputs, Merge, Operand, Operands, Problem, Readback, Shape, reference};

/// As large as a buffer of the device may be, in bytes.
const LARGEST_BUFFER: u64 = 16 << 20;
/// Keys and values together are four times as large: 64 MiB.
const KEYS: u32 = 1 << 16;
/// Of 4 MiB, and as much of values.
const CHUNK: u32 = KEYS / 8;
const HEADS: u32 = 4;
const QUERIES: u32 = 8;
const DIM: u32 = 128;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let required_limits = wgpu::Limits {
        max_buffer_size: LARGEST_BUFFER,
        max_storage_buffer_binding_size: LARGEST_BUFFER,
        ..wgpu::Limits::default()
    };
    let required_features = adapter.features() & wgpu_attention::Caps::FEATURES;
    let descriptor = wgpu::DeviceDescriptor { required_features, required_limits, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))?;
    let attention = Attention::new(&device);

    // All heads share the keys. They are in the host's memory here; they might come from a file. The queries are larger, so
    // that some keys count far more than others.
    let numbers = |n: u32, factor: u32| -> Vec<f32> {
        (0..n).map(|i| (i.wrapping_mul(factor) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
    };
    let q: Vec<f32> = numbers(HEADS * QUERIES * DIM, 0x9e37_79b1).iter().map(|x| 8.0 * x).collect();
    let (k, v) = (numbers(KEYS * DIM, 0x85eb_ca6b), numbers(KEYS * DIM, 0xc2b2_ae35));
    let bytes = 4 * (k.len() + v.len()) as u64;
    assert_eq!(bytes, 4 * device.limits().max_buffer_size, "four times what a buffer holds");

    // One problem for every chunk, and a merge of what they give.
    let shape = Shape::new(1, HEADS, QUERIES, DIM).kv_heads(1);
    let chunk = Problem::builder(shape.kv_len(CHUNK)).lse().build()?;
    let merge = Merge::builder(shape, KEYS / CHUNK).build()?;
    let buffer = |size: Option<u64>| {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let size = size.unwrap_or_default();
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    let size = |operand| chunk.view(operand).map(|view| view.size_bytes());
    let [queries, keys, values] = [Operand::Q, Operand::K, Operand::V].map(|operand| buffer(size(operand)));
    let [outs, lses, out] =
        [Operand::PairOut, Operand::PairLse, Operand::Out].map(|operand| buffer(merge.size_bytes(operand)));
    queue.write_buffer(&queries, 0, bytemuck::cast_slice(&q));

    let (plan, merging) = (attention.plan(&chunk)?, attention.plan_merge(&merge)?);
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let scratch = plan.scratch();
    let elements = (CHUNK * DIM) as usize;
    for n in 0..merge.pairs() {
        // What is written here is there when the commands that are submitted next run, after those before.
        let start = n as usize * elements;
        queue.write_buffer(&keys, 0, bytemuck::cast_slice(&k[start..][..elements]));
        queue.write_buffer(&values, 0, bytemuck::cast_slice(&v[start..][..elements]));
        let (out, lse) = (merge.pair(Operand::PairOut, n, &outs)?, merge.pair(Operand::PairLse, n, &lses)?);
        let operands = Operands::new(whole(&queries), whole(&keys), whole(&values), out).with(Operand::Lse, lse);
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        plan.bind_in(&operands, &scratch)?.encode(&mut encoder);
        queue.submit([encoder.finish()]);
        // wgpu keeps what is uploaded until it has been copied, so do not run far ahead.
        device.poll(wgpu::PollType::wait_indefinitely())?;
    }
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    merging.bind(&Operands::of_pairs(whole(&outs), whole(&lses), whole(&out)))?.encode(&mut encoder);
    let readback = Readback::record(&device, &mut encoder, whole(&out))?;
    queue.submit([encoder.finish()]);
    device.poll(wgpu::PollType::wait_indefinitely())?;
    let got = pollster::block_on(readback.values(Dtype::F32))?;

    let all = Problem::builder(shape.kv_len(KEYS)).build()?;
    let inputs = Inputs { q: &q, k: &k, v: &v, ..Inputs::default() };
    let mut worst = 0.0_f64;
    for (head, query) in (0..HEADS).zip([0, 3, 4, QUERIES - 1]) {
        let wanted = reference::row(&all, &inputs, [0, head, query])?;
        let got = &got[((head * QUERIES + query) * DIM) as usize..];
        let errors = wanted.out.iter().zip(got).map(|(wanted, &got)| (wanted - f64::from(got)).abs());
        worst = errors.fold(worst, f64::max);
    }
    println!(
        "{}: {} MiB of keys and values in {} chunks, on a device with buffers of at most {} MiB; largest error {worst:.1e}",
        adapter.get_info().name,
        bytes >> 20,
        merge.pairs(),
        LARGEST_BUFFER >> 20
    );
    if worst > 1e-5 { Err("the results differ from attention over all keys".into()) } else { Ok(()) }
}
