//! The command line: what to measure, and where the figures go.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use wgpu_attention::Dtype;

use crate::Workload;

/// The arguments of a run.
#[derive(Clone, Debug, Default, Args)]
pub struct Options {
    /// The suite of shapes to measure. Defaults to prefill and decode, or to none if --shape is given.
    #[arg(long, value_enum, value_name = "SUITE")]
    pub suite: Option<Suite>,

    /// A shape to measure; may be given several times.
    #[arg(long = "shape", value_name = "B,HQ,HKV,LQ,LK,D[,causal][,mask]")]
    pub shapes: Vec<Workload>,

    /// The element type: f32, f16 or bf16; may be given several times. Defaults to all three, or to f32 on a software GPU.
    #[arg(long = "dtype", value_name = "TYPE", value_parser = dtype)]
    pub dtypes: Vec<Dtype>,

    /// The element type of k and v, if it differs from that of q and the output.
    #[arg(long, value_name = "TYPE", value_parser = dtype)]
    pub kv_dtype: Option<Dtype>,

    /// Measure every variant whose name contains this text. Defaults to the selected variant and, if that is on a matrix
    /// unit, the best one that is not.
    #[arg(long, value_name = "TEXT")]
    pub variant: Option<String>,

    /// With --suite serving, measure only the rows whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,

    /// Write the figures as a JSON array of rows. With -, they go to the standard output, and the table goes to the
    /// standard error.
    #[arg(id = "rows", long = "json", value_name = "FILE", value_parser = json_path)]
    pub json: Option<PathBuf>,

    /// Plot the figures below the limits of the device.
    #[arg(long, value_name = "FILE.svg", value_parser = svg_path)]
    pub plot: Option<PathBuf>,
}

/// A set of shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// Many queries.
    Prefill,
    /// Few queries, many keys.
    Decode,
    /// The gradients of many queries, beside the forward pass.
    Backward,
    /// Caches in pages, in fewer bits, of unequal lengths and in plans that are too large, each beside the same work without.
    Serving,
    /// Prefill and decode.
    All,
}

fn dtype(text: &str) -> Result<Dtype, String> {
    let named = Dtype::ALL.into_iter().find(|dtype| dtype.to_string() == text);
    named.ok_or_else(|| "it must be f32, f16 or bf16".into())
}

fn json_path(text: &str) -> Result<PathBuf, String> {
    if text == "-" { Ok(text.into()) } else { in_a_folder(text) }
}

fn svg_path(text: &str) -> Result<PathBuf, String> {
    let path = in_a_folder(text)?;
    match path.extension() {
        Some(extension) if extension.eq_ignore_ascii_case("svg") => Ok(path),
        _ => Err("the plot is written as SVG; let the name end in .svg".into()),
    }
}

/// Checked before measuring, not after it.
fn in_a_folder(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            Err(format!("there is no folder {}", folder.display()))
        }
        _ => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_before_anything_is_measured() {
        assert_eq!(svg_path("roof.svg"), Ok("roof.svg".into()));
        assert!(svg_path("roof.png").is_err());
        assert!(json_path("no/such/folder/rows.json").is_err());
        assert_eq!(json_path("-"), Ok("-".into()));
        assert_eq!(dtype("bf16"), Ok(Dtype::Bf16));
        assert!(dtype("f64").is_err());
    }
}
