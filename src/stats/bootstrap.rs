//! How sure a median is, by drawing from the samples again.

use super::describe::{quantile_of_sorted, sorted};
use super::rng::Rng;

/// Resamples of every interval the program prints.
pub const RESAMPLES: usize = 10_000;

/// Percentile bootstrap interval of the median at `confidence` (0.95 for 95 %).
///
/// `resamples` times as many samples as there are, are drawn with replacement from the stream of `seed`; the
/// interval is between the quantiles (type 7) of their medians. `None` with fewer than two samples, a sample that
/// is not finite, no resamples, or a confidence not strictly between 0 and 1.
pub fn median_interval(samples: &[f64], confidence: f64, resamples: usize, seed: u64) -> Option<(f64, f64)> {
    if samples.len() < 2 || resamples == 0 || !(confidence > 0.0 && confidence < 1.0) {
        return None;
    }
    let samples = sorted(samples)?;
    let mut rng = Rng::new(seed);
    let mut drawn = vec![0.0; samples.len()];
    let mut medians: Vec<f64> = (0..resamples)
        .map(|_| {
            drawn.fill_with(|| samples[rng.below(samples.len() as u64) as usize]);
            median_in_place(&mut drawn)
        })
        .collect();
    medians.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - confidence) / 2.0;
    Some((quantile_of_sorted(&medians, tail), quantile_of_sorted(&medians, 1.0 - tail)))
}

/// The median by selection, which is linear where sorting each resample would not be.
fn median_in_place(values: &mut [f64]) -> f64 {
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
    use crate::stats::fixtures::{assert_close, f64s, fixtures};
    use proptest::prelude::*;

    #[test]
    fn agrees_with_the_same_draws_in_numpy_and_with_scipy() {
        for case in fixtures()["bootstrap"].as_array().unwrap() {
            let samples = f64s(&case["samples"]);
            let seed = case["seed"].as_u64().unwrap();
            let (low, high) = median_interval(&samples, 0.95, RESAMPLES, seed).unwrap();
            assert_close(Some(low), &case["low"], 1e-14);
            assert_close(Some(high), &case["high"], 1e-14);
            // SciPy draws from another stream: near, not equal.
            let slack = 0.15 * (high - low);
            assert!((low - case["scipy_low"].as_f64().unwrap()).abs() <= slack);
            assert!((high - case["scipy_high"].as_f64().unwrap()).abs() <= slack);
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
            prop_assert!(least <= interval.0 && interval.0 <= interval.1 && interval.1 <= most);
        }
    }
}
