//! The error of a ratio of two modelled times.

use glmbench_calibrate::modelled::{Stated, ends, of_ratio, short};

use super::{basis_of, error_of};
use crate::record::{PerfRow, RunRecord};
use crate::stats::Interval;

/// A row with its run.
pub(in crate::report) type Timed<'a> = (&'a RunRecord, &'a PerfRow);

/// The error of a ratio of two modelled times, or of a mean of such ratios.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RatioError {
    /// The error, as that of a time ([`glmbench_calibrate::modelled`]).
    pub(crate) error: f64,
    /// Whether a time is extrapolated.
    pub(crate) is_beyond: bool,
}

impl RatioError {
    /// Returns the error of the ratio of two times with these errors.
    pub(crate) fn of(a: &Stated, b: &Stated) -> Self {
        let is_beyond = !a.beyond.is_empty() || !b.beyond.is_empty();
        Self { error: of_ratio(a.error, b.error), is_beyond }
    }

    /// Returns the error of the ratio of two rows. `None` if an error is not known, or a time is measured.
    pub(in crate::report) fn between([a, b]: [Timed<'_>; 2]) -> Option<Self> {
        let of = |(run, row): Timed<'_>| error_of(basis_of(run)?, row, row.phase).ok();
        Some(Self::of(&of(a)?, &of(b)?))
    }

    /// Returns the error of a geometric mean of ratios: their root mean square, since the error of a model is common to all shapes.
    /// `None` without ratios, or if an error is not known.
    pub(in crate::report) fn mean(of: impl IntoIterator<Item = Option<Self>>) -> Option<Self> {
        let all: Vec<Self> = of.into_iter().collect::<Option<_>>()?;
        let squares: f64 = all.iter().map(|of| of.error * of.error).sum();
        let error = (squares / all.len() as f64).sqrt();
        (!all.is_empty()).then(|| Self { error, is_beyond: all.iter().any(|of| of.is_beyond) })
    }

    /// Returns the least and the largest value of a ratio with this error.
    pub(crate) fn ends(self, ratio: f64) -> Interval {
        let (low, high) = ends(ratio, self.error).into_inner();
        Interval { low, high }
    }

    /// Returns the error in the words of a cell: `± 25 %`, with an asterisk if a time is extrapolated.
    pub(crate) fn short(self) -> String {
        short(self.error, self.is_beyond)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_keeps_the_error_that_its_ratios_share() {
        let of = |error, is_beyond| Some(RatioError { error, is_beyond });
        let mean = RatioError::mean([of(0.1, false), of(0.1, true)]).unwrap();
        assert!((mean.error - 0.1).abs() < 1e-12 && mean.is_beyond);
        assert_eq!(mean.short(), "± 10 % *");
        assert_eq!(RatioError::mean([of(0.1, false), None]), None);
        assert_eq!(RatioError::mean([]), None);
        let Interval { low, high } = mean.ends(2.0);
        assert!((low * high - 4.0).abs() < 1e-12 && (high / 2.0 - 0.1_f64.exp()).abs() < 1e-12);
    }
}
