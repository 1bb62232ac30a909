//! A small language model that learns and writes: a decoder of two layers with grouped queries and a rotary embedding reads
//! six chapters of a novel, character by character. Attention, its gradients and the cache are the crate's; the rest are a few
//! kernels of the example. All of them run in one pass per step.
//!
//! `cargo run --release --example train [curve.svg]`

mod attention;
mod backward;
mod curve;
mod kernels;
mod model;
mod text;
mod train;
mod write;

use std::path::PathBuf;
use std::time::Instant;

use rand::{SeedableRng as _, rngs::StdRng};
use wgpu_attention::{Attention, Caps};

use kernels::Kernels;
use model::{Activations, Weights};
use text::Text;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How many passages a step reads, and how many characters of each.
const SEQUENCES: u32 = 4;
const LENGTH: u32 = 128;
/// The smoothed loss must end below this many nats per character. Guessing by the frequency of letters costs 3.06.
const BOUND: f32 = 1.9;
const PROMPTS: [&str; SEQUENCES as usize] = ["It is a truth ", "Mr. Bennet ", "\"My dear ", "Elizabeth "];
/// How far the logits of decoding may be from those of the forward pass over the same characters.
const TOLERANCE: f32 = 1e-3;

fn main() -> Result<()> {
    let curve = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "target/train/loss.svg".into()));
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    // None of these features is required, but the crate's kernels are faster with them, above all on software GPUs.
    let required_features = adapter.features() & Caps::FEATURES;
    let descriptor = wgpu::DeviceDescriptor { required_features, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))?;
    let attention = Attention::new(&device);
    let kernels = Kernels::new(device, queue);

    // Data.
    let text = Text::new()?;
    let guessing = text.loss_of_guessing();
    println!(
        "{} characters, {} different ones; by their frequency alone: {guessing:.3} nats each",
        text.len(),
        text.vocabulary()
    );

    // The model, with random weights.
    let weights = Weights::new(&kernels, "weights");
    weights.initialize(&kernels, &mut StdRng::seed_from_u64(0));
    let table = attention::rotary_table(&kernels, LENGTH);
    let training = attention::Training::new(&kernels, &attention, &table, SEQUENCES)?;
    let activations = Activations::new(&kernels, SEQUENCES, LENGTH);
    let forward = model::forward(&kernels, &weights, &activations, |n, l| training.forward(&kernels, n, l))?;

    // Training.
    let start = Instant::now();
    let losses = train::train(&kernels, &text, &weights, &activations, &training, &forward)?;
    let last = train::smoothed(&losses).next_back().unwrap_or(f32::NAN);
    println!(
        "{} weights, {} steps of {SEQUENCES} × {LENGTH} characters in {:.1} s on {}: loss {:.3} → {last:.3}",
        weights.all.len(),
        losses.len(),
        start.elapsed().as_secs_f32(),
        adapter.get_info().name,
        losses[0],
    );
    curve::draw(&curve, &losses, &[("guessing by frequency", guessing), ("the bound", BOUND)])?;
    println!("the curve: {}", curve.display());
    let learned = last < BOUND;
    if !learned {
        return Err(format!("the loss ends at {last:.3}, which is not below {BOUND}").into());
    }

    // Decoding.
    let written = write::write(&kernels, &attention, &table, &weights, &text, &PROMPTS)?;
    activations.tokens.write(&kernels.queue, &written.sequences.concat());
    let at_once = write::run(&kernels, &forward, &activations.logits)?;
    let distances = || at_once.iter().zip(&written.logits).map(|(one, other)| (one - other).abs());
    for tokens in &written.sequences {
        println!("\n{}", text.decode(tokens));
    }
    let (written, largest) = (SEQUENCES * LENGTH, distances().fold(0.0, f32::max));
    println!(
        "\n{written} characters through the cache; their logits differ by {largest:.1e} from those of all at once"
    );
    let agree = distances().all(|distance| distance <= TOLERANCE);
    if !agree {
        return Err(format!("decoding and the forward pass differ by {largest}, more than {TOLERANCE}").into());
    }
    Ok(())
}
