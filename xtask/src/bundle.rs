//! `cargo xtask bundle`: makes an archive that tests and measures on a Linux machine with nothing but a GPU driver, not
//! even Rust.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command::{built, on_path, root, run};
use crate::tests::{self, CONFORMANCE};

const NAME: &str = "wgpu-attention-bundle";

/// `xtask` is this program.
const RUN: &str = r#"#!/bin/sh
# Tests and measures wgpu-attention here and writes report.json; see --help.
exec "$(dirname "$0")/xtask" report "$@"
"#;

/// Builds the programs and packs the archive.
pub(crate) fn pack() -> Result<()> {
    ensure!(cfg!(target_os = "linux"), "a bundle is for Linux and must be made on Linux");
    let suite = tests::suite_program()?;
    let command = PathBuf::from(built("wgpu-attention")?.get_program());
    let target = root().join("target").join("bundle");
    let folder = target.join(NAME);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder.join("conformance"))?;

    let mut glibc = 0;
    for (program, name) in [(suite, "suite"), (command, "wgpu-attention"), (env::current_exe()?, "xtask")] {
        let packed = folder.join(name);
        fs::copy(&program, &packed).with_context(|| format!("cannot copy {}", program.display()))?;
        if on_path("strip") {
            run(Command::new("strip").arg(&packed))?;
        }
        glibc = glibc.max(newest_glibc(&fs::read(&packed)?));
    }
    copy_files(&root().join(CONFORMANCE), &folder.join("conformance"))?;
    for license in ["LICENSE-APACHE", "LICENSE-MIT"] {
        fs::copy(root().join(license), folder.join(license))?;
    }
    fs::write(folder.join("commit"), commit()?)?;
    fs::write(folder.join("run"), RUN)?;
    run(Command::new("chmod").arg("+x").arg(folder.join("run")))?;

    let archive = target.join(NAME).with_extension("tar.gz");
    run(Command::new("tar").arg("-C").arg(&target).arg("-czf").args([archive.as_os_str(), NAME.as_ref()]))?;
    println!(
        "{} ({:.1} MB): unpack it on a machine with Linux on {}, glibc 2.{glibc} or later and a GPU driver, and start ./run",
        archive.display(),
        fs::metadata(&archive)?.len() as f64 / 1e6,
        env::consts::ARCH,
    );
    Ok(())
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// The commit that the figures belong to. Without it they mean nothing.
fn commit() -> Result<Vec<u8>> {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(root()).output();
    Ok(output.context("git is needed to name the commit")?.stdout)
}

/// The n of the newest `GLIBC_2.n` whose symbols a program needs. The machine needs at least that glibc.
fn newest_glibc(program: &[u8]) -> u32 {
    let prefix = b"GLIBC_2.";
    let after = program.windows(prefix.len()).enumerate().filter(|(_, text)| text == prefix);
    let number = |start: usize| {
        let digits = program[start..].iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
    };
    after.map(|(start, _)| number(start + prefix.len())).max().unwrap_or(0)
}

#[cfg(test)]
mod test {
    use super::newest_glibc;

    #[test]
    fn the_newest_version_counts_as_a_number() {
        assert_eq!(newest_glibc(b"\0GLIBC_2.9\0GLIBC_2.34\0GLIBC_2.2.5\0GLIBC_PRIVATE\0"), 34);
    }
}
