//! `devices`: lists each adapter with its limits and features, and the variant it gets.

use std::io::Write;

use anyhow::{Result, anyhow};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use wgpu::{Adapter, Features};
use wgpu_attention::{Dtype, Problem, Shape, Variant};
use wgpu_attention_bench::device::{self, all_adapters, backend_name};

use crate::device::Gpu;

/// The typical problem for which the table shows the variant.
const EXAMPLE: Shape = Shape::new(1, 8, 1024, 64);

#[derive(Serialize)]
struct Entry {
    index: usize,
    name: String,
    backend: &'static str,
    r#type: String,
    driver: String,
    max_binding_bytes: u64,
    max_buffer_bytes: u64,
    workgroup_memory_bytes: u32,
    workgroup_invocations: u32,
    workgroups_per_dimension: u32,
    storage_buffers: u32,
    shader_f16: bool,
    /// Smallest and largest size, where there are subgroups.
    subgroups: Option<[u32; 2]>,
    timestamps: bool,
    /// The matrix unit that kernels use, or why they use none.
    matrix_unit: String,
    /// The variant for the example problem in f32.
    variant: Option<String>,
    /// The variant for the example problem in f16.
    variant_f16: Option<String>,
    /// Where, when and how `variant` was measured to be the preferred one.
    provenance: Option<&'static str>,
    /// Why there is no variant.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

pub(crate) fn run(device: Option<&str>, json: bool, stdout: &mut dyn Write) -> Result<()> {
    anyhow::ensure!(device.is_none(), "`devices` lists every adapter; leave --device out");
    let entries: Vec<Entry> = all_adapters().iter().enumerate().map(|(index, adapter)| entry(index, adapter)).collect();
    if json {
        writeln!(stdout, "{}", serde_json::to_string(&entries)?)?;
    } else if entries.is_empty() {
        writeln!(stdout, "no adapter was found; install your GPU's Vulkan driver, or use --device cpu")?;
    } else {
        writeln!(stdout, "{}", table(&entries))?;
    }
    Ok(())
}

fn entry(index: usize, adapter: &Adapter) -> Entry {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let has = |feature| features.contains(feature);
    let opened = device::Gpu::open(adapter, Features::empty());
    let matrix_unit = match opened.as_ref().map(device::Gpu::matrix_unit) {
        Ok(Ok(unit)) => unit.to_string(),
        Ok(Err(why)) => format!("none: {why}"),
        Err(_) => "none".into(),
    };
    let gpu = opened.map(Gpu::new);
    let variant_of = |dtype| gpu.as_ref().map_err(|error| anyhow!("{error:#}")).and_then(|gpu| variant(gpu, dtype));
    let (variant, variant_f16) = (variant_of(Dtype::F32), variant_of(Dtype::F16));
    Entry {
        index,
        backend: backend_name(info.backend),
        r#type: format!("{:?}", info.device_type),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        workgroup_memory_bytes: limits.max_compute_workgroup_storage_size,
        workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
        storage_buffers: limits.max_storage_buffers_per_shader_stage,
        shader_f16: has(Features::SHADER_F16),
        subgroups: has(Features::SUBGROUP).then_some([info.subgroup_min_size, info.subgroup_max_size]),
        timestamps: has(Features::TIMESTAMP_QUERY),
        matrix_unit,
        refused: variant.as_ref().err().map(|error| format!("{error:#}")),
        provenance: variant.as_ref().ok().map(|variant| variant.provenance()),
        variant: variant.ok().map(|variant| variant.to_string()),
        variant_f16: variant_f16.ok().map(|variant| variant.to_string()),
        name: info.name,
    }
}

fn variant(gpu: &Gpu, dtype: Dtype) -> Result<Variant> {
    gpu.best(&Problem::builder(EXAMPLE).dtype(dtype).build()?)
}

/// A line of the table: its label, and its value for an adapter.
type Line<'a> = (&'a str, fn(&Entry) -> String);

/// One column per adapter, because an adapter has more properties than a machine has adapters.
fn table(entries: &[Entry]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(console::Term::stdout().size_checked().map_or(120, |(_, columns)| columns));
    let variant = format!("variant for B{} H{} L{} D{}", EXAMPLE.batch, EXAMPLE.heads_q, EXAMPLE.len_q, EXAMPLE.dim_qk);
    let lines: [Line<'_>; 18] = [
        ("index", |e| e.index.to_string()),
        ("name", |e| e.name.clone()),
        ("backend", |e| e.backend.into()),
        ("type", |e| e.r#type.clone()),
        ("driver", |e| e.driver.clone()),
        ("largest binding", |e| bytes(e.max_binding_bytes)),
        ("largest buffer", |e| bytes(e.max_buffer_bytes)),
        ("workgroup memory", |e| bytes(e.workgroup_memory_bytes.into())),
        ("workgroup invocations", |e| e.workgroup_invocations.to_string()),
        ("workgroups per dimension", |e| e.workgroups_per_dimension.to_string()),
        ("storage buffers", |e| e.storage_buffers.to_string()),
        ("f16 arithmetic", |e| yes(e.shader_f16)),
        ("subgroups", |e| e.subgroups.map_or("no".into(), |[min, max]| format!("{min} to {max} lanes"))),
        ("timestamps", |e| yes(e.timestamps)),
        ("matrix unit", |e| e.matrix_unit.clone()),
        (&variant, |e| e.variant.clone().or_else(|| e.refused.clone()).unwrap_or_default()),
        ("the same in f16", |e| e.variant_f16.clone().unwrap_or_default()),
        ("preferred because", |e| e.provenance.unwrap_or_default().into()),
    ];
    for (name, value) in lines {
        table.add_row(std::iter::once(name.to_owned()).chain(entries.iter().map(value)));
    }
    table
}

fn yes(has: bool) -> String {
    if has { "yes" } else { "no" }.into()
}

fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.into_iter().find(|&(size, _)| count >= size) {
        Some((size, unit)) if count.is_multiple_of(size) => format!("{} {unit}", count / size),
        Some((size, unit)) => format!("{:.1} {unit}", count as f64 / size as f64),
        None => format!("{count} B"),
    }
}
