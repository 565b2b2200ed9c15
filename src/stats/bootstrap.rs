//! Bootstrap confidence interval of a median.
//!
//! Percentile intervals, not BCa: BCa takes its acceleration from the jackknife, which for a median does not converge
//! with more samples. The coverage tests below and in [`super::ratio`] hold without BCa.

use super::describe::{quantile_of_sorted, sorted};
use super::interval::Interval;
use super::random::beta;
use super::rng::Rng;

/// Number of resamples for every interval the program prints.
pub const RESAMPLES: usize = 10_000;

/// Largest sample count for which a resample is drawn one by one. Above it, only the median is drawn.
const DRAWN_ONE_BY_ONE: usize = 64;

/// Percentile bootstrap interval of the median at `confidence` (0.95 for 95 %).
///
/// Draws `resamples` resamples with replacement, each as large as `samples`, from the stream of `seed`. The bounds
/// are quantiles (type 7) of their medians. `None` with fewer than two samples, a non-finite sample, no resamples, or
/// a confidence not strictly between 0 and 1.
pub fn median_interval(samples: &[f64], confidence: f64, resamples: usize, seed: u64) -> Option<Interval> {
    if samples.len() < 2 {
        return None;
    }
    let mut medians = ResampledMedian::of(samples)?;
    let mut rng = Rng::new(seed);
    percentile_bounds((0..resamples).map(|_| medians.draw(&mut rng)).collect(), confidence)
}

/// Returns the quantiles (type 7) that leave `(1 − confidence) / 2` of the drawn values on either side.
pub(super) fn percentile_bounds(mut drawn: Vec<f64>, confidence: f64) -> Option<Interval> {
    if drawn.is_empty() || !(confidence > 0.0 && confidence < 1.0) {
        return None;
    }
    drawn.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - confidence) / 2.0;
    Some(Interval { low: quantile_of_sorted(&drawn, tail), high: quantile_of_sorted(&drawn, 1.0 - tail) })
}

/// Draws medians of resamples of one set of samples.
pub(super) struct ResampledMedian {
    /// Ascending.
    samples: Vec<f64>,
    /// Buffer for one resample.
    drawn: Vec<f64>,
}

impl ResampledMedian {
    /// Returns `None` without samples or with a non-finite one.
    pub(super) fn of(samples: &[f64]) -> Option<Self> {
        let samples = sorted(samples)?;
        Some(Self { drawn: vec![0.0; samples.len()], samples })
    }

    /// Returns the median of one resample.
    ///
    /// A resample picks indices by uniform numbers, so its median lies at the index of their median. That order
    /// statistic is beta distributed, so a draw costs the same for any number of samples.
    pub(super) fn draw(&mut self, rng: &mut Rng) -> f64 {
        let n = self.samples.len();
        if n <= DRAWN_ONE_BY_ONE {
            let samples = &self.samples;
            self.drawn.fill_with(|| samples[rng.below(n as u64) as usize]);
            return median_in_place(&mut self.drawn);
        }
        let at = |u: f64| self.samples[((u * n as f64) as usize).min(n - 1)];
        let below_middle = n.div_ceil(2);
        let low = beta(below_middle as f64, (n + 1 - below_middle) as f64, rng);
        if n % 2 == 1 {
            return at(low);
        }
        // The next order statistic is the minimum of the remaining half, which is uniform above the lower middle.
        let next = 1.0 - (1.0 - low) * (1.0 - rng.unit_f64()).powf(2.0 / n as f64);
        0.5 * (at(low) + at(next))
    }
}

/// Returns the median by selection: linear time, instead of sorting each resample.
pub(super) fn median_in_place(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    let odd = values.len() % 2 == 1;
    let (below, &mut high, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    if odd {
        return high;
    }
    let low = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    low + 0.5 * (high - low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Rng;
    use crate::stats::fixtures::{assert_close, f64s, fixtures};
    use proptest::prelude::*;

    #[test]
    fn agrees_with_the_same_draws_in_numpy_and_with_scipy() {
        for case in fixtures()["bootstrap"].as_array().unwrap() {
            let samples = f64s(&case["samples"]);
            let seed = case["seed"].as_u64().unwrap();
            let Interval { low, high } = median_interval(&samples, 0.95, RESAMPLES, seed).unwrap();
            assert_close(Some(low), &case["low"], 1e-14);
            assert_close(Some(high), &case["high"], 1e-14);
            // SciPy draws from another stream, so its bounds are close but not equal.
            let slack = 0.15 * (high - low);
            assert!((low - case["scipy_low"].as_f64().unwrap()).abs() <= slack);
            assert!((high - case["scipy_high"].as_f64().unwrap()).abs() <= slack);
        }
    }

    #[test]
    fn drawing_only_the_middle_is_drawing_all() {
        let mut rng = Rng::new(9);
        for n in [65, 100, 501] {
            let samples: Vec<f64> = (0..n).map(|_| rng.unit_f64()).collect();
            let mut medians = ResampledMedian::of(&samples).unwrap();
            let one_by_one = |rng: &mut Rng| {
                let mut drawn: Vec<f64> = (0..n).map(|_| samples[rng.below(n) as usize]).collect();
                median_in_place(&mut drawn)
            };
            let draws = 4000;
            let short: Vec<f64> = (0..draws).map(|_| medians.draw(&mut rng)).collect();
            let long: Vec<f64> = (0..draws).map(|_| one_by_one(&mut rng)).collect();
            // Two-sample Kolmogorov–Smirnov at 0.1 %.
            let mut all: Vec<f64> = short.iter().chain(&long).copied().collect();
            all.sort_by(f64::total_cmp);
            let share = |of: &[f64], x: f64| of.iter().filter(|y| **y <= x).count() as f64 / f64::from(draws);
            let apart = all.iter().step_by(40).map(|&x| (share(&short, x) - share(&long, x)).abs());
            let apart = apart.fold(0.0, f64::max);
            assert!(apart < 1.95 * (2.0 / f64::from(draws)).sqrt(), "{n} samples: {apart}");
        }
    }

    #[test]
    fn too_little_to_draw_from_is_none() {
        assert_eq!(median_interval(&[1.0], 0.95, RESAMPLES, 0), None);
        assert_eq!(median_interval(&[1.0, f64::NAN], 0.95, RESAMPLES, 0), None);
        assert_eq!(median_interval(&[1.0, 2.0], 0.95, 0, 0), None);
        assert_eq!(median_interval(&[1.0, 2.0], 0.0, RESAMPLES, 0), None);
    }

    proptest! {
        #[test]
        fn lies_within_the_samples_in_any_order(
            mut samples in prop::collection::vec(0.0f64..1e9, 2..20), seed: u64,
        ) {
            let interval = median_interval(&samples, 0.95, 200, seed).unwrap();
            samples.reverse();
            prop_assert_eq!(interval, median_interval(&samples, 0.95, 200, seed).unwrap());
            let least = samples.iter().copied().fold(f64::INFINITY, f64::min);
            let most = samples.iter().copied().fold(0.0, f64::max);
            prop_assert!(least <= interval.low && interval.low <= interval.high && interval.high <= most);
        }
    }
}
