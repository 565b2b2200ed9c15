//! A validity condition, its outcome, and the verdict on a run.

use crate::language::{Text, text};

/// Outcome of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Yes,
    /// It does not.
    No,
    /// The records do not tell.
    Unknown,
    /// The condition does not apply to anything in the run.
    DoesNotApply,
}

impl Outcome {
    /// The word in tables. A required condition that does not hold stands out.
    pub fn word(self, required: bool) -> Text {
        match self {
            Self::Yes => text!("yes"),
            Self::No if required => text!("NO"),
            Self::No => text!("no"),
            Self::Unknown => text!("unknown"),
            Self::DoesNotApply => text!("does not apply"),
        }
    }
}

/// A validity condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Short name, for a line that lists several conditions.
    pub name: Text,
    /// The condition, as a statement.
    pub condition: Text,
    /// Whether it holds.
    pub outcome: Outcome,
    /// What was found.
    pub found: Text,
    /// What to do if it does not hold.
    pub advice: Text,
    /// Whether the figures are invalid without it. The other conditions only call for care.
    pub required: bool,
}

/// Overall verdict on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every required condition holds.
    Valid,
    /// The plan is not finished. The run can be resumed.
    Incomplete,
    /// A required condition does not hold.
    Invalid,
}

/// Returns the outcome of a condition that can be told.
pub(crate) fn yes_if(holds: bool) -> Outcome {
    if holds { Outcome::Yes } else { Outcome::No }
}
