//! The queries, keys and values of a layer of a sentence encoder, and attention over them on the CPU.

use anyhow::{Context as _, Result, ensure};
use safetensors::SafeTensors;
use wasm_bindgen::prelude::wasm_bindgen;
use wgpu_attention::{Inputs, Layout, Problem, ProblemBuilder, ScoreLayout, Shape, reference};

use crate::settings::Settings;

/// A layer of the encoder, reading a few sentences.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Model {
    pub(crate) q: Vec<f32>,
    pub(crate) k: Vec<f32>,
    pub(crate) v: Vec<f32>,
    heads: u32,
    dim: u32,
    /// Rows per sentence in the tensors. Shorter sentences are padded.
    room: u32,
    /// Tokens per sentence.
    lengths: Vec<u32>,
}

/// The results for one sentence.
#[wasm_bindgen(getter_with_clone)]
#[derive(Clone, Debug, PartialEq)]
pub struct Attended {
    /// (heads, tokens, dim).
    pub out: Vec<f32>,
    /// (heads, tokens, tokens): how much each token reads of each.
    pub weights: Vec<f32>,
}

impl Model {
    /// Reads a safetensors file with `q`, `k` and `v` as (sentences, heads, tokens, dim), whose metadata lists the
    /// `tokens` of each sentence.
    ///
    /// # Errors
    /// If the file is something else.
    pub fn read(file: &[u8]) -> Result<Self> {
        let (_, header) = SafeTensors::read_metadata(file)?;
        let tokens = header.metadata().as_ref().and_then(|texts| texts.get("tokens")).context("no `tokens`")?;
        let tokens: Vec<Vec<String>> = serde_json::from_str(tokens)?;
        let lengths = tokens.iter().map(|sentence| Ok(u32::try_from(sentence.len())?)).collect::<Result<Vec<_>>>()?;

        let tensors = SafeTensors::deserialize(file)?;
        let [sentences, heads, room, dim] = tensors.tensor("q")?.shape()[..] else { anyhow::bail!("`q` is not 4-D") };
        ensure!(sentences == lengths.len(), "{} sentences, but {sentences} in `q`", lengths.len());
        let floats = |name: &str| {
            let tensor = tensors.tensor(name)?;
            ensure!(tensor.dtype() == safetensors::Dtype::F32, "`{name}` is {}, not F32", tensor.dtype());
            ensure!(tensor.shape() == [sentences, heads, room, dim], "`{name}` has another shape than `q`");
            Ok(bytemuck::pod_collect_to_vec(tensor.data()))
        };
        let [heads, room, dim] = [u32::try_from(heads)?, u32::try_from(room)?, u32::try_from(dim)?];
        ensure!(lengths.iter().all(|length| (1..=room).contains(length)), "a sentence is longer than its tensors");
        Ok(Self { q: floats("q")?, k: floats("k")?, v: floats("v")?, heads, dim, room, lengths })
    }

    /// Attention within one sentence. It lies in the tensors of all, so its layout begins inside them.
    ///
    /// # Errors
    /// If there is no such sentence.
    pub(crate) fn problem(&self, sentence: usize) -> Result<ProblemBuilder> {
        let length = *self.lengths.get(sentence).with_context(|| format!("there is no sentence {sentence}"))?;
        let [heads, room, dim] = [self.heads, self.room, self.dim].map(u64::from);
        let batch = heads * room * dim;
        let layout = Layout::strided([batch, room * dim, dim]).at(sentence as u64 * batch);
        let shape = Shape::new(1, self.heads, length, self.dim);
        Ok(Problem::builder(shape).q(layout).k(layout).v(layout).weights())
    }

    /// The number of elements of the largest output, and of the largest weights.
    pub(crate) fn largest(&self) -> [u64; 2] {
        let longest = self.lengths.iter().copied().max().unwrap_or(0);
        let [heads, longest, dim] = [self.heads, longest, self.dim].map(u64::from);
        [heads * longest * dim, heads * longest * longest]
    }

