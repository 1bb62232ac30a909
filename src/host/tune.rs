//! Finds the fastest candidate by timing each of them. Selection's table knows kinds of devices; tuning measures the
//! device at hand.

use std::time::Duration;

use crate::host::inputs::{Buffers, Inputs};
use crate::host::run::{RunError, fit_buffers, refusals_as_errors, submit_and_wait};
use crate::kernel::variant::Variant;
use crate::plan::Attention;
use crate::problem::Problem;
use crate::problem::block_mask::BlockMask;
use crate::problem::operand::Operand;
use crate::record::call::Call;

/// How long each candidate ran, fastest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Never empty.
    rows: Vec<(Variant, Duration)>,
}

impl Tuning {
    /// The fastest candidate. Its `Display` is the text to store, which [`Attention::named`](crate::Attention::named)
    /// reads.
    pub fn best(&self) -> &Variant {
        &self.rows[0].0
    }

    /// Every candidate with the median of its runs, fastest first.
    pub fn rows(&self) -> &[(Variant, Duration)] {
        &self.rows
    }
}

/// The runs of one candidate end at whichever limit comes first. Both give enough runs for a median without a long
/// wait.
const LONG_ENOUGH: Duration = Duration::from_millis(200);
const MOST_RUNS: usize = 20;

/// **Blocks and submits.** Runs and times every candidate for `problem` on buffers that it fills itself: small numbers,
/// masks that hide nothing, full lengths. Only the problem itself hides keys. `aux` is filled too, so a `mask_mod` that
/// reads it is timed on a different mask than yours.
///
/// A time is the wall-clock time of one submission and the wait for it. It includes the driver's time for both, which
/// can hide small differences. Each candidate is compiled, runs once unmeasured, and then runs up to twenty times or
/// for a fifth of a second. Leave the device otherwise idle.
///
/// Tune once per device, driver and problem, with the lengths that you run, and store the name of the best variant:
///
/// ```
/// use wgpu_attention::{Attention, Problem, Shape, blocking};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
/// # let attention = Attention::new(&device);
/// let problem = Problem::builder(Shape::new(1, 8, 100, 64)).build()?;
/// let stored = blocking::tune(&attention, &queue, &problem)?.best().to_string();
///
/// // In a later run. It is an error if the name is no longer that of a candidate; then tune again.
/// let plan = attention.plan_variant(&problem, &attention.named(&problem, &stored)?)?;
/// # assert_eq!(plan.variant().to_string(), stored);
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`RunError`], even if only one of the candidates cannot be planned.
pub fn tune(attention: &Attention, queue: &wgpu::Queue, problem: &Problem) -> Result<Tuning, RunError> {
    let device = attention.device();
    let candidates = attention.candidates(problem)?;
    fit_buffers(device, problem)?;
    let mut rows = refusals_as_errors(device, || {
        let buffers = synthetic(device, problem)?;
        let timed = candidates.into_iter().map(|variant| {
            let call = attention.plan_variant(problem, &variant)?.bind(&buffers.operands())?;
            Ok((variant, median(|| time(device, queue, &call))?))
        });
        timed.collect::<Result<Vec<_>, RunError>>()
    })?;
    rows.sort_by_key(|(_, duration)| *duration);
    Ok(Tuning { rows })
}

/// Operands on which no kernel can skip work: no zeros, and nothing masked except by the problem itself.
fn synthetic(device: &wgpu::Device, problem: &Problem) -> Result<Buffers, RunError> {
    let length = |operand| problem.view(operand).map_or(0, |view| usize::try_from(view.end()).unwrap_or(usize::MAX));
    let elements =
        [Operand::Q, Operand::K, Operand::V, Operand::Bias, Operand::AlibiSlopes, Operand::Sinks, Operand::Aux];
    // A prime period, so that neighbouring rows and heads differ.
    let period = (0..61_u8).map(|n| f32::from(n) / 61.0 - 0.49);
    let numbers: Vec<f32> = period.cycle().take(elements.map(length).into_iter().max().unwrap_or(0)).collect();
    // Any word is a scale and numbers, but it must not be NaN as a scale.
    let words: Vec<u32> = numbers.iter().map(|x| x.to_bits()).collect();
    let attend = vec![true; length(Operand::Mask)];
    let whole = vec![problem.shape().len_kv; length(Operand::KvLengths)];
    let queries = vec![problem.shape().len_q; length(Operand::QLengths)];
    let evenly = |operand, total: u32| {
        let (bounds, steps) = (length(operand), problem.shape().batch.max(1));
        let bound = |n: usize| u32::try_from(n as u64 * u64::from(total) / u64::from(steps)).unwrap_or(total);
        (0..bounds).map(bound).collect::<Vec<u32>>()
    };
    let total = |operand| problem.view(operand).map_or(0, |view| view.extent[2]);
    let (bounds_q, bounds_k) =
        (evenly(Operand::CuSeqlensQ, total(Operand::Q)), evenly(Operand::CuSeqlensK, total(Operand::K)));
    let pages = problem.pages().map_or(1, |pages| pages.count.max(1));
    let table: Vec<u32> = (0..pages).cycle().take(length(Operand::BlockTable)).collect();
    let partial = vec![BlockMask::SEEN | BlockMask::HIDDEN; length(Operand::BlockMask)];
    let inputs = Inputs {
        q: &numbers[..length(Operand::Q)],
        k_words: problem.quantization().map(|_| &words[..length(Operand::K)]),
        v_words: problem.quantization().map(|_| &words[..length(Operand::V)]),
        k: &numbers[..length(Operand::K)],
        v: &numbers[..length(Operand::V)],
        mask: problem.uses(Operand::Mask).then_some(&attend),
        bias: problem.uses(Operand::Bias).then_some(&numbers[..length(Operand::Bias)]),
        kv_lengths: problem.uses(Operand::KvLengths).then_some(&whole),
        q_lengths: problem.uses(Operand::QLengths).then_some(&queries),
        cu_seqlens_q: problem.uses(Operand::CuSeqlensQ).then_some(&bounds_q),
        cu_seqlens_k: problem.uses(Operand::CuSeqlensK).then_some(&bounds_k),
        block_table: problem.uses(Operand::BlockTable).then_some(&table),
        alibi_slopes: problem.uses(Operand::AlibiSlopes).then_some(&numbers[..length(Operand::AlibiSlopes)]),
        sinks: problem.uses(Operand::Sinks).then_some(&numbers[..length(Operand::Sinks)]),
        aux: problem.uses(Operand::Aux).then_some(&numbers[..length(Operand::Aux)]),
        block_mask: problem.uses(Operand::BlockMask).then_some(&partial),
    };
    Ok(inputs.upload(device, problem)?)
}

/// The median of the times that `run` returns, after one run that does not count.
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

/// The time of one submission. It does not include recording, since an app records among its own commands.
fn time(device: &wgpu::Device, queue: &wgpu::Queue, call: &Call) -> Result<Duration, RunError> {
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    call.encode(&mut encoder);
    submit_and_wait(device, queue, encoder.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of timed runs if each takes so long, and the median. The first run takes longest.
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
