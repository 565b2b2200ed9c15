//! Ratio of the medians of two sets of times, with its confidence interval.
//!
//! The interval covers variation within the two sets only. [`super::Shift`] covers what placing both anew adds.

use super::bootstrap::{ResampledMedian, percentile_bounds};
use super::describe::median;
use super::interval::Interval;
use super::rng::Rng;

/// The ratio of two medians (second over first) with its intervals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MedianRatio {
    /// Median of the second over median of the first.
    pub ratio: f64,
    /// 95 % percentile bootstrap interval.
    pub interval: Interval,
    /// 90 % interval, which gives two one-sided tests at 5 % each (D. J. Schuirmann, J. Pharmacokin. Biopharm. 15,
    /// 1987).
    pub equivalence_interval: Interval,
}

/// Bootstraps the ratio of medians of two independent sets of times. `None` with fewer than two samples a side, a
/// sample that is not finite and positive, or no resamples.
pub fn ratio_of_medians(a: &[f64], b: &[f64], resamples: usize, seed: u64) -> Option<MedianRatio> {
    if a.len() < 2 || b.len() < 2 || !a.iter().chain(b).all(|x| *x > 0.0) {
        return None;
    }
    let (mut first, mut second) = (ResampledMedian::of(a)?, ResampledMedian::of(b)?);
    let mut rng = Rng::new(seed);
    let drawn = (0..resamples).map(|_| {
        let below = first.draw(&mut rng);
        second.draw(&mut rng) / below
    });
    summed_up(a, b, drawn.collect())
}

fn summed_up(a: &[f64], b: &[f64], drawn: Vec<f64>) -> Option<MedianRatio> {
    Some(MedianRatio {
        ratio: median(b)? / median(a)?,
        interval: percentile_bounds(drawn.clone(), 0.95)?,
        equivalence_interval: percentile_bounds(drawn, 0.90)?,
    })
}

/// Geometric mean of ratios. `None` without any, or with one that is not finite and positive.
///
/// It weighs every case equally, regardless of its time or importance. A report that prints it says so.
pub fn geometric_mean(ratios: &[f64]) -> Option<f64> {
    let usable = !ratios.is_empty() && ratios.iter().all(|r| r.is_finite() && *r > 0.0);
    usable.then(|| (ratios.iter().map(|r| r.ln()).sum::<f64>() / ratios.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::RESAMPLES;
    use crate::stats::Rng;
    use crate::stats::fixtures::{assert_close, f64s, fixtures};
    use crate::stats::random::normal;
    use proptest::prelude::*;

    /// Simulated times: log-normal, with an occasional repetition slowed by something else.
    fn times(n: usize, centre: f64, spread: f64, rng: &mut Rng) -> Vec<f64> {
        let one = |rng: &mut Rng| {
            let hit = if rng.unit_f64() < 0.05 { 1.0 + 3.0 * spread } else { 1.0 };
            centre * (spread * normal(rng)).exp() * hit
        };
        (0..n).map(|_| one(rng)).collect()
    }

    #[test]
    fn agrees_with_the_same_draws_in_numpy_and_decides_as_statsmodels() {
        for case in fixtures()["ratio"].as_array().unwrap() {
            let (a, b) = (f64s(&case["a"]), f64s(&case["b"]));
            let found = ratio_of_medians(&a, &b, RESAMPLES, case["seed"].as_u64().unwrap()).unwrap();
            assert_close(Some(found.ratio), &case["ratio"], 1e-14);
            for (found, wanted) in [
                (found.interval.low, "low"),
                (found.interval.high, "high"),
                (found.equivalence_interval.low, "equivalence_low"),
                (found.equivalence_interval.high, "equivalence_high"),
            ] {
                assert_close(Some(found), &case[wanted], 1e-13);
            }
            // Schuirmann's tests by Welch's t on the logarithms, at 5 % each.
            let same = case["ttost_p"].as_f64().unwrap() < 0.05;
            let Interval { low, high } = found.equivalence_interval;
            assert_eq!(1.0 / 1.03 <= low && high <= 1.03, same, "{case}");
        }
    }

    #[test]
    fn ninety_five_percent_intervals_cover_ninety_five_percent() {
        let mut rng = Rng::new(30);
        // With five, the fewest that get a verdict, coverage is 97.0 %: a median of five has few values to resample
        // to.
        for n in [6, 7, 10, 20, 65] {
            let simulations = 3000;
            let covered = (0..simulations).filter(|&seed| {
                // Both sides have one distribution up to scale, so the true ratio of medians is the planted one.
                let (a, b) = (times(n, 1.0, 0.05, &mut rng), times(n, 1.1, 0.05, &mut rng));
                ratio_of_medians(&a, &b, 400, seed).unwrap().interval.contains(1.1)
            });
            let coverage = covered.count() as f64 / simulations as f64;
            assert!((0.93..=0.97).contains(&coverage), "{n} samples: {coverage}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_none() {
        assert_eq!(ratio_of_medians(&[1.0], &[1.0, 2.0], 100, 1), None);
        assert_eq!(ratio_of_medians(&[1.0, 0.0], &[1.0, 2.0], 100, 1), None);
        assert_eq!(ratio_of_medians(&[1.0, f64::NAN], &[1.0, 2.0], 100, 1), None);
        assert_eq!(ratio_of_medians(&[1.0, 2.0], &[1.0, 2.0], 0, 1), None);
        assert_eq!(geometric_mean(&[]), None);
        assert_eq!(geometric_mean(&[1.0, 0.0]), None);
        assert!((geometric_mean(&[0.5, 2.0]).unwrap() - 1.0).abs() < 1e-15);
    }

    proptest! {
        #[test]
        fn the_unit_does_not_matter(
            a in prop::collection::vec(1.0f64..2.0, 2..12), b in prop::collection::vec(1.0f64..2.0, 2..12), seed: u64,
        ) {
            let found = ratio_of_medians(&a, &b, 200, seed).unwrap();
            let scaled = |x: &[f64]| x.iter().map(|x| x * 1024.0).collect::<Vec<_>>();
            prop_assert_eq!(found, ratio_of_medians(&scaled(&a), &scaled(&b), 200, seed).unwrap());
            prop_assert!(found.interval.low <= found.equivalence_interval.low);
            prop_assert!(found.equivalence_interval.high <= found.interval.high);
        }
    }
}
