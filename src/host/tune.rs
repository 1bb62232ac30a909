//! Which candidate is fastest here, by trying them. Selection's table knows kinds of devices; this knows yours.

use std::time::Duration;

use crate::host::inputs::{Buffers, Inputs};
use crate::host::run::{RunError, fit_buffers, submit_and_wait, unless_refused};
use crate::kernel::variant::Variant;
use crate::plan::Attention;
use crate::problem::Problem;
use crate::problem::operand::Operand;
use crate::record::call::Call;

/// How long each candidate ran, fastest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Never empty.
    rows: Vec<(Variant, Duration)>,
}

impl Tuning {
    /// The fastest. Its `Display` is the text to store, which [`Attention::named`](crate::Attention::named) reads.
    pub fn best(&self) -> &Variant {
        &self.rows[0].0
    }

    /// Every candidate with the median of its runs, fastest first.
    pub fn rows(&self) -> &[(Variant, Duration)] {
        &self.rows
    }
}

/// Where the runs of one candidate end: whichever comes first. Enough for a median, and nobody waits long.
const LONG_ENOUGH: Duration = Duration::from_millis(200);
const MOST_RUNS: usize = 20;

/// **Blocks and submits.** Runs every candidate for `problem` and times it, on buffers of its own: small numbers,
/// nothing masked but by the problem itself, every length full. `aux` is made up too, so a `mask_mod` that reads it is timed on
/// another mask than yours.
///
/// A time is the wall clock around one submission and the wait for it, so it includes what the driver takes for both,
/// in which small differences drown. Each candidate is compiled, runs once unmeasured, then up to twenty times or for a
/// fifth of a second. Leave the device otherwise idle.
///
/// Tune once for a device, a driver and a problem of the lengths you run, and store the name of the best:
///
/// ```
/// use wgpu_attention::{Attention, Problem, Shape, blocking};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
/// # let attention = Attention::new(&device);
/// let problem = Problem::builder(Shape::new(1, 8, 100, 64)).build()?;
/// let stored = blocking::tune(&attention, &queue, &problem)?.best().to_string();
///
/// // Another day. A name that is no candidate any more is an error, and then it is time to tune again.
/// let plan = attention.plan_variant(&problem, &attention.named(&problem, &stored)?)?;
/// # assert_eq!(plan.variant().to_string(), stored);
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`RunError`], also where only one of the candidates cannot be planned.
pub fn tune(attention: &Attention, queue: &wgpu::Queue, problem: &Problem) -> Result<Tuning, RunError> {
    let device = attention.device();
    let candidates = attention.candidates(problem)?;
    fit_buffers(device, problem)?;
    let mut rows = unless_refused(device, || {
        let buffers = made_up(device, problem)?;
        let timed = candidates.into_iter().map(|variant| {
            let call = attention.plan_variant(problem, &variant)?.bind(&buffers.operands())?;
            Ok((variant, median(|| time(device, queue, &call))?))
        });
        timed.collect::<Result<Vec<_>, RunError>>()
    })?;
    rows.sort_by_key(|(_, duration)| *duration);
    Ok(Tuning { rows })
}

/// Operands on which no kernel finds anything to leave out: no zeros, nothing masked but by the problem itself.
fn made_up(device: &wgpu::Device, problem: &Problem) -> Result<Buffers, RunError> {
    let length = |operand| problem.view(operand).map_or(0, |view| usize::try_from(view.end()).unwrap_or(usize::MAX));
    let elements =
        [Operand::Q, Operand::K, Operand::V, Operand::Bias, Operand::AlibiSlopes, Operand::Sinks, Operand::Aux];
    // A prime period: neighbouring rows and heads differ.
    let period = (0..61_u8).map(|n| f32::from(n) / 61.0 - 0.49);
    let numbers: Vec<f32> = period.cycle().take(elements.map(length).into_iter().max().unwrap_or(0)).collect();
    let attend = vec![true; length(Operand::Mask)];
    let whole = vec![problem.shape().len_kv; length(Operand::KvLengths)];
    let inputs = Inputs {
        q: &numbers[..length(Operand::Q)],
        k: &numbers[..length(Operand::K)],
        v: &numbers[..length(Operand::V)],
        mask: problem.uses(Operand::Mask).then_some(&attend),
        bias: problem.uses(Operand::Bias).then_some(&numbers[..length(Operand::Bias)]),
        kv_lengths: problem.uses(Operand::KvLengths).then_some(&whole),
        alibi_slopes: problem.uses(Operand::AlibiSlopes).then_some(&numbers[..length(Operand::AlibiSlopes)]),
        sinks: problem.uses(Operand::Sinks).then_some(&numbers[..length(Operand::Sinks)]),
        aux: problem.uses(Operand::Aux).then_some(&numbers[..length(Operand::Aux)]),
    };
    Ok(inputs.upload(device, problem)?)
}

/// The median of what `run` says, after one run that does not count.
fn median(mut run: impl FnMut() -> Result<Duration, RunError>) -> Result<Duration, RunError> {
    run()?;
    let mut times = Vec::new();
    let mut spent = Duration::ZERO;
    while times.is_empty() || (spent < LONG_ENOUGH && times.len() < MOST_RUNS) {
        times.push(run()?);
        spent += times[times.len() - 1];
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// Recording is left out: an app records among its own commands.
fn time(device: &wgpu::Device, queue: &wgpu::Queue, call: &Call) -> Result<Duration, RunError> {
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    call.encode(&mut encoder);
    submit_and_wait(device, queue, encoder.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a run is timed that takes so long each time, and what comes of it. The first run takes longest.
    fn timed(each: Duration) -> (usize, Duration) {
        let mut runs = 0;
        let median = median(|| {
            runs += 1;
            Ok(if runs == 1 { Duration::from_secs(9) } else { each })
        });
        (runs - 1, median.expect("no run fails"))
    }

    #[test]
    fn runs_are_timed_until_there_are_enough_or_it_is_long_enough() {
        for (each, runs) in
            [(1_000, 20), (10_500, 20), (99_900, 3), (100_000, 2), (199_500, 2), (200_000, 1), (300_000, 1)]
        {
            let each = Duration::from_micros(each);
            assert_eq!(timed(each), (runs, each));
        }
    }

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        let mut times = [900, 70, 80, 60].map(Duration::from_millis).into_iter();
        let median = median(|| Ok(times.next().expect("three runs are long enough")));
        assert_eq!(median, Ok(Duration::from_millis(70)));
    }
}
