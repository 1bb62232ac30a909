//! Without a command: a layer of a real sentence encoder, computed, timed, checked and shown.

use std::collections::HashMap;
use std::io::Write;

use anyhow::Result;
use indicatif::ProgressBar;
use serde_json::json;
use wgpu_attention::Problem;
use wgpu_attention::blocking::Outputs;

use crate::args::HeatmapArgs;
use crate::device::Engine;
use crate::heatmap::Maps;
use crate::host::HostInputs;
use crate::input::{self, Input};
use crate::output::Pending;
use crate::tensors::TensorFile;
use crate::timing::Timing;
use crate::tolerance::{Truth, Verdict};
use crate::{cpu, figure, terminal};

/// Where it comes from: `cli/data/README.md`.
const FILE: &[u8] = include_bytes!("../data/minilm_layer0.safetensors");

/// The head whose picture says most at a glance; `--heatmap` shows all.
const HEAD: u32 = 5;

/// Whether both the computed output and the model's own are within the tolerance of the reference.
pub(crate) fn run(args: &HeatmapArgs, device: Option<&str>, json: bool, stdout: &mut dyn Write) -> Result<bool> {
    let file = TensorFile::parse(FILE)?;
    let Input { problem, host, shape, .. } = input::read(&file, None)?;
    let batch = args.batch_of(&shape)?;
    let picture = args.heatmap.as_deref().map(Pending::create).transpose()?;
    let (plain, problem) = (problem.build()?, problem.weights().build()?);

    let engine = Engine::open(device)?;
    let progress = engine.progress();
    let timing = time(&engine, &plain, &host, &progress)?;
    let outputs = engine.run(&problem, &host.borrow(), &progress)?;
    progress.finish_and_clear();
    let truth = Truth::new(&problem, &host.borrow(), &host.programs())?;
    let by_model =
        Outputs { out: file.need("output")?.floats()?, lse: None, weights: Some(file.need("weights")?.floats()?) };
    let report = Report {
        device: engine.describe(),
        variant: engine.variant(&plain)?,
        compiled: if engine.is_gpu() { ", with compilation" } else { "" },
        timing,
        verdict: truth.judge(&outputs),
        model: truth.judge(&by_model),
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

fn time(engine: &Engine, problem: &Problem, host: &HostInputs, progress: &ProgressBar) -> Result<Timing> {
    match engine {
        Engine::Gpu(gpu) => Timing::on_gpu(gpu, problem, &host.borrow(), progress),
        Engine::Cpu => {
            Timing::of(|| cpu::attention(problem, &host.borrow(), &host.programs(), &ProgressBar::hidden()).map(drop))
        }
    }
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |largest: f32, difference| if difference <= largest { largest } else { difference })
}

struct Report {
    device: String,
    variant: String,
    /// What else the first run did, in words.
    compiled: &'static str,
    timing: Timing,
    /// What was computed here, against the f64 reference.
    verdict: Verdict,
    /// What the model's authors' software computed, against the same.
    model: Verdict,
    /// The largest difference between the two.
    apart: f32,
}

impl Report {
    fn holds(&self) -> bool {
        self.verdict.holds() && self.model.holds()
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
        writeln!(stdout, "{}     {verdict} against the f64 reference", outcome(verdict))?;
        writeln!(stdout, "{}     {model} of the model's own output against the same", outcome(model))?;
        writeln!(stdout, "          this output and the model's differ by {apart:.1e} at most\n")?;
        Ok(())
    }

    fn json(&self) -> serde_json::Value {
        let Self { device, variant, timing: Timing { first, median, runs }, verdict, model, apart, .. } = self;
        json!({
            "device": device,
            "variant": variant,
            "seconds": { "median": median.as_secs_f64(), "runs": runs, "first": first.as_secs_f64() },
            "error": { "against_reference": verdict.error, "allowed": verdict.allowed, "against_model": apart },
            "model_error": { "against_reference": model.error, "allowed": model.allowed },
            "ok": self.holds(),
        })
    }
}

fn outcome(verdict: &Verdict) -> &'static str {
    if verdict.holds() { "ok   " } else { "WRONG" }
}
