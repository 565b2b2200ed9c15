//! Confidence interval and standard error of a proportion.

use super::interval::Interval;
use statrs::distribution::{ContinuousCDF, Normal};

/// Wilson's score interval of a proportion: `successes` of `n` trials at `confidence` (0.95 for 95 %).
///
/// E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927), without
/// continuity correction. `None` with no trials, more successes than trials, or a confidence not strictly between 0
/// and 1.
pub fn wilson(successes: u64, n: u64, confidence: f64) -> Option<Interval> {
    if n == 0 || successes > n || !(confidence > 0.0 && confidence < 1.0) {
        return None;
    }
    let z = Normal::standard().inverse_cdf(0.5 + confidence / 2.0);
    let (n_f, share) = (n as f64, successes as f64 / n as f64);
    let shrink = 1.0 + z * z / n_f;
    let centre = (share + z * z / (2.0 * n_f)) / shrink;
    let half = z / shrink * (share * (1.0 - share) / n_f + z * z / (4.0 * n_f * n_f)).sqrt();
    // At the ends the formula gives 0 and 1 only up to rounding.
    let low = if successes == 0 { 0.0 } else { (centre - half).max(0.0) };
    let high = if successes == n { 1.0 } else { (centre + half).min(1.0) };
    Some(Interval { low, high })
}

/// Standard error of a proportion, √(p(1−p)/n).
pub fn standard_error(successes: u64, n: u64) -> Option<f64> {
    let share = successes as f64 / n as f64;
    (n > 0 && successes <= n).then(|| (share * (1.0 - share) / n as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixtures::{assert_close, fixtures};
    use proptest::prelude::*;

    #[test]
    fn agrees_with_statsmodels() {
        for case in fixtures()["wilson"].as_array().unwrap() {
            let (k, n) = (case["successes"].as_u64().unwrap(), case["n"].as_u64().unwrap());
            let interval = wilson(k, n, case["confidence"].as_f64().unwrap());
            assert_close(interval.map(|i| i.low), &case["low"], 1e-9);
            assert_close(interval.map(|i| i.high), &case["high"], 1e-9);
        }
    }

    #[test]
    fn the_published_c_eval_score_has_the_known_standard_error() {
        let error = standard_error(721, 1346).unwrap();
        assert!((error - 0.0136).abs() < 5e-5, "{error}");
    }

    #[test]
    fn no_trials_no_interval() {
        assert_eq!(wilson(0, 0, 0.95), None);
        assert_eq!(wilson(3, 2, 0.95), None);
        assert_eq!(wilson(1, 2, 1.0), None);
        assert_eq!(wilson(1, 2, f64::NAN), None);
        assert_eq!(standard_error(0, 0), None);
    }

    proptest! {
        #[test]
        fn holds_the_share_and_widens_with_confidence(n in 1u64..5000, k in 0u64..5000) {
            let k = k % (n + 1);
            let Interval { low, high } = wilson(k, n, 0.95).unwrap();
            let share = k as f64 / n as f64;
            prop_assert!(0.0 <= low && low <= share && share <= high && high <= 1.0);
            let wider = wilson(k, n, 0.99).unwrap();
            prop_assert!(wider.contains(low) && wider.contains(high));
        }
    }
}
