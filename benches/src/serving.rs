//! The suite of serving: sequences of a batch with lengths, pages and storage of their own, each beside the same work without.
//!
//! Every row compares two problems by the ratio of their times, which are measured in turn, so that a change of the machine's
//! speed affects both.

use std::hint::black_box;
use std::io::{IsTerminal as _, Write};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::{Deserialize, Serialize};
use wgpu::DeviceType;
use wgpu_attention::{
    Append, Attention, Call, Diagonal, Dtype, Inputs, Layout, Operand, Pages, Problem, ProblemBuilder, Quantization,
    Rotary, RotaryPairs, Shape, reference,
};

use crate::guard;
use crate::report::write_rows;
use crate::row::Origin;
use crate::samples::{Effort, Samples};
use crate::{Gpu, Options};

/// A comparison: the time of `other` divided by that of `this` is the speed of `this` relative to `other`.
struct Line {
    name: String,
    this: Work,
    other: Work,
}

/// One comparison. Times are in the unit that the field's name ends in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// `serving`.
    pub suite: String,
    /// What is compared, to what.
    pub name: String,
    /// The speed relative to the other, the median of several rounds.
    pub ratio: f64,
    /// The time of a call, from its recording to its end, the median of several rounds of many calls.
    pub this_ms: f64,
    /// The same of the other.
    pub other_ms: f64,
    /// Recording a call into a new encoder.
    pub record_us: f64,
    /// Binding another buffer in place of one operand of the call.
    pub rebind_us: f64,
    /// The variant, and that of the other.
    pub variants: [String; 2],
    /// The adapter.
    pub device: String,
    /// The driver and its version.
    pub driver: String,
    /// The API it is reached through.
    pub backend: String,
    /// The time of the run, in UTC.
    pub date: String,
    /// The command that measured it.
    pub command: String,
}

/// A problem with the numbers that place its sequences, run by its attention or by what appends to it.
struct Work {
    problem: ProblemBuilder,
    kv_lengths: Vec<u32>,
    q_lengths: Vec<u32>,
    cu_seqlens_q: Vec<u32>,
    cu_seqlens_k: Vec<u32>,
    appends: bool,
}

impl Work {
    fn of(problem: ProblemBuilder) -> Self {
        let none = Vec::new;
        Self {
            problem,
            kv_lengths: none(),
            q_lengths: none(),
            cu_seqlens_q: none(),
            cu_seqlens_k: none(),
            appends: false,
        }
    }

    fn lengths(self, lengths: &[u32]) -> Self {
        Self { kv_lengths: lengths.to_vec(), ..self }
    }
}

/// A step of four requests.
fn decode(len_kv: u32) -> ProblemBuilder {
    step(4, len_kv)
}

fn step(batch: u32, len_kv: u32) -> ProblemBuilder {
    Problem::builder(Shape::new(batch, 16, 1, 128).kv_heads(4).kv_len(len_kv)).causal(Diagonal::BottomRight)
}

fn line(name: impl Into<String>, this: Work, other: Work) -> Line {
    Line { name: name.into(), this, other }
}

/// A software GPU gets shorter caches.
fn lines(kind: DeviceType) -> Vec<Line> {
    let all = [4096; 4];
    let paged =
        |size| Work::of(decode(4096).kv_lengths().paged_kv(Pages { count: 4 * 4096 / size, size })).lengths(&all);
    // In the order that pages have by default, in which the heads of a token are neighbours.
    let by_token = Layout::blhd(4, 4096, 128);
    let contiguous = || Work::of(decode(4096).kv_lengths().k(by_token).v(by_token)).lengths(&all);
    let mut lines = vec![
        line("decode, pages of 16, to one range", paged(16), contiguous()),
        line("decode, pages of 64, to one range", paged(64), contiguous()),
        line("decode, pages of 256, to one range", paged(256), contiguous()),
    ];
    let thousands: &[u32] = if kind == DeviceType::Cpu { &[1, 4, 16] } else { &[1, 4, 16, 64, 128] };
    lines.extend(thousands.iter().flat_map(|&thousands| storages(thousands)));
    lines.extend(ragged());
    lines.extend(capacity());
    lines.push(appending());
    lines
}

