//! What a GPU maker's compiler makes of the kernels: one record per kernel. The device is one that a shim shows, so nothing
//! runs on it. `cargo xtask compilers` starts this program under each shim.

mod chip;
mod driver;
mod listing;
mod makers;
mod problems;
mod record;
mod steady;
mod table;
mod trips;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Parser;
use wgpu_attention::{Caps, Dtype, Fragment, MatrixUnit, Multiplier, Shape, Tiles, Variant, candidates, testing};

use wgpu_attention_bench::Workload;

use crate::linux::chip::Maker;
use crate::linux::driver::{Driver, Slot};
use crate::linux::record::{Kept, Record};

#[derive(Debug, Parser)]
#[command(about = "Compile the kernels for the only Vulkan device there is, and print what became of them")]
struct Args {
    /// Compile only for problems whose names contain this, such as `prefill f16`
    #[arg(long, default_value = "")]
    problem: String,
    /// Compile for this shape instead: B,Hq,Hkv,Lq,Lk,D[,causal|bottom-right|mask]
    #[arg(long)]
    shape: Option<Workload>,
    /// The element type of --shape
    #[arg(long, default_value_t = Dtype::F32, value_parser = dtype, requires = "shape")]
    dtype: Dtype,
    /// Compile only variants whose names contain this. Without it: the selected one, and the best of each other kernel
    #[arg(long)]
    variant: Option<String>,
    /// Compile only the few kernels that a test compares
    #[arg(long)]
    brief: bool,
    /// Compile this WGSL instead, whose entry point is `main`
    #[arg(long)]
    foreign: Option<PathBuf>,
    /// The multiply-adds of one thread in one iteration of its loop over keys, to find how often its inner loops iterate
    #[arg(long, requires = "foreign")]
    multiply_adds: Option<u64>,
    /// The file to write the records to
    #[arg(long)]
    json: Option<PathBuf>,
    /// The file of earlier records that these must not be worse than
    #[arg(long)]
    against: Option<PathBuf>,
    /// Print the machine code only
    #[arg(long)]
    asm: bool,
}

fn dtype(name: &str) -> Result<Dtype> {
    let found = Dtype::ALL.into_iter().find(|dtype| dtype.to_string() == name);
    found.ok_or_else(|| anyhow!("it must be f32, f16 or bf16"))
}

pub(crate) fn main() -> Result<()> {
    let args = Args::parse();
    let driver = Driver::open()?;
    let maker = Maker::of_driver(&driver.info.driver)
        .ok_or_else(|| anyhow!("{} is of no maker whose machine code is understood here", driver.info.driver))?;
    let mut records = Vec::new();
    if let Some(path) = &args.foreign {
        let wgsl = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let slots = trips::slots(&wgsl)?;
        let name = path.display().to_string();
        let known = Steady { trips: trips::trips(&wgsl)?, multiply_adds: args.multiply_adds };
        records.extend(compiled(&args, &driver, maker, ("foreign", &name), (&wgsl, &slots), &known)?);
    } else {
        let caps = caps(&driver, maker);
        let problems = match &args.shape {
            Some(shape) => vec![(format!("{shape} {}", args.dtype), shape.problem(args.dtype)?)],
            None => problems::all(args.brief)?,
        };
        let is_asked = |name: &str| name.contains(&args.problem);
        for (name, problem) in problems.into_iter().filter(|(name, _)| is_asked(name)) {
            for variant in chosen(candidates(&problem, &caps)?, &args) {
                let columns = problem.shape().dim_qk + problem.shape().dim_v;
                records.extend(of_variant(&args, &driver, maker, (&name, &variant), columns)?);
            }
        }
        let gradients = if args.shape.is_some() { Vec::new() } else { problems::gradients(args.brief)? };
        for (name, gradients) in gradients.into_iter().filter(|(name, _)| is_asked(name)) {
            for variant in testing::gradients(&gradients, &caps)? {
                let is_chosen = args.variant.as_ref().is_none_or(|text| variant.to_string().contains(text));
                if let Some(columns) = columns_of_gradient(&variant, gradients.shape()).filter(|_| is_chosen) {
                    records.extend(of_variant(&args, &driver, maker, (&name, &variant), columns)?);
                }
            }
        }
    }
    if args.asm {
        return Ok(());
    }
    eprintln!("\n{}, {}", driver.info.name, driver.info.driver_info);
    eprintln!("{}", table::table(&records, maker.chip()));
    let kept = Kept { driver: driver.info.driver_info.clone(), kernels: records };
    if let Some(path) = &args.json {
        std::fs::write(path, kept.to_json()?).with_context(|| path.display().to_string())?;
    }
    match &args.against {
        Some(path) => compare(&kept, path),
        None => Ok(()),
    }
}

/// Fails where a kernel is worse than the file says, or is not in it. Says so and compares nothing where the file is of another
/// driver, whose compiler may do anything.
fn compare(now: &Kept, path: &Path) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let before: Kept = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    ensure!(!now.kernels.is_empty(), "nothing was compiled");
    if now.driver != before.driver {
        eprintln!("not compared: the figures kept are of {}, and this is {}", before.driver, now.driver);
        return Ok(());
    }
    let mut worse = Vec::new();
    for record in &now.kernels {
        let why = match before.kernels.iter().find(|other| other.is_of(record)) {
            Some(before) => record.worse_than(before),
            None => vec!["not in the file".to_owned()],
        };
        worse.extend(why.iter().map(|why| format!("{} for {}: {why}", record.variant, record.problem)));
    }
    ensure!(
        worse.is_empty(),
        "{}\nif this is meant to be, `cargo xtask compilers --renew` writes {}",
        worse.join("\n"),
        path.display()
    );
    Ok(())
}

