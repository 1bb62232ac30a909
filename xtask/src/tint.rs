//! Compiles the shaders with Chrome's WGSL compiler. It is stricter than naga: it rejects barriers in control flow that may
//! not be uniform, and operators without the parentheses that WGSL requires.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{cargo, root, run};

/// Dawn for Node.js; its null backend compiles without any driver.
const DAWN: &str = "webgpu@0.6.2";

/// Writes out every variant and compiles it.
pub(crate) fn compile_all() -> Result<()> {
    let folder = root().join("target").join("tint");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    run(&mut cargo([
        "test",
        "--release",
        "--test",
        "suite",
        "--",
        "--ignored",
        "--exact",
        "shaders::write_every_variant",
    ]))?;

    fs::write(folder.join("package.json"), "{ \"private\": true }")?;
    fs::copy(root().join("xtask").join("tint.mjs"), folder.join("tint.mjs"))?;
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    run(Command::new(npm).args(["install", "--silent", DAWN]).current_dir(&folder))
        .context("npm could not install Dawn; Node.js and npm are needed")?;
    run(Command::new("node").args(["tint.mjs", "../wgsl"]).current_dir(&folder))
}
