//! What the program does without a command: it computes, times, checks and draws a layer of a real sentence encoder.

use std::collections::HashMap;
use std::io::Write;

use anyhow::Result;
use indicatif::ProgressBar;
use serde_json::json;
use truth::{Case, Expected, Verdict, Wrong};
use wgpu_attention::blocking::Outputs;

use crate::args::HeatmapArgs;
use crate::device::Engine;
use crate::heatmap::Maps;
use crate::input::{self, Input};
use crate::names::Pass;
use crate::output::Pending;
use crate::tensors::TensorFile;
use crate::timing::Timing;
use crate::{cpu, figure, terminal};

/// `cli/data/README.md` says where it comes from.
const FILE: &[u8] = include_bytes!("../data/minilm_layer0.safetensors");

/// The head that the terminal shows, the one with the clearest pattern. `--heatmap` draws all heads.
const HEAD: u32 = 5;

/// Returns whether both the computed output and the model's own output are within the tolerance of the reference.
pub(crate) fn run(args: &HeatmapArgs, device: Option<&str>, json: bool, stdout: &mut dyn Write) -> Result<bool> {
    let file = TensorFile::parse(FILE)?;
    let Input { problem, host, shape, .. } = input::read(&file, None, Pass::Forward)?;
    let batch = args.batch_of(&shape)?;
    let picture = args.heatmap.as_deref().map(Pending::create).transpose()?;
    let plain = Case::new(problem.build()?, host);
    let case = plain.with_problem(problem.weights().build()?);

    let engine = Engine::open(device)?;
    let progress = engine.progress();
    let timing = time(&engine, &plain, &progress)?;
    let outputs = engine.run(&case, &progress)?;
    progress.finish_and_clear();
    let expected = Expected::new(&case)?;
    let by_model =
        Outputs { out: file.need("output")?.floats()?, lse: None, weights: Some(file.need("weights")?.floats()?) };
    let report = Report {
        device: engine.describe(),
        variant: engine.variant(&plain.problem)?,
        compiled: if engine.is_gpu() { ", with compilation" } else { "" },
        timing,
        verdict: expected.check(&truth::Outputs::of(&case, &outputs)),
        model: expected.check(&truth::Outputs::of(&case, &by_model)),
        apart: largest_difference(&outputs.out, &by_model.out),
    };

    let maps = Maps::of_batch(outputs.weights.as_deref().unwrap_or_default(), &shape, batch, &file.metadata);
    if let Some(picture) = picture {
        picture.write(&figure::png(&maps)?)?;
        picture.finish()?;
    }
    if json {
        writeln!(stdout, "{}", report.json())?;
    } else {
        report.print(&file.metadata, stdout)?;
        terminal::draw(&maps, HEAD, stdout)?;
        if let Some(path) = &args.heatmap {
            writeln!(stdout, "wrote {}", path.display())?;
        }
    }
    Ok(report.holds())
}

fn time(engine: &Engine, case: &Case, progress: &ProgressBar) -> Result<Timing> {
    match engine {
        Engine::Gpu(gpu) => Timing::on_gpu(gpu, case, progress),
        Engine::Cpu => Timing::of(|| cpu::attention(case, &ProgressBar::hidden()).map(drop)),
    }
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |largest: f32, difference| {
        // A NaN stays.
        if largest.is_nan() || difference <= largest { largest } else { difference }
    })
}

struct Report {
    device: String,
    variant: String,
    /// What the first run did besides computing, in words.
    compiled: &'static str,
    timing: Timing,
    /// The check of the outputs computed here, against the f64 reference.
    verdict: Result<Verdict, Wrong>,
    /// The check of the outputs that the model's own software computed, against the same reference.
    model: Result<Verdict, Wrong>,
    /// The largest difference between these two outputs.
    apart: f32,
}

impl Report {
    fn holds(&self) -> bool {
        self.verdict.is_ok() && self.model.is_ok()
    }

    fn print(&self, metadata: &HashMap<String, String>, stdout: &mut dyn Write) -> Result<()> {
        let of = |key: &str| metadata.get(key).map_or("?", String::as_str);
        let Self { device, variant, compiled, timing, verdict, model, apart } = self;
        let Timing { first, median, runs } = timing;
        let milliseconds = |time: &std::time::Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
        writeln!(
            stdout,
            "Attention of {}, layer {}: four sentences, 12 heads of 32 features.\n",
            of("model"),
            of("layer")
        )?;
        writeln!(stdout, "device    {device}")?;
        writeln!(stdout, "variant   {variant}")?;
        writeln!(
            stdout,
            "time      {}, median of {runs}; the first took {}{compiled}",
            milliseconds(median),
            milliseconds(first)
        )?;
        writeln!(stdout, "{} against the f64 reference", outcome(verdict))?;
        writeln!(stdout, "{} for the model's own output, against the same reference", outcome(model))?;
        writeln!(stdout, "          the two outputs differ by at most {apart:.1e}\n")?;
        Ok(())
    }

    fn json(&self) -> serde_json::Value {
        let Self { device, variant, timing: Timing { first, median, runs }, verdict, model, apart, .. } = self;
        let error = |verdict| measured(verdict).map(|verdict| verdict.error);
        let allowed = |verdict| measured(verdict).map(|verdict| verdict.allowed);
        json!({
            "device": device,
            "variant": variant,
            "seconds": { "median": median.as_secs_f64(), "runs": runs, "first": first.as_secs_f64() },
            "error": { "against_reference": error(verdict), "allowed": allowed(verdict), "against_model": apart },
            "model_error": { "against_reference": error(model), "allowed": allowed(model) },
            "ok": self.holds(),
        })
    }
}

fn outcome(verdict: &Result<Verdict, Wrong>) -> String {
    match verdict {
        Ok(verdict) => format!("ok        {verdict}"),
        Err(wrong) => format!("WRONG     {wrong}"),
    }
}

/// The numbers of a verdict, if it has any.
const fn measured(verdict: &Result<Verdict, Wrong>) -> Option<&Verdict> {
    match verdict {
        Ok(verdict) | Err(Wrong::Row { verdict, .. }) => Some(verdict),
        Err(Wrong::Count { .. } | Wrong::Stray(_)) => None,
    }
}
