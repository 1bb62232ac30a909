//! Repeated measurements, and the one figure they give.

use std::time::{Duration, Instant};

use anyhow::Result;

/// Seconds, sorted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Samples(Vec<f64>);

/// How often a measurement is repeated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    warm_up: usize,
    least: usize,
    most: usize,
    /// After `least` repeats, no new one starts once this much time has passed.
    enough: Duration,
}

/// Runs longer than this are repeated less, because they vary less than short ones.
const LONG: Duration = Duration::from_secs(1);
const LEAST_LONG: usize = 3;

impl Effort {
    /// For a run on the device.
    pub(crate) const RUN: Self = Self { warm_up: 2, least: 7, most: 31, enough: Duration::from_millis(200) };
    /// As other projects are measured: the median of 7 runs after 2 warm-up runs.
    pub(crate) const WALL: Self = Self { warm_up: 2, least: 7, most: 7, enough: Duration::ZERO };
    /// With cold caches, where each run is preceded by one that fills them.
    pub(crate) const COLD: Self = Self { warm_up: 0, least: 7, most: 7, enough: Duration::ZERO };
    /// For what the host does.
    pub(crate) const HOST: Self = Self { warm_up: 2, least: 15, most: 101, enough: Duration::from_millis(20) };
    /// For the limits, which are measured again and again.
    pub(crate) const LIMIT: Self = Self { warm_up: 0, least: 3, most: 3, enough: Duration::ZERO };
}

impl Samples {
    /// Repeats `once`, which returns how many seconds it took.
    pub(crate) fn of(effort: Effort, mut once: impl FnMut() -> Result<f64>) -> Result<Self> {
        let Effort { warm_up, least, most, enough } = effort;
        let start = Instant::now();
        let mut least = least;
        for _ in 0..warm_up {
            let start = Instant::now();
            once()?;
            if start.elapsed() > LONG {
                least = least.min(LEAST_LONG);
                break;
            }
        }
        let mut seconds = Vec::new();
        while seconds.len() < least || seconds.len() < most && start.elapsed() < enough {
            seconds.push(once()?);
        }
        Ok(Self::from(seconds))
    }

    /// Times `once` on the host.
    pub(crate) fn timed(effort: Effort, mut once: impl FnMut() -> Result<()>) -> Result<Self> {
        Self::of(effort, || {
            let start = Instant::now();
            once()?;
            Ok(start.elapsed().as_secs_f64())
        })
    }

    /// The samples of both.
    pub(crate) fn and(&self, other: &Self) -> Self {
        Self::from([self.0.as_slice(), &other.0].concat())
    }

    pub(crate) fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        match self.0.len() {
            0 => 0.0,
            even if even.is_multiple_of(2) => f64::midpoint(self.0[middle - 1], self.0[middle]),
            _ => self.0[middle],
        }
    }

    pub(crate) fn min(&self) -> f64 {
        self.0.first().copied().unwrap_or_default()
    }

    pub(crate) fn max(&self) -> f64 {
        self.0.last().copied().unwrap_or_default()
    }
}

impl From<Vec<f64>> for Samples {
    fn from(mut seconds: Vec<f64>) -> Self {
        seconds.sort_unstable_by(f64::total_cmp);
        Self(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Samples::from(vec![3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Samples::from(vec![4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert_eq!(Samples::from(vec![1.0]).and(&Samples::from(vec![5.0, 3.0])), Samples::from(vec![5.0, 3.0, 1.0]));
        assert_eq!(Samples::default().median(), 0.0);
    }

    #[test]
    fn warm_up_is_not_counted() {
        let mut count = 0;
        let samples = Samples::of(Effort::WALL, || {
            count += 1;
            Ok(f64::from(count))
        });
        let samples = samples.expect("nothing that fails");
        assert_eq!((count, samples.min(), samples.max()), (9, 3.0, 9.0));
    }
}
