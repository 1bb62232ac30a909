//! Runs everything in an unpacked bundle, and writes a report.
//!
//! This is part of xtask, and xtask is part of the bundle, because the headings, the summary and the reading of other
//! programs' output are the same as for `cargo xtask test`. The command that users install does not need it.

use std::env;
use std::fs;
use std::path::{self, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::adapter;
use crate::command::{line_of, run_reading_all};
use crate::coverage::Coverage;
use crate::steps::Steps;
use crate::suite;

/// The file that holds the rows of the benchmarks until they are in the report.
const ROWS: &str = "rows.json";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The file to write the report to
    #[arg(value_name = "REPORT.json", default_value = "report.json")]
    path: PathBuf,
    /// Run only this part; may be given several times
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
    /// Passed on to `wgpu-attention bench`, such as `--device 1 --suite decode`
    #[arg(last = true, value_name = "BENCH ARGUMENTS")]
    bench: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The test suite, on every adapter
    Tests,
    /// The conformance cases, on one adapter after another
    Check,
    /// The benchmarks, on the best adapter
    Bench,
}

/// Runs the bundle that this program is part of. If a step fails, or a driver crashes in it, the other steps still run.
pub(crate) fn run(options: &Options) -> Result<()> {
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let mut report = Report::new(options)?;

    report.step("devices", "wgpu-attention", &["devices"])?;
    let mut adapters = Vec::new();
    let mut command = report.program("wgpu-attention");
    report.steps.run("adapters", || {
        adapters = adapter::listed(&mut command)?;
        ensure!(!adapters.is_empty(), "no adapter was found; install your GPU's Vulkan driver");
        Ok(())
    });
    report.document["adapters"] = json!(adapters);
    if wanted(Part::Tests) {
        report.tests()?;
    }
    if wanted(Part::Check) {
        for (index, adapter) in adapters.iter().enumerate() {
            let name = format!("check on {} through {}", adapter["name"], adapter["backend"]).replace('"', "");
            report.step(
                &name,
                "wgpu-attention",
                &["check", "--cases", "conformance", "--device", &index.to_string()],
            )?;
        }
    }
    let mut figures = Vec::new();
    if wanted(Part::Bench) {
        println!("\nthe benchmarks print nothing until they end");
        figures = report.bench(&options.bench)?;
    }
    report.finish(&figures)
}

/// A program of the bundle in `folder`.
fn program(folder: &Path, name: &str) -> Command {
    let mut command = Command::new(folder.join(name));
    command.current_dir(folder);
    command
}

struct Report {
    path: PathBuf,
    /// The folder of the bundle.
    folder: PathBuf,
    steps: Steps,
    document: Value,
}

impl Report {
    /// Writes an empty report at once, so that a path that cannot be written is reported before the work starts.
    fn new(options: &Options) -> Result<Self> {
        let own_path = env::current_exe().context("this program's own path is unknown")?;
        let folder = own_path.parent().context("this program is in no folder")?.to_owned();
        let commit = fs::read_to_string(folder.join("commit"))
            .context("this program is not part of a bundle; `cargo xtask bundle` makes one")?;
        let document = json!({
            "commit": commit.trim(),
            "date": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "command": line_of(Command::new("run").args(env::args_os().skip(2))),
            "adapters": [],
            "steps": [],
            "coverage": [],
            "bench": [],
        });
        let report = Self { path: path::absolute(&options.path)?, folder, steps: Steps::default(), document };
        report.save()?;
        Ok(report)
    }

    fn program(&self, name: &str) -> Command {
        program(&self.folder, name)
    }

    /// Runs a program of the bundle, and returns what it printed.
    fn step(&mut self, name: &str, program: &str, arguments: &[&str]) -> Result<Vec<String>> {
        let mut command = self.program(program);
        command.args(arguments);
        let shown = line_of(&command);
        self.note(name, &shown, |lines| {
            run_reading_all(&mut command, suite::LONGEST_OF_SLOW, |line| {
                println!("{line}");
                lines.push(line.to_owned());
            })
        })
    }

    /// Runs the suite, and reports what ran where.
    fn tests(&mut self) -> Result<()> {
        let coverage = Coverage::new(self.folder.join("coverage"))?;
        let folder = self.folder.clone();
        let shown = line_of(&program(&folder, "suite"));
        self.note("tests", &shown, |lines| {
            suite::run(&|| program(&folder, "suite"), &[], &[], &coverage, |line| lines.push(line.to_owned()))
        })?;
        let table = coverage.table()?.lines();
        println!("{}", table.join("\n"));
        self.document["coverage"] = json!(table);
        self.save()
    }

    /// Runs a step, reports its result, and returns what it printed.
    fn note(
        &mut self,
        name: &str,
        command: &str,
        work: impl FnOnce(&mut Vec<String>) -> Result<()>,
    ) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let step = self.steps.run(name, || work(&mut lines));
        // If the step passed, its last line sums it up. If it failed, all lines are needed to find the cause.
        let last = lines.iter().rfind(|line| !line.trim().is_empty());
        let output = if step.error.is_none() { last.into_iter().collect() } else { Vec::from_iter(&lines) };
        let entry = json!({
            "step": name,
            "command": command,
            "ok": step.error.is_none(),
            "error": step.error,
            "seconds": step.took.as_secs_f64(),
            "output": output,
        });
        self.document["steps"].as_array_mut().context("the steps are a list")?.push(entry);
        self.save()?;
        Ok(lines)
    }

    /// Runs the benchmarks, adds their rows to the report, and returns the table.
    fn bench(&mut self, arguments: &[String]) -> Result<Vec<String>> {
        let fixed = ["bench", "--json", ROWS];
        let arguments: Vec<&str> = fixed.into_iter().chain(arguments.iter().map(String::as_str)).collect();
        let lines = self.step("bench", "wgpu-attention", &arguments)?;
        let rows = self.folder.join(ROWS);
        if let Ok(text) = fs::read(&rows) {
            self.document["bench"] = serde_json::from_slice(&text).context("the rows are not JSON")?;
            fs::remove_file(&rows)?;
        }
        Ok(lines)
    }

    /// Called after every step, because a driver may crash the whole machine.
    fn save(&self) -> Result<()> {
        fs::write(&self.path, format!("{:#}\n", self.document))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Prints the figures and one line per step, and fails if a step failed.
    fn finish(self, figures: &[String]) -> Result<()> {
        self.save()?;
        if !figures.is_empty() {
            println!("\n==== figures ====\n{}", figures.join("\n"));
        }
        let outcome = self.steps.finish();
        println!("the report is {}", self.path.display());
        outcome
    }
}
