//! The command line, parsed and checked as far as it can be without opening a file.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use wgpu_attention::{Diagonal, Dtype, Fragment, MatrixUnit, Multiplier, ProblemBuilder, Shape, Tiles, Window};
use wgpu_attention_bench::Options;

use crate::programs::{BackwardArgs, ProgramArgs};
use crate::values::{diagonal, finite, png_path, positive, shape, window};

/// Exact fused attention on any GPU that wgpu reaches.
///
/// Without a command: computes the bundled input (a layer of a sentence encoder), and shows the device, the kernel variant,
/// the time, the error against the f64 reference and a heat map.
#[derive(Debug, Parser)]
#[command(name = "wgpu-attention", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) heatmap: HeatmapArgs,

    /// The device to compute on: part of an adapter's name, a backend, an index from `devices`, or `cpu` for this program's
    /// own multi-threaded CPU path. Defaults to the best GPU.
    #[arg(long, global = true, value_name = "NAME|INDEX|cpu")]
    pub(crate) device: Option<String>,

    #[command(flatten)]
    pub(crate) format: Format,
}

/// The output format of a command. `bench` has its own `--json`, which takes a file.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Format {
    /// Print JSON for scripts.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Compute attention over the tensors of a safetensors file.
    ///
    /// Reads q, k and v (B, H, L, D) and, if present, mask (bool or u8, non-zero = attend), key_padding_mask (B, L;
    /// non-zero = attend, the opposite of torch's MultiheadAttention), bias (added to the scores), kv_lengths and q_lengths
    /// (B). A tensor of batch 1 is broadcast over the batch of the others.
    ///
    /// With cu_seqlens_q or cu_seqlens_k (B + 1), q, or k and v, are (T, H, D): the sequences follow one another. With
    /// block_table (B, pages) and kv_lengths, k and v are (pages, page size, H, D). k and v may also be I8, U8 with two
    /// 4-bit numbers (n - 8) per byte, the first in the low half, or F8_E4M3, with k_scale and v_scale: an f32 per row.
    ///
    /// Writes output and, on request, weights in the element type of the input, and lse in f32.
    ///
    /// With --backward, also reads dout, the gradient of the output, in the output's shape, and if present dlse, that of the
    /// log-sum-exp (B, H, L). Also writes dq, dk, dv and, if there are a bias or sinks, dbias and dsinks. Each has the shape
    /// and the type of its tensor, and is summed over what that tensor was broadcast to.
    ///
    /// Input tensors with the names of results, or with a name that starts with expected_, are not read. Any other tensor is
    /// an error unless --ignore names it.
    Run(RunArgs),
    /// Check every variant this device can run against the f64 reference and against case files.
    Check(CheckArgs),
    /// List the adapters: the limits and features of each, and the variant it gets.
    Devices(Format),
    /// List the kernel variants for a problem, or print the exact WGSL of one.
    Dump(DumpArgs),
    /// Measure how fast attention runs, next to the limits of the device.
    ///
    /// Each figure is a median. Each limit is measured on the same device in the same run, right before and after the
    /// figure.
    Bench(Options),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The safetensors file with q, k and v.
    #[arg(value_name = "IN.safetensors")]
    pub(crate) input: PathBuf,

    /// The file to write the results to.
    #[arg(short, long, value_name = "OUT.safetensors")]
    pub(crate) output: PathBuf,

    /// Ignore this tensor of the file; may be given several times.
    #[arg(long, value_name = "TENSOR")]
    pub(crate) ignore: Vec<String>,

    #[command(flatten)]
    pub(crate) semantics: Semantics,

    #[command(flatten)]
    pub(crate) programs: ProgramArgs,

    #[command(flatten)]
    pub(crate) backward: BackwardArgs,

    /// The element type to compute on, for q, k, v, the outputs and their gradients. Defaults to those in the file.
    #[arg(long, value_enum, value_name = "TYPE")]
    pub(crate) dtype: Option<Storage>,

    /// Also write each row's log-sum-exp, (B, H, L), in f32.
    #[arg(long)]
    pub(crate) lse: bool,

    /// Also write the attention weights, (B, H, Lq, Lk).
    #[arg(long)]
    pub(crate) weights: bool,

    #[command(flatten)]
    pub(crate) heatmap: HeatmapArgs,

    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct HeatmapArgs {
    /// Draw the attention weights as a PNG, one panel per head.
    #[arg(long, value_name = "FILE.png", value_parser = png_path)]
    pub(crate) heatmap: Option<PathBuf>,

    /// The batch that the heat map shows. Defaults to the first.
    #[arg(long, value_name = "N", requires = "heatmap")]
    pub(crate) heatmap_batch: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// A folder with a manifest.json of ONNX Attention cases; may be given several times.
    #[arg(long, value_name = "DIR")]
    pub(crate) cases: Vec<PathBuf>,

    /// Skip the built-in cases and check only the case files.
    #[arg(long, requires = "cases")]
    pub(crate) no_built_in: bool,

    /// Check only the variant that each case selects on this device, not every one that can run it.
    #[arg(long)]
    pub(crate) selected: bool,

    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    /// The variant to print, spelled as in the list. Without it, print the list.
    #[arg(value_name = "VARIANT")]
    pub(crate) variant: Option<String>,

    /// Batch, heads, length and head size of the problem.
    #[arg(long, value_name = "B,H,L,D", default_value = "1,8,1024,64", value_parser = shape)]
    pub(crate) shape: Shape,

    /// The number of KV heads, if query heads share them.
    #[arg(long, value_name = "N")]
    pub(crate) kv_heads: Option<u32>,

    /// The number of keys, if it differs from the number of queries.
    #[arg(long, value_name = "N")]
    pub(crate) kv_len: Option<u32>,

    /// The head size of the values, if it differs from that of the keys.
    #[arg(long, value_name = "N")]
    pub(crate) value_dim: Option<u32>,

    #[command(flatten)]
    pub(crate) semantics: Semantics,

    #[command(flatten)]
    pub(crate) programs: ProgramArgs,

    /// The element type.
    #[arg(long, value_enum, value_name = "TYPE", default_value = "f32")]
    pub(crate) dtype: Storage,

    /// The element type of k and v, if it differs.
    #[arg(long, value_enum, value_name = "TYPE")]
    pub(crate) kv_dtype: Option<Storage>,

    /// The element type of the output, if it differs.
    #[arg(long, value_enum, value_name = "TYPE")]
    pub(crate) out_dtype: Option<Storage>,

    /// With a boolean mask.
    #[arg(long)]
    pub(crate) mask: bool,

    /// With an additive bias of this element type.
    #[arg(long, value_enum, value_name = "TYPE")]
    pub(crate) bias: Option<Storage>,

    /// With per-batch key lengths.
    #[arg(long)]
    pub(crate) kv_lengths: bool,

    /// With ALiBi slopes, one per head.
    #[arg(long)]
    pub(crate) alibi: bool,

    /// With a sink in each row's softmax.
    #[arg(long)]
    pub(crate) sinks: bool,

    /// With a buffer of N f32 values that programs read as `aux`.
    #[arg(long, value_name = "N")]
    pub(crate) aux: Option<u64>,

    /// With the log-sum-exp as an output.
    #[arg(long)]
    pub(crate) lse: bool,

    /// With the attention weights as an output; adds the kernel that writes them.
    #[arg(long)]
    pub(crate) weights: bool,

    /// Assume that the device has the matrix unit of this API's GPUs; for --dtype f16.
    #[arg(long, value_enum, value_name = "API")]
    pub(crate) matrix_unit: Option<MatrixApi>,

    #[command(flatten)]
    pub(crate) format: Format,
}

