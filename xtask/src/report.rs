//! What a bundle does on the machine it was unpacked on: run all it holds, and write down what came of it.
//!
//! It lies here, and this program in the bundle, because the headings, the summary and the reading of other programs' output
//! are the same as for `cargo xtask test`; the command that users install has no need of it.

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

/// Where the rows of the benchmarks lie until the report has them.
const ROWS: &str = "rows.json";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where the report goes
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
    /// The conformance cases, on one adapter after the other
    Check,
    /// The benchmarks, on the best adapter
    Bench,
}

/// Runs the bundle that this program lies in. A step that fails, or a driver that crashes in one, does not end the rest.
pub(crate) fn run(options: &Options) -> Result<()> {
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let mut report = Report::new(options)?;

    report.step("devices", "wgpu-attention", &["devices"])?;
    let mut adapters = Vec::new();
    let mut command = report.program("wgpu-attention");
    report.steps.run("adapters", || {
        adapters = adapter::listed(&mut command)?;
        ensure!(!adapters.is_empty(), "none was found; install your GPU's Vulkan driver");
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
    /// The bundle.
    folder: PathBuf,
    steps: Steps,
    document: Value,
}

impl Report {
    /// An empty one is written at once, so that a path that cannot be written is told before the work.
    fn new(options: &Options) -> Result<Self> {
        let own_path = env::current_exe().context("this program's own path is unknown")?;
        let folder = own_path.parent().context("this program lies in no folder")?.to_owned();
        let commit = fs::read_to_string(folder.join("commit"))
            .context("this program lies in no bundle; `cargo xtask bundle` makes one")?;
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
            run_reading_all(&mut command, |line| {
                println!("{line}");
                lines.push(line.to_owned());
            })
        })
    }

    /// Runs the suite, and keeps what ran where.
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

    /// Does a step, notes what came of it, and returns what it printed.
    fn note(
        &mut self,
        name: &str,
        command: &str,
        work: impl FnOnce(&mut Vec<String>) -> Result<()>,
    ) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let step = self.steps.run(name, || work(&mut lines));
        // The last line says how much has passed; what has failed, only all of them tell.
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

    /// Measures, takes over the rows, and returns the table.
    fn bench(&mut self, arguments: &[String]) -> Result<Vec<String>> {
        let fixed = ["bench", "--json", ROWS];
        let arguments: Vec<&str> = fixed.into_iter().chain(arguments.iter().map(String::as_str)).collect();
        let lines = self.step("bench", "wgpu-attention", &arguments)?;
        let rows = self.folder.join(ROWS);
        if let Ok(text) = fs::read(&rows) {
            self.document["bench"] = serde_json::from_slice(&text).context("the rows are no JSON")?;
            fs::remove_file(&rows)?;
        }
        Ok(lines)
    }

    /// After every step: a driver may take the whole machine down.
    fn save(&self) -> Result<()> {
        fs::write(&self.path, format!("{:#}\n", self.document))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Prints the figures and a line a step, and fails if one of them did.
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
