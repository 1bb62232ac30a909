//! Makes sure that the tests have an adapter to run on: a GPU, or Mesa's software driver.

use std::env;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::{built, run};

/// lavapipe, a Vulkan driver for the CPU, and llvmpipe behind EGL, the same for GL.
const MESA_PACKAGES: [&str; 4] = ["libvulkan1", "mesa-vulkan-drivers", "libegl1", "libgl1-mesa-dri"];

/// Lists the adapters; where there is none, installs Mesa's software driver and looks again.
pub(crate) fn ensure() -> Result<()> {
    if list()? > 0 {
        return Ok(());
    }
    println!("no GPU adapter found: installing Mesa's software driver");
    install_mesa()?;
    if list()? == 0 {
        bail!("still no GPU adapter, though {} are installed", MESA_PACKAGES.join(" "));
    }
    Ok(())
}

/// Prints every adapter that wgpu finds and returns how many there are.
fn list() -> Result<usize> {
    let output = built("wgpu-attention")?.args(["devices", "--json"]).output()?;
    let adapters: Vec<Value> = serde_json::from_slice(&output.stdout).with_context(|| {
        format!("`wgpu-attention devices --json` printed no JSON list: {}", String::from_utf8_lossy(&output.stderr))
    })?;
    for adapter in &adapters {
        println!("{} through {}", adapter["name"], adapter["backend"]);
    }
    Ok(adapters.len())
}

fn install_mesa() -> Result<()> {
    if !on_path("apt-get") {
        bail!(
            "cannot install a driver here. Install a GPU driver, or Mesa's software Vulkan driver: \
             `dnf install mesa-vulkan-drivers vulkan-loader` on Fedora, `pacman -S vulkan-swrast` on Arch, \
             `apk add mesa-vulkan-swrast vulkan-loader` on Alpine; macOS and Windows bring an adapter of their own"
        );
    }
    // A repository that fails to update need not be the one that holds these packages.
    if let Err(error) = run(&mut apt_get(&["update"])?) {
        println!("{error:#}; trying to install all the same");
    }
    let install = ["install", "--yes", "--no-install-recommends"];
    run(apt_get(&install)?.args(MESA_PACKAGES))
}

/// `apt-get` as root, asking nothing.
fn apt_get(args: &[&str]) -> Result<Command> {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    let mut command = if is_root {
        Command::new("env")
    } else if on_path("sudo") {
        let mut sudo = Command::new("sudo");
        sudo.arg("env");
        sudo
    } else {
        bail!("installing needs root and there is no sudo; as root: apt-get install {}", MESA_PACKAGES.join(" "));
    };
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]).args(args);
    Ok(command)
}

fn on_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}
