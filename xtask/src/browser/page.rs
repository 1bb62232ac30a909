//! Compiles the page, `browser/` in the repository, to WebAssembly and packs it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::server::Served;
use super::toolchain::{TARGET, Toolchain};
use crate::command::{cargo, root, run};

/// The profile of both programs here, and the folder that cargo puts them in.
const PROFILE: &str = "quick";

const BUILD: [&str; 5] = ["build", "--profile", PROFILE, "--target-dir", "target/browser"];

/// The folder of everything that is built for the browser.
pub(crate) fn folder() -> PathBuf {
    root().join("target").join("browser")
}

/// Builds the page's files, in the places that [`files`] names.
pub(crate) fn build(toolchain: &Toolchain) -> Result<()> {
    bindings()?;
    let mut compile = cargo(BUILD);
    compile.args(["--package", "wgpu-attention-browser", "--target", TARGET]);
    run(toolchain.prepare(&mut compile)?)?;
    pack(&folder().join(TARGET).join(PROFILE).join("wgpu-attention-browser.wasm"), &page(), Names::Kept)
}

/// Builds the program that [`pack`] runs.
pub(crate) fn bindings() -> Result<()> {
    fs::create_dir_all(folder()).with_context(|| format!("cannot create {}", folder().display()))?;
    run(cargo(BUILD).args(["--package", "wgpu-attention-browser-bindings", "--features", "generate"]))
}

/// Whether the names of functions stay in a program. They make messages readable, and downloads larger.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Names {
    Kept,
    Removed,
}

/// Writes what a browser loads of a compiled program.
pub(crate) fn pack(compiled: &Path, to: &Path, names: Names) -> Result<()> {
    let bindings = folder().join(PROFILE).join(format!("bindings{}", std::env::consts::EXE_SUFFIX));
    run(std::process::Command::new(bindings).arg(compiled).arg(to).arg(match names {
        Names::Kept => "with-names",
        Names::Removed => "without-names",
    }))
}

/// Checks the documentation as a browser's app sees it.
pub(crate) fn document(toolchain: &Toolchain) -> Result<()> {
    let mut document = cargo(["doc", "--no-deps", "--profile", PROFILE, "--target-dir", "target/browser"]);
    document.args(["--package", "wgpu-attention", "--target", TARGET]).env("RUSTDOCFLAGS", "-D warnings");
    run(toolchain.prepare(&mut document)?)
}

/// The page's files.
pub(crate) fn files() -> Vec<Served> {
    let index = root().join("browser").join("index.html");
    vec![
        Served { address: "/".into(), path: index, content_type: "text/html" },
        Served { address: "/page.js".into(), path: page().join("page.js"), content_type: "text/javascript" },
        Served { address: "/page_bg.wasm".into(), path: page().join("page_bg.wasm"), content_type: "application/wasm" },
    ]
}

fn page() -> PathBuf {
    folder().join("page")
}
