//! `cargo bench`: the harness of `wgpu-attention bench`, with the same arguments after `--`.

use anyhow::{Context as _, Result};
use clap::Parser;
use wgpu_attention_bench::{Gpu, Options, WANTED, run};

/// Measure how fast attention runs.
#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    options: Options,

    /// The device to measure: part of an adapter's name, a backend, or an index. Defaults to the best GPU.
    #[arg(long, value_name = "NAME|INDEX")]
    device: Option<String>,

    /// Cargo passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let gpu = Gpu::request(cli.device.as_deref(), WANTED)?.context("no GPU driver was found")?;
    run(&cli.options, &gpu, &mut std::io::stdout().lock())
}
