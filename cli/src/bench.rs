//! `bench`: how fast attention runs on a device. The crate in `benches` does the measuring.

use std::io::Write;

use anyhow::{Context as _, Result, ensure};
use wgpu_attention_bench::{Gpu, Options, WANTED};

pub(crate) fn run(options: &Options, device: Option<&str>, stdout: &mut dyn Write) -> Result<()> {
    let is_cpu = device.is_some_and(|device| device.eq_ignore_ascii_case("cpu"));
    ensure!(!is_cpu, "`bench` measures kernels, and --device cpu runs none; leave it out, or name an adapter");
    let gpu = Gpu::request(device, WANTED)?;
    let gpu = gpu.context("no GPU driver was found; install your GPU's Vulkan driver, or mesa-vulkan-drivers")?;
    wgpu_attention_bench::run(options, &gpu, stdout)
}
