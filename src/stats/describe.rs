//! Centre, spread and quantiles.

/// Returns the samples in ascending order. `None` if there are none or one is not finite.
pub(super) fn sorted(samples: &[f64]) -> Option<Vec<f64>> {
    if samples.is_empty() || samples.iter().any(|x| !x.is_finite()) {
        return None;
    }
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    Some(sorted)
}

/// Returns a quantile by Hyndman and Fan's type 7. `sorted` is ascending and not empty.
pub(super) fn quantile_of_sorted(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let below = position.floor();
    let low = sorted[below as usize];
    let high = sorted[position.ceil() as usize];
    low + (position - below) * (high - low)
}

/// Returns the `q`-quantile (`0 ..= 1`) by Hyndman and Fan's type 7: linear between order statistics, the default of
/// R, NumPy and Excel.
pub fn quantile(samples: &[f64], q: f64) -> Option<f64> {
    (0.0..=1.0).contains(&q).then(|| sorted(samples).map(|s| quantile_of_sorted(&s, q)))?
}

/// The middle sample, or the mean of the middle two.
pub fn median(samples: &[f64]) -> Option<f64> {
    quantile(samples, 0.5)
}

/// Median absolute deviation from the median, in the samples' unit. Not scaled to a standard deviation.
pub fn mad(samples: &[f64]) -> Option<f64> {
    let centre = median(samples)?;
    median(&samples.iter().map(|x| (x - centre).abs()).collect::<Vec<_>>())
}

/// Arithmetic mean.
pub fn mean(samples: &[f64]) -> Option<f64> {
    let finite = !samples.is_empty() && samples.iter().all(|x| x.is_finite());
    finite.then(|| samples.iter().sum::<f64>() / samples.len() as f64)
}

/// Sample standard deviation (divisor n − 1). Needs at least two samples.
pub fn stddev(samples: &[f64]) -> Option<f64> {
    let centre = mean(samples)?;
    let squares: f64 = samples.iter().map(|x| (x - centre).powi(2)).sum();
    (samples.len() > 1).then(|| (squares / (samples.len() - 1) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixtures::{assert_close, f64s, fixtures};
    use proptest::prelude::*;

    #[test]
    fn agrees_with_numpy_and_scipy() {
        for case in fixtures()["describe"].as_array().unwrap() {
            let samples = f64s(&case["samples"]);
            assert_close(median(&samples), &case["median"], 1e-15);
            assert_close(mad(&samples), &case["mad"], 1e-15);
            assert_close(mean(&samples), &case["mean"], 1e-14);
            assert_close(stddev(&samples), &case["stddev"], 1e-13);
            for (q, want) in [(0.0, "q0"), (0.1, "q10"), (0.9, "q90"), (0.99, "q99"), (1.0, "q100")] {
                assert_close(quantile(&samples, q), &case[want], 1e-14);
            }
        }
    }

    #[test]
    fn what_cannot_be_had_is_none() {
        assert_eq!(median(&[]), None);
        assert_eq!(mean(&[]), None);
        assert_eq!(stddev(&[1.0]), None);
        assert_eq!(mean(&[f64::NAN]), None);
        assert_eq!(quantile(&[1.0, f64::INFINITY], 0.5), None);
        assert_eq!(quantile(&[1.0], 1.5), None);
        assert_eq!(quantile(&[1.0], f64::NAN), None);
    }

    proptest! {
        #[test]
        fn quantiles_rise_and_stay_within_the_samples(
            samples in prop::collection::vec(-1e12f64..1e12, 1..40), a in 0.0..=1.0f64, b in 0.0..=1.0f64,
        ) {
            let (low, high) = (a.min(b), a.max(b));
            let at = |q| quantile(&samples, q).unwrap();
            prop_assert!(at(0.0) <= at(low) && at(low) <= at(high) && at(high) <= at(1.0));
            prop_assert_eq!(at(0.0), samples.iter().copied().fold(f64::INFINITY, f64::min));
        }
    }
}
