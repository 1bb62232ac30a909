//! Debian's packages: what it takes to install them.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{on_path, run};

/// Installs packages, asking nothing.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let by_hand = || format!("as root: apt-get install {}", packages.join(" "));
    // A repository that fails to update need not be the one that holds these packages.
    if let Err(error) = run(as_root("apt-get").with_context(by_hand)?.arg("update")) {
        println!("{error:#}; trying to install all the same");
    }
    let install = ["install", "--yes", "--no-install-recommends"];
    run(as_root("apt-get")?.args(install).args(packages)).with_context(by_hand)
}

/// A program as root, asking nothing about packages.
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

/// Whether [`as_root`] works without anyone at the keyboard.
pub(crate) fn can_be_root() -> bool {
    let asks_nobody = || Command::new("sudo").args(["--non-interactive", "true"]).output();
    is_root() || asks_nobody().is_ok_and(|output| output.status.success())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
