//! Arrival times of the requests of a load: a schedule made from a seed before the run.

use super::Rng;

/// Distribution of the gaps between arrivals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ArrivalProcess {
    /// Exponential gaps: independent random arrivals.
    Poisson,
    /// Gamma-distributed gaps with this shape, which load generators call burstiness: 1 is Poisson, less is burstier.
    Gamma(f64),
    /// Equal gaps.
    Fixed,
}

/// Returns the first `most` arrivals at `rate_per_s` requests per second, in ascending nanoseconds from the start of
/// the schedule. The first request arrives after one gap; none arrives later than `end_ns`.
pub fn arrivals(process: ArrivalProcess, rate_per_s: f64, seed: u64, most: usize, end_ns: u64) -> Vec<u64> {
    let mut rng = Rng::new(seed);
    let mut now_s = 0.0;
    let mut next = |index: usize| {
        match process {
            // 1 − u is never 0, so the logarithm is finite.
            ArrivalProcess::Poisson => now_s -= (1.0 - rng.unit_f64()).ln() / rate_per_s,
            ArrivalProcess::Gamma(shape) => now_s += gamma(&mut rng, shape) / (shape * rate_per_s),
            // Computed from the index, since a running sum would accumulate rounding errors.
            ArrivalProcess::Fixed => now_s = (index + 1) as f64 / rate_per_s,
        }
        (now_s * 1e9).round() as u64
    };
    (0..most).map(&mut next).take_while(|ns| *ns <= end_ns).collect()
}

/// Draws from the gamma distribution with this shape and scale 1 (Marsaglia and Tsang, "A simple method for generating
/// gamma variables", 2000). A shape below 1 is drawn as that of shape + 1, times a power of a uniform number.
fn gamma(rng: &mut Rng, shape: f64) -> f64 {
    if shape < 1.0 {
        let uniform = 1.0 - rng.unit_f64();
        return gamma(rng, shape + 1.0) * uniform.powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(rng);
        let v = (1.0 + c * x).powi(3);
        let uniform = 1.0 - rng.unit_f64();
        if v > 0.0 && uniform.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

/// Draws from the standard normal distribution (Box and Muller, 1958).
fn normal(rng: &mut Rng) -> f64 {
    let (radius, angle) = (1.0 - rng.unit_f64(), rng.unit_f64());
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gamma_gaps_have_the_mean_and_spread_of_their_shape() {
        for shape in [0.25, 1.0, 4.0] {
            let times = arrivals(ArrivalProcess::Gamma(shape), 20.0, 1, 40_000, u64::MAX);
            let gaps: Vec<f64> = times.windows(2).map(|w| (w[1] - w[0]) as f64 / 1e9).collect();
            let mean = crate::stats::mean(&gaps).unwrap();
            let variation = crate::stats::stddev(&gaps).unwrap() / mean;
            // The coefficient of variation of a gamma distribution is 1 / √shape.
            assert!((mean * 20.0 - 1.0).abs() < 0.03, "shape {shape}: mean {mean}");
            assert!((variation * shape.sqrt() - 1.0).abs() < 0.05, "shape {shape}: variation {variation}");
        }
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_spread_of_an_exponential() {
        for seed in 0..5 {
            let times = arrivals(ArrivalProcess::Poisson, 20.0, seed, 20_000, u64::MAX);
            let gaps: Vec<f64> = times.windows(2).map(|w| (w[1] - w[0]) as f64 / 1e9).collect();
            let mean = crate::stats::mean(&gaps).unwrap();
            let spread = crate::stats::stddev(&gaps).unwrap();
            // The standard error of the mean is 0.7 % of the mean.
            assert!((mean * 20.0 - 1.0).abs() < 0.03, "seed {seed}: mean {mean}");
            assert!((spread * 20.0 - 1.0).abs() < 0.05, "seed {seed}: spread {spread}");
            let short = gaps.iter().filter(|gap| **gap < 0.05).count() as f64 / gaps.len() as f64;
            assert!((short - (1.0 - (-1.0_f64).exp())).abs() < 0.02, "seed {seed}: {short}");
        }
        let of = |seed| arrivals(ArrivalProcess::Poisson, 1.0, seed, 10, u64::MAX);
        assert_eq!(of(3), of(3));
        assert_ne!(of(3), of(4));
    }

    #[test]
    fn fixed_gaps_are_equal_and_end_with_the_time() {
        assert_eq!(
            arrivals(ArrivalProcess::Fixed, 4.0, 1, 3, u64::MAX),
            [250_000_000, 500_000_000, 750_000_000]
        );
        assert_eq!(arrivals(ArrivalProcess::Fixed, 10.0, 1, usize::MAX, 1_000_000_000).len(), 10);
        assert!(arrivals(ArrivalProcess::Fixed, 1.0, 1, 5, 999_999_999).is_empty());
        // A rate too small for the clock saturates instead of wrapping.
        assert_eq!(arrivals(ArrivalProcess::Fixed, 1e-12, 1, 1, u64::MAX), [u64::MAX]);
    }
}
