//! The model: a decoder of two layers, each of which adds attention to its input, and then two matrices with an activation
//! between them. The forward pass is a list of work, in the order in which it runs.

use rand::{RngExt as _, rngs::StdRng};

use crate::Result;
use crate::kernels::{Kernels, Normed, Product, Tensor, Work};

pub(crate) const LAYERS: usize = 2;
/// The characters, rounded up to a multiple of eight.
pub(crate) const VOCABULARY: u32 = 64;
pub(crate) const WIDTH: u32 = 64;
pub(crate) const HEADS: u32 = 4;
pub(crate) const KV_HEADS: u32 = 2;
pub(crate) const DIM: u32 = 16;
const HIDDEN: u32 = 4 * WIDTH;
const QKV: u32 = (HEADS + 2 * KV_HEADS) * DIM;

/// The weights, or their gradients: parts of one buffer, so that the optimizer is one dispatch.
pub(crate) struct Weights {
    pub(crate) all: Tensor,
    pub(crate) embedding: Tensor,
    pub(crate) layers: Vec<LayerWeights>,
    pub(crate) head: Tensor,
}

pub(crate) struct LayerWeights {
    pub(crate) qkv: Tensor,
    pub(crate) out: Tensor,
    pub(crate) up: Tensor,
    pub(crate) down: Tensor,
}

impl Weights {
    pub(crate) fn new(kernels: &Kernels, label: &str) -> Self {
        let per_layer = [[WIDTH, QKV], [HEADS * DIM, WIDTH], [WIDTH, HIDDEN], [HIDDEN, WIDTH]];
        let ends = [[VOCABULARY, WIDTH], [WIDTH, VOCABULARY]];
        let total = ends.iter().chain((0..LAYERS).flat_map(|_| &per_layer)).map(|[rows, columns]| rows * columns).sum();
        let all = Tensor::new(&kernels.device, label, [total, 1]);
        // Each part has a multiple of 64 numbers, so the next one begins where a device can bind it.
        let mut offset = 0;
        let mut part = |[rows, columns]: [u32; 2]| {
            let tensor = Tensor { buffer: all.buffer.clone(), offset, rows, columns };
            offset += u64::from(tensor.len()) * 4;
            tensor
        };
        let [embedding, head] = ends.map(&mut part);
        let layers = (0..LAYERS)
            .map(|_| {
                let [qkv, out, up, down] = per_layer.map(&mut part);
                LayerWeights { qkv, out, up, down }
            })
            .collect();
        Self { embedding, layers, head, all }
    }

    /// Uniform random numbers whose variance is 1 / rows, so that their products with normalized rows have variance 1. The
    /// embedding is normalized before it is multiplied, so its numbers may be small, and then learn faster. What a layer
    /// adds begins as 0, and so do the logits.
    pub(crate) fn initialize(&self, kernels: &Kernels, random: &mut StdRng) {
        let mut fill = |tensor: &Tensor, variance: f32| {
            let bound = (3.0 * variance).sqrt();
            let values: Vec<f32> = (0..tensor.len()).map(|_| random.random_range(-bound..=bound)).collect();
            tensor.write(&kernels.queue, &values);
        };
        fill(&self.embedding, 0.1);
        for LayerWeights { qkv, out, up, down } in &self.layers {
            fill(qkv, 1.0 / qkv.rows as f32);
            fill(out, 0.0);
            fill(up, 1.0 / up.rows as f32);
            fill(down, 0.0);
        }
        fill(&self.head, 0.0);
    }
}

/// What the forward pass computes of the tokens, kept for the backward pass.
pub(crate) struct Activations {
    /// A row per sequence, with the token after its last one.
    pub(crate) tokens: Tensor,
    /// The residual stream, to which each layer adds.
    pub(crate) x: Tensor,
    pub(crate) layers: Vec<LayerActivations>,
    pub(crate) last: Normed,
    pub(crate) logits: Tensor,
}

pub(crate) struct LayerActivations {
    pub(crate) before_attention: Normed,
    /// Queries, keys and values of a token side by side.
    pub(crate) qkv: Tensor,
    /// The output of attention.
    pub(crate) mixed: Tensor,
    pub(crate) before_hidden: Normed,
    pub(crate) u: Tensor,
    pub(crate) h: Tensor,
}

impl Activations {
    pub(crate) fn new(kernels: &Kernels, sequences: u32, length: u32) -> Self {
        let rows = sequences * length;
        let tensor = |label, columns| Tensor::new(&kernels.device, label, [rows, columns]);
        let normed = || Normed { y: tensor("y", WIDTH), s: tensor("s", 1) };
        let layer = |_| LayerActivations {
            before_attention: normed(),
            qkv: tensor("qkv", QKV),
            mixed: tensor("mixed", HEADS * DIM),
            before_hidden: normed(),
            u: tensor("u", HIDDEN),
            h: tensor("h", HIDDEN),
        };
        Self {
            tokens: Tensor::new(&kernels.device, "tokens", [sequences, length + 1]),
            x: tensor("x", WIDTH),
            layers: (0..LAYERS).map(layer).collect(),
            last: normed(),
            logits: tensor("logits", VOCABULARY),
        }
    }
}

/// From tokens to logits. `attention` makes the work from a layer's `qkv` to its `mixed`, which differs between training and
/// decoding.
pub(crate) fn forward(
    kernels: &Kernels,
    weights: &Weights,
    a: &Activations,
    attention: impl Fn(usize, &LayerActivations) -> Result<[Work; 2]>,
) -> Result<Vec<Work>> {
    let mut work = vec![kernels.embed(&a.tokens, &weights.embedding, &a.x)];
    for (n, (w, l)) in weights.layers.iter().zip(&a.layers).enumerate() {
        work.push(kernels.norm(&a.x, &l.before_attention));
        work.push(kernels.matmul(Product::Layer, &l.before_attention.y, &w.qkv, &l.qkv));
        work.extend(attention(n, l)?);
        work.push(kernels.matmul(Product::LayerAdds, &l.mixed, &w.out, &a.x));

        work.push(kernels.norm(&a.x, &l.before_hidden));
        work.push(kernels.matmul(Product::Layer, &l.before_hidden.y, &w.up, &l.u));
        work.push(kernels.activate(&l.u, &l.h));
        work.push(kernels.matmul(Product::LayerAdds, &l.h, &w.down, &a.x));
    }
    work.push(kernels.norm(&a.x, &a.last));
    work.push(kernels.matmul(Product::Layer, &a.last.y, &weights.head, &a.logits));
    Ok(work)
}