/// The columns of all products of a pair: scores, gradients of weights, and what is summed. `None` for a kernel without pairs.
fn columns_of_gradient(variant: &Variant, Shape { dim_qk, dim_v, .. }: Shape) -> Option<u32> {
    match testing::schedule(variant) {
        "gradient_queries" | "gradient_keys" => Some(2 * dim_qk + dim_v),
        "gradient_values" => Some(dim_qk + dim_v),
        _ => None,
    }
}

fn of_variant(
    args: &Args,
    driver: &Driver,
    maker: Maker,
    (name, variant): (&str, &Variant),
    columns: u32,
) -> Result<Option<Record>> {
    let buffers = testing::bindings(variant);
    let slots = buffers.iter().map(|binding| if binding.is_buffer { Slot::Storage } else { Slot::Texture });
    let slots: Vec<Slot> = [Slot::Uniform].into_iter().chain(slots).collect();
    let wgsl = variant.wgsl();
    let mut steady = Steady { trips: trips::trips(&wgsl)?, multiply_adds: wanted(columns, variant, &wgsl)? };
    if is_over_rows(variant) {
        // Their outermost loop is over heads. The one over tiles in it is counted once.
        steady.trips.insert(0, 1);
    }
    compiled(args, driver, maker, (name, &variant.to_string()), (&wgsl, &slots), &steady)
}

/// What is known of the steady loop: how often its inner loops may iterate, in their order, and the multiply-adds of one iteration.
struct Steady {
    trips: Vec<u64>,
    multiply_adds: Option<u64>,
}

/// Whether a workgroup has keys and visits blocks of query rows.
fn is_over_rows(variant: &Variant) -> bool {
    matches!(testing::schedule(variant), "gradient_keys" | "gradient_values")
}

/// The multiply-adds of one thread in one iteration of the loop over tiles, if the kernel has such a loop.
fn wanted(columns: u32, variant: &Variant, wgsl: &str) -> Result<Option<u64>> {
    let [rows, threads] = testing::block(variant).map(u64::from);
    let rows = if is_over_rows(variant) { trips::constant(wgsl, "ROWS")?.context("a tile has rows")? } else { rows };
    let keys = match trips::constant(wgsl, "BLOCK_KV")? {
        Some(keys) => Some(keys),
        // Each thread of `decode` takes four keys at a time.
        None => trips::constant(wgsl, "KEYS")?.map(|keys| 4 * keys),
    };
    Ok(keys.map(|keys| rows * keys * u64::from(columns) / threads))
}

/// Those asked for; or the selected one, and with it the best of each other kernel that moves elements alike.
fn chosen(candidates: Vec<Variant>, args: &Args) -> Vec<Variant> {
    let access = candidates.first().map(testing::access);
    let mut kinds = Vec::new();
    let is_chosen = |variant: &Variant| match &args.variant {
        Some(text) => variant.to_string().contains(text),
        None => {
            let kind = testing::kind(variant);
            let is_first = Some(testing::access(variant)) == access && !kinds.contains(&kind);
            let is_first = is_first && (kinds.is_empty() || !args.brief);
            kinds.push(kind);
            is_first
        }
    };
    candidates.into_iter().filter(is_chosen).collect()
}

/// What an app gets that asks for matrices where a device has them. They cannot be tried here.
fn caps(driver: &Driver, maker: Maker) -> Caps {
    let mut caps = driver.caps;
    if maker == Maker::Nvidia && driver.has_matrices() {
        let (fragment, multiplier) = (Fragment::Side16, Multiplier::Unit);
        caps.matrix_unit = Some(MatrixUnit { fragment, subgroup: 32, tiles: Tiles::Vectors, multiplier });
    }
    caps
}

/// Compiles a kernel; `None` where its machine code was printed instead.
fn compiled(
    args: &Args,
    driver: &Driver,
    maker: Maker,
    (problem, variant): (&str, &str),
    (wgsl, slots): (&str, &[Slot]),
    known: &Steady,
) -> Result<Option<Record>> {
    eprintln!("compiling {variant} for {problem}");
    let compiled = driver.compile(wgsl, slots).with_context(|| variant.to_owned())?;
    if args.asm {
        println!("==== {variant}\n{}", compiled.assembly);
        return Ok(None);
    }
    let listing = maker.parse(&compiled.assembly)?;
    let steady = steady::counts(&listing, &known.trips, known.multiply_adds);
    let names = maker.statistics();
    let statistic = |name: &str| {
        let found = compiled.statistics.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found
            .map(|(_, value)| *value)
            .with_context(|| format!("the driver does not count {name}: {:?}", compiled.statistics))
    };
    Ok(Some(Record {
        problem: problem.to_owned(),
        variant: variant.to_owned(),
        registers: statistic(names.registers)?,
        spills: names.spills.iter().map(|name| statistic(name)).sum::<Result<f64>>()?,
        resident: statistic(names.resident)?,
        instructions: statistic(names.instructions)?,
        workgroup_bytes: trips::workgroup_bytes(wgsl)?,
        compile_seconds: compiled.took.as_secs_f64(),
        predicted: steady.as_ref().ok().map(|steady| maker.bound(steady)),
        not_found: steady.as_ref().err().map(ToString::to_string),
        steady: steady.ok(),
    }))
}
