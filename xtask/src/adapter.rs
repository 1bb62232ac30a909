//! Makes sure that the tests have an adapter to run on: a GPU, or Mesa's software driver.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::{built, on_path};
use crate::debian;

/// lavapipe, a Vulkan driver for the CPU, and llvmpipe behind EGL, the same for GL.
const MESA_PACKAGES: [&str; 4] = ["libvulkan1", "mesa-vulkan-drivers", "libegl1", "libgl1-mesa-dri"];

/// Lists the adapters; where there is none, installs Mesa's software driver and looks again.
pub(crate) fn ensure() -> Result<()> {
    if count()? > 0 {
        return Ok(());
    }
    println!("no GPU adapter found: installing Mesa's software driver");
    install_mesa()?;
    if count()? == 0 {
        bail!("still no GPU adapter, though {} are installed", MESA_PACKAGES.join(" "));
    }
    Ok(())
}

/// How many adapters wgpu finds.
fn count() -> Result<usize> {
    Ok(listed(&mut built("wgpu-attention")?)?.len())
}

/// What `wgpu-attention devices --json` tells of every adapter that wgpu finds; prints their names.
pub(crate) fn listed(program: &mut Command) -> Result<Vec<Value>> {
    let output = program.args(["devices", "--json"]).output()?;
    let adapters: Vec<Value> = serde_json::from_slice(&output.stdout).with_context(|| {
        format!("`wgpu-attention devices --json` printed no JSON list: {}", String::from_utf8_lossy(&output.stderr))
    })?;
    for adapter in &adapters {
        println!("{} through {}, {}", adapter["name"], adapter["backend"], adapter["driver"]);
    }
    Ok(adapters)
}

fn install_mesa() -> Result<()> {
    if !on_path("apt-get") {
        bail!(
            "cannot install a driver here. Install a GPU driver, or Mesa's software Vulkan driver: \
             `dnf install mesa-vulkan-drivers vulkan-loader` on Fedora, `pacman -S vulkan-swrast` on Arch, \
             `apk add mesa-vulkan-swrast vulkan-loader` on Alpine; macOS and Windows bring an adapter of their own"
        );
    }
    debian::install(&MESA_PACKAGES)
}
