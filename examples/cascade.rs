//! A batch of sequences that begin with the same prompt: attention to the prompt's keys once for all of them, attention to
//! each one's own keys, and a merge of the two. Compares every row with the definition over both together.

use wgpu::BufferUsages;
use wgpu_attention::{
    Attention, Diagonal, Dtype, Inputs, Layout, Merge, Operand, Operands, Problem, Readback, Shape, reference,
};

const SEQUENCES: u32 = 8;
const PROMPT: u32 = 2000;
const OWN: u32 = 24;
/// New tokens of each sequence, the last of its own.
const NEW: u32 = 4;
const HEADS: u32 = 8;
const KV_HEADS: u32 = 2;
const DIM: u32 = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let features = adapter.features() & wgpu_attention::Caps::FEATURES;
    let descriptor = wgpu::DeviceDescriptor { required_features: features, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))?;
    let attention = Attention::new(&device);

    // To the prompt, the new tokens of all sequences are the rows of one batch, so its keys are read once. That is a matter
    // of layout: in (sequence, token, head, dim), the tokens of all sequences are at equal strides.
    let rows = SEQUENCES * NEW;
    let to_prompt = Problem::builder(Shape::new(1, HEADS, rows, DIM).kv_heads(KV_HEADS).kv_len(PROMPT))
        .q(Layout::blhd(HEADS, rows, DIM))
        .out(Layout::blhd(HEADS, rows, DIM))
        .lse_in(Layout::blhd(HEADS, rows, 1))
        .build()?;
    let own = Shape::new(SEQUENCES, HEADS, NEW, DIM).kv_heads(KV_HEADS).kv_len(OWN);
    let (tokens, ones) = (Layout::blhd(HEADS, NEW, DIM), Layout::blhd(HEADS, NEW, 1));
    let to_own = Problem::builder(own).causal(Diagonal::BottomRight).q(tokens).out(tokens).lse_in(ones).build()?;
    let merge = Merge::builder(own, 2).pair_out(tokens).pair_lse(ones).out(tokens).build()?;

    // From −1 to 1; the queries are larger, so that some keys count far more than others.
    let numbers = |n: u32, factor: u32| -> Vec<f32> {
        (0..n).map(|i| (i.wrapping_mul(factor) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
    };
    let q: Vec<f32> = numbers(rows * HEADS * DIM, 0x9e37_79b1).iter().map(|x| 8.0 * x).collect();
    let prompt = [0x85eb_ca6b, 0xc2b2_ae35].map(|factor| numbers(KV_HEADS * PROMPT * DIM, factor));
    let own = [0x27d4_eb2f, 0x1656_67b1].map(|factor| numbers(SEQUENCES * KV_HEADS * OWN * DIM, factor));
    let buffer = |size: Option<u64>| {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let size = size.unwrap_or_default();
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    let filled = |values: &[f32]| {
        let buffer = buffer(Some(values.len() as u64 * 4));
        queue.write_buffer(&buffer, 0, bytemuck::cast_slice(values));
        buffer
    };
    let (queries, [prompt_k, prompt_v], [own_k, own_v]) =
        (filled(&q), prompt.each_ref().map(|x| filled(x)), own.each_ref().map(|x| filled(x)));
    let [outs, lses, out] =
        [Operand::PairOut, Operand::PairLse, Operand::Out].map(|operand| buffer(merge.size_bytes(operand)));

    // Each attention writes its pair to its place among the pairs.
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let attend = |n, problem: &Problem, k: &wgpu::Buffer, v: &wgpu::Buffer| {
        let (out, lse) = (merge.pair(Operand::PairOut, n, &outs)?, merge.pair(Operand::PairLse, n, &lses)?);
        let operands = Operands::new(whole(&queries), whole(k), whole(v), out).with(Operand::Lse, lse);
        Ok::<_, Box<dyn std::error::Error>>(attention.plan(problem)?.bind(&operands)?)
    };
    let calls = [
        attend(0, &to_prompt, &prompt_k, &prompt_v)?,
        attend(1, &to_own, &own_k, &own_v)?,
        attention.plan_merge(&merge)?.bind(&Operands::of_pairs(whole(&outs), whole(&lses), whole(&out)))?,
    ];
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        calls.iter().for_each(|call| call.dispatch(&mut pass));
    }
    let readback = Readback::record(&device, &mut encoder, whole(&out))?;
    queue.submit([encoder.finish()]);
    device.poll(wgpu::PollType::wait_indefinitely())?;
    let got = pollster::block_on(readback.values(Dtype::F32))?;

    let worst = largest_error(&q, &prompt, &own, &got)?;
    println!(
        "{}: {SEQUENCES} sequences of {PROMPT} shared keys and {OWN} of their own; {} keys read instead of {}; largest \
         error {worst:.1e}",
        adapter.get_info().name,
        PROMPT + SEQUENCES * OWN,
        SEQUENCES * (PROMPT + OWN)
    );
    if worst > 1e-5 { Err("the results differ from attention over all keys".into()) } else { Ok(()) }
}

/// The largest difference from attention over each sequence's keys, the prompt's and its own together.
fn largest_error(
    q: &[f32],
    prompt: &[Vec<f32>; 2],
    own: &[Vec<f32>; 2],
    got: &[f32],
) -> Result<f64, Box<dyn std::error::Error>> {
    let shape = Shape::new(SEQUENCES, HEADS, NEW, DIM).kv_heads(KV_HEADS).kv_len(PROMPT + OWN);
    let tokens = Layout::blhd(HEADS, NEW, DIM);
    let together = Problem::builder(shape).causal(Diagonal::BottomRight).q(tokens).out(tokens).build()?;
    let [k, v] = [0, 1].map(|which| {
        let heads = (0..SEQUENCES * KV_HEADS).flat_map(|head| {
            let of = |values: &[f32], head: u32, keys: u32| {
                let size = (keys * DIM) as usize;
                values[head as usize * size..][..size].to_vec()
            };
            [of(&prompt[which], head % KV_HEADS, PROMPT), of(&own[which], head, OWN)]
        });
        heads.flatten().collect::<Vec<f32>>()
    });
    let inputs = Inputs { q, k: &k, v: &v, ..Inputs::default() };
    let mut worst = 0.0_f64;
    for row in 0..SEQUENCES * HEADS * NEW {
        let [batch, head, token] = [row / (HEADS * NEW), row / NEW % HEADS, row % NEW];
        let wanted = reference::row(&together, &inputs, [batch, head, token])?;
        let start = ((batch * NEW + token) * HEADS + head) * DIM;
        let errors =
            wanted.out.iter().zip(&got[start as usize..]).map(|(wanted, &got)| (wanted - f64::from(got)).abs());
        worst = errors.fold(worst, f64::max);
    }
    Ok(worst)
}
