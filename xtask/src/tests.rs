//! `cargo xtask test`: everything that CI requires of a change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::adapter;
use crate::browser;
use crate::command::{built, cargo, root, run, run_reading};
use crate::compilers;
use crate::coverage::{self, Coverage};
use crate::matrix;
use crate::mesa;
use crate::steps::Steps;
use crate::suite::{self, Other};

// Lints and tests use one profile, so that they share build scripts and procedural macros. They cover the whole workspace,
// so that they share one set of features: wgpu is checked once and compiled once.
const LINTS: &str = "clippy --release --workspace --all-targets -- -D warnings";
/// The library alone, with only the features that a program depending on it would enable.
const DOCS: &str = "doc --release --no-deps --package wgpu-attention";
/// `--bin`, not `--bins`: Windows cannot replace the program that is running.
const BUILD: &str =
    "build --release --workspace --bin wgpu-attention --bin wgpu-attention-compilers --examples --tests";
const DOC_TESTS: &str = "test --release --workspace --doc --no-fail-fast";

pub(crate) const CONFORMANCE: &str = "tests/conformance";

/// A test program that cargo built.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    /// The folder of its package, where cargo would start it.
    folder: PathBuf,
    is_suite: bool,
}

/// Runs every check. Fails at the end if one of them failed.
pub(crate) fn everything(full: bool) -> Result<()> {
    let coverage = Coverage::new(root().join("target").join("coverage"))?;
    let mut programs = Vec::new();
    let mut steps = Steps::default();
    steps.run("format", || run(&mut cargo("fmt --all --check".split(' '))));
    steps.run("lints", || run(&mut cargo(LINTS.split(' '))));
    steps.run("docs", || run(cargo(DOCS.split(' ')).env("RUSTDOCFLAGS", "-D warnings")));
    steps.run("build", || {
        programs = build()?;
        Ok(())
    });
    steps.run("adapter", adapter::ensure);
    steps.run("tests", || run_all(&programs, ignored(full), &coverage, &|_| (), |_| ()));
    match mesa::obstacle() {
        None => {
            steps.run("matrix units", || {
                let arguments: Vec<&str> = [matrix::TESTS].iter().chain(ignored(full)).copied().collect();
                matrix::run_tests(&arguments, &coverage)
            });
            steps.run("matrix units' SPIR-V", matrix::validate_spirv);
            steps.run("GPU makers' compilers", compilers::compare);
        }
        Some(reason) if coverage::is_ci_on_linux() => {
            steps.run("matrix units", || bail!("not tested: {reason}"));
        }
        Some(reason) => println!("\nmatrix units and GPU makers' compilers were not tested: {reason}"),
    }
    match browser::Setup::find() {
        Ok(setup) => {
            setup.run(&mut steps);
            // Two programs that are optimized as a whole take one and a half minutes to build.
            if full {
                setup.measure(&mut steps);
            }
        }
        Err(reason) if browser::is_required() => {
            steps.run("kernels in the browser", || Err(reason));
        }
        Err(reason) => println!("\nkernels were not run in a browser: {reason:#}"),
    }
    // A separate step, because `--include-ignored` would also run the doc tests that are marked as not to be run.
    steps.run("doc tests", || count_tests(&mut cargo(DOC_TESTS.split(' ')), |_| ()));
    for name in examples()? {
        steps.run(format!("example {name}"), || run(&mut built(&format!("examples/{name}"))?));
    }
    steps.run("coverage", || judge(&coverage));
    steps.finish()
}

/// Runs the suite alone: the tests whose names contain one of `names`, or all if there are none.
pub(crate) fn suite_alone(full: bool, names: &[String]) -> Result<()> {
    let coverage = Coverage::new(root().join("target").join("coverage"))?;
    let program = suite_program()?;
    let arguments: Vec<&str> = names.iter().map(String::as_str).chain(ignored(full).iter().copied()).collect();
    let mut steps = Steps::default();
    steps.run("adapter", adapter::ensure);
    steps.run("tests", || suite::run(&|| at_root(&program), &[], &arguments, &coverage, |_| ()));
    for line in coverage.table()?.lines() {
        println!("{line}");
    }
    steps.finish()
}

