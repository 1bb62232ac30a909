//! Packed documents: tokens see only tokens of the same document. The device computes a block mask once, and attention then skips
//! most of the work. Prints the times, and checks some rows against the definition.
//!
//!     cargo run --release --example block_mask [LENGTH [DOCUMENT]]

use std::time::{Duration, Instant};

use wgpu_attention::reference::{self, At, Programs};
use wgpu_attention::{
    Attention, BlockMask, Buffers, Call, Inputs, Operand, Operands, Problem, ProblemBuilder, Readback, Shape,
};

/// `aux` holds each token's document.
const SAME_DOCUMENT: &str = "fn mask_mod(at: At) -> bool { return aux[at.query] == aux[at.key]; }";

const DIM: u32 = 64;

struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    attention: Attention,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut sizes = std::env::args().skip(1).map(|size| size.parse());
    let len: u32 = sizes.next().transpose()?.unwrap_or(4096);
    let document: u32 = sizes.next().transpose()?.unwrap_or(len / 16).max(1);
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let features = adapter.features() & wgpu_attention::Caps::FEATURES;
    let descriptor = wgpu::DeviceDescriptor { required_features: features, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))?;
    let gpu = Gpu { attention: Attention::new(&device), device, queue };

    let numbers = |step: u32| -> Vec<f32> { (0..len * DIM).map(|i| (i * step % 61) as f32 / 30.0 - 1.0).collect() };
    let (q, k, v) = (numbers(7), numbers(11), numbers(13));
    let documents: Vec<f32> = (0..len).map(|token| (token / document) as f32).collect();
    let inputs = Inputs { q: &q, k: &k, v: &v, ..Inputs::default() };

    let plain = Problem::builder(Shape::new(1, 1, len, DIM));
    let unmasked = gpu.time(&plain, &inputs)?.0;
    let masked = plain.clone().mask_mod(SAME_DOCUMENT).aux(len.into());
    let of_documents = Inputs { aux: Some(&documents), ..inputs };
    let pair_by_pair = gpu.time(&masked, &of_documents)?.0;
    // The device fills it, so the uploaded values do not matter.
    let tiles = masked.clone().block_mask(BlockMask::new(128, 128));
    let unknown =
        vec![0; tiles.build()?.view(Operand::BlockMask).map_or(0, |view| view.end().try_into().unwrap_or(usize::MAX))];
    let (by_tiles, out) = gpu.time(&tiles, &Inputs { block_mask: Some(&unknown), ..of_documents })?;

    println!("{len} tokens in documents of {document}, {}:", adapter.get_info().name);
    println!("  no mask                {unmasked:?}");
    println!("  mask_mod alone         {pair_by_pair:?}");
    println!(
        "  with its block mask    {by_tiles:?}, {:.1} times as fast as without a mask",
        unmasked.as_secs_f64() / by_tiles.as_secs_f64()
    );

    let same_document = |at: At| documents[at.query as usize] == documents[at.key as usize];
    let programs = Programs { mask_mod: Some(&same_document), ..Programs::default() };
    for row in [0, len / 2, len - 1] {
        let exact = reference::row_with(&masked.build()?, &of_documents, &programs, [0, 0, row])?.out;
        let first = (row * DIM) as usize;
        let errors = out[first..].iter().zip(&exact).map(|(&got, exact)| (f64::from(got) - exact).abs());
        let error = errors.fold(0.0, f64::max);
        assert!(error < 1e-5, "row {row} is off by {error:e}");
    }
    Ok(())
}

impl Gpu {
    /// The shorter of two runs after one that compiles, and the output. A block mask, if any, is computed once before them.
    fn time(
        &self,
        problem: &ProblemBuilder,
        inputs: &Inputs<'_>,
    ) -> Result<(Duration, Vec<f32>), Box<dyn std::error::Error>> {
        let problem = problem.build()?;
        let buffers = inputs.upload(&self.device, &problem)?;
        if problem.block_mask().is_some() {
            let finds = self.attention.plan_block_mask(&problem)?.bind(&masks_of(&buffers))?;
            self.run(&finds)?;
        }
        let call = self.attention.plan(&problem)?.bind(&buffers.operands())?;
        self.run(&call)?;
        let fastest = self.run(&call)?.min(self.run(&call)?);
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let out = buffers.get(Operand::Out).ok_or("every problem has an output")?;
        let readback = Readback::record(&self.device, &mut encoder, out.as_entire_buffer_binding())?;
        self.queue.submit([encoder.finish()]);
        self.device.poll(wgpu::PollType::wait_indefinitely())?;
        Ok((fastest, pollster::block_on(readback.values(problem.dtype(Operand::Out).unwrap_or_default()))?))
    }

    fn run(&self, call: &Call) -> Result<Duration, wgpu::PollError> {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        call.encode(&mut encoder);
        let begin = Instant::now();
        self.queue.submit([encoder.finish()]);
        self.device.poll(wgpu::PollType::wait_indefinitely())?;
        Ok(begin.elapsed())
    }
}

/// The operands that a block mask is computed from, and the block mask itself.
fn masks_of(buffers: &Buffers) -> Operands<'_> {
    let binding = |operand| Some((operand, buffers.get(operand)?.as_entire_buffer_binding()));
    [Operand::Mask, Operand::Aux, Operand::BlockMask].into_iter().filter_map(binding).collect()
}
