//! `cargo xtask browser --size`: how much an app in a browser downloads for this crate.
//!
//! Two small apps are built as for a web site. One uses only wgpu, the other also computes attention. Servers send files
//! compressed, so that is what is measured.

use std::fs;
use std::io::Write as _;

use anyhow::{Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::page::{Names, bindings, folder, pack};
use super::toolchain::{TARGET, Toolchain};
use crate::command::{cargo, run};

const PACKAGE: &str = "wgpu-attention-browser-size";
/// The profile of both apps.
const PROFILE: &str = "size";

/// The most that this crate may add to an app, in bytes compressed by `gzip -9`: what it adds now, and a little. README has the figure.
const MOST: usize = 110_000;

/// The size of an app's files, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    plain: usize,
    compressed: usize,
}

/// Builds both apps, prints their sizes, and fails if the difference is too large.
pub(super) fn measure(toolchain: &Toolchain) -> Result<()> {
    ensure!(
        matches!(toolchain, Toolchain::Installed),
        "Debian's Rust cannot optimize across crates for {TARGET}; install the target by rustup to measure"
    );
    bindings()?;
    let alone = size(toolchain, "alone", "")?;
    let both = size(toolchain, "attention", "attention")?;
    println!("{:>24} {:>9} {:>9}", "", "bytes", "gzip -9");
    for (name, Size { plain, compressed }) in [("wgpu alone", alone), ("with attention", both)] {
        println!("{name:>24} {plain:>9} {compressed:>9}");
    }
    let [plain, compressed] = [both.plain - alone.plain, both.compressed - alone.compressed];
    println!("{:>24} {plain:>9} {compressed:>9}", "this crate");
    ensure!(compressed <= MOST, "this crate adds {compressed} bytes to an app, more than {MOST}");
    Ok(())
}

fn size(toolchain: &Toolchain, name: &str, features: &str) -> Result<Size> {
    let mut compile = cargo(["build", "--profile", PROFILE, "--target-dir", "target/browser", "--target", TARGET]);
    compile.args(["--package", PACKAGE, "--features", features]);
    run(toolchain.prepare(&mut compile)?)?;
    let app = folder().join(format!("size-{name}"));
    pack(&folder().join(TARGET).join(PROFILE).join(format!("{PACKAGE}.wasm")), &app, Names::Removed)?;
    let mut size = Size::default();
    for file in ["page.js", "page_bg.wasm"] {
        let content = fs::read(app.join(file))?;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&content)?;
        size.plain += content.len();
        size.compressed += gzip.finish()?.len();
    }
    Ok(size)
}
