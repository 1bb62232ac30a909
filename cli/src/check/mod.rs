//! `check`: runs every variant that this device can run, case by case.

mod backward;
mod builtin;
mod cache;
mod manifest;
mod operator;
mod outputs;

use std::io::Write;

use anyhow::Result;
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::json;
use truth::{Case, Expected, ExpectedGradients, GradientOutputs};
use wgpu_attention::blocking::{self, Outputs};
use wgpu_attention::{Gradients, Variant};

use cache::Cache;

use crate::args::CheckArgs;
use crate::device::{CPU_PATH, Engine};
use crate::text::one_line;
use crate::{cpu, progress};

/// A case to compute, and the results to expect.
enum Question {
    Attention(Box<Attention>),
    Backward(Box<Backward>),
}

struct Attention {
    case: Case,
    /// If part of the keys and values is appended to a cache first.
    cache: Option<Cache>,
    expected: Expectation,
}

/// A case with the gradients that come in, and those of the reference.
struct Backward {
    case: Case,
    gradients: Gradients,
    expected: ExpectedGradients,
}

enum Expectation {
    /// The f64 reference.
    Definition(Box<Expected>),
    /// The tensors of a case file.
    Tensors(Vec<outputs::Output>),
}

/// A case's name, and a function that loads the case. It fails if the case's file is broken.
type Entry = (String, Box<dyn FnOnce() -> Result<Question>>);

/// Which of the variants that can run a case are checked.
#[derive(Clone, Copy)]
enum Variants {
    All,
    Selected,
}

impl Variants {
    /// The candidates of a case begin with the selected one.
    const fn most(self) -> usize {
        match self {
            Self::All => usize::MAX,
            Self::Selected => 1,
        }
    }
}

/// One line of the report.
#[derive(Serialize)]
struct Line {
    name: String,
    variant: String,
    ok: bool,
    detail: String,
}

/// Returns whether at least one case passed and none failed.
pub(crate) fn run(args: &CheckArgs, device: Option<&str>, json: bool, stdout: &mut dyn Write) -> Result<bool> {
    let mut entries = if args.no_built_in { Vec::new() } else { built_in() };
    for folder in &args.cases {
        entries.extend(manifest::entries(folder)?);
    }
    let engine = Engine::open(device)?;
    let variants = if args.selected { Variants::Selected } else { Variants::All };
    if !json {
        writeln!(stdout, "{}", engine.describe())?;
    }
    let bar = progress::bar("cases");
    bar.set_length(entries.len() as u64);
    let mut lines = Vec::new();
    for (name, question) in entries {
        for line in outcomes(&engine, variants, &name, question, &bar) {
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
        // A driver's message may have line breaks, and a file may hold any character. Each case gets one line of plain
        // text.
        let [name, detail] = [name, detail].map(|text| one_line(text));
        writeln!(stdout, "{outcome} {name} {variant} {detail}")
    }
}

/// One line for each variant that can run the case, or a single line with the error if none can.
fn outcomes(
    engine: &Engine,
    variants: Variants,
    name: &str,
    question: impl FnOnce() -> Result<Question>,
    progress: &ProgressBar,
) -> Vec<Line> {
    let line = |variant: &str, outcome: Result<(bool, String)>| {
        let (ok, detail) = outcome.unwrap_or_else(|error| (false, format!("{error:#}")));
        Line { name: name.into(), variant: variant.into(), ok, detail }
    };
    let question = match question() {
        Ok(question) => question,
        Err(error) => return vec![line("-", Err(error))],
    };
    match (question, engine) {
        (Question::Attention(question), Engine::Cpu) => {
            let outputs = cpu::attention(&question.case, &ProgressBar::hidden());
            vec![line(CPU_PATH, outputs.map(|outputs| question.judge(&outputs)))]
        }
        (Question::Attention(mut question), Engine::Gpu(gpu)) => {
            let mut lines = Vec::new();
            if let Some(cache) = question.cache.take() {
                let appended = match cache.append(gpu) {
                    Ok(appended) => appended,
                    Err(error) => return vec![line("append", Err(error))],
                };
                let variant = appended.variant.clone();
                // The attention below reads what was appended.
                let same = appended.replace(&mut question.case);
                lines.push(line(&variant, same.map(|()| (true, "the same bits".to_owned()))));
            }
            let candidates: Vec<Variant> = match gpu.attention.candidates(&question.case.problem) {
                Ok(candidates) => candidates,
                Err(error) => return vec![line("-", Err(error.into()))],
            };
            let run = |variant: &Variant| Ok(question.judge(&gpu.run(&question.case, variant, progress)?));
            lines.extend(
                candidates.iter().take(variants.most()).map(|variant| line(&variant.to_string(), run(variant))),
            );
            lines
        }
        (Question::Backward(question), engine) => {
            // These kernels run one after another; there is one choice of them.
            let variants = match engine.backward_variants(&question.gradients) {
                Ok(variants) => variants.join("+"),
                Err(error) => return vec![line("-", Err(error))],
            };
            // A GPU's kernels may take long to compile.
            let bar = if matches!(engine, Engine::Gpu(_)) { progress.clone() } else { ProgressBar::hidden() };
            let outputs = engine.gradients(&question.case, &question.gradients, &bar);
            vec![line(&variants, outputs.map(|outputs| question.judge(&outputs)))]
        }
    }
}

impl Attention {
    /// Whether the outputs are right, and how far off they are.
    fn judge(&self, outputs: &Outputs) -> (bool, String) {
        match &self.expected {
            Expectation::Definition(expected) => match expected.check(&truth::Outputs::of(&self.case, outputs)) {
                Ok(verdict) => (true, verdict.to_string()),
                Err(wrong) => (false, wrong.to_string()),
            },
            Expectation::Tensors(expected) => outputs::judge(expected, outputs),
        }
    }
}

impl Backward {
    /// Whether the gradients are right, and how far off they are.
    fn judge(&self, outputs: &blocking::GradientOutputs) -> (bool, String) {
        match self.expected.check(&GradientOutputs::of(&self.case, &self.gradients, outputs)) {
            Ok(worst) => (true, format!("error {worst:.2} of what is allowed")),
            Err(wrong) => (false, wrong),
        }
    }
}

fn built_in() -> Vec<Entry> {
    builtin::entries().into_iter().chain(backward::entries()).collect()
}

/// The built-in cases of attention, for other tests.
#[cfg(test)]
pub(crate) fn built_in_cases() -> impl Iterator<Item = (String, Case)> {
    built_in().into_iter().filter_map(|(name, question)| match question().expect("a valid case") {
        Question::Attention(question) => Some((name, question.case)),
        Question::Backward(_) => None,
    })
}

/// The built-in cases of gradients, for other tests.
#[cfg(test)]
pub(crate) fn built_in_gradients() -> impl Iterator<Item = (String, Case, Gradients, ExpectedGradients)> {
    built_in().into_iter().filter_map(|(name, question)| match question().expect("a valid case") {
        Question::Attention(_) => None,
        Question::Backward(question) => {
            let Backward { case, gradients, expected } = *question;
            Some((name, case, gradients, expected))
        }
    })
}
