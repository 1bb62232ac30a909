//! `dump`: the variants that can run a problem, or the exact WGSL of one.

use std::io::Write;

use anyhow::{Result, anyhow};
use serde_json::json;
use wgpu_attention::{Caps, Problem, ScoreLayout, Slopes, Variant, candidates, testing};

use crate::args::DumpArgs;
use crate::device::Engine;

const GPU_WORKGROUP_BYTES: u32 = 32 << 10;

pub(crate) fn run(args: &DumpArgs, device: Option<&str>, json: bool, stdout: &mut dyn Write) -> Result<()> {
    let problem = problem(args)?;
    // A variant's text is the same on every device. The device only decides which variants are listed.
    let mut caps = match Engine::open(device)? {
        Engine::Gpu(gpu) => *gpu.attention.caps(),
        Engine::Cpu => Caps::from_limits(&wgpu::Limits::default()),
    };
    if let Some(api) = args.matrix_unit {
        caps.matrix_unit = Some(api.into());
        // GPUs with a matrix unit have at least this much workgroup memory, which its tiles need.
        caps.workgroup_bytes = caps.workgroup_bytes.max(GPU_WORKGROUP_BYTES);
    }
    // Each candidate, and the kernels that a plan runs beside it.
    let mut variants = candidates(&problem, &caps)?;
    for candidate in variants.clone() {
        for kernel in testing::kernels(&problem, &candidate, &caps)? {
            if !variants.contains(&kernel) {
                variants.push(kernel);
            }
        }
    }
    if problem.block_mask().is_some() {
        variants.push(testing::block_mask(&problem, &caps)?);
    }
    let Some(name) = &args.variant else {
        if json {
            let names: Vec<String> = variants.iter().map(Variant::to_string).collect();
            writeln!(stdout, "{}", json!({ "variants": names }))?;
        } else {
            variants.iter().try_for_each(|variant| writeln!(stdout, "{variant}"))?;
        }
        return Ok(());
    };
    let variant = variants.iter().find(|variant| variant.to_string() == *name).ok_or_else(|| {
        let names: Vec<String> = variants.iter().map(Variant::to_string).collect();
        anyhow!("no variant of this problem is called {name:?}; the variants are {}", names.join(", "))
    })?;
    let wgsl = variant.wgsl();
    if json {
        writeln!(stdout, "{}", json!({ "variant": name, "wgsl": wgsl }))?;
    } else {
        write!(stdout, "{wgsl}")?;
    }
    Ok(())
}

fn problem(args: &DumpArgs) -> Result<Problem> {
    let mut shape = args.shape;
    shape.heads_kv = args.kv_heads.unwrap_or(shape.heads_kv);
    shape.len_kv = args.kv_len.unwrap_or(shape.len_kv);
    shape.dim_v = args.value_dim.unwrap_or(shape.dim_v);
    let [kv, out] = [args.kv_dtype, args.out_dtype].map(|dtype| dtype.unwrap_or(args.dtype).into());
    let stored = Problem::builder(shape).dtype(args.dtype.into()).kv_dtype(kv).out_dtype(out);
    let mut problem = args.semantics.apply(stored)?;
    // A variant depends on neither layouts nor broadcasting.
    let scores = ScoreLayout::broadcast([1, 1, shape.len_q, shape.len_kv]);
    if args.mask {
        problem = problem.mask(scores);
    }
    if let Some(bias) = args.bias {
        problem = problem.bias(bias.into(), scores);
    }
    if args.kv_lengths {
        problem = problem.kv_lengths();
    }
    if args.lse {
        problem = problem.lse();
    }
    if args.weights {
        problem = problem.weights();
    }
    if args.alibi {
        problem = problem.alibi(Slopes::PerHead);
    }
    if args.sinks {
        problem = problem.sinks();
    }
    if let Some(len) = args.aux {
        problem = problem.aux(len);
    }
    Ok(args.programs.apply(problem)?.build()?)
}
