//! The contents of a heat map: the attention weights of one batch, one panel per head, and the labels along its axes.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use wgpu_attention::Shape;

use crate::args::HeatmapArgs;

impl HeatmapArgs {
    /// The batch to show, which must exist.
    pub(crate) fn batch_of(&self, shape: &Shape) -> Result<u32> {
        if self.heatmap.is_none() {
            return Ok(0);
        }
        for (axis, size) in [("batches", shape.batch), ("queries", shape.len_q), ("keys", shape.len_kv)] {
            ensure!(size > 0, "--heatmap has nothing to draw: there are 0 {axis}; leave it out");
        }
        let (batch, batches) = (self.heatmap_batch.unwrap_or(0), shape.batch);
        ensure!(batches != 1 || batch == 0, "--heatmap-batch is {batch}; it must be 0, the only batch there is");
        ensure!(batch < batches, "--heatmap-batch is {batch}; it must be below the {batches} batches there are");
        Ok(batch)
    }
}

/// The colour of a weight between 0 and `largest`. The lightness grows evenly with the square root, so that small weights
/// stay visible next to a dominant one.
pub(crate) fn color(weight: f32, largest: f32) -> colorous::Color {
    colorous::VIRIDIS.eval_continuous(f64::from(height(weight, largest)))
}

/// The position of a weight on the colour bar, from 0 at the bottom to 1.
pub(crate) fn height(weight: f32, largest: f32) -> f32 {
    (weight / largest).clamp(0.0, 1.0).sqrt()
}

/// The contents of a figure.
pub(crate) struct Maps {
    /// Weights as (heads, rows, keys).
    weights: Vec<f32>,
    heads: u32,
    rows: usize,
    keys: usize,
    /// The tokens that label both rows and keys, which are the same sequence.
    tokens: Option<Vec<String>>,
    title: String,
    subtitle: String,
}

impl Maps {
    /// Takes one batch of the weights (B, H, Lq, Lk), cropped to its tokens if the metadata names them.
    pub(crate) fn of_batch(weights: &[f32], shape: &Shape, batch: u32, metadata: &HashMap<String, String>) -> Self {
        let tokens = tokens(metadata, batch)
            .filter(|tokens| !tokens.is_empty() && tokens.len() <= shape.len_q as usize && shape.len_q == shape.len_kv);
        let count = tokens.as_ref().map_or(usize::MAX, Vec::len);
        let (len_q, len_kv) = (shape.len_q as usize, shape.len_kv as usize);
        let (rows, keys) = (len_q.min(count), len_kv.min(count));
        let of_batch = len_q * len_kv * shape.heads_q as usize;
        let kept = weights.chunks(of_batch).nth(batch as usize).unwrap_or_default().chunks(len_q * len_kv);
        let kept = kept.flat_map(|head| head.chunks(len_kv).take(rows)).flat_map(|row| &row[..keys]).copied();
        let model = metadata.get("model").map_or("Attention weights", String::as_str);
        let layer = metadata.get("layer").map_or(String::new(), |layer| format!(", layer {layer}"));
        let which = if shape.batch > 1 { format!("batch {batch} · ") } else { String::new() };
        let queries = if rows == 1 { "query" } else { "queries" };
        Self {
            weights: kept.collect(),
            heads: shape.heads_q,
            rows,
            keys,
            tokens,
            title: format!("{model}{layer}"),
            subtitle: format!("{which}{rows} {queries} × {keys} keys · square-root colour scale"),
        }
    }
    pub(crate) fn heads(&self) -> u32 {
        self.heads
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn keys(&self) -> usize {
        self.keys
    }

    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    pub(crate) fn subtitle(&self) -> &str {
        &self.subtitle
    }

    /// The weights of one head, row by row.
    pub(crate) fn panel(&self, head: u32) -> &[f32] {
        let size = self.rows * self.keys;
        &self.weights[head as usize * size..][..size]
    }

    /// The weight that the brightest colour stands for. All heads share one scale, so that they can be compared.
    pub(crate) fn largest(&self) -> f32 {
        largest(&self.weights)
    }

    pub(crate) fn row_labels(&self) -> Vec<String> {
        self.labels(self.rows)
    }

    pub(crate) fn key_labels(&self) -> Vec<String> {
        self.labels(self.keys)
    }

    /// The tokens, or the positions if the metadata has no tokens.
    fn labels(&self, count: usize) -> Vec<String> {
        match &self.tokens {
            Some(tokens) => tokens.iter().map(|token| shortened(token)).collect(),
            None => (0..count).map(|position| position.to_string()).collect(),
        }
    }

    pub(crate) fn has_tokens(&self) -> bool {
        self.tokens.is_some()
    }
}

/// The largest finite weight, or 1 if none is above 0.
pub(crate) fn largest(weights: &[f32]) -> f32 {
    let largest = weights.iter().copied().filter(|weight| weight.is_finite()).fold(0.0, f32::max);
    if largest > 0.0 { largest } else { 1.0 }
}

/// The tokens of one batch. The metadata `tokens` is a JSON list of lists, one per batch.
fn tokens(metadata: &HashMap<String, String>, batch: u32) -> Option<Vec<String>> {
    let all: Vec<Vec<String>> = serde_json::from_str(metadata.get("tokens")?).ok()?;
    all.into_iter().nth(batch as usize)
}

/// Shortens a label, so that it leaves room for the map.
fn shortened(token: &str) -> String {
    const MOST: usize = 18;
    if token.chars().count() <= MOST {
        return token.to_owned();
    }
    token.chars().take(MOST - 1).chain(['…']).collect()
}