/// One request whose cache is stored in fewer bits.
fn storages(thousands: u32) -> [Line; 4] {
    let of = || step(1, thousands * 1024).kv_lengths();
    let work = |problem| Work::of(problem).lengths(&[thousands * 1024]);
    let in_f16 = || work(of().kv_dtype(Dtype::F16));
    let name = |which| format!("decode, {thousands}k keys, {which}");
    let quantized = |which, how| line(name(which), work(of().kv_quantized(how)), in_f16());
    [
        line(name("f16 cache to f32"), in_f16(), work(of())),
        quantized("int8 cache to f16", Quantization::Int8),
        quantized("4-bit cache to f16", Quantization::Int4),
        quantized("fp8 cache to f16", Quantization::Fp8E4m3),
    ]
}

/// Sequences of 1 to 2048 tokens beside as many of one length that together cost as much, which is the work without padding.
fn ragged() -> [Line; 2] {
    let lengths = [1, 3, 17, 64, 190, 400, 801, 2048];
    let bounds: Vec<u32> = std::iter::once(0)
        .chain(lengths.iter().scan(0, |sum, n| {
            *sum += n;
            Some(*sum)
        }))
        .collect();
    let total = bounds[lengths.len()];
    // The pairs of all sequences, as a square.
    let pairs: u32 = lengths.iter().map(|n| n * n).sum();
    let side = pairs.isqrt();
    let shape = |batch, len| Shape::new(batch, 8, len, 64).kv_heads(2);
    let prefill = Work {
        cu_seqlens_q: bounds.clone(),
        cu_seqlens_k: bounds.clone(),
        ..Work::of(Problem::builder(shape(8, 2048)).ragged_q(total).ragged_kv(total))
    };
    let ideal = Work::of(Problem::builder(shape(1, side)));
    let step = Work {
        cu_seqlens_q: (0..=8).collect(),
        cu_seqlens_k: bounds,
        ..Work::of(Problem::builder(shape(8, 1).kv_len(2048)).ragged_q(8).ragged_kv(total))
    };
    let ideal_step = Work::of(Problem::builder(shape(8, 1).kv_len(total / 8)));
    [
        line("ragged prefill, 1 to 2048, to the work as one", prefill, ideal),
        line("ragged decode, 1 to 2048, to equal lengths", step, ideal_step),
    ]
}

/// A request of 1024 tokens in a plan with room for 16384, beside one in a plan of its own size.
fn capacity() -> [Line; 3] {
    let shape = |len_q, len_kv| Shape::new(1, 8, len_q, 64).kv_heads(2).kv_len(len_kv);
    let of = |len_q, len_kv| Problem::builder(shape(len_q, len_kv)).causal(Diagonal::BottomRight);
    let request = |problem: ProblemBuilder| Work::of(problem.kv_lengths()).lengths(&[1024]);
    [
        line("decode of 1024 keys in a plan for 16384", request(of(1, 16384)), request(of(1, 1024))),
        line("prefill of 1024 in a plan for 16384 keys", request(of(1024, 16384)), request(of(1024, 1024))),
        line(
            "prefill of 1024 in a plan for 16384 queries and keys",
            Work { q_lengths: vec![1024], ..request(of(16384, 16384).q_lengths()) },
            request(of(1024, 1024)),
        ),
    ]
}

/// What appending a token costs, beside the attention of that step.
fn appending() -> Line {
    let rotary = Some(Rotary { dims: 128, pairs: RotaryPairs::Halves, positions: 4096 });
    let problem = decode(4096).kv_lengths().append(Append { rotary, ..Append::default() });
    let appends = Work { appends: true, ..Work::of(problem.clone()).lengths(&[4096; 4]) };
    line("append with rotary, to the attention of the step", appends, Work::of(problem).lengths(&[4096; 4]))
}

/// A call on buffers of its own.
struct Ready<'a> {
    gpu: &'a Gpu,
    call: Call,
    variant: String,
    /// Of the queries, or of the new keys if they are appended.
    rebound: (Operand, wgpu::Buffer),
}

