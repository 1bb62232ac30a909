//! A newer Mesa than the system's, for drivers and compilers that older ones lack.
//!
//! The packages of Debian's testing suite that its Vulkan drivers need are unpacked under `target`. Programs are started with
//! the dynamic loader there, and so use the C library and the drivers there. This needs no chroot and no mount, and does not
//! change the system's own packages.

use std::env::consts::ARCH;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::{on_path, root, run};
use crate::debian::{self, as_root};

/// `debootstrap` resolves dependencies; apt could do so only if the system trusted that suite. The suite is called
/// `testing` here, because an older `debootstrap` does not know the name of the release it will become.
const DOWNLOAD: &str =
    "--variant=minbase --download-only --include=mesa-vulkan-drivers,mesa-drm-shim,libvulkan1,spirv-tools testing";

/// The newest thing that is used of it: trees of earlier versions of this program lack it.
const NEWEST: &str = "libnouveau_noop_drm_shim.so";

/// Why it cannot be unpacked here without asking anyone, if so.
pub(crate) fn obstacle() -> Option<&'static str> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) || !on_path("apt-get") {
        Some("a newer Mesa comes from Debian's packages, which needs apt-get, and was tried only on x86-64")
    } else if !is_unpacked() && !debian::can_be_root() {
        Some("downloading a newer Mesa needs root; `cargo xtask matrix` asks for the password")
    } else {
        None
    }
}

/// The folder that it is unpacked in.
pub(crate) fn folder() -> PathBuf {
    root().join("target").join("mesa")
}

fn libraries() -> PathBuf {
    folder().join(format!("usr/lib/{ARCH}-linux-gnu"))
}

fn is_unpacked() -> bool {
    libraries().join(NEWEST).exists()
}

/// Downloads and unpacks it, unless it is there.
pub(crate) fn unpack() -> Result<()> {
    if is_unpacked() { Ok(()) } else { unpack_anew().context("cannot unpack a newer Mesa") }
}

/// Works under other names first, so that an interrupted run leaves nothing incomplete in the final folder.
fn unpack_anew() -> Result<()> {
    let [packages, tree] = ["mesa.packages", "mesa.part"].map(|name| folder().with_file_name(name));
    let remove = || run(as_root("rm")?.arg("-rf").args([&packages, &tree]));
    remove()?;
    debian::install(&["debootstrap", "debian-archive-keyring"])?;
    run(as_root("debootstrap")?.args(DOWNLOAD.split(' ')).arg(&packages))?;
    let archives = packages.join("var/cache/apt/archives");
    for entry in fs::read_dir(&archives).with_context(|| format!("cannot list {}", archives.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("-x").args([&path, &tree]))?;
        }
    }
    run(as_root("rm")?.arg("-rf").arg(folder()))?;
    fs::rename(&tree, folder())?;
    remove()
}

/// A command that runs a program with the Vulkan driver `NAME_icd.json` and no other driver. `preloaded` are names of libraries
/// that are loaded before its own.
pub(crate) fn with_driver(driver: &str, preloaded: &[&str], program: &OsStr) -> Command {
    let tree = folder().join("usr");
    let mut command = Command::new(tree.join("bin/ld.so"));
    for library in preloaded {
        command.arg("--preload").arg(libraries().join(library));
    }
    command.arg("--library-path").arg(libraries()).arg(program).current_dir(root());
    command.env("VK_DRIVER_FILES", tree.join(format!("share/vulkan/icd.d/{driver}_icd.json")));
    // Hides the system's OpenGL drivers.
    command.env("__EGL_VENDOR_LIBRARY_FILENAMES", "/dev/null");
    command
}
