//! Runs the tests of matrix units without a GPU that has them: the lavapipe of a newer Mesa ([`crate::mesa`]) has them too. A
//! SPIR-V validator that knows cooperative matrices comes with it.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::command::{built, root};
use crate::coverage::Coverage;
use crate::steps::Steps;
use crate::{adapter, mesa, suite, tests};

/// What the names of these tests contain.
pub(crate) const TESTS: &str = "matrix";

/// Runs the tests that libtest's arguments select, and prints what ran.
pub(crate) fn test(arguments: &[&str]) -> Result<()> {
    let coverage = Coverage::new(root().join("target").join("coverage"))?;
    let mut steps = Steps::default();
    steps.run("matrix units", || run_tests(arguments, &coverage));
    steps.run("matrix units' SPIR-V", validate_spirv);
    coverage.table()?.lines().iter().for_each(|line| println!("{line}"));
    steps.finish()
}

/// Runs tests of the suite on that driver alone, and fails if none ran.
pub(crate) fn run_tests(arguments: &[&str], coverage: &Coverage) -> Result<()> {
    let program = tests::suite_program()?;
    mesa::unpack()?;
    check_driver()?;
    suite::run(&|| on_that_driver(program.as_os_str()), &[], arguments, coverage, |_| ())
}

/// Validates the SPIR-V that naga makes of every kernel on a matrix unit, by the rules of SPIR-V itself. Vulkan has more
/// rules, which naga's layout of workgroup memory breaks (see `validation.rs`).
pub(crate) fn validate_spirv() -> Result<()> {
    let write = ["--ignored", "--exact", "shaders::write_every_matrix_module"];
    tests::count_tests(Command::new(tests::suite_program()?).args(write), |_| ())?;
    let validator = mesa::folder().join("usr/bin/spirv-val");
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

/// A command that runs a program with the newer Mesa's lavapipe and no other driver.
fn on_that_driver(program: &OsStr) -> Command {
    mesa::with_driver("lvp", &[], program)
}

/// Checks that the driver has matrix units. Without them the tests would pass, too, by testing the emulation.
fn check_driver() -> Result<()> {
    let adapters = adapter::listed(&mut on_that_driver(built("wgpu-attention")?.get_program()))?;
    let has_unit = |adapter: &Value| adapter["matrix_unit"].as_str().is_some_and(|unit| !unit.starts_with("none"));
    let suits = |adapter: &Value| adapter["backend"] == "Vulkan" && has_unit(adapter);
    if adapters.is_empty() || !adapters.iter().all(suits) {
        bail!(
            "{} holds no Vulkan driver with a matrix unit, or it was not loaded alone; remove it to download again",
            mesa::folder().display()
        );
    }
    Ok(())
}
