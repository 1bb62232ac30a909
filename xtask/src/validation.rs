//! `cargo xtask validate`: the tests under the Vulkan validation layer.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::adapter;
use crate::command::{built, root, run_reading};
use crate::coverage::Coverage;
use crate::steps::Steps;
use crate::tests;

const LAYER: &str = "VK_LAYER_KHRONOS_validation";
const MANIFEST: &str = "VkLayer_khronos_validation.json";

/// Chromium's package has a recent copy of the layer, without a manifest. Some distributions' own package is years old.
const CHROMIUM_LAYER: &str = "/usr/lib/chromium/libVkLayer_khronos_validation.so";

/// A false alarm that wgpu silences as well: naga gives workgroup arrays an explicit layout (gfx-rs/wgpu#7696). The check
/// of such a module's SPIR-V ends there; all other checks continue.
const KNOWN_FALSE_ALARMS: &str = "VUID-StandaloneSpirv-None-10684";

/// Runs an example and the tests under the layer, and fails if it reports anything.
pub(crate) fn validate() -> Result<()> {
    let layers = find_layer()?;
    println!("{LAYER} from {}", layers.display());

    let mut steps = Steps::default();
    let coverage = Coverage::new(root().join("target").join("coverage"))?;
    let mut programs = Vec::new();
    steps.run("build", || {
        programs = tests::build()?;
        Ok(())
    });
    steps.run("adapter", adapter::ensure);
    steps.run("example under validation", || {
        let mut layer = Layer::default();
        // No reports prove nothing unless the layer is loaded. With `info` it announces what it checks.
        let mut hello = built("examples/hello")?;
        run_reading(
            under_validation(&mut hello, &layers).env("VK_LAYER_REPORT_FLAGS", "error,warn,perf,info"),
            |line| {
                println!("{line}");
                layer.hear(line);
            },
        )?;
        if !layer.announced {
            bail!("the Vulkan loader did not load {LAYER} from {}; VK_LOADER_DEBUG=all says why", layers.display());
        }
        layer.verdict()
    });
    steps.run("tests under validation", || {
        let mut layer = Layer::default();
        let prepare = |command: &mut Command| {
            under_validation(command, &layers);
        };
        let outcome = tests::run_all(&programs, &[], &coverage, &prepare, |line| layer.hear(line));
        layer.verdict().and(outcome)
    });
    steps.finish()
}

/// What the layer has printed so far.
#[derive(Debug, Default)]
struct Layer {
    announced: bool,
    reports: usize,
}

impl Layer {
    fn hear(&mut self, line: &str) {
        let has = |text: &&str| line.contains(text);
        self.announced |= ["Current Validation Enabled", "Khronos Validation Layer Active"].iter().any(has);
        let reports = ["Validation Error: [", "Validation Warning: [", "Validation Performance Warning: ["];
        self.reports += usize::from(reports.iter().any(has));
    }

    fn verdict(&self) -> Result<()> {
        if self.reports > 0 {
            bail!("the layer made {} reports: look for `Validation Error` and `Validation Warning`", self.reports);
        }
        Ok(())
    }
}

/// The folder that holds the layer's manifest: the caller's, Chromium's, or the system's.
fn find_layer() -> Result<PathBuf> {
    if !cfg!(target_os = "linux") {
        bail!("this works only on Linux; elsewhere wgpu prefers another API to Vulkan");
    }
    if let Some(folder) = env::var_os("VK_LAYER_PATH") {
        return Ok(folder.into());
    }
    if Path::new(CHROMIUM_LAYER).exists() {
        return write_chromium_manifest();
    }
    let system = Path::new("/usr/share/vulkan/explicit_layer.d");
    if system.join(MANIFEST).exists() {
        return Ok(system.into());
    }
    bail!(
        "no Vulkan validation layer found. On Debian: `apt-get install chromium`, whose own copy is recent \
         (`vulkan-validationlayers` of Debian 12 rejects every valid shader). Elsewhere install the Vulkan SDK and set \
         VK_LAYER_PATH to the folder that holds {MANIFEST}"
    );
}

fn write_chromium_manifest() -> Result<PathBuf> {
    let folder = root().join("target/validation");
    let manifest = json!({
        "file_format_version": "1.2.0",
        "layer": {
            "name": LAYER,
            "type": "GLOBAL",
            "library_path": CHROMIUM_LAYER,
            "api_version": "1.4.0",
            "implementation_version": "1",
            "description": "Khronos Validation Layer",
            "instance_extensions": [{ "name": "VK_EXT_debug_utils", "spec_version": "1" }],
        },
    });
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(folder.join(MANIFEST), manifest.to_string()))
        .with_context(|| format!("cannot write {}", folder.join(MANIFEST).display()))?;
    Ok(folder)
}

/// Makes the Vulkan loader put the layer into every instance, and the layer print to standard output.
fn under_validation<'a>(command: &'a mut Command, layers: &Path) -> &'a mut Command {
    command
        .env("VK_LAYER_PATH", layers)
        .env("VK_INSTANCE_LAYERS", LAYER)
        .env("VK_LAYER_DEBUG_ACTION", "VK_DBG_LAYER_ACTION_LOG_MSG")
        .env("VK_LAYER_LOG_FILENAME", "stdout")
        .env("VK_LAYER_REPORT_FLAGS", "error,warn,perf")
        .env("VK_LAYER_VALIDATE_SYNC", "true")
        .env("VK_LAYER_MESSAGE_ID_FILTER", KNOWN_FALSE_ALARMS)
}

#[cfg(test)]
mod test {
    use super::Layer;

    #[test]
    fn errors_and_warnings_are_reports_and_information_is_not() {
        let mut layer = Layer::default();
        layer.hear("Validation Information: [ CURRENT-VALIDATION-ENABLED ] | MessageID = 0xfd7b2292");
        layer.hear("vkCreateInstance(): Current Validation Enabled:");
        assert!(layer.announced && layer.verdict().is_ok());
        // The layer may print in the middle of a test's own line.
        layer
            .hear("test record::binds ... Validation Error: [ VUID-VkShaderModuleCreateInfo-pCode-08737 ] | MessageID");
        assert!(layer.verdict().is_err());
    }
}