fn judge(coverage: &Coverage) -> Result<()> {
    let table = coverage.table()?;
    table.lines().iter().for_each(|line| println!("{line}"));
    table.judge()
}

/// libtest's arguments, which also run the tests marked as slow if `full` is set.
fn ignored(full: bool) -> &'static [&'static str] {
    if full { &[suite::INCLUDE_IGNORED] } else { &[] }
}

/// Compiles the command, the examples and the tests. Returns the test programs, whose names contain hashes that only cargo
/// knows.
pub(crate) fn build() -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    run_reading(cargo(BUILD.split(' ')).arg("--message-format=json-render-diagnostics"), |line| {
        let message: Value = serde_json::from_str(line).unwrap_or_default();
        let folder = message["manifest_path"].as_str().and_then(|path| Path::new(path).parent());
        if let (Some(path), Some(folder), Some(true)) =
            (message["executable"].as_str(), folder, message["profile"]["test"].as_bool())
        {
            let is_suite = message["target"]["name"] == "suite";
            programs.push(Program { path: path.into(), folder: folder.to_owned(), is_suite });
        }
    })?;
    Ok(programs)
}

/// Compiles the same as [`build`] and returns the path of the test program of `tests/suite`.
pub(crate) fn suite_program() -> Result<PathBuf> {
    let suite = build()?.into_iter().find(|program| program.is_suite);
    Ok(suite.context("cargo built no test program `suite`")?.path)
}

/// A command that starts a program in the repository's root.
pub(crate) fn at_root(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// Runs all tests except the doc tests, and the cases of ONNX by the command. `prepare` may change each command. Fails if a test failed or none ran.
pub(crate) fn run_all(
    programs: &[Program],
    ignored: &[&str],
    coverage: &Coverage,
    prepare: &(dyn Fn(&mut Command) + Sync),
    each_line: impl FnMut(&str),
) -> Result<()> {
    let start = |program: &Program| {
        let mut command = Command::new(&program.path);
        // `cargo test` sets this variable, too, so that a test finds its package.
        command.current_dir(&program.folder).env("CARGO_MANIFEST_DIR", &program.folder);
        prepare(&mut command);
        command
    };
    let (suite, others): (Vec<&Program>, Vec<&Program>) = programs.iter().partition(|program| program.is_suite);
    let suite = suite.first().context("there is no test program `suite`")?;
    let starts: Vec<_> = others.into_iter().map(|program| move || start(program)).collect();
    let mut others: Vec<Other<'_>> = starts.iter().map(|start| Other::Tests(start)).collect();
    let program = built("wgpu-attention")?.get_program().to_owned();
    let conformance = || {
        let mut command = Command::new(&program);
        command.current_dir(root()).args(["check", "--cases", CONFORMANCE]);
        // The suite runs every variant; with `--full` the command does, too.
        if ignored.is_empty() {
            command.arg("--selected");
        }
        prepare(&mut command);
        command
    };
    if root().join(CONFORMANCE).join("manifest.json").exists() {
        others.push(Other::Plain { name: "conformance", start: &conformance });
    }
    suite::run(&|| start(suite), &others, ignored, coverage, each_line)
}

/// Runs a `cargo test` command and passes its output on line by line. Fails if a test failed or none ran.
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
pub(crate) fn passed_tests(line: &str) -> usize {
    let Some((_, counts)) = line.split_once("test result: ok. ") else { return 0 };
    counts.split_once(" passed").and_then(|(number, _)| number.parse().ok()).unwrap_or(0)
}

/// The names of the examples, which are files or folders of `examples/`, in order.
fn examples() -> Result<Vec<String>> {
    let folder = root().join("examples");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").exists() {
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
