//! The command line, parsed and checked as far as it can be without opening a file.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use wgpu_attention::{Diagonal, Dtype, Fragment, MatrixUnit, Multiplier, ProblemBuilder, Shape, Tiles, Window};
use wgpu_attention_bench::Options;

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

    /// Where to compute: part of an adapter's name or its backend, its index in `devices`, or `cpu` for this program's own
    /// multi-threaded path. The best GPU unless given.
    #[arg(long, global = true, value_name = "NAME|INDEX|cpu")]
    pub(crate) device: Option<String>,

    #[command(flatten)]
    pub(crate) format: Format,
}

/// How a command prints; `bench` writes its rows to a file instead.
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
    /// Reads q, k and v (B, H, L, D) and, where present, mask (bool or u8, non-zero = attend), key_padding_mask (B, L; non-zero =
    /// attend here, too, where torch's MultiheadAttention has it the other way round), bias (added to the scores) and kv_lengths
    /// (B). A batch of 1 goes with every batch of the others.
    ///
    /// Writes output and, when asked, weights in the input's element type, and lse in f32. Tensors of these names in the input, and
    /// such as begin with expected_, are not read; any other is refused unless --ignore names it.
    Run(RunArgs),
    /// Check every variant this device can run against the f64 reference and against case files.
    Check(CheckArgs),
    /// List the adapters: what each grants, and the variant it gets.
    Devices(Format),
    /// List the kernel variants for a problem, or print the exact WGSL of one.
    Dump(DumpArgs),
    /// Measure how fast attention runs here, beside what the device can do at most.
    ///
    /// Each figure is a median, and each limit was measured on the same device in the same run, right before and after.
    Bench(Options),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The safetensors file with q, k and v.
    #[arg(value_name = "IN.safetensors")]
    pub(crate) input: PathBuf,

    /// Where output, lse and weights go.
    #[arg(short, long, value_name = "OUT.safetensors")]
    pub(crate) output: PathBuf,

    /// Do as if this tensor were not in the file; may be given several times.
    #[arg(long, value_name = "TENSOR")]
    pub(crate) ignore: Vec<String>,

    #[command(flatten)]
    pub(crate) semantics: Semantics,

    #[command(flatten)]
    pub(crate) programs: ProgramArgs,

    /// Compute on elements stored so; as the file has them unless given.
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

/// The user's own programs in the score.
#[derive(Debug, Args)]
pub(crate) struct ProgramArgs {
    /// WGSL that makes a score of a score: fn score_mod(score: f32, at: At) -> f32. It reads the tensor `aux`, if there is one.
    #[arg(long, value_name = "FILE.wgsl")]
    score_mod: Option<PathBuf>,

    /// WGSL that says whether a query sees a key: fn mask_mod(at: At) -> bool.
    #[arg(long, value_name = "FILE.wgsl")]
    mask_mod: Option<PathBuf>,
}

impl ProgramArgs {
    pub(crate) fn apply(&self, mut problem: ProblemBuilder) -> Result<ProblemBuilder> {
        let read =
            |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        if let Some(path) = &self.score_mod {
            problem = problem.score_mod(read(path)?);
            problem.build().with_context(|| path.display().to_string())?;
        }
        if let Some(path) = &self.mask_mod {
            problem = problem.mask_mod(read(path)?);
            problem.build().with_context(|| path.display().to_string())?;
        }
        Ok(problem)
    }

    pub(crate) fn has_any(&self) -> bool {
        self.score_mod.is_some() || self.mask_mod.is_some()
    }
}

#[derive(Debug, Args)]
pub(crate) struct HeatmapArgs {
    /// Draw the attention weights, a panel a head, as a PNG.
    #[arg(long, value_name = "FILE.png", value_parser = png_path)]
    pub(crate) heatmap: Option<PathBuf>,

    /// Which batch the heat map shows; the first unless given.
    #[arg(long, value_name = "N", requires = "heatmap")]
    pub(crate) heatmap_batch: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// A folder with a manifest.json of ONNX Attention cases; may be given several times.
    #[arg(long, value_name = "DIR")]
    pub(crate) cases: Vec<PathBuf>,

    /// Check the case files alone.
    #[arg(long, requires = "cases")]
    pub(crate) no_built_in: bool,

    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    /// The variant to print, as the list spells it; the list itself unless given.
    #[arg(value_name = "VARIANT")]
    pub(crate) variant: Option<String>,

    /// Batch, heads, length and head size of the problem.
    #[arg(long, value_name = "B,H,L,D", default_value = "1,8,1024,64", value_parser = shape)]
    pub(crate) shape: Shape,

    /// KV heads, where the query heads share them.
    #[arg(long, value_name = "N")]
    pub(crate) kv_heads: Option<u32>,

    /// Keys, where there are not as many as queries.
    #[arg(long, value_name = "N")]
    pub(crate) kv_len: Option<u32>,

    /// Size of the values, where it is not the keys'.
    #[arg(long, value_name = "N")]
    pub(crate) value_dim: Option<u32>,

    #[command(flatten)]
    pub(crate) semantics: Semantics,

    #[command(flatten)]
    pub(crate) programs: ProgramArgs,

    /// How the elements are stored.
    #[arg(long, value_enum, value_name = "TYPE", default_value = "f32")]
    pub(crate) dtype: Storage,

    /// With a boolean mask.
    #[arg(long)]
    pub(crate) mask: bool,

    /// With an additive bias stored so.
    #[arg(long, value_enum, value_name = "TYPE")]
    pub(crate) bias: Option<Storage>,

    /// With per-batch key lengths.
    #[arg(long)]
    pub(crate) kv_lengths: bool,

    /// With ALiBi slopes, one a head.
    #[arg(long)]
    pub(crate) alibi: bool,

    /// With a sink in each row's softmax.
    #[arg(long)]
    pub(crate) sinks: bool,

    /// With a buffer of so many f32 that programs read as `aux`.
    #[arg(long, value_name = "N")]
    pub(crate) aux: Option<u64>,

    /// Also writing the log-sum-exp.
    #[arg(long)]
    pub(crate) lse: bool,

    /// The kernel that writes the attention weights, too.
    #[arg(long)]
    pub(crate) weights: bool,

    /// As if the device had a matrix unit such as this API's GPUs have; for --dtype f16.
    #[arg(long, value_enum, value_name = "API")]
    pub(crate) matrix_unit: Option<MatrixApi>,

    #[command(flatten)]
    pub(crate) format: Format,
}

/// Where matrix units are reached through.
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

/// What the scores go through, shared by the commands that describe a problem.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Semantics {
    /// Hide the keys past the diagonal, which starts at the first key (top-left), ends at the last (bottom-right), or starts at
    /// key N.
    #[arg(long, value_name = "top-left|bottom-right|N", value_parser = diagonal, allow_negative_numbers = true)]
    causal: Option<Diagonal>,

    /// Where the diagonal of --window lies without --causal; top-left unless given.
    #[arg(long, value_name = "top-left|bottom-right|N", value_parser = diagonal, allow_negative_numbers = true)]
    diagonal: Option<Diagonal>,

    /// Show only keys so far before and after the diagonal, inclusive; -1 leaves a side open.
    #[arg(long, value_name = "L,R", value_parser = window, allow_hyphen_values = true)]
    window: Option<Window>,

    /// The factor on the scores; 1/√D unless given.
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
            "--causal and --diagonal name different diagonals, and there is one; leave --diagonal out"
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