impl Ready<'_> {
    fn of<'a>(gpu: &'a Gpu, attention: &Attention, work: &Work) -> Result<Ready<'a>> {
        let problem = work.problem.build()?;
        let length =
            |operand| problem.view(operand).map_or(0, |view| usize::try_from(view.end()).unwrap_or(usize::MAX));
        let numbers: Vec<f32> = (0..61_u8).map(|n| f32::from(n) / 61.0 - 0.49).collect();
        let floats = |operand| -> Vec<f32> { numbers.iter().copied().cycle().take(length(operand)).collect() };
        let words = |operand| -> Vec<u32> { floats(operand).iter().map(|x| x.to_bits()).collect() };
        let is_quantized = problem.quantization().is_some();
        let [k_words, v_words] = [Operand::K, Operand::V].map(words);
        let pages = problem.pages().map_or(1, |pages| pages.count);
        // In no particular order; 7 does not divide the number of pages.
        let table: Vec<u32> = (0..u32::try_from(length(Operand::BlockTable))?).map(|n| n * 7 % pages).collect();
        let some = |operand, all: &[u32]| problem.uses(operand).then(|| all.to_vec());
        let [kv, q, cu_q, cu_k, table] = [
            some(Operand::KvLengths, &work.kv_lengths),
            some(Operand::QLengths, &work.q_lengths),
            some(Operand::CuSeqlensQ, &work.cu_seqlens_q),
            some(Operand::CuSeqlensK, &work.cu_seqlens_k),
            some(Operand::BlockTable, &table),
        ];
        let [all_q, all_k, all_v] = [Operand::Q, Operand::K, Operand::V].map(floats);
        let [new_q, new_k, new_v, rotary] = [Operand::NewQ, Operand::NewK, Operand::NewV, Operand::RotaryTable]
            .map(|operand| (problem.uses(operand)).then(|| floats(operand)));
        let inputs = Inputs {
            q: &all_q,
            k: if is_quantized { &[] } else { &all_k },
            v: if is_quantized { &[] } else { &all_v },
            k_words: is_quantized.then_some(&k_words),
            v_words: is_quantized.then_some(&v_words),
            kv_lengths: kv.as_deref(),
            q_lengths: q.as_deref(),
            cu_seqlens_q: cu_q.as_deref(),
            cu_seqlens_k: cu_k.as_deref(),
            block_table: table.as_deref(),
            new_q: new_q.as_deref(),
            new_k: new_k.as_deref(),
            new_v: new_v.as_deref(),
            rotary_table: rotary.as_deref(),
            ..Inputs::default()
        };
        let buffers = inputs.upload(attention.device(), &problem)?;
        let operands = buffers.operands();
        let plan = if work.appends { attention.plan_append(&problem)? } else { attention.plan(&problem)? };
        let call = plan.bind(&operands)?;
        if let (Some(out), false) = (buffers.get(Operand::Out), work.appends) {
            check(gpu, &call, out, &inputs, &problem)?;
        }
        let operand = if work.appends { Operand::NewK } else { Operand::Q };
        let buffer = operands.get(operand).context("every call reads it")?.buffer.clone();
        Ok(Ready { gpu, call, variant: plan.variant().to_string(), rebound: (operand, buffer) })
    }

    fn record(&self) {
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.call.encode(&mut encoder);
        drop(black_box(encoder.finish()));
    }

    fn rebind(&self) -> Result<()> {
        let (operand, buffer) = &self.rebound;
        drop(black_box(self.call.rebound(*operand, buffer.as_entire_buffer_binding())?));
        Ok(())
    }

    /// The time of `times` runs.
    fn time(&self, times: u32) -> Result<Duration> {
        let start = Instant::now();
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        (0..times).for_each(|_| self.call.encode(&mut encoder));
        self.gpu.queue.submit([encoder.finish()]);
        self.gpu.device.poll(wgpu::PollType::wait_indefinitely())?;
        Ok(start.elapsed())
    }
}

/// Compares the last query of the last sequence with the reference.
fn check(gpu: &Gpu, call: &Call, out: &wgpu::Buffer, inputs: &Inputs<'_>, problem: &Problem) -> Result<()> {
    let shape = problem.shape();
    let (sequence, head) = (shape.batch - 1, shape.heads_q - 1);
    let ends = inputs.cu_seqlens_q.map(|bounds| [bounds[sequence as usize], bounds[sequence as usize + 1]]);
    let queries = inputs.q_lengths.map_or(shape.len_q, |lengths| lengths[sequence as usize]);
    let (query, place) = match ends {
        Some([begin, end]) => (end - begin - 1, [0, head, end - 1, 0]),
        None => (queries - 1, [sequence, head, queries - 1, 0]),
    };
    let exact = reference::row(problem, inputs, [sequence, head, query])?.out;
    let dtype = problem.dtype(Operand::Out).unwrap_or_default();
    let values = guard::output(gpu, call, out, dtype)?;
    let first = usize::try_from(problem.view(Operand::Out).context("it has an output")?.index(place))?;
    let (error, allowed) = (guard::excess(&values[first..first + exact.len()], &exact), guard::allowed(dtype));
    ensure!(
        error <= allowed,
        "the last row of {problem:?} is wrong: off by {error:.1e} of its largest value, allowed {allowed:.1e}"
    );
    Ok(())
}