    /// The definition in f64. A program of the settings is not run: `seen` says for each (head, query, key) whether it
    /// lets the query see the key.
    ///
    /// # Errors
    /// If the settings do not make a problem, or `seen` does not fit it.
    pub fn attend(&self, settings: &Settings, seen: Option<&[u8]>) -> Result<Attended> {
        let mut problem = settings.apply(self.problem(settings.sentence)?);
        if seen.is_some() {
            let Shape { heads_q, len_q, len_kv, .. } = self.problem(settings.sentence)?.build()?.shape();
            problem = problem.mask(ScoreLayout::broadcast([1, heads_q, len_q, len_kv]));
        }
        let seen: Option<Vec<bool>> = seen.map(|seen| seen.iter().map(|&seen| seen != 0).collect());
        let inputs = Inputs { q: &self.q, k: &self.k, v: &self.v, mask: seen.as_deref(), ..Inputs::default() };
        let exact = reference::attention(&problem.build()?, &inputs)?;
        #[expect(clippy::cast_possible_truncation, reason = "results are compared and drawn in f32")]
        let narrowed = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
        Ok(Attended { out: narrowed(exact.out), weights: narrowed(exact.weights) })
    }
}

#[cfg(target_arch = "wasm32")]
#[wasm_bindgen]
impl Model {
    /// As [`read`](Self::read).
    #[wasm_bindgen(constructor)]
    pub fn new(file: &[u8]) -> Result<Self, wasm_bindgen::JsError> {
        Self::read(file).map_err(crate::settings::told)
    }

    /// As [`attend`](Self::attend).
    pub fn cpu(&self, settings: &Settings, seen: Option<Vec<u8>>) -> Result<Attended, wasm_bindgen::JsError> {
        self.attend(settings, seen.as_deref()).map_err(crate::settings::told)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]
mod tests {
    use super::*;

    const FILE: &[u8] = include_bytes!("../../cli/data/minilm_layer0.safetensors");

    #[test]
    fn the_weights_are_the_models_own() {
        let model = Model::read(FILE).unwrap();
        let tensors = SafeTensors::deserialize(FILE).unwrap();
        let own: Vec<f32> = bytemuck::pod_collect_to_vec(tensors.tensor("weights").unwrap().data());
        let room = model.room as usize;
        for sentence in 0..model.lengths.len() {
            let length = model.lengths[sentence] as usize;
            let attended = model.attend(&Settings { sentence, ..Settings::default() }, None).unwrap();
            assert_eq!(attended.weights.len(), model.heads as usize * length * length);
            for (at, weight) in attended.weights.iter().enumerate() {
                let (head, query, key) = (at / length / length, at / length % length, at % length);
                let own = own[((sentence * model.heads as usize + head) * room + query) * room + key];
                assert!((weight - own).abs() < 1e-5, "sentence {sentence}, {head}, {query}, {key}: {weight}, {own}");
            }
        }
    }

    #[test]
    fn what_the_program_hides_is_not_read() {
        let model = Model::read(FILE).unwrap();
        let settings = Settings { sentence: 1, ..Settings::default() };
        let count = model.attend(&settings, None).unwrap().weights.len();
        let seen: Vec<u8> = (0..count).map(|at| u8::from(at % 3 != 1)).collect();
        let attended = model.attend(&settings, Some(&seen)).unwrap();
        for (weight, seen) in attended.weights.iter().zip(&seen) {
            assert_eq!(*weight != 0.0, *seen != 0);
        }
        assert!(model.attend(&settings, Some(&seen[1..])).is_err());
    }

    #[test]
    fn there_is_no_fifth_sentence() {
        let model = Model::read(FILE).unwrap();
        let error = model.attend(&Settings { sentence: 4, ..Settings::default() }, None).unwrap_err();
        assert_eq!(error.to_string(), "there is no sentence 4");
    }

    #[test]
    fn other_files_are_errors() {
        assert!(Model::read(&FILE[..1000]).is_err());
        assert!(Model::read(b"").is_err());
    }
}
