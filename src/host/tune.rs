//! Finds the fastest candidate by timing each of them. Selection's table knows kinds of devices; tuning measures the
//! device at hand.

use std::time::Duration;

use crate::host::inputs::{Buffers, Inputs};
use crate::host::run::{RunError, fit_buffers, refusals_as_errors};
use crate::host::stopwatch::{Elapsed, Stopwatch};
use crate::kernel::variant::Variant;
use crate::plan::Attention;
use crate::problem::Problem;
use crate::problem::block_mask::BlockMask;
use crate::problem::dropout::Philox;
use crate::problem::operand::Operand;

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

/// **Submits.** Runs and times every candidate for `problem` on buffers that it fills itself: small numbers, masks that
/// hide nothing, full lengths. Only the problem itself hides keys. `aux` is filled too, so a `mask_mod` that reads it is
/// timed on a different mask than yours.
///
/// Each candidate is compiled, runs once unmeasured, and then runs up to twenty times or for a fifth of a second.
/// Candidates are compared by the median of their runs.
///
/// # How a run is timed
///
/// If the device has [`Features::TIMESTAMP_QUERY`](wgpu::Features::TIMESTAMP_QUERY), a time is what the device itself
/// measures. Otherwise, or if the timestamps of one candidate cannot be right, all times are by the clock: from the
/// submission until its end is noticed. That includes the driver's time for both, which can hide small differences. A
/// program that polls its device once per frame notices the end once per frame, so that all candidates seem as fast: it
/// should request the feature, or poll on a thread while it tunes. Browsers round timestamps to 0.1 ms, and what is faster
/// is timed by the clock.
///
/// Leave the device otherwise idle. What else it does meanwhile, such as drawing, makes times longer.
///
/// # In a frame loop
///
/// Each run is awaited before the next one is submitted. So a program that polls the future once per frame runs one
/// candidate once in each frame. The longest submission is one run of the slowest candidate. Natively, the future blocks
/// its thread while it fills the buffers, at its first poll, and while the driver compiles a candidate, at most one per
/// poll. To avoid that, plan the candidates on a thread beforehand: clones of `attention` share what they compile.
///
/// ```
/// use std::task::{Context, Poll, Waker};
/// use wgpu_attention::{Attention, Problem, Shape, submitting};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
/// # let attention = Attention::new(&device);
/// let problem = Problem::builder(Shape::new(1, 8, 100, 64)).build()?;
/// let mut tuning = std::pin::pin!(submitting::tune(&attention, &queue, &problem));
/// let stored = loop {
///     // … a frame of yours
///     device.poll(wgpu::PollType::Poll)?;
///     if let Poll::Ready(tuned) = tuning.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
///         break tuned?.best().to_string();
///     }
/// };
/// # assert_eq!(attention.named(&problem, &stored)?.to_string(), stored);
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`RunError`], even if only one of the candidates cannot be planned.
pub async fn tune(attention: &Attention, queue: &wgpu::Queue, problem: &Problem) -> Result<Tuning, RunError> {
    let device = attention.device();
    let candidates = attention.candidates(problem)?;
    fit_buffers(device, problem)?;
    let prepared = refusals_as_errors(device, || Ok((synthetic(device, problem)?, Stopwatch::new(device, queue))));
    let (buffers, stopwatch) = prepared.await?;
    let mut timed = Vec::new();
    for variant in candidates {
        let plan = refusals_as_errors(device, || Ok(attention.plan_variant(problem, &variant)?)).await?;
        plan.ready().await?;
        let call = refusals_as_errors(device, || Ok(plan.bind(&buffers.operands())?)).await?;
        // The first run is slower than those that follow.
        stopwatch.time(&call).await?;
        let mut runs = Runs::default();
        while !runs.are_enough() {
            runs.add(stopwatch.time(&call).await?);
        }
        timed.push((variant, runs));
    }
    Ok(Tuning { rows: sorted(timed) })
}

/// The candidates with the medians of their runs, fastest first. Times by the clock and by the device are not compared
/// with each other.
fn sorted(timed: Vec<(Variant, Runs)>) -> Vec<(Variant, Duration)> {
    let by_device: Option<Vec<Duration>> = timed.iter().map(|(_, runs)| runs.by_device()).collect();
    let times = by_device.unwrap_or_else(|| timed.iter().map(|(_, runs)| runs.by_clock()).collect());
    let mut rows: Vec<_> = timed.into_iter().map(|(variant, _)| variant).zip(times).collect();
    rows.sort_by_key(|(_, time)| *time);
    rows
}

/// The measured runs of one candidate.
#[derive(Debug, Default)]
struct Runs {
    runs: Vec<Elapsed>,
}

impl Runs {
    fn add(&mut self, run: Elapsed) {
        self.runs.push(run);
    }

    /// By the clock, since this bounds how long a tuning takes.
    fn are_enough(&self) -> bool {
        let spent: Duration = self.runs.iter().map(|run| run.by_clock).sum();
        spent >= LONG_ENOUGH || self.runs.len() >= MOST_RUNS
    }

