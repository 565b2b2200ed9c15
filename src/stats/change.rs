//! Whether a difference in speed may be called one.

use super::paired::holm;
use super::shift::Shift;

/// The chance of a wrong "faster" or "slower" that all phases of a comparison share.
const ALPHA: f64 = 0.05;

/// What a ratio of times says against a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The second takes less time: surely, and by more than the threshold as measured.
    Faster,
    /// They differ by less than the threshold: the whole 90 % interval lies within it. A claim, not want of proof.
    Same,
    /// The second takes more time: surely, and by more than the threshold as measured.
    Slower,
    /// Neither can be claimed.
    CannotTell,
}

impl Change {
    /// Of the logarithm of a ratio. `differs`: that it is none at all is ruled out, at a level that holds for all phases of the
    /// comparison. `within`: two one-sided tests at 5 % each, read off one 90 % interval (D. J. Schuirmann, J. Pharmacokin.
    /// Biopharm. 15, 1987). `threshold` is a share (0.03 for 3 %), meant on the logarithm: 1.03 up and 1/1.03 down.
    pub fn of(log_ratio: f64, differs: bool, within: Option<(f64, f64)>, threshold: f64) -> Self {
        let far = threshold.ln_1p();
        if differs && log_ratio < -far {
            Self::Faster
        } else if differs && log_ratio > far {
            Self::Slower
        } else if within.is_some_and(|(low, high)| -far <= low && high <= far) {
            Self::Same
        } else {
            Self::CannotTell
        }
    }
}

/// The probabilities of no difference, two-sided, of all phases of a comparison, adjusted by Holm.
pub fn adjusted(phases: &[&Shift]) -> Vec<f64> {
    holm(&phases.iter().map(|shift| shift.p(0.0)).collect::<Vec<_>>())
}

/// Whether an adjusted probability rules out no difference.
pub fn rules_out(adjusted: f64) -> bool {
    adjusted < ALPHA
}

/// The 90 % interval of a shift, for [`Change::of`].
pub fn within(shift: &Shift) -> Option<(f64, f64)> {
    shift.interval(1.0 - 2.0 * ALPHA)
}

#[cfg(test)]
mod tests;