/// The API that matrix units are reached through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MatrixApi {
    /// 16 × 16, in subgroups of 32.
    Vulkan,
    /// 8 × 8, in subgroups of 32.
    Metal,
}

impl From<MatrixApi> for MatrixUnit {
    fn from(api: MatrixApi) -> Self {
        let (fragment, tiles) = match api {
            MatrixApi::Vulkan => (Fragment::Side16, Tiles::Vectors),
            MatrixApi::Metal => (Fragment::Side8, Tiles::Scalars),
        };
        Self { fragment, subgroup: 32, tiles, multiplier: Multiplier::Unit }
    }
}

/// Options for causality, window, scale and softcap, shared by the commands that describe a problem.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Semantics {
    /// Hide the keys past the diagonal, which starts at the first key (top-left), ends at the last (bottom-right), or starts at
    /// key N.
    #[arg(long, value_name = "top-left|bottom-right|N", value_parser = diagonal, allow_negative_numbers = true)]
    causal: Option<Diagonal>,

    /// Where the diagonal of --window lies if --causal is not given. Defaults to top-left.
    #[arg(long, value_name = "top-left|bottom-right|N", value_parser = diagonal, allow_negative_numbers = true)]
    diagonal: Option<Diagonal>,

    /// Show only keys at most L before and R after the diagonal; -1 leaves a side open.
    #[arg(long, value_name = "L,R", value_parser = window, allow_hyphen_values = true)]
    window: Option<Window>,

    /// The factor applied to the scores. Defaults to 1/√D.
    #[arg(long, value_name = "S", value_parser = finite, allow_hyphen_values = true)]
    scale: Option<f32>,

    /// Cap the scaled scores: C·tanh(s/C).
    #[arg(long, value_name = "C", value_parser = positive, allow_hyphen_values = true)]
    softcap: Option<f32>,
}

impl Semantics {
    pub(crate) fn apply(&self, mut problem: ProblemBuilder) -> Result<ProblemBuilder> {
        let (causal, diagonal) = (self.causal, self.diagonal);
        ensure!(
            causal.is_none() || diagonal.is_none() || causal == diagonal,
            "--causal and --diagonal name different diagonals, but a problem has only one; leave --diagonal out"
        );
        ensure!(
            diagonal.is_none() || causal.is_some() || self.window.is_some(),
            "--diagonal changes nothing without --window; give both, or neither"
        );
        if let Some(diagonal) = diagonal {
            problem = problem.diagonal(diagonal);
        }
        if let Some(diagonal) = causal {
            problem = problem.causal(diagonal);
        }
        if let Some(window) = self.window {
            problem = problem.window(window);
        }
        if let Some(scale) = self.scale {
            problem = problem.scale(scale);
        }
        if let Some(cap) = self.softcap {
            problem = problem.softcap(cap);
        }
        Ok(problem)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Storage {
    F32,
    F16,
    Bf16,
}

impl From<Storage> for Dtype {
    fn from(storage: Storage) -> Self {
        match storage {
            Storage::F32 => Self::F32,
            Storage::F16 => Self::F16,
            Storage::Bf16 => Self::Bf16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