    fn by_clock(&self) -> Duration {
        median(self.runs.iter().map(|run| run.by_clock).collect())
    }

    /// `None` if the device could not tell the time of every run.
    fn by_device(&self) -> Option<Duration> {
        self.runs.iter().map(|run| run.by_device).collect::<Option<_>>().map(median)
    }
}

/// The middle one of some times, of which there is at least one.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
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
    let total = |operand| problem.view(operand).map_or(0, |view| view.extent[2]);
    let [bounds_q, bounds_k] =
        [(Operand::CuSeqlensQ, Operand::Q), (Operand::CuSeqlensK, Operand::K)].map(|(bounds, of)| {
            let used = problem.uses(bounds).then(|| even_bounds(problem.shape().batch, total(of)));
            used.unwrap_or_default()
        });
    let table = in_turn(problem.pages().map_or(0, |pages| pages.count), length(Operand::BlockTable));
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
        rng_state: problem.uses(Operand::RngState).then(Philox::default),
        aux: problem.uses(Operand::Aux).then_some(&numbers[..length(Operand::Aux)]),
        block_mask: problem.uses(Operand::BlockMask).then_some(&partial),
        // Gradients and appending are not tuned.
        ..Inputs::default()
    };
    Ok(inputs.upload(device, problem)?)
}

/// Where each of so many sequences of nearly the same length begins, and where the last one ends.
fn even_bounds(sequences: u32, total: u32) -> Vec<u32> {
    let bound = |n: u32| u64::from(n) * u64::from(total) / u64::from(sequences.max(1));
    (0..=sequences).map(|n| u32::try_from(bound(n)).unwrap_or(total)).collect()
}

/// So many entries of a block table, with all pages in turn.
fn in_turn(pages: u32, entries: usize) -> Vec<u32> {
    (0..pages.max(1)).cycle().take(entries).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_nearly_as_long_and_have_all_pages() {
        assert_eq!(even_bounds(4, 10), [0, 2, 5, 7, 10]);
        assert_eq!(even_bounds(2, u32::MAX), [0, u32::MAX / 2, u32::MAX]);
        assert_eq!(even_bounds(0, 0), [0]);
        assert_eq!(in_turn(3, 5), [0, 1, 2, 0, 1]);
        assert_eq!(in_turn(0, 2), [0, 0]);
    }
    use crate::{Caps, Shape, candidates};

    fn by_clock(by_clock: Duration) -> Elapsed {
        Elapsed { by_clock, by_device: None }
    }

    fn runs(times: impl IntoIterator<Item = Elapsed>) -> Runs {
        Runs { runs: times.into_iter().collect() }
    }

    #[test]
    fn runs_are_timed_until_there_are_enough_or_it_is_long_enough() {
        for (each, wanted) in
            [(1_000, 20), (10_500, 20), (99_900, 3), (100_000, 2), (199_500, 2), (200_000, 1), (300_000, 1)]
        {
            let mut runs = Runs::default();
            while !runs.are_enough() {
                runs.add(by_clock(Duration::from_micros(each)));
            }
            assert_eq!(runs.runs.len(), wanted, "{each} µs");
        }
    }

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        let times = [70, 80, 60].map(Duration::from_millis);
        assert_eq!(runs(times.map(by_clock)).by_clock(), Duration::from_millis(70));
        let both = |time| Elapsed { by_clock: 3 * time, by_device: Some(time) };
        assert_eq!(runs(times.map(both)).by_device(), Some(Duration::from_millis(70)));
        assert_eq!(runs(times.map(both).into_iter().chain([by_clock(times[0])])).by_device(), None);
    }

    #[test]
    fn times_by_clock_and_by_device_are_not_compared() {
        let problem = Problem::builder(Shape::new(1, 8, 100, 64)).build().expect("is a problem");
        let [a, b] = &candidates(&problem, &Caps::from_limits(&wgpu::Limits::default())).expect("has candidates")[..2]
        else {
            unreachable!("a slice of two")
        };
        let run = |[clock, device]: [u64; 2]| Elapsed {
            by_clock: Duration::from_millis(clock),
            by_device: (device > 0).then(|| Duration::from_millis(device)),
        };
        let order = |times: [[u64; 2]; 2]| {
            let timed = [a, b].into_iter().zip(times).map(|(variant, time)| (variant.clone(), runs([run(time)])));
            sorted(timed.collect())
                .into_iter()
                .map(|(variant, time)| (variant == *a, time.as_millis()))
                .collect::<Vec<_>>()
        };
        assert_eq!(order([[9, 3], [8, 4]]), [(true, 3), (false, 4)]);
        assert_eq!(order([[9, 3], [8, 0]]), [(false, 8), (true, 9)]);
        assert_eq!(order([[8, 0], [9, 0]]), [(true, 8), (false, 9)]);
    }
}
