//! Attention inside a framework: all tensors are parts of one buffer, the cache is in f16 and grows, and a mask of u32 hides
//! keys where it is 1.

use wgpu::BufferUsages;
use wgpu_attention::{
    Attention, Dtype, Inputs, Layout, MaskFormat, Operand, Operands, Problem, Readback, ScoreLayout, Shape, reference,
};

const HEADS: u32 = 8;
const KV_HEADS: u32 = 2;
const DIM: u32 = 64;
const CAPACITY: u32 = 512;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;
    let attention = Attention::new(&device);

    // What the framework has: a pool, and where in it each tensor begins. Tensors begin at multiples of 32 bytes.
    let numbers = |n: u32, seed: f32| -> Vec<f32> { (0..n).map(|i| (i as f32 * seed).sin()).collect() };
    let rounded = |values: &[f32]| Dtype::F16.decode(&Dtype::F16.encode(values));
    let q = numbers(HEADS * DIM, 0.7);
    let (k, v) = (numbers(CAPACITY * KV_HEADS * DIM, 0.9), numbers(CAPACITY * KV_HEADS * DIM, 1.1));
    let hidden: Vec<u32> = (0..CAPACITY).map(|key| u32::from(key % 7 == 3)).collect();
    let mut pool = Vec::new();
    let mut place = |bytes: &[u8]| {
        pool.resize(pool.len().next_multiple_of(32) + 32, 0);
        let begin = pool.len() as u64;
        pool.extend_from_slice(bytes);
        begin
    };
    let [at_q, at_out] = [Dtype::F32.encode(&q), vec![0; q.len() * 4]].map(|bytes| place(&bytes));
    let [at_k, at_v] = [&k, &v].map(|values| place(&Dtype::F16.encode(values)));
    let at_mask = place(bytemuck::cast_slice(&hidden));
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
    let size = pool.len().next_multiple_of(4);
    pool.resize(size, 0);
    let descriptor = wgpu::BufferDescriptor { label: None, size: size as u64, usage, mapped_at_creation: false };
    let buffer = device.create_buffer(&descriptor);
    queue.write_buffer(&buffer, 0, &pool);

    // Where each tensor is bound, and its layout from there.
    let f32s = Dtype::F32.size_bytes();
    let f16s = Dtype::F16.size_bytes();
    let ((bind_q, first_q), (bind_out, first_out)) =
        (attention.binding_at(&buffer, at_q, f32s)?, attention.binding_at(&buffer, at_out, f32s)?);
    let ((bind_k, first_k), (bind_v, first_v)) =
        (attention.binding_at(&buffer, at_k, f16s)?, attention.binding_at(&buffer, at_v, f16s)?);
    let (bind_mask, first_mask) = attention.binding_at(&buffer, at_mask, 4)?;
    let row = Layout::bhld(HEADS, 1, DIM);
    let cache = Layout::strided([0, DIM.into(), (KV_HEADS * DIM).into()]);

    let first = 300;
    let problem = Problem::builder(Shape::new(1, HEADS, 1, DIM).kv_heads(KV_HEADS).kv_len(first))
        .kv_dtype(Dtype::F16)
        .q(row.at(first_q))
        .out(row.at(first_out))
        .k(cache.at(first_k))
        .v(cache.at(first_v))
        .mask_as(MaskFormat::WordsHide, ScoreLayout::strided([0, 0, 0, 1]).at(first_mask))
        .shared_buffers()
        .build()?;
    let mut plan = attention.plan(&problem)?;
    // The binding of the output ends where the output does, because the readback copies all of it.
    let out_bytes = problem.view(Operand::Out).map_or(0, |view| view.size_bytes());
    let bind_out = wgpu::BufferBinding { size: wgpu::BufferSize::new(out_bytes), ..bind_out };
    let operands = Operands::new(bind_q, bind_k, bind_v, bind_out.clone()).with(Operand::Mask, bind_mask);

    let mut worst = 0.0_f64;
    for len_kv in [first, 301, CAPACITY] {
        plan = plan.resized(1, len_kv)?;
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        plan.bind(&operands)?.encode(&mut encoder);
        let readback = Readback::record(&device, &mut encoder, bind_out.clone())?;
        queue.submit([encoder.finish()]);
        device.poll(wgpu::PollType::wait_indefinitely())?;
        let out = pollster::block_on(readback.values(Dtype::F32))?;

        // The same, by the definition, on tensors of their own.
        let keys = (len_kv * KV_HEADS * DIM) as usize;
        let dense = Layout::blhd(KV_HEADS, len_kv, DIM);
        let shape = Shape::new(1, HEADS, 1, DIM).kv_heads(KV_HEADS).kv_len(len_kv);
        let dense =
            Problem::builder(shape).k(dense).v(dense).mask(ScoreLayout::broadcast([1, 1, 1, len_kv])).build()?;
        let attend: Vec<bool> = hidden[..len_kv as usize].iter().map(|&hidden| hidden == 0).collect();
        let (k, v) = (rounded(&k[..keys]), rounded(&v[..keys]));
        let inputs = Inputs { q: &q, k: &k, v: &v, mask: Some(&attend), ..Inputs::default() };
        for head in 0..HEADS {
            let row = reference::row(&dense, &inputs, [0, head, 0])?;
            let got = &out[usize::try_from(first_out)? + (head * DIM) as usize..];
            let errors = row.out.iter().zip(got).map(|(wanted, &got)| (wanted - f64::from(got)).abs());
            worst = errors.fold(worst, f64::max);
        }
    }
    println!("{} on {}: largest error {worst:.1e}", plan.variant(), adapter.get_info().name);
    if worst > 1e-5 { Err("the results differ from the definition".into()) } else { Ok(()) }
}
