//! `cargo bench`: the harness of `wgpu-attention bench`, with the same arguments after `--`.

use anyhow::{Context as _, Result};
use clap::Parser;
use wgpu_attention_bench::{Gpu, Options, WANTED, run};

/// How fast attention runs here.
#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    options: Options,

    /// Part of an adapter's name or its backend, or its index. The best GPU unless given.
    #[arg(long, value_name = "NAME|INDEX")]
    device: Option<String>,

    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let gpu = Gpu::request(cli.device.as_deref(), WANTED)?.context("no GPU driver was found")?;
    run(&cli.options, &gpu, &mut std::io::stdout().lock())
}
