//! `cargo xtask test`: everything CI asks of a change.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::adapter;
use crate::browser;
use crate::command::{built, cargo, root, run, run_reading};
use crate::matrix;
use crate::steps::Steps;

// Lints and tests use one profile, so that they share build scripts and procedural macros, and name the whole workspace, so
// that they share one choice of features: wgpu is checked once and compiled once.
const LINTS: &str = "clippy --release --workspace --all-targets -- -D warnings";
/// The library alone, with no more features than a program that depends on it would choose for it.
const DOCS: &str = "doc --release --no-deps --package wgpu-attention";
/// `--bin`, not `--bins`: the program that is running cannot be replaced on Windows.
const BUILD: &str = "build --release --workspace --bin wgpu-attention --examples --tests";
const TESTS: &str = "test --release --workspace --tests --no-fail-fast";
const DOC_TESTS: &str = "test --release --workspace --doc --no-fail-fast";

pub(crate) const CONFORMANCE: &str = "tests/conformance";
/// Cases of our own, in the same form.
const CASES: &str = "tests/cases";

/// Runs every check, then fails if one of them did.
pub(crate) fn everything(full: bool) -> Result<()> {
    let mut steps = Steps::default();
    steps.run("format", || run(&mut cargo("fmt --all --check".split(' '))));
    steps.run("lints", || run(&mut cargo(LINTS.split(' '))));
    steps.run("docs", || run(cargo(DOCS.split(' ')).env("RUSTDOCFLAGS", "-D warnings")));
    steps.run("build", build);
    steps.run("adapter", adapter::ensure);
    steps.run("tests", || {
        let ignored: &[&str] = if full { &["--", "--include-ignored"] } else { &[] };
        count_tests(command().args(ignored), |_| ())
    });
    match matrix::obstacle() {
        None => {
            steps.run("matrix units", || matrix::run_tests(&[matrix::TESTS]));
            steps.run("matrix units' SPIR-V", matrix::validate_spirv);
        }
        Some(reason) => println!("\nmatrix units were not tested: {reason}"),
    }
    match browser::Setup::find() {
        Ok(setup) => setup.run(&mut steps),
        Err(reason) if browser::is_required() => drop(steps.run("kernels in the browser", || Err(reason))),
        Err(reason) => println!("\nkernels were not run in a browser: {reason:#}"),
    }
    // On their own: `--include-ignored` would also run the doc tests that are marked as not for running.
    steps.run("doc tests", || count_tests(&mut cargo(DOC_TESTS.split(' ')), |_| ()));
    if root().join(CONFORMANCE).join("manifest.json").exists() {
        steps.run("conformance", || {
            run(built("wgpu-attention")?.args(["check", "--cases", CONFORMANCE, "--cases", CASES]))
        });
    }
    for name in examples()? {
        steps.run(format!("example {name}"), || run(&mut built(&format!("examples/{name}"))?));
    }
    steps.finish()
}

/// Compiles the command, the examples and the tests.
pub(crate) fn build() -> Result<()> {
    run(&mut cargo(BUILD.split(' ')))
}

/// Compiles the same and returns where the test program of `tests/suite` lies: its name has a hash that only cargo knows.
pub(crate) fn suite_program() -> Result<PathBuf> {
    let mut program = None;
    run_reading(cargo(BUILD.split(' ')).arg("--message-format=json-render-diagnostics"), |line| {
        let message: Value = serde_json::from_str(line).unwrap_or_default();
        if message["target"]["name"] == "suite" {
            program = message["executable"].as_str().map(PathBuf::from);
        }
    })?;
    program.context("cargo names no test program `suite`")
}

/// All tests but the doc tests.
pub(crate) fn command() -> Command {
    cargo(TESTS.split(' '))
}

/// Runs a `cargo test` command, passing its output on line by line, and fails if a test failed or none ran.
pub(crate) fn count_tests(command: &mut Command, mut each_line: impl FnMut(&str)) -> Result<()> {
    let mut passed = 0;
    run_reading(command, |line| {
        println!("{line}");
        passed += passed_tests(line);
        each_line(line);
    })?;
    if passed == 0 {
        bail!("no test ran");
    }
    println!("{passed} tests passed");
    Ok(())
}

/// The number in cargo's `test result: ok. 12 passed; 0 failed; …`.
fn passed_tests(line: &str) -> usize {
    let Some((_, counts)) = line.split_once("test result: ok. ") else { return 0 };
    counts.split_once(" passed").and_then(|(number, _)| number.parse().ok()).unwrap_or(0)
}

/// The names of the files in `examples/`, in order.
fn examples() -> Result<Vec<String>> {
    let folder = root().join("examples");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod test {
    use super::passed_tests;

    #[test]
    fn only_result_lines_count() {
        assert_eq!(passed_tests("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured"), 12);
        assert_eq!(passed_tests("test result: FAILED. 3 passed; 1 failed; 0 ignored"), 0);
        assert_eq!(passed_tests("test laws::ones ... ok"), 0);
    }
}
