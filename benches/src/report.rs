//! A run: measures what the options say, and reports it as a table, as rows and as a plot.

use std::io::{IsTerminal as _, Write};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use wgpu::DeviceType;
use wgpu_attention::Dtype;

use crate::measure::Bench;
use crate::row::Origin;
use crate::table::{Line, speed, table};
use crate::{Gpu, Options, Row, Suite, Workload, plot, serving, suites};

/// Measures on `gpu` and writes to `stdout`, and to the files asked for.
///
/// # Errors
/// If a kernel is wrong, the device fails or a file cannot be written. A shape that the device refuses is not an error but
/// a line of the table.
pub fn run(options: &Options, gpu: &Gpu, stdout: &mut dyn Write) -> Result<()> {
    if options.suite == Some(Suite::Serving) {
        return serving::run(options, gpu, stdout);
    }
    ensure!(options.only.is_none(), "--only chooses rows of --suite serving; shapes are chosen by --shape");
    let bench = Bench::new(gpu)?;
    let origin = Origin::of(gpu, bench.timer.kind());
    let lines = measure(&bench, options, &origin)?;
    let rows: Vec<Row> = lines.iter().filter_map(Line::row).cloned().collect();
    write_rows(options, &text(&bench, options, &origin, &lines), &rows, stdout)?;
    if let Some(path) = &options.plot {
        ensure!(!rows.is_empty(), "nothing was measured, so there is no plot");
        std::fs::write(path, plot::svg(&rows)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Writes `text` and the rows to where the options say.
pub(crate) fn write_rows(options: &Options, text: &str, rows: &[impl Serialize], stdout: &mut dyn Write) -> Result<()> {
    let rows_to_stdout = options.json.as_ref().is_some_and(|path| path.as_os_str() == "-");
    if rows_to_stdout {
        eprintln!("{text}");
    } else {
        writeln!(stdout, "{text}")?;
    }
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(rows)?;
        if rows_to_stdout {
            writeln!(stdout, "{json}")?;
        } else {
            std::fs::write(path, json + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

fn measure(bench: &Bench<'_>, options: &Options, origin: &Origin) -> Result<Vec<Line>> {
    let workloads = workloads(options, bench.gpu.info.device_type);
    let dtypes = dtypes(options, bench.gpu.info.device_type);
    let mut lines = Vec::new();
    let mut before = bench.probes.measure(&bench.timer)?;
    for (i, workload) in workloads.iter().enumerate() {
        if std::io::stderr().is_terminal() {
            eprintln!("{} of {}: {} {workload}", i + 1, workloads.len(), workload.suite);
        }
        for &dtype in &dtypes {
            let kv_dtype = options.kv_dtype.unwrap_or(dtype);
            let problem = workload.problem(dtype)?.to_builder().kv_dtype(kv_dtype);
            // Gradients need the log-sum-exp.
            let problem = if workload.is_backward() { problem.lse() } else { problem }.build()?;
            let chosen = match bench.choose(&problem, options.variant.as_deref()) {
                Ok(chosen) => chosen,
                Err(reason) => {
                    lines.push(Line::refused(workload, dtype, reason));
                    continue;
                }
            };
            let measured = if workload.is_backward() {
                bench.backward(workload, &problem, &chosen)
            } else {
                bench.measure(workload, &problem, &chosen)
            };
            let measured = measured.with_context(|| format!("{workload} in {dtype}"))?;
            let after = bench.probes.measure(&bench.timer)?;
            let limits = before.around(&after);
            let rows = measured.iter().map(|measured| Row::new(origin, workload, &problem, measured, &limits));
            lines.extend(rows.map(|row| Line::measured(workload, row)));
            before = after;
        }
    }
    Ok(lines)
}

fn workloads(options: &Options, kind: DeviceType) -> Vec<Workload> {
    let suite = options.suite.or(options.shapes.is_empty().then_some(Suite::All));
    let mut workloads = options.shapes.clone();
    workloads.extend(suite.into_iter().flat_map(|suite| suites::shapes(suite, kind)));
    workloads
}

fn dtypes(options: &Options, kind: DeviceType) -> Vec<Dtype> {
    match (options.dtypes.as_slice(), kind) {
        ([], DeviceType::Cpu) => vec![Dtype::F32],
        ([], _) => Dtype::ALL.into(),
        (given, _) => given.into(),
    }
}

/// The table, below the limits that it is compared with.
fn text(bench: &Bench<'_>, options: &Options, origin: &Origin, lines: &[Line]) -> String {
    let mut text = format!("{}timer: {}; {}\n", origin.heading(), origin.timer, bench.probes.describe());
    let rows: Vec<&Row> = lines.iter().filter_map(Line::row).collect();
    if !rows.is_empty() {
        let has_unit = rows.iter().all(|row| row.matrix_tflops.is_some());
        let most = speed(middle(&rows, |row| row.matrix_tflops.unwrap_or_default()));
        let matrix = if has_unit { format!("{most}FLOP/s cooperative, ") } else { String::new() };
        text += &format!(
            "limits, medians of the run: {}FLOP/s multiply-add, {matrix}{:.1} GB/s read, {:.1} GB/s copy, {:.0} µs per empty dispatch\n",
            speed(middle(&rows, |row| row.fma_tflops)),
            middle(&rows, |row| row.read_gbps),
            middle(&rows, |row| row.copy_gbps),
            middle(&rows, |row| row.dispatch_us),
        );
    }
    if bench.gpu.info.device_type == DeviceType::Cpu && (options.suite.is_some() || options.shapes.is_empty()) {
        text += &format!("{}\n", suites::SMALL);
    }
    format!("{text}\n{}", table(lines))
}

fn middle(rows: &[&Row], figure: fn(&Row) -> f64) -> f64 {
    crate::samples::Samples::from(rows.iter().map(|row| figure(row)).collect::<Vec<_>>()).median()
}