/// The shortest time that is measured at once.
const LONG_ENOUGH: Duration = Duration::from_millis(40);
const ROUNDS: usize = 15;

/// Measures the suite on `gpu`, and writes a table to `stdout` and rows to the file asked for.
pub(crate) fn run(options: &Options, gpu: &Gpu, stdout: &mut dyn Write) -> Result<()> {
    let Options { shapes, dtypes, kv_dtype, variant, plot, .. } = options;
    let has_others = variant.is_some() || plot.is_some() || kv_dtype.is_some();
    ensure!(
        shapes.is_empty() && dtypes.is_empty() && !has_others,
        "--suite serving has problems of its own, and no plot; leave out --shape, --dtype, --kv-dtype, --variant and --plot"
    );
    let attention = Attention::with_caps(&gpu.device, gpu.caps());
    let origin = Origin::of(gpu, "wall");
    let only = options.only.as_deref().unwrap_or_default();
    let lines: Vec<Line> = lines(gpu.info.device_type).into_iter().filter(|line| line.name.contains(only)).collect();
    ensure!(!lines.is_empty(), "no row of --suite serving has {only:?} in its name; without --only, all are measured");
    let mut rows = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        if std::io::stderr().is_terminal() {
            eprintln!("{} of {}: {}", n + 1, lines.len(), line.name);
        }
        rows.push(compare(gpu, &attention, line, &origin)?);
    }
    write_rows(options, &format!("{}\n{}", origin.heading(), table(&rows)), &rows, stdout)
}

/// Measures both in turn.
fn compare(gpu: &Gpu, attention: &Attention, line: &Line, origin: &Origin) -> Result<Comparison> {
    let both = [Ready::of(gpu, attention, &line.this)?, Ready::of(gpu, attention, &line.other)?];
    let mut times = [1, 1];
    for (ready, times) in both.iter().zip(&mut times) {
        ready.time(1)?;
        while ready.time(*times)? < LONG_ENOUGH {
            *times *= 2;
        }
    }
    let mut measured = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for ((ready, times), measured) in both.iter().zip(times).zip(&mut measured) {
            measured.push(ready.time(times)?.as_secs_f64() / f64::from(times));
        }
    }
    let ratios: Vec<f64> = measured[1].iter().zip(&measured[0]).map(|(other, this)| other / this).collect();
    let record = Samples::timed(Effort::HOST, || {
        both[0].record();
        Ok(())
    })?;
    let rebind = Samples::timed(Effort::HOST, || both[0].rebind())?;
    gpu.take_errors()?;
    let [this_ms, other_ms] = measured.map(|times| Samples::from(times).median() * 1e3);
    let origin = origin.clone();
    Ok(Comparison {
        suite: "serving".into(),
        name: line.name.clone(),
        ratio: Samples::from(ratios).median(),
        this_ms,
        other_ms,
        record_us: record.median() * 1e6,
        rebind_us: rebind.median() * 1e6,
        variants: both.map(|ready| ready.variant),
        device: origin.device,
        driver: origin.driver,
        backend: origin.backend,
        date: origin.date,
        command: origin.command,
    })
}

fn table(rows: &[Comparison]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["compared", "speed", "ms", "other ms", "record µs", "rebind µs", "variant"]);
    for row in rows {
        table.add_row([
            row.name.clone(),
            format!("{:.2}", row.ratio),
            format!("{:.3}", row.this_ms),
            format!("{:.3}", row.other_ms),
            format!("{:.1}", row.record_us),
            format!("{:.1}", row.rebind_us),
            row.variants[0].clone(),
        ]);
    }
    for column in table.column_iter_mut().skip(1).take(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
