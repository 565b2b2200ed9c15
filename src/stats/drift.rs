//! Drift: whether repetitions become slower or faster over a run.

use super::describe::mean;

/// Least-squares line through samples against their index.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drift {
    /// Change from one sample to the next, in the samples' unit.
    pub slope: f64,
    /// Standard error of the slope.
    pub slope_stderr: f64,
    /// Change over the whole run as a share of the mean: 0.05 means 5 % slower at the end.
    pub total_share: f64,
}

impl Drift {
    /// Whether the drift exceeds `share` of the mean and its slope differs from 0 by more than two standard errors.
    pub fn exceeds(&self, share: f64) -> bool {
        self.total_share.abs() > share && self.slope.abs() > 2.0 * self.slope_stderr
    }
}

/// Returns the drift of samples in the order they were taken. Needs at least three finite samples and a mean that is
/// not 0.
pub fn drift(samples: &[f64]) -> Option<Drift> {
    let n = samples.len();
    let centre = mean(samples).filter(|m| n >= 3 && *m != 0.0)?;
    let middle = (n - 1) as f64 / 2.0;
    let offset = |i: usize| i as f64 - middle;
    let spread: f64 = (0..n).map(|i| offset(i).powi(2)).sum();
    let slope = samples.iter().enumerate().map(|(i, x)| offset(i) * (x - centre)).sum::<f64>() / spread;
    let residual: f64 =
        samples.iter().enumerate().map(|(i, x)| (x - centre - slope * offset(i)).powi(2)).sum();
    let slope_stderr = (residual / (n - 2) as f64 / spread).sqrt();
    Some(Drift { slope, slope_stderr, total_share: slope * (n - 1) as f64 / centre })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixtures::{assert_close, f64s, fixtures};

    #[test]
    fn agrees_with_scipy_linregress() {
        for case in fixtures()["drift"].as_array().unwrap() {
            let found = drift(&f64s(&case["samples"])).unwrap();
            assert_close(Some(found.slope), &case["slope"], 1e-12);
            assert_close(Some(found.slope_stderr), &case["stderr"], 1e-9);
        }
    }

    #[test]
    fn a_steady_climb_is_told_from_noise() {
        let climb: Vec<f64> = (0..10).map(|i| 100.0 + f64::from(i)).collect();
        assert!(drift(&climb).unwrap().exceeds(0.05));
        let noise = [100.0, 112.0, 95.0, 104.0, 99.0, 106.0];
        assert!(!drift(&noise).unwrap().exceeds(0.05));
        assert_eq!(drift(&[1.0, 2.0]), None);
        assert_eq!(drift(&[0.0, 0.0, 0.0]), None);
    }
}
