//! Decoding: the trained weights write one character at a time, each of which sees those before it through the crate's cache.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use wgpu_attention::{Attention, Dtype, Readback};

use crate::kernels::{self, Kernels, Tensor, Work};
use crate::model::{self, Activations, VOCABULARY, Weights};
use crate::text::Text;
use crate::{Result, attention};

/// Below 1, likely characters become likelier.
const TEMPERATURE: f32 = 0.5;

/// What was written, and the logits that it was chosen by.
pub(crate) struct Written {
    /// A row per sequence, which begins with its prompt.
    pub(crate) sequences: Vec<Vec<u32>>,
    /// (sequence, position, character)
    pub(crate) logits: Vec<f32>,
}

/// Continues each prompt, until there are as many tokens as the rotary table has positions, and one more. The number of prompts
/// is a multiple of four, because `matmul.wgsl` computes four rows at a time.
pub(crate) fn write(
    kernels: &Kernels,
    attention: &Attention,
    table: &Tensor,
    weights: &Weights,
    text: &Text,
    prompts: &[&str],
) -> Result<Written> {
    let mut sequences = prompts.iter().map(|prompt| text.encode(prompt)).collect::<Result<Vec<_>>>()?;
    let (count, length) = (u32::try_from(prompts.len())?, table.rows);
    // The same forward pass as in training, of one token per sequence, and with the cache.
    let activations = Activations::new(kernels, count, 1);
    let cache = attention::Decoding::new(kernels, attention, table, count)?;
    let forward = model::forward(kernels, weights, &activations, |n, l| cache.forward(n, l))?;

    let mut random = StdRng::seed_from_u64(2);
    let mut logits = vec![0.0; (count * length * VOCABULARY) as usize];
    for position in 0..length as usize {
        let tokens: Vec<[u32; 2]> = sequences.iter().map(|tokens| [tokens[position], 0]).collect();
        activations.tokens.write(&kernels.queue, &tokens);
        cache.lengths.write(&kernels.queue, &vec![u32::try_from(position + 1)?; sequences.len()]);
        let step = run(kernels, &forward, &activations.logits)?;
        for (n, (tokens, row)) in sequences.iter_mut().zip(step.chunks(VOCABULARY as usize)).enumerate() {
            let start = (n * length as usize + position) * VOCABULARY as usize;
            logits[start..start + row.len()].copy_from_slice(row);
            if tokens.len() == position + 1 {
                tokens.push(choose(&row[..text.vocabulary()], &mut random)?);
            }
        }
    }
    Ok(Written { sequences, logits })
}

/// Submits `work`, and waits for what it leaves in `result`.
pub(crate) fn run(kernels: &Kernels, work: &[Work], result: &Tensor) -> Result<Vec<f32>> {
    let mut encoder = kernels.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    kernels::record(&mut encoder, work);
    let readback = Readback::record(&kernels.device, &mut encoder, result.binding())?;
    kernels.queue.submit([encoder.finish()]);
    kernels.device.poll(wgpu::PollType::wait_indefinitely())?;
    Ok(pollster::block_on(readback.values(Dtype::F32))?)
}

/// A token, drawn with the probabilities of softmax(logits / temperature).
fn choose(logits: &[f32], random: &mut StdRng) -> Result<u32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights = logits.iter().map(|logit| ((logit - largest) / TEMPERATURE).exp());
    let mut rest = random.random::<f32>() * weights.clone().sum::<f32>();
    let token = weights.take_while(|weight| {
        rest -= weight;
        rest > 0.0
    });
    Ok(u32::try_from(token.count().min(logits.len() - 1))?)
}
