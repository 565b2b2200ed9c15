//! When the requests of a load arrive.

use crate::stats::ArrivalProcess;
use std::fmt;
use std::str::FromStr;

/// When the requests of a load arrive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrival {
    /// By a random process or at equal gaps.
    Process(ArrivalProcess),
    /// As recorded in a trace file.
    Trace,
    /// When an earlier request ends: a closed loop.
    Closed,
}

impl Arrival {
    /// The words of suites. A closed loop has `concurrency` instead of a word.
    pub const NAMES: [&'static str; 4] = ["poisson", "gamma", "fixed", "trace"];

    /// Returns the word of suites, without the burstiness of gamma gaps.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Process(ArrivalProcess::Poisson) => "poisson",
            Self::Process(ArrivalProcess::Gamma(_)) => "gamma",
            Self::Process(ArrivalProcess::Fixed) => "fixed",
            Self::Trace => "trace",
            Self::Closed => "closed",
        }
    }
}

/// The word of records: `poisson`, `gamma 0.25`, `closed`.
impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Process(ArrivalProcess::Gamma(burstiness)) => write!(f, " {burstiness}"),
            _ => Ok(()),
        }
    }
}

impl FromStr for Arrival {
    type Err = String;

    /// Parses what [`Display`](fmt::Display) writes.
    fn from_str(word: &str) -> Result<Self, String> {
        let gamma = || word.strip_prefix("gamma ")?.parse().ok().map(ArrivalProcess::Gamma);
        match word {
            "poisson" => Ok(Self::Process(ArrivalProcess::Poisson)),
            "fixed" => Ok(Self::Process(ArrivalProcess::Fixed)),
            "trace" => Ok(Self::Trace),
            "closed" => Ok(Self::Closed),
            _ => gamma().map(Self::Process).ok_or_else(|| {
                format!("arrival \"{word}\" is unknown, expected one of {}, closed", Self::NAMES.join(", "))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrival_is_read_as_it_is_written() {
        for word in ["poisson", "gamma 0.25", "gamma 4", "fixed", "trace", "closed"] {
            assert_eq!(word.parse::<Arrival>().unwrap().to_string(), word);
        }
        for word in ["", "gamma", "gamma x", "Poisson"] {
            assert!(word.parse::<Arrival>().unwrap_err().contains("expected one of poisson"), "{word}");
        }
    }
}
