//! What serving costs: sequences of a batch with lengths, pages and storage of their own, each beside the same work without.
//!
//! Every line compares two problems on the device by the ratio of their times, which are measured in turn, so that a change of
//! the machine's speed affects both.
//!
//!     cargo bench -p wgpu-attention-bench --bench serving [-- TEXT]      only the lines whose name has this text

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use wgpu_attention::{
    Append, Attention, Diagonal, Dtype, Inputs, Layout, Operand, Operands, Pages, Problem, ProblemBuilder,
    Quantization, Rotary, RotaryPairs, Shape,
};
use wgpu_attention_bench::{Gpu, WANTED};

/// A comparison: the time of `other` divided by that of `this` is the speed of `this` relative to `other`.
struct Line {
    name: &'static str,
    this: Work,
    other: Work,
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

fn decode(len_kv: u32) -> ProblemBuilder {
    Problem::builder(Shape::new(4, 16, 1, 128).kv_heads(4).kv_len(len_kv)).causal(Diagonal::BottomRight)
}

fn lines() -> Vec<Line> {
    let all = [4096; 4];
    let cache = || Work::of(decode(4096).kv_lengths()).lengths(&all);
    let in_f16 = || Work::of(decode(4096).kv_lengths().kv_dtype(Dtype::F16)).lengths(&all);
    let paged =
        |size| Work::of(decode(4096).kv_lengths().paged_kv(Pages { count: 4 * 4096 / size, size })).lengths(&all);
    // In the order that pages have by default, in which the heads of a token are neighbours.
    let by_token = Layout::blhd(4, 4096, 128);
    let contiguous = || Work::of(decode(4096).kv_lengths().k(by_token).v(by_token)).lengths(&all);
    let quantized = |how| Work::of(decode(4096).kv_lengths().kv_quantized(how)).lengths(&all);
    let mut lines = vec![
        Line { name: "decode, pages of 16, to one range", this: paged(16), other: contiguous() },
        Line { name: "decode, pages of 64, to one range", this: paged(64), other: contiguous() },
        Line { name: "decode, pages of 256, to one range", this: paged(256), other: contiguous() },
        Line { name: "decode, f16 cache to f32", this: in_f16(), other: cache() },
        Line { name: "decode, int8 cache to f16", this: quantized(Quantization::Int8), other: in_f16() },
        Line { name: "decode, 4-bit cache to f16", this: quantized(Quantization::Int4), other: in_f16() },
        Line { name: "decode, fp8 cache to f16", this: quantized(Quantization::Fp8E4m3), other: in_f16() },
    ];
    lines.extend(ragged());
    lines.extend(capacity());
    lines.push(appending());
    lines
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
        Line { name: "ragged prefill, 1 to 2048, to the work as one", this: prefill, other: ideal },
        Line { name: "ragged decode, 1 to 2048, to equal lengths", this: step, other: ideal_step },
    ]
}

/// A request of 1024 tokens in a plan with room for 16384, beside one in a plan of its own size.
fn capacity() -> [Line; 3] {
    let shape = |len_q, len_kv| Shape::new(1, 8, len_q, 64).kv_heads(2).kv_len(len_kv);
    let of = |len_q, len_kv| Problem::builder(shape(len_q, len_kv)).causal(Diagonal::BottomRight);
    let request = |problem: ProblemBuilder| Work::of(problem.kv_lengths()).lengths(&[1024]);
    [
        Line {
            name: "decode of 1024 keys in a plan for 16384",
            this: request(of(1, 16384)),
            other: request(of(1, 1024)),
        },
        Line {
            name: "prefill of 1024 in a plan for 16384 keys",
            this: request(of(1024, 16384)),
            other: request(of(1024, 1024)),
        },
        Line {
            name: "prefill of 1024 in a plan for 16384 queries and keys",
            this: Work { q_lengths: vec![1024], ..request(of(16384, 16384).q_lengths()) },
            other: request(of(1024, 1024)),
        },
    ]
}

/// What appending a token costs, beside the attention of that step.
fn appending() -> Line {
    let rotary = Some(Rotary { dims: 128, pairs: RotaryPairs::Halves, positions: 4096 });
    let problem = decode(4096).kv_lengths().append(Append { rotary, ..Append::default() });
    let appends = Work { appends: true, ..Work::of(problem.clone()).lengths(&[4096; 4]) };
    Line {
        name: "append with rotary, to the attention of the step",
        this: appends,
        other: Work::of(problem).lengths(&[4096; 4]),
    }
}

/// A call on buffers of its own.
struct Ready<'a> {
    gpu: &'a Gpu,
    call: wgpu_attention::Call,
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
            ..Inputs::default()
        };
        let buffers = inputs.upload(attention.device(), &problem)?;
        let appended = [Operand::NewQ, Operand::NewK, Operand::NewV, Operand::RotaryTable].map(|operand| {
            let size = problem.view(operand).map_or(4, |view| view.size_bytes());
            let usage = wgpu::BufferUsages::STORAGE;
            let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
            (operand, attention.device().create_buffer(&descriptor))
        });
        let mut operands: Operands<'_> = buffers.operands();
        for (operand, buffer) in appended.iter().filter(|(operand, _)| problem.uses(*operand)) {
            operands = operands.with(*operand, buffer.as_entire_buffer_binding());
        }
        let plan = if work.appends { attention.plan_append(&problem)? } else { attention.plan(&problem)? };
        Ok(Ready { gpu, call: plan.bind(&operands)? })
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

/// The shortest time that is measured at once.
const LONG_ENOUGH: Duration = Duration::from_millis(40);
const ROUNDS: usize = 15;

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() -> Result<()> {
    let only: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let gpu = Gpu::request(None, WANTED)?.context("no GPU driver was found")?;
    let attention = Attention::new(&gpu.device);
    println!("{} · {}", gpu.info.name, gpu.driver());
    let lines: Vec<Line> =
        lines().into_iter().filter(|line| only.iter().all(|text| line.name.contains(text.as_str()))).collect();
    for (n, Line { name, this, other }) in lines.iter().enumerate() {
        if std::io::stderr().is_terminal() {
            eprintln!("{} of {}: {name}", n + 1, lines.len());
        }
        let both = [Ready::of(&gpu, &attention, this)?, Ready::of(&gpu, &attention, other)?];
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
        let [this, other] = measured.map(|times| median(times) * 1e3);
        println!("{name}: {:.2} ({this:.3} ms and {other:.3} ms)", median(ratios));
    }
    Ok(())
}
