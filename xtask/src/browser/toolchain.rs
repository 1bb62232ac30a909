//! The toolchain that compiles for the browser: the installed Rust, if it has the library for the target or rustup can add
//! it, or else Debian's Rust, unpacked under `target`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::page::folder;
use crate::command::{on_path, root, run};
use crate::debian;

pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// The version of the Rust that Debian builds its browsers with. To use another version, change it here and in
/// [`packages`].
const VERSION: &str = "1.96.0";

/// Its packages: the compiler, its two libraries, its source, and LLVM. The source is needed because Debian does not
/// compile the library for the browser.
fn packages() -> [String; 5] {
    let rust = |name: &str| format!("{name}={VERSION}*");
    let [library, for_programs] = [rust("libstd-rust-web-1.96"), rust("libstd-rust-web-dev")];
    [rust("rustc-web"), library, for_programs, rust(SOURCE_PACKAGE), "libllvm22".into()]
}

const SOURCE_PACKAGE: &str = "rust-web-src";

#[derive(Debug)]
pub(crate) enum Toolchain {
    /// The installed Rust has the target.
    Installed,
    /// Debian's Rust compiles its own library for the target.
    Debian,
}

impl Toolchain {
    /// The first toolchain that this machine has or can get.
    pub(crate) fn find() -> Result<Self> {
        if has_target()? {
            return Ok(Self::Installed);
        }
        if debian_rust().exists() {
            return Ok(Self::Debian);
        }
        if on_path("rustup") {
            match run(Command::new("rustup").args(["target", "add", TARGET]).current_dir(root())) {
                Ok(()) => return Ok(Self::Installed),
                Err(error) => println!("{error:#}"),
            }
        }
        if cfg!(all(target_os = "linux", target_arch = "x86_64")) && on_path("apt-get") && on_path("dpkg-deb") {
            return Ok(Self::Debian);
        }
        bail!(
            "Rust's library for {TARGET} is not installed; `rustup target add {TARGET}` installs it, and so do the \
             packages of many Linux distributions"
        )
    }

    /// Makes a cargo command compile with this toolchain. Unpacks it first if it is missing.
    pub(crate) fn prepare<'a>(&self, cargo: &'a mut Command) -> Result<&'a mut Command> {
        if matches!(self, Self::Installed) {
            return Ok(cargo);
        }
        if !debian_rust().exists() {
            unpack().context("cannot unpack Debian's Rust")?;
        }
        let tree = debian_rust().join("usr");
        cargo
            .env("RUSTC", tree.join("bin/rustc"))
            .env("RUSTDOC", tree.join("bin/rustdoc"))
            .env("LD_LIBRARY_PATH", tree.join("lib/x86_64-linux-gnu"));
        // Compiling the library is not stable yet.
        cargo.env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=std,panic_abort");
        // Debian's Rust has no linker for the browser.
        Ok(cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", installed_linker()?))
    }
}

/// Whether the installed Rust has the target's library.
fn has_target() -> Result<bool> {
    let folder = printed(&["--print", "target-libdir", "--target", TARGET])?;
    Ok(Path::new(&folder).exists())
}

fn installed_linker() -> Result<PathBuf> {
    let sysroot = printed(&["--print", "sysroot"])?;
    let linker = Path::new(&sysroot).join("lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld");
    ensure!(linker.exists(), "{} is missing: it links programs for the browser", linker.display());
    Ok(linker)
}

fn printed(arguments: &[&str]) -> Result<String> {
    let output = Command::new("rustc").args(arguments).current_dir(root()).stderr(Stdio::inherit()).output();
    let output = output.context("cannot start rustc")?;
    ensure!(output.status.success(), "`rustc {}` ended with {}", arguments.join(" "), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// The folder that Debian's Rust is unpacked in.
fn debian_rust() -> PathBuf {
    folder().join(format!("rust-{VERSION}"))
}

/// Downloads and unpacks under other names first, so that an interrupted run leaves nothing incomplete in the final folder.
fn unpack() -> Result<()> {
    let [archives, tree] = ["rust.packages", "rust.part"].map(|name| folder().join(name));
    // Where cargo looks for the library's source.
    let source = tree.join("usr/lib/rustlib/src/rust");
    for folder in [&archives, &tree] {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
    }
    fs::create_dir_all(&archives)?;
    fs::create_dir_all(&source)?;
    debian::download(&packages(), &archives)?;
    for entry in fs::read_dir(&archives)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SOURCE_PACKAGE)) {
            // Only the library: the whole source is seven times as large. Four folders lie above this one.
            let library = format!("./usr/src/rustc-{VERSION}/library");
            debian::unpack(&path, &source, &["--strip-components=4", &library])?;
        } else {
            debian::unpack(&path, &tree, &[])?;
        }
    }
    fs::rename(&tree, debian_rust())?;
    Ok(fs::remove_dir_all(&archives)?)
}
