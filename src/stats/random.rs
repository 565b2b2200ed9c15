//! Draws from the distributions that resampling needs, all from the crate's own stream.

use super::rng::Rng;

/// Expected successes below which a binomial draw uses inversion.
const INVERSION_BELOW: f64 = 10.0;

/// Draws a standard normal number by Marsaglia's polar method (1964). Discards the second number, so that a draw
/// depends on the stream alone.
pub(super) fn normal(rng: &mut Rng) -> f64 {
    loop {
        let (x, y) = (2.0 * rng.unit_f64() - 1.0, 2.0 * rng.unit_f64() - 1.0);
        let square = x * x + y * y;
        if square > 0.0 && square < 1.0 {
            return x * (-2.0 * square.ln() / square).sqrt();
        }
    }
}

/// Draws a gamma number with `shape` ≥ 1 and scale 1: G. Marsaglia and W. W. Tsang, "A simple method for generating
/// gamma variables", ACM TOMS 26 (2000).
fn gamma(shape: f64, rng: &mut Rng) -> f64 {
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(rng);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && rng.unit_f64().ln() < 0.5 * x * x + d * (1.0 - v + v.ln()) {
            return d * v;
        }
    }
}

/// Draws a beta number; both shapes ≥ 1. The `k`-th smallest of `n` uniform numbers is Beta(k, n + 1 − k).
pub(super) fn beta(a: f64, b: f64, rng: &mut Rng) -> f64 {
    let x = gamma(a, rng);
    x / (x + gamma(b, rng))
}

/// Draws the number of successes in `n` trials with success probability `p`.
///
/// Few expected successes use inversion. Many use W. Hörmann's transformed rejection (BTRS), "The generation of
/// binomial random variates", J. Stat. Comput. Simul. 46 (1993). Both are exact, in time that does not grow with `n`.
pub(super) fn binomial(n: u64, p: f64, rng: &mut Rng) -> u64 {
    if n == 0 || p.is_nan() || p <= 0.0 {
        return 0;
    }
    if p >= 1.0 {
        return n;
    }
    if p > 0.5 {
        return n - binomial(n, 1.0 - p, rng);
    }
    if n as f64 * p < INVERSION_BELOW { by_inversion(n, p, rng) } else { by_rejection(n, p, rng) }
}

/// Sums the probabilities from 0 successes up until they exceed a uniform number.
fn by_inversion(n: u64, p: f64, rng: &mut Rng) -> u64 {
    let odds = p / (1.0 - p);
    let mut left = rng.unit_f64();
    let mut probability = (n as f64 * (-p).ln_1p()).exp();
    let mut successes = 0;
    while left > probability && successes < n {
        left -= probability;
        probability *= odds * (n - successes) as f64 / (successes + 1) as f64;
        successes += 1;
    }
    successes
}

fn by_rejection(n: u64, p: f64, rng: &mut Rng) -> u64 {
    let trials = n as f64;
    let deviation = (trials * p * (1.0 - p)).sqrt();
    let b = 1.15 + 2.53 * deviation;
    let a = -0.0873 + 0.0248 * b + 0.01 * p;
    let centre = trials * p + 0.5;
    let surely = 0.92 - 4.2 / b;
    let alpha = (2.83 + 5.1 / b) * deviation;
    let mode = ((trials + 1.0) * p).floor();
    let log_weight = |k: f64| -ln_factorial(k) - ln_factorial(trials - k) + k * (p / (1.0 - p)).ln();
    loop {
        let v = rng.unit_f64();
        let u = rng.unit_f64() - 0.5;
        let side = 0.5 - u.abs();
        let k = ((2.0 * a / side + b) * u + centre).floor();
        if side >= 0.07 && v <= surely {
            return k as u64;
        }
        if !(0.0..=trials).contains(&k) {
            continue;
        }
        let height = (v * alpha / (a / (side * side) + b)).ln();
        if height <= log_weight(k) - log_weight(mode) {
            return k as u64;
        }
    }
}

/// `ln k!`: exact below 10, else Stirling's series with three terms, accurate to 1e-10.
fn ln_factorial(k: f64) -> f64 {
    if k < 10.0 {
        return (2..=k as u32).map(f64::from).product::<f64>().ln();
    }
    let x = k + 1.0;
    let series = (1.0 / 12.0 - (1.0 / 360.0 - 1.0 / (1260.0 * x * x)) / (x * x)) / x;
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixtures::fixtures;

    /// Compares counts of draws with expected shares by a chi-squared statistic. SciPy gave its 99.9 % bound.
    #[test]
    fn binomial_draws_fall_as_scipy_says() {
        for case in fixtures()["binomial"].as_array().unwrap() {
            let (n, p) = (case["n"].as_u64().unwrap(), case["p"].as_f64().unwrap());
            let first = case["first"].as_u64().unwrap();
            let shares: Vec<f64> = super::super::fixtures::f64s(&case["shares"]);
            let mut counts = vec![0.0; shares.len()];
            let mut rng = Rng::new(n);
            let draws = 100_000;
            for _ in 0..draws {
                let k = binomial(n, p, &mut rng);
                counts[(k.saturating_sub(first) as usize).min(shares.len() - 1)] += 1.0;
            }
            let expected = |share: f64| share * f64::from(draws);
            let chi: f64 =
                counts.iter().zip(&shares).map(|(c, s)| (c - expected(*s)).powi(2) / expected(*s)).sum();
            assert!(chi < case["chi_bound"].as_f64().unwrap(), "n {n} p {p}: {chi}");
        }
    }

    #[test]
    fn certain_and_impossible_trials() {
        let mut rng = Rng::new(1);
        assert_eq!(binomial(7, 0.0, &mut rng), 0);
        assert_eq!(binomial(7, 1.0, &mut rng), 7);
        assert_eq!(binomial(0, 0.5, &mut rng), 0);
        assert_eq!(binomial(7, f64::NAN, &mut rng), 0);
        let mut draws = (0..1000).map(|_| binomial(4_000_000_000, 0.999, &mut rng));
        assert!(draws.all(|k| (3_990_000_000..=4_000_000_000).contains(&k)));
    }

    #[test]
    fn order_statistics_of_uniform_numbers_have_their_mean_and_spread() {
        let mut rng = Rng::new(2);
        for (a, b) in [(1.0, 1.0), (3.0, 3.0), (500.0, 501.0), (2.0, 40.0)] {
            let draws: Vec<f64> = (0..20_000).map(|_| beta(a, b, &mut rng)).collect();
            let mean = draws.iter().sum::<f64>() / 20_000.0;
            let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0;
            let (m, v) = (a / (a + b), a * b / ((a + b) * (a + b) * (a + b + 1.0)));
            assert!((mean - m).abs() < 5.0 * (v / 20_000.0).sqrt(), "{a} {b}: mean {mean}, wanted {m}");
            assert!((variance / v - 1.0).abs() < 0.06, "{a} {b}: variance {variance}, wanted {v}");
        }
    }

    #[test]
    fn factorials_agree_with_the_gamma_function() {
        for k in [0.0, 1.0, 5.0, 9.0, 10.0, 11.0, 100.0, 1e6] {
            let wanted = statrs::function::gamma::ln_gamma(k + 1.0);
            assert!((ln_factorial(k) - wanted).abs() < 1e-9 * wanted.max(1.0), "{k}");
        }
    }
}
