//! Exact tests of a success count against a success probability.

use statrs::distribution::{Binomial, Discrete, DiscreteCDF};

/// Relative tolerance for "as likely as the observed count", because of rounding. The factor of R's `binom.test`.
const AS_LIKELY: f64 = 1.0 + 1e-7;

/// Exact two-sided binomial test: the probability of a count no likelier than `successes`, if each of `n` trials
/// succeeds with probability `share`.
///
/// Uses the method of small probabilities, as `scipy.stats.binomtest` and R's `binom.test` do. `None` if `successes >
/// n` or `share` is not a probability.
pub fn binomial_exact(successes: u64, n: u64, share: f64) -> Option<f64> {
    let trials = binomial(successes, n, share)?;
    let found = trials.pmf(successes) * AS_LIKELY;
    let unlikely = (0..=n).map(|count| trials.pmf(count)).filter(|p| *p <= found);
    Some(unlikely.sum::<f64>().min(1.0))
}

/// Returns the probability of `successes` or more, if each of `n` trials succeeds with probability `share`. `None` as
/// for [`binomial_exact`].
pub fn binomial_at_least(successes: u64, n: u64, share: f64) -> Option<f64> {
    let trials = binomial(successes, n, share)?;
    Some(successes.checked_sub(1).map_or(1.0, |below| trials.sf(below)))
}

fn binomial(successes: u64, n: u64, share: f64) -> Option<Binomial> {
    Binomial::new(share, n).ok().filter(|_| successes <= n)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values come from exact rational arithmetic over the binomial coefficients.
    #[test]
    fn agrees_with_exact_arithmetic() {
        let published = 719.0 / 1346.0;
        for (successes, n, share, p) in [
            (719, 1346, published, 1.0),
            (721, 1346, published, 0.934_680_527_015_324_3),
            (683, 1346, published, 0.052_365_551_594_983_99),
            (682, 1346, published, 0.046_065_346_939_046_87),
            (755, 1346, published, 0.049_212_097_251_908_48),
            (650, 1346, published, 1.797_415_266_437_351_9e-4),
            (3, 10, 0.25, 0.718_432_426_452_636_7),
            (0, 5, 0.5, 0.0625),
            (10, 10, 0.9, 0.612_579_511),
            (0, 7, 0.0, 1.0),
        ] {
            let found = binomial_exact(successes, n, share).unwrap();
            assert!((found / p - 1.0).abs() < 1e-8, "{successes} of {n}: {found}, not {p}");
        }
        for (successes, n, share, p) in [
            (58, 60, 0.5, 1.588_139_342_256_766_9e-15),
            (4, 4, 0.75, 0.316_406_25),
            (3, 10, 0.25, 0.474_407_196_044_921_9),
            (0, 5, 0.5, 1.0),
            (5, 5, 1.0, 1.0),
        ] {
            let found = binomial_at_least(successes, n, share).unwrap();
            assert!((found / p - 1.0).abs() < 1e-8, "{successes} of {n}: {found}, not {p}");
        }
    }

    #[test]
    fn no_share_no_probability() {
        assert_eq!(binomial_exact(3, 2, 0.5), None);
        assert_eq!(binomial_exact(1, 2, 1.5), None);
        assert_eq!(binomial_at_least(1, 2, f64::NAN), None);
        assert_eq!(binomial_exact(0, 0, 0.5), Some(1.0));
    }
}
