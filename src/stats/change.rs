//! Verdicts on differences in speed.

use super::interval::Interval;
use super::paired::holm;
use super::shift::Shift;

/// Family-wise error rate: probability of any wrong "faster" or "slower" over all phases of a comparison.
const ALPHA: f64 = 0.05;

/// Verdict on a ratio of times against a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The second takes less time: statistically significant, and the measured ratio exceeds the threshold.
    Faster,
    /// The whole 90 % interval lies within the threshold. A positive claim of equivalence, not a lack of evidence.
    Same,
    /// The second takes more time: statistically significant, and the measured ratio exceeds the threshold.
    Slower,
    /// None of the other verdicts holds.
    CannotTell,
}

impl Change {
    /// Returns the verdict on the logarithm of a ratio.
    ///
    /// - `differs`: whether the test rejects a ratio of 1, at a level that holds for all phases of the comparison.
    /// - `within`: a 90 % interval, which gives two one-sided tests at 5 % each (D. J. Schuirmann, J. Pharmacokin.
    ///   Biopharm. 15, 1987).
    /// - `threshold`: a share (0.03 for 3 %), applied to the logarithm: 1.03 up and 1/1.03 down.
    pub fn of(log_ratio: f64, differs: bool, within: Option<Interval>, threshold: f64) -> Self {
        let far = threshold.ln_1p();
        if differs && log_ratio < -far {
            Self::Faster
        } else if differs && log_ratio > far {
            Self::Slower
        } else if within.is_some_and(|within| -far <= within.low && within.high <= far) {
            Self::Same
        } else {
            Self::CannotTell
        }
    }
}

/// Returns the two-sided p-values of "no difference" for all phases of a comparison, adjusted by Holm.
pub fn adjusted(phases: &[&Shift]) -> Vec<f64> {
    holm(&phases.iter().map(|shift| shift.p(0.0)).collect::<Vec<_>>())
}

/// Whether an adjusted p-value rejects "no difference".
pub fn rules_out(adjusted: f64) -> bool {
    adjusted < ALPHA
}

/// Returns the 90 % interval of a shift, for [`Change::of`].
pub fn within(shift: &Shift) -> Option<Interval> {
    shift.interval(1.0 - 2.0 * ALPHA)
}

#[cfg(test)]
mod tests;
