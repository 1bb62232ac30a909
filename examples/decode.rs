//! Decoding with a paged cache of 16-bit keys and values: each step appends a token, rotated, and attends to all before it, in
//! one pass. Only the lengths and the block table change; nothing is planned or bound again.
//!
//! A thousand tokens are decoded, and the same tokens again with a contiguous cache. Both give the same bits.

use std::time::{Duration, Instant};

use wgpu::BufferUsages;
use wgpu_attention::{
    Append, Attention, Call, Diagonal, Dtype, Operand, Operands, Pages, Problem, Readback, Rotary, RotaryPairs, Shape,
};

const STEPS: u32 = 1000;
const HEADS: u32 = 16;
const KV_HEADS: u32 = 8;
const DIM: u32 = 128;
const PAGE: u32 = 16;

/// A buffer for each operand of a problem, and the calls that append to its cache and read it.
struct Layer {
    buffers: Vec<(Operand, wgpu::Buffer)>,
    append: Call,
    attend: Call,
}

impl Layer {
    fn new(attention: &Attention, problem: &Problem) -> Result<Self, Box<dyn std::error::Error>> {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
        let buffer = |label, size| {
            let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
            attention.device().create_buffer(&descriptor)
        };
        let buffers: Vec<_> =
            problem.views().map(|view| (view.operand, buffer(view.operand.name(), view.size_bytes()))).collect();
        let operands: Operands<'_> =
            buffers.iter().map(|(operand, buffer)| (*operand, buffer.as_entire_buffer_binding())).collect();
        let (append, attend) =
            (attention.plan_append(problem)?.bind(&operands)?, attention.plan(problem)?.bind(&operands)?);
        Ok(Self { append, attend, buffers })
    }

    fn get(&self, operand: Operand) -> Option<&wgpu::Buffer> {
        self.buffers.iter().find_map(|(other, buffer)| (*other == operand).then_some(buffer))
    }

    fn write(&self, queue: &wgpu::Queue, operand: Operand, offset: u64, bytes: &[u8]) {
        if let Some(buffer) = self.get(operand) {
            queue.write_buffer(buffer, offset, bytes);
        }
    }

    /// Decodes every step. Returns the last output, the time it took, and how much of it the host spent on recording.
    fn decode(
        &self,
        attention: &Attention,
        queue: &wgpu::Queue,
        table: &[u32],
    ) -> Result<(Vec<u8>, Duration, Duration), Box<dyn std::error::Error>> {
        let rotary = ROTARY.table(10_000.0, 1.0);
        self.write(queue, Operand::RotaryTable, 0, bytemuck::cast_slice(&rotary));
        let (start, mut recording) = (Instant::now(), Duration::ZERO);
        let mut last = None;
        for step in 0..STEPS {
            // A model would compute these, and an allocator would hand out pages.
            let token = |seed: u32, n: u32| -> Vec<f32> {
                (0..n).map(|i| ((step * 31 + i) as f32 * 0.1 + seed as f32).sin()).collect()
            };
            let new = [(Operand::NewQ, HEADS), (Operand::NewK, KV_HEADS), (Operand::NewV, KV_HEADS)];
            for (seed, (operand, heads)) in (0..).zip(new) {
                self.write(queue, operand, 0, bytemuck::cast_slice(&token(seed, heads * DIM)));
            }
            self.write(queue, Operand::KvLengths, 0, bytemuck::bytes_of(&(step + 1)));
            let page = step / PAGE;
            self.write(queue, Operand::BlockTable, u64::from(page) * 4, bytemuck::bytes_of(&table[page as usize]));

            let before = Instant::now();
            let mut encoder = attention.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                self.append.dispatch(&mut pass);
                self.attend.dispatch(&mut pass);
            }
            recording += before.elapsed();
            if let (Some(out), true) = (self.get(Operand::Out), step + 1 == STEPS) {
                let whole = out.as_entire_buffer_binding();
                last = Some(Readback::record(attention.device(), &mut encoder, whole)?);
            }
            queue.submit([encoder.finish()]);
        }
        attention.device().poll(wgpu::PollType::wait_indefinitely())?;
        let last = last.ok_or("there is a last step")?;
        Ok((pollster::block_on(last.bytes())?, start.elapsed(), recording))
    }
}

const ROTARY: Rotary = Rotary { dims: DIM, pairs: RotaryPairs::Halves, positions: STEPS };

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;
    let attention = Attention::new(&device);

    let shape = Shape::new(1, HEADS, 1, DIM).kv_heads(KV_HEADS).kv_len(STEPS);
    let dense = Problem::builder(shape)
        .kv_dtype(Dtype::F16)
        .causal(Diagonal::BottomRight)
        .kv_lengths()
        .append(Append { rotary: Some(ROTARY), ..Append::default() });
    let pages = Pages { count: 100, size: PAGE };
    // Pages in no particular order.
    let table: Vec<u32> = (0..STEPS.div_ceil(PAGE)).map(|n| n * 37 % pages.count).collect();

    let mut outputs = Vec::new();
    for (name, problem) in [("pages", dense.clone().paged_kv(pages).build()?), ("one range", dense.build()?)] {
        let layer = Layer::new(&attention, &problem)?;
        let (out, time, recording) = layer.decode(&attention, &queue, &table)?;
        let [rate, host] = [f64::from(STEPS) / time.as_secs_f64(), recording.as_secs_f64() * 1e6 / f64::from(STEPS)];
        println!("{name}: {rate:.0} tokens per second for one layer, {host:.1} us to record a step");
        outputs.push(out);
    }
    if outputs[0] != outputs[1] {
        return Err("the outputs differ".into());
    }
    println!("{STEPS} steps on {}: the same bits with pages as in one range", adapter.get_info().name);
    Ok(())
}
