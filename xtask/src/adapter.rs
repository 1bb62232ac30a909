//! Makes sure that the tests have an adapter to run on: a GPU, or Mesa's software driver.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::{built, on_path};
use crate::debian;

/// lavapipe, a software driver for Vulkan, and llvmpipe behind EGL, a software driver for GL.
const MESA_PACKAGES: [&str; 4] = ["libvulkan1", "mesa-vulkan-drivers", "libegl1", "libgl1-mesa-dri"];

/// Lists the adapters. If none is suitable, installs Mesa's software driver and looks again.
///
/// On Linux only a Vulkan adapter is suitable, a GPU's or Mesa's: through GL half of the kernels would not run.
pub(crate) fn ensure() -> Result<()> {
    let wanted = WANTED_BACKEND.unwrap_or("GPU");
    if is_enough(&listed(&mut built("wgpu-attention")?)?) {
        return Ok(());
    }
    println!("no {wanted} adapter found: installing Mesa's software driver");
    install_mesa()?;
    if !is_enough(&listed(&mut built("wgpu-attention")?)?) {
        bail!("still no {wanted} adapter, though {} are installed", MESA_PACKAGES.join(" "));
    }
    Ok(())
}

const WANTED_BACKEND: Option<&str> = if cfg!(target_os = "linux") { Some("Vulkan") } else { None };

fn is_enough(adapters: &[Value]) -> bool {
    adapters.iter().any(|adapter| WANTED_BACKEND.is_none_or(|wanted| adapter["backend"] == wanted))
}

/// What `wgpu-attention devices --json` reports about every adapter that wgpu finds. Prints their names.
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
             `apk add mesa-vulkan-swrast vulkan-loader` on Alpine; macOS and Windows come with an adapter"
        );
    }
    debian::install(&MESA_PACKAGES)
}

#[cfg(test)]
mod test {
    use serde_json::json;

    use super::is_enough;

    #[test]
    fn on_linux_an_adapter_by_gl_is_not_enough() {
        let [vulkan, gl] = ["Vulkan", "OpenGL"].map(|backend| json!({ "name": "llvmpipe", "backend": backend }));
        assert!(!is_enough(&[]));
        assert_eq!(is_enough(std::slice::from_ref(&gl)), !cfg!(target_os = "linux"));
        assert!(is_enough(&[gl, vulkan]));
    }
}
