//! Whether times grow with the time at which they were begun: what a queue that is offered more than it can serve does.

use super::describe::mean;

/// Consecutive samples are averaged in so many blocks: neighbours in a queue are alike, and taken one by one they would
/// look surer than they are.
const BLOCKS: usize = 10;
/// Samples below which nothing is said. A queue's own ups and downs look like growth over a short stretch: at 80 % of what one
/// server serves, random arrivals are called too many 16 times in 100 with 40 samples, 7 with 100, 1 with 200.
pub const LEAST_FOR_GROWTH: usize = 100;
/// Student's t with `BLOCKS − 2` degrees of freedom, 95 % one-sided.
const T: f64 = 1.859_548;

/// The straight line through the means of ten blocks of times against the points at which they were begun.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Growth {
    /// Change of the time for each unit that passes: a queue offered λ that serves μ < λ grows by λ/μ − 1.
    pub slope: f64,
    /// Lower end of the slope's one-sided 95 % interval.
    pub low: f64,
}

impl Growth {
    /// Larger than `share` and surely above 0.
    pub fn exceeds(&self, share: f64) -> bool {
        self.slope > share && self.low > 0.0
    }
}

/// The growth of `times` over the points `begun` (ascending, same unit); the first quarter is left out, in which an idle
/// system fills. `None` with fewer than [`LEAST_FOR_GROWTH`] samples, with points that are all the same, or numbers that are not finite.
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

    /// Times in a queue of one server with equal services of 1, offered `rate` a unit of time at random.
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
