//! `check`: every variant this device can run, case by case.

mod builtin;
mod expected;
mod manifest;
mod operator;

use std::io::Write;

use anyhow::Result;
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::json;
use wgpu_attention::blocking::Outputs;
use wgpu_attention::{Problem, Variant};

use crate::args::CheckArgs;
use crate::device::{CPU_PATH, Engine};
use crate::host::HostInputs;
use crate::text::one_line;
use crate::tolerance::Truth;
use crate::{cpu, progress};

/// Something to compute and what should come of it.
struct Case {
    problem: Problem,
    host: HostInputs,
    expected: Expectation,
}

enum Expectation {
    /// The f64 reference.
    Definition(Box<Truth>),
    /// The tensors of a case file.
    Tensors(Vec<expected::Expected>),
}

/// A case's name, and the case unless its file is broken. Made when its turn comes.
type Entry = (String, Box<dyn FnOnce() -> Result<Case>>);

/// One line of the report.
#[derive(Serialize)]
struct Line {
    name: String,
    variant: String,
    ok: bool,
    detail: String,
}

/// Whether at least one case ran and none failed.
pub(crate) fn run(args: &CheckArgs, device: Option<&str>, json: bool, stdout: &mut dyn Write) -> Result<bool> {
    let mut entries: Vec<Entry> = if args.no_built_in { Vec::new() } else { builtin::entries() };
    for folder in &args.cases {
        entries.extend(manifest::entries(folder)?);
    }
    let engine = Engine::open(device)?;
    if !json {
        writeln!(stdout, "{}", engine.describe())?;
    }
    let bar = progress::bar("cases");
    bar.set_length(entries.len() as u64);
    let mut lines = Vec::new();
    for (name, case) in entries {
        for line in outcomes(&engine, &name, case, &bar) {
            if !json {
                bar.suspend(|| line.print(stdout))?;
            }
            lines.push(line);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();

    let passed = lines.iter().filter(|line| line.ok).count();
    let failed = lines.len() - passed;
    if json {
        let report = json!({ "device": engine.describe(), "cases": lines, "passed": passed, "failed": failed });
        writeln!(stdout, "{report}")?;
    } else {
        writeln!(stdout, "{passed} passed, {failed} failed")?;
    }
    Ok(failed == 0 && passed > 0)
}

impl Line {
    fn print(&self, stdout: &mut dyn Write) -> std::io::Result<()> {
        let Self { name, variant, ok, detail } = self;
        let outcome = if *ok { "ok    " } else { "FAILED" };
        // A driver's message may have line breaks, and a file may say anything; a case has one line of plain text.
        let [name, detail] = [name, detail].map(|text| one_line(text));
        writeln!(stdout, "{outcome} {name} {variant} {detail}")
    }
}

/// A line for each variant that can run the case; one if there is no such thing.
fn outcomes(engine: &Engine, name: &str, case: impl FnOnce() -> Result<Case>, progress: &ProgressBar) -> Vec<Line> {
    let line = |variant: &str, outcome: Result<(bool, String)>| {
        let (ok, detail) = outcome.unwrap_or_else(|error| (false, format!("{error:#}")));
        Line { name: name.into(), variant: variant.into(), ok, detail }
    };
    let case = match case() {
        Ok(case) => case,
        Err(error) => return vec![line("-", Err(error))],
    };
    match engine {
        Engine::Cpu => {
            let (inputs, programs) = (case.host.borrow(), case.host.programs());
            let outputs = cpu::attention(&case.problem, &inputs, &programs, &ProgressBar::hidden());
            vec![line(CPU_PATH, outputs.map(|outputs| case.judge(&outputs)))]
        }
        Engine::Gpu(gpu) => {
            let candidates: Vec<Variant> = match gpu.attention.candidates(&case.problem) {
                Ok(candidates) => candidates,
                Err(error) => return vec![line("-", Err(error.into()))],
            };
            let run =
                |variant: &Variant| Ok(case.judge(&gpu.run(&case.problem, &case.host.borrow(), variant, progress)?));
            candidates.iter().map(|variant| line(&variant.to_string(), run(variant))).collect()
        }
    }
}

impl Case {
    /// Whether the outputs are right, and how far off they are.
    fn judge(&self, outputs: &Outputs) -> (bool, String) {
        match &self.expected {
            Expectation::Definition(truth) => {
                let verdict = truth.judge(outputs);
                (verdict.holds(), verdict.to_string())
            }
            Expectation::Tensors(tensors) => expected::judge(tensors, outputs),
        }
    }
}

/// The built-in cases, for other tests.
#[cfg(test)]
pub(crate) fn built_in() -> impl Iterator<Item = (String, Problem, HostInputs)> {
    builtin::entries().into_iter().map(|(name, case)| {
        let Case { problem, host, .. } = case().expect("a valid case");
        (name, problem, host)
    })
}
