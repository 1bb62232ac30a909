//! Installs, downloads and unpacks Debian's packages.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::command::{on_path, run};

/// Installs packages without asking questions.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let by_hand = || format!("cannot install packages; as root, run: apt-get install {}", packages.join(" "));
    update().with_context(by_hand)?;
    let install = ["install", "--yes", "--no-install-recommends"];
    run(as_root("apt-get")?.args(install).args(packages)).with_context(by_hand)
}

/// Downloads packages to a folder, without their dependencies, and installs nothing.
pub(crate) fn download(packages: &[String], folder: &Path) -> Result<()> {
    // Without root, the package lists of the last update are used.
    if can_be_root() {
        update()?;
    }
    run(Command::new("apt-get").arg("download").args(packages).current_dir(folder))
        .context("`apt-cache policy PACKAGE` lists the versions there are")
}

/// Unpacks a package, or the part of it that these arguments of `tar` select.
pub(crate) fn unpack(package: &Path, folder: &Path, arguments: &[&str]) -> Result<()> {
    let mut archive = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(package).stdout(Stdio::piped()).spawn()?;
    let tar = archive.stdout.take().context("standard output was asked for")?;
    run(Command::new("tar").arg("-x").arg("-C").arg(folder).args(arguments).stdin(tar))?;
    ensure!(archive.wait()?.success(), "cannot unpack {}", package.display());
    Ok(())
}

/// Updates the package lists.
fn update() -> Result<()> {
    // A repository that fails to update may not be the one with the wanted packages.
    if let Err(error) = run(as_root("apt-get")?.arg("update")) {
        println!("{error:#}; continuing anyway");
    }
    Ok(())
}

/// A command that runs a program as root, without questions from packages.
pub(crate) fn as_root(program: &str) -> Result<Command> {
    let mut command = if is_root() {
        Command::new("env")
    } else if on_path("sudo") {
        let mut sudo = Command::new("sudo");
        sudo.arg("env");
        sudo
    } else {
        bail!("{program} needs root and there is no sudo");
    };
    command.args(["DEBIAN_FRONTEND=noninteractive", program]);
    Ok(command)
}

/// Whether [`as_root`] works without asking for a password.
pub(crate) fn can_be_root() -> bool {
    let asks_nobody = || Command::new("sudo").args(["--non-interactive", "true"]).output();
    is_root() || asks_nobody().is_ok_and(|output| output.status.success())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
