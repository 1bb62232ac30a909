//! What the Rust peers share: the command line, the inputs, the clock, the check and the row they print.
//!
//! It depends on nothing, so that it weighs nothing beside the peer.

mod options;
mod problem;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

pub use options::{Dtype, Options, Shape};
pub use problem::Problem;

/// An implementation with one problem's inputs on its device.
pub trait Peer {
    /// What a run leaves on the host.
    type Output;
    /// The adapter it runs on.
    fn device(&self) -> String;
    /// Computes the output and reads it back; this is what the clock sees, so the values must be in host memory when it
    /// returns, not on their way.
    fn run(&mut self) -> Self::Output;
    /// The output as f32, (B, Hq, Lq, D).
    fn values(&self, output: Self::Output) -> Vec<f32>;
}

/// Uploads a problem's inputs, or says why it cannot.
pub type Prepare<P> = fn(&Problem) -> Result<P, String>;

/// Runs the named peers on the shapes of the command line and prints a JSON object for each.
pub fn main<P: Peer>(peers: &[(&str, Prepare<P>)]) -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(mistake) => {
            eprintln!("{mistake}\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    for &shape in &options.shapes {
        let problem = Problem::new(shape, options.dtype);
        for &(name, prepare) in peers {
            // Some peers panic where they cannot run; the row says so and the next one still gets its turn.
            let attempt = catch_unwind(AssertUnwindSafe(|| measure(&problem, prepare, &options)));
            println!("{}", row(name, &problem, &attempt.unwrap_or_else(|panic| Err(message(&*panic)))));
        }
    }
    ExitCode::SUCCESS
}

struct Measurement {
    device: String,
    sorted_ms: Vec<f64>,
    max_error: f64,
}

impl Measurement {
    fn median_ms(&self) -> f64 {
        let ms = &self.sorted_ms;
        f64::midpoint(ms[(ms.len() - 1) / 2], ms[ms.len() / 2])
    }
}

fn measure<P: Peer>(problem: &Problem, prepare: Prepare<P>, options: &Options) -> Result<Measurement, String> {
    let mut peer = prepare(problem)?;
    let mut sorted_ms = Vec::new();
    let mut output = None;
    for round in 0..options.warmups + options.repeats {
        let start = Instant::now();
        output = Some(peer.run());
        if round >= options.warmups {
            sorted_ms.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    sorted_ms.sort_by(f64::total_cmp);
    let values = peer.values(output.ok_or("no repeats")?);
    Ok(Measurement { device: peer.device(), sorted_ms, max_error: problem.max_error(&values) })
}

fn row(name: &str, problem: &Problem, result: &Result<Measurement, String>) -> String {
    let shape = problem.shape;
    let measured = result.as_ref().ok();
    // JSON has no infinity.
    let number = |value: Option<f64>| {
        value.filter(|value| value.is_finite()).map_or("null".to_owned(), |value| format!("{value:?}"))
    };
    let error = match result {
        Ok(measured) if measured.max_error.is_finite() => None,
        Ok(_) => Some("the output is not finite"),
        Err(reason) => Some(reason.as_str()),
    };
    let text = |value: Option<&str>| value.map_or("null".to_owned(), quoted);
    let fields = [
        ("peer", quoted(name)),
        ("batch", shape.batch.to_string()),
        ("heads_q", shape.heads_q.to_string()),
        ("heads_kv", shape.heads_kv.to_string()),
        ("len_q", shape.len_q.to_string()),
        ("len_k", shape.len_k.to_string()),
        ("dim", shape.dim.to_string()),
        ("causal", shape.causal.to_string()),
        ("mask", shape.mask.to_string()),
        ("dtype", quoted(problem.dtype.name())),
        ("device", text(measured.map(|measured| measured.device.as_str()))),
        ("median_ms", number(measured.map(Measurement::median_ms))),
        ("min_ms", number(measured.and_then(|measured| measured.sorted_ms.first().copied()))),
        ("max_ms", number(measured.and_then(|measured| measured.sorted_ms.last().copied()))),
        ("tflops", number(measured.map(|measured| shape.flop() / measured.median_ms() / 1e9))),
        ("max_error", number(measured.map(|measured| measured.max_error))),
        ("error", text(error)),
    ];
    format!("{{{}}}", fields.map(|(key, value)| format!("\"{key}\": {value}")).join(", "))
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("\"{}\"", words.replace(char::is_control, "").replace('\\', "\\\\").replace('"', "\\\""))
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("without a message"))
}
