//! The tests of matrix units without a GPU that has them: lavapipe has them too, from Mesa 26 on.
//!
//! The testing suite of Debian, as far as its lavapipe needs it, is unpacked under `target`, and programs are started by the
//! dynamic loader that lies there. They then see its C library and its driver, with no chroot and no mount, and the system's
//! own packages stay as they are. A validator of SPIR-V that knows cooperative matrices comes from there too.

use std::env::consts::ARCH;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::adapter;
use crate::command::{built, on_path, root, run};
use crate::coverage::Coverage;
use crate::debian::{self, as_root};
use crate::steps::Steps;
use crate::{suite, tests};

/// What the names of these tests contain.
pub(crate) const TESTS: &str = "matrix";

/// `debootstrap` resolves what a package needs, where apt would need the system to trust that suite. `testing` by that name,
/// since an older `debootstrap` does not know the name of the release it will become.
const DOWNLOAD: &str = "--variant=minbase --download-only --include=mesa-vulkan-drivers,libvulkan1,spirv-tools testing";

/// Runs the tests that libtest's arguments pick, and says what ran.
pub(crate) fn test(arguments: &[&str]) -> Result<()> {
    let coverage = Coverage::new(root().join("target").join("coverage"))?;
    let mut steps = Steps::default();
    steps.run("matrix units", || run_tests(arguments, &coverage));
    steps.run("matrix units' SPIR-V", validate_spirv);
    coverage.table()?.lines().iter().for_each(|line| println!("{line}"));
    steps.finish()
}

/// Why `cargo xtask test` leaves these tests out here, if it does.
pub(crate) fn obstacle() -> Option<&'static str> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) || !on_path("apt-get") {
        Some("their software driver comes from Debian's packages, by apt-get, and was tried on x86-64 alone")
    } else if !mesa().exists() && !debian::can_be_root() {
        Some("their software driver is downloaded as root; `cargo xtask matrix` asks for the password")
    } else {
        None
    }
}

/// Runs tests of the suite on that driver alone, and fails if none ran.
pub(crate) fn run_tests(arguments: &[&str], coverage: &Coverage) -> Result<()> {
    let program = tests::suite_program()?;
    if !mesa().exists() {
        unpack().context("cannot unpack a newer Mesa")?;
    }
    check_driver()?;
    suite::run(&|| on_that_driver(program.as_os_str()), &[], arguments, coverage, |_| ())
}

/// What naga makes of every kernel on a matrix unit, by the rules of SPIR-V. Not by Vulkan's, which naga's layout of workgroup
/// memory breaks (see `validation.rs`).
pub(crate) fn validate_spirv() -> Result<()> {
    let write = ["--ignored", "--exact", "shaders::write_every_matrix_module"];
    tests::count_tests(Command::new(tests::suite_program()?).args(write), |_| ())?;
    let validator = mesa().join("usr/bin/spirv-val");
    let folder = root().join("target").join("spirv");
    let mut modules = 0;
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let mut command = on_that_driver(validator.as_os_str());
        let output = command.args(["--target-env", "spv1.6"]).arg(entry?.path()).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        modules += 1;
    }
    println!("{modules} modules are valid");
    ensure!(modules > 0, "no module was written");
    Ok(())
}

/// The folder it is unpacked in.
fn mesa() -> PathBuf {
    root().join("target").join("mesa")
}

/// Half a download or half a tree lies under another name.
fn unpack() -> Result<()> {
    let [packages, tree] = ["mesa.packages", "mesa.part"].map(|name| mesa().with_file_name(name));
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
    fs::rename(&tree, mesa())?;
    remove()
}

/// A program that finds the newer Mesa's lavapipe, and no other driver.
fn on_that_driver(program: &OsStr) -> Command {
    let tree = mesa().join("usr");
    let mut command = Command::new(tree.join("bin/ld.so"));
    command.arg("--library-path").arg(tree.join(format!("lib/{ARCH}-linux-gnu"))).arg(program).current_dir(root());
    command.env("VK_DRIVER_FILES", tree.join("share/vulkan/icd.d/lvp_icd.json"));
    // OpenGL would still be the system's.
    command.env("__EGL_VENDOR_LIBRARY_FILENAMES", "/dev/null");
    command
}

/// Without matrix units the tests would pass, too, by testing their emulation.
fn check_driver() -> Result<()> {
    let adapters = adapter::listed(&mut on_that_driver(built("wgpu-attention")?.get_program()))?;
    let has_unit = |adapter: &Value| adapter["matrix_unit"].as_str().is_some_and(|unit| !unit.starts_with("none"));
    let suits = |adapter: &Value| adapter["backend"] == "Vulkan" && has_unit(adapter);
    if adapters.is_empty() || !adapters.iter().all(suits) {
        bail!(
            "{} holds no Vulkan driver with a matrix unit, or it was not loaded alone; remove it to download it anew",
            mesa().display()
        );
    }
    Ok(())
}
