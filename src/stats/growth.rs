//! Whether times grow with their start time, as in a queue offered more than it can serve.

use super::describe::mean;

/// Number of blocks of consecutive samples that are averaged. Neighbours in a queue are correlated, so single samples
/// would understate the error.
const BLOCKS: usize = 10;
/// Fewest samples for a result. Over a short stretch, a queue's own fluctuation looks like growth. Random arrivals at
/// 80 % of a server's capacity are called overload 16 times in 100 with 40 samples, 7 with 100, and 1 with 200.
pub const LEAST_FOR_GROWTH: usize = 100;
/// Student's t with `BLOCKS − 2` degrees of freedom, 95 % one-sided.
const T: f64 = 1.859_548;

/// Least-squares line through the block means of times against their start times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Growth {
    /// Change of the time per unit of elapsed time. A queue offered λ that serves μ < λ grows by λ/μ − 1.
    pub slope: f64,
    /// Lower end of the one-sided 95 % interval of the slope.
    pub low: f64,
}

impl Growth {
    /// Whether the slope is larger than `share` and its interval lies above 0.
    pub fn exceeds(&self, share: f64) -> bool {
        self.slope > share && self.low > 0.0
    }
}

/// Returns the growth of `times` over the start times `begun` (ascending, same unit).
///
/// Leaves out the first quarter, in which an idle system fills. `None` with fewer than [`LEAST_FOR_GROWTH`] samples,
/// with equal start times, or with non-finite values.
pub fn growth(begun: &[f64], times: &[f64]) -> Option<Growth> {
    let n = begun.len().min(times.len());
    if n < LEAST_FOR_GROWTH {
        return None;
    }
    let (begun, times) = (&begun[n / 4..n], &times[n / 4..n]);
    let block =
        |values: &[f64], i: usize| mean(&values[i * values.len() / BLOCKS..(i + 1) * values.len() / BLOCKS]);
    let x: Vec<f64> = (0..BLOCKS).map(|i| block(begun, i)).collect::<Option<_>>()?;
    let y: Vec<f64> = (0..BLOCKS).map(|i| block(times, i)).collect::<Option<_>>()?;
    let (x_mean, y_mean) = (mean(&x)?, mean(&y)?);
    let spread: f64 = x.iter().map(|x| (x - x_mean).powi(2)).sum();
    if spread <= 0.0 {
        return None;
    }
    let slope = x.iter().zip(&y).map(|(x, y)| (x - x_mean) * (y - y_mean)).sum::<f64>() / spread;
    let residual: f64 = x.iter().zip(&y).map(|(x, y)| (y - y_mean - slope * (x - x_mean)).powi(2)).sum();
    let stderr = (residual / (BLOCKS - 2) as f64 / spread).sqrt();
    Some(Growth { slope, low: slope - T * stderr })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Rng;

    /// Simulates one server with a service time of 1 and random arrivals, `rate` per unit of time.
    fn queue(rate: f64, n: usize, seed: u64) -> (Vec<f64>, Vec<f64>) {
        let mut rng = Rng::new(seed);
        let (mut now, mut free) = (0.0, 0.0_f64);
        let mut served = || {
            now -= (1.0 - rng.unit_f64()).ln() / rate;
            free = free.max(now) + 1.0;
            (now, free - now)
        };
        (0..n).map(|_| served()).unzip()
    }

    #[test]
    fn an_overloaded_queue_grows_by_what_is_too_much() {
        let (begun, times) = queue(1.5, 4000, 1);
        let found = growth(&begun, &times).unwrap();
        assert!((found.slope - 0.5).abs() < 0.05, "{found:?}");
        let exact: Vec<f64> = (0..400).map(f64::from).collect();
        let doubled: Vec<f64> = exact.iter().map(|x| 7.0 + 0.25 * x).collect();
        let found = growth(&exact, &doubled).unwrap();
        assert!((found.slope - 0.25).abs() < 1e-12 && (found.low - 0.25).abs() < 1e-9);
    }

    #[test]
    fn overload_is_seen_and_ease_is_not_called_overload() {
        let saturated = |rate: f64| {
            let found = |seed| {
                let (begun, times) = queue(rate, 200, seed);
                growth(&begun, &times).unwrap().exceeds(0.05)
            };
            (0..100).filter(|&seed| found(seed)).count()
        };
        assert!(saturated(1.3) >= 95, "{}", saturated(1.3));
        assert!(saturated(0.8) <= 5, "{}", saturated(0.8));
    }

    #[test]
    fn what_cannot_be_told_is_none() {
        let x: Vec<f64> = (0..99).map(f64::from).collect();
        assert_eq!(growth(&x, &x), None, "too few");
        assert_eq!(growth(&[0.0; 100], &[1.0; 100]), None, "all at once");
        assert_eq!(growth(&[f64::NAN; 100], &[1.0; 100]), None);
        assert_eq!(growth(&[], &[]), None);
    }
}
