//! Compiles the page, `browser/` in the repository, to WebAssembly and packs it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::server::Served;
use super::toolchain::{TARGET, Toolchain};
use crate::command::{cargo, root, run};

/// The profile of both programs here, and the folder that cargo puts them in.
const PROFILE: &str = "quick";

/// The folder of everything that is built for the browser.
pub(crate) fn folder() -> PathBuf {
    root().join("target").join("browser")
}

/// Builds the page's files, in the places that [`files`] names.
pub(crate) fn build(toolchain: &Toolchain) -> Result<()> {
    fs::create_dir_all(folder()).with_context(|| format!("cannot create {}", folder().display()))?;
    let built = ["build", "--profile", PROFILE, "--target-dir", "target/browser"];
    run(cargo(built).args(["--package", "wgpu-attention-browser-bindings", "--features", "generate"]))?;
    let mut compile = cargo(built);
    compile.args(["--package", "wgpu-attention-browser", "--target", TARGET]);
    run(toolchain.prepare(&mut compile)?)?;
    let [compiled, bindings] = [folder().join(TARGET), folder()].map(|folder| folder.join(PROFILE));
    let mut pack = std::process::Command::new(bindings.join(format!("bindings{}", std::env::consts::EXE_SUFFIX)));
    run(pack.arg(compiled.join("wgpu-attention-browser.wasm")).arg(page()))
}

/// The page's files.
pub(crate) fn files() -> Vec<Served> {
    let index = root().join("browser").join("index.html");
    vec![
        Served { address: "/", path: index, content_type: "text/html" },
        Served { address: "/page.js", path: page().join("page.js"), content_type: "text/javascript" },
        Served { address: "/page_bg.wasm", path: page().join("page_bg.wasm"), content_type: "application/wasm" },
    ]
}

fn page() -> PathBuf {
    folder().join("page")
}
