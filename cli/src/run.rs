//! `run`: a safetensors file in, a safetensors file out.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use truth::Case;

use crate::args::RunArgs;
use crate::device::Engine;
use crate::heatmap::Maps;
use crate::input::{self, Input};
use crate::names::{self, Pass};
use crate::output::{self, Pending, same_file};
use crate::results::{self, Gradient};
use crate::tensors::{TensorFile, read_bytes};
use crate::{backward, figure};

pub(crate) fn run(args: &RunArgs, device: Option<&str>, json: bool, stdout: &mut dyn Write) -> Result<()> {
    check_paths(args)?;
    let shown = args.input.display();
    let bytes = read_bytes(&args.input, "a safetensors file")?;
    let file = TensorFile::parse(&bytes).with_context(|| shown.to_string())?;
    names::check_ignored(&args.ignore, &file).with_context(|| shown.to_string())?;
    let file = file.ignoring(&args.ignore);
    let pass = args.backward.pass();
    let Input { problem, mut host, shape, element } =
        input::read(&file, args.dtype.map(Into::into), pass).with_context(|| shown.to_string())?;
    let batch = args.heatmap.batch_of(&shape)?;

    let mut problem = args.programs.apply(args.semantics.apply(problem)?)?;
    ensure!(
        host.aux.is_none() || args.programs.has_any(),
        "{shown}: `aux` is for programs in the score, but there is none; give --score-mod or --mask-mod, or --ignore aux"
    );
    if args.lse || pass == Pass::Backward {
        problem = problem.lse();
    }
    if args.weights || args.heatmap.heatmap.is_some() {
        problem = problem.weights();
    }
    let problem = problem.build()?;
    let gradients = match pass {
        Pass::Forward => None,
        Pass::Backward => {
            let gradients = args.backward.gradients(&args.programs, &problem)?;
            Some(backward::read(&file, &problem, gradients, &mut host).with_context(|| shown.to_string())?)
        }
    };
    let case = Case::new(problem, host);
    let pending = Pending::create(&args.output)?;
    let picture = args.heatmap.heatmap.as_deref().map(Pending::create).transpose()?;

    let engine = Engine::open(device)?;
    let start = Instant::now();
    let (outputs, computed) = {
        let progress = engine.progress();
        match &gradients {
            None => (engine.run(&case, &progress)?, Vec::new()),
            Some(gradients) => {
                let outputs = engine.gradients(&case, gradients, &progress)?;
                results::of_both_passes(&file, gradients, outputs)?
            }
        }
    };
    let seconds = start.elapsed().as_secs_f64();

    let mut tensors = results::forward(args, &case.problem, element, &outputs);
    tensors.extend(computed.iter().map(Gradient::named));
    output::write(&pending, &tensors, &file.metadata)?;
    if let (Some(picture), Some(weights)) = (&picture, &outputs.weights) {
        let maps = Maps::of_batch(weights, &shape, batch, &file.metadata);
        picture.write(&figure::png(&maps)?)?;
    }
    pending.finish()?;
    if let Some(picture) = picture {
        picture.finish()?;
    }
    let kernels = Kernels {
        forward: engine.variant(&case.problem)?,
        backward: gradients.as_ref().map(|gradients| engine.backward_variants(gradients)).transpose()?,
    };
    report(args, &engine, &kernels, seconds, json, stdout)
}

/// Refuses to overwrite the input or to write both outputs to one file, before anything is read.
fn check_paths(args: &RunArgs) -> Result<()> {
    let (input, output) = (&args.input, &args.output);
    let clash = |what: &str, path: &Path| format!("{what} and {} are the same file; name another", path.display());
    ensure!(!same_file(input, output), clash("the input", output));
    if let Some(picture) = &args.heatmap.heatmap {
        ensure!(!same_file(input, picture), clash("the input", picture));
        ensure!(!same_file(output, picture), clash("the output", picture));
    }
    Ok(())
}

/// The names of the kernels that ran.
struct Kernels {
    forward: String,
    backward: Option<Vec<String>>,
}

fn report(
    args: &RunArgs,
    engine: &Engine,
    kernels: &Kernels,
    seconds: f64,
    json: bool,
    stdout: &mut dyn Write,
) -> Result<()> {
    let (device, Kernels { forward: variant, backward }) = (engine.describe(), kernels);
    let (output, heatmap) = (args.output.display(), args.heatmap.heatmap.as_ref().map(|path| path.display()));
    if json {
        let report = json!({
            "device": device,
            "variant": variant,
            "backward": backward,
            "seconds": seconds,
            "output": output.to_string(),
            "heatmap": heatmap.map(|path| path.to_string()),
        });
        writeln!(stdout, "{report}")?;
        return Ok(());
    }
    writeln!(stdout, "device    {device}\nvariant   {variant}")?;
    for variant in backward.iter().flatten() {
        writeln!(stdout, "backward  {variant}")?;
    }
    let what = if engine.is_gpu() { ", with upload, compilation and readback" } else { "" };
    writeln!(stdout, "time      {seconds:.3} s{what}\nwrote     {output}")?;
    if let Some(heatmap) = heatmap {
        writeln!(stdout, "wrote     {heatmap}")?;
    }
    Ok(())
}
