//! `cargo xtask page`: the public page, `web/` in the repository, as static files that any server can serve.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::page::{Names, bindings, folder as built, pack};
use super::server::{Served, Server};
use super::toolchain::{TARGET, Toolchain};
use crate::command::{cargo, root, run};

const PACKAGE: &str = "wgpu-attention-page";
/// The profile that it is published in.
const PROFILE: &str = "page";

/// The model's tensors, and their name on the page.
pub(super) const MODEL: [&str; 2] = ["cli/data/minilm_layer0.safetensors", "minilm.safetensors"];

/// The folder that is published.
fn folder() -> PathBuf {
    root().join("target").join("page")
}

/// Builds the page into `target/page`.
pub(super) fn build(toolchain: &Toolchain) -> Result<()> {
    bindings()?;
    let mut compile = cargo(["build", "--profile", PROFILE, "--target-dir", "target/browser", "--target", TARGET]);
    run(toolchain.prepare(compile.args(["--package", PACKAGE]))?)?;
    if folder().exists() {
        // Otherwise a file that the page no longer has would be published.
        fs::remove_dir_all(folder())?;
    }
    let compiled = built().join(TARGET).join(PROFILE).join(format!("{}.wasm", PACKAGE.replace('-', "_")));
    pack(&compiled, &folder(), Names::Removed)?;
    for entry in fs::read_dir(root().join("web"))? {
        let path = entry?.path();
        if content_type(&path).is_some() {
            copy(&path, &folder().join(path.file_name().unwrap_or_default()))?;
        }
    }
    let [tensors, name] = MODEL;
    copy(&root().join(tensors), &folder().join(name))
}

/// Builds the page and says where it is.
pub(crate) fn publish() -> Result<()> {
    build(&Toolchain::find()?)?;
    println!("the page is in {}", folder().display());
    Ok(())
}

/// Serves the page until the program is ended.
pub(crate) fn serve() -> Result<()> {
    let server = Server::new(files()?)?;
    println!("open {} in a browser; Ctrl+C ends the server", server.address());
    server.answer();
    Ok(())
}

/// The files of the page.
pub(super) fn files() -> Result<Vec<Served>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder()).with_context(|| format!("cannot list {}", folder().display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let content_type = content_type(&path).unwrap_or("application/octet-stream");
        if name == "index.html" {
            files.push(Served { address: "/".into(), path: path.clone(), content_type });
        }
        files.push(Served { address: format!("/{name}"), path, content_type });
    }
    Ok(files)
}

/// The type of a file that a browser shows or runs.
fn content_type(path: &Path) -> Option<&'static str> {
    Some(match path.extension()?.to_str()? {
        "html" => "text/html",
        "css" => "text/css",
        "js" => "text/javascript",
        "wasm" => "application/wasm",
        _ => return None,
    })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}
