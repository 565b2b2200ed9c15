//! The clock of a time.

use crate::language::{Text, ToText, text};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The clock that a time was taken from. Times of the two clocks are never converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// A wall clock or device clock on real hardware.
    Measured,
    /// A virtual clock, derived from a chip profile.
    Modelled,
}

impl ToText for Clock {
    fn to_text(&self) -> Text {
        match self {
            Self::Measured => text!("measured"),
            Self::Modelled => text!("modelled"),
        }
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Measured => "measured",
            Self::Modelled => "modelled",
        })
    }
}
