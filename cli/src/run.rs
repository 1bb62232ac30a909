//! `run`: a safetensors file in, a safetensors file out.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use truth::Case;
use wgpu_attention::blocking::Outputs;
use wgpu_attention::{Dtype, Problem};

use crate::args::RunArgs;
use crate::device::Engine;
use crate::heatmap::Maps;
use crate::input::{self, Input};
use crate::output::{self, Named, Pending, same_file};
use crate::tensors::{TensorFile, read_bytes};
use crate::{figure, names};

pub(crate) fn run(args: &RunArgs, device: Option<&str>, json: bool, stdout: &mut dyn Write) -> Result<()> {
    check_paths(args)?;
    let shown = args.input.display();
    let bytes = read_bytes(&args.input, "a safetensors file")?;
    let file = TensorFile::parse(&bytes).with_context(|| shown.to_string())?;
    names::check_ignored(&args.ignore, &file).with_context(|| shown.to_string())?;
    let file = file.ignoring(&args.ignore);
    let Input { problem, host, shape, element } =
        input::read(&file, args.dtype.map(Into::into)).with_context(|| shown.to_string())?;
    let batch = args.heatmap.batch_of(&shape)?;

    let mut problem = args.programs.apply(args.semantics.apply(problem)?)?;
    ensure!(
        host.aux.is_none() || args.programs.has_any(),
        "{shown}: `aux` is for programs in the score, but there is none; give --score-mod or --mask-mod, or --ignore aux"
    );
    if args.lse {
        problem = problem.lse();
    }
    if args.weights || args.heatmap.heatmap.is_some() {
        problem = problem.weights();
    }
    let case = Case::new(problem.build()?, host);
    let pending = Pending::create(&args.output)?;
    let picture = args.heatmap.heatmap.as_deref().map(Pending::create).transpose()?;

    let engine = Engine::open(device)?;
    let start = Instant::now();
    let outputs = {
        let progress = engine.progress();
        engine.run(&case, &progress)?
    };
    let seconds = start.elapsed().as_secs_f64();

    output::write(&pending, &tensors(args, &case.problem, element, &outputs), &file.metadata)?;
    if let (Some(picture), Some(weights)) = (&picture, &outputs.weights) {
        let maps = Maps::of_batch(weights, &shape, batch, &file.metadata);
        picture.write(&figure::png(&maps)?)?;
    }
    pending.finish()?;
    if let Some(picture) = picture {
        picture.finish()?;
    }
    report(args, &engine, &case.problem, seconds, json, stdout)
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

fn tensors<'a>(args: &RunArgs, problem: &Problem, element: Dtype, outputs: &'a Outputs) -> Vec<Named<'a>> {
    let shape = problem.shape();
    let [heads, queries] = [shape.heads_q, shape.len_q].map(|size| size as usize);
    let rows = match problem.ragged_queries() {
        Some(total) => vec![heads, total as usize],
        None => vec![shape.batch as usize, heads, queries],
    };
    let with = |last: u32| rows.iter().copied().chain([last as usize]).collect::<Vec<usize>>();
    let mut output = with(shape.dim_v);
    if problem.ragged_queries().is_some() {
        // (T, H, D), while the log-sum-exp is (H, T).
        output.swap(0, 1);
    }
    let mut tensors = vec![Named { name: "output", element, shape: output, values: &outputs.out }];
    if let Some(values) = &outputs.lse {
        // An LSE is always f32: beyond the range of f16 it could become −∞, the LSE of a row that sees no key.
        tensors.push(Named { name: "lse", element: Dtype::F32, shape: rows.clone(), values });
    }
    if let Some(values) = outputs.weights.as_ref().filter(|_| args.weights) {
        tensors.push(Named { name: "weights", element, shape: with(shape.len_kv), values });
    }
    tensors
}

fn report(
    args: &RunArgs,
    engine: &Engine,
    problem: &Problem,
    seconds: f64,
    json: bool,
    stdout: &mut dyn Write,
) -> Result<()> {
    let (device, variant) = (engine.describe(), engine.variant(problem)?);
    let (output, heatmap) = (args.output.display(), args.heatmap.heatmap.as_ref().map(|path| path.display()));
    if json {
        let report = json!({
            "device": device,
            "variant": variant,
            "seconds": seconds,
            "output": output.to_string(),
            "heatmap": heatmap.map(|path| path.to_string()),
        });
        writeln!(stdout, "{report}")?;
        return Ok(());
    }
    writeln!(stdout, "device    {device}\nvariant   {variant}")?;
    let what = if engine.is_gpu() { ", with upload, compilation and readback" } else { "" };
    writeln!(stdout, "time      {seconds:.3} s{what}\nwrote     {output}")?;
    if let Some(heatmap) = heatmap {
        writeln!(stdout, "wrote     {heatmap}")?;
    }
    Ok(())
}
