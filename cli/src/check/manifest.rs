//! Case files of the ONNX `Attention` operator, opsets 23 to 25: a manifest.json and one safetensors file per case. In
//! addition to the operator's own outputs, a file may hold `out.lse`.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde::Deserialize;

use super::{Entry, operator};
use crate::tensors::{TensorFile, read_bytes};

#[derive(Deserialize)]
struct Manifest {
    /// Parsed one by one, so that a broken case does not fail the others.
    cases: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
pub(super) struct CaseSpec {
    name: String,
    file: String,
    #[serde(default)]
    pub(super) attributes: Attributes,
    /// ONNX's own bounds unless the manifest says otherwise.
    #[serde(default = "default_rtol")]
    pub(super) rtol: f64,
    #[serde(default = "default_atol")]
    pub(super) atol: f64,
}

fn default_rtol() -> f64 {
    1e-3
}

fn default_atol() -> f64 {
    1e-7
}

/// The operator's attributes, with its spelling. One that is not listed would change the meaning, so it fails the case.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Attributes {
    pub(super) is_causal: i64,
    pub(super) kv_num_heads: Option<u32>,
    pub(super) q_num_heads: Option<u32>,
    pub(super) left_window_size: Option<i64>,
    pub(super) right_window_size: Option<i64>,
    pub(super) qk_matmul_output_mode: i64,
    pub(super) scale: Option<f32>,
    pub(super) softcap: f32,
    pub(super) softmax_precision: Option<i64>,
}

/// Every case of `folder`, which must have a manifest.
pub(super) fn entries(folder: &Path) -> Result<Vec<Entry>> {
    let path = folder.join("manifest.json");
    let shown = path.display();
    let text = read_bytes(&path, "a folder with a manifest.json")?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| anyhow!("{shown} is not a manifest ({error}); it must be an object with a list of `cases`"))?;
    ensure!(!manifest.cases.is_empty(), "{shown} lists no cases; add one, or name another folder");
    Ok(manifest.cases.into_iter().enumerate().map(|(index, case)| entry(folder, index, case)).collect())
}

fn entry(folder: &Path, index: usize, case: serde_json::Value) -> Entry {
    let name = case.get("name").and_then(|name| name.as_str()).map_or_else(|| format!("case-{index}"), str::to_owned);
    let folder = folder.to_owned();
    let load = move || {
        let spec: CaseSpec = serde_json::from_value(case).context("the manifest's entry does not parse")?;
        let path = folder.join(&spec.file);
        let bytes = read_bytes(&path, "a safetensors file")?;
        let file = TensorFile::parse(&bytes).with_context(|| path.display().to_string())?;
        operator::read(&spec, &file).with_context(|| spec.name.clone())
    };
    (name, Box::new(load))
}
