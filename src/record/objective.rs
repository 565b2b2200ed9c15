//! Latency objectives: the most that a time may be.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most that a time may be. Suites state it in milliseconds, records in whole nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Objective {
    ms: f64,
}

impl Objective {
    /// Creates an objective of this many milliseconds.
    pub fn of_ms(ms: f64) -> Self {
        Self { ms }
    }

    /// Creates an objective of this many nanoseconds.
    pub fn of_ns(ns: u64) -> Self {
        Self { ms: ns as f64 / 1e6 }
    }

    /// Returns the milliseconds, as stated.
    pub fn ms(self) -> f64 {
        self.ms
    }

    /// Returns the nanoseconds.
    pub fn ns(self) -> u64 {
        (self.ms * 1e6).round() as u64
    }

    /// Whether a time in nanoseconds is longer.
    pub fn is_exceeded_by(self, time_ns: f64) -> bool {
        time_ns > self.ns() as f64
    }
}

/// Two objectives are equal if records cannot tell them apart.
impl PartialEq for Objective {
    fn eq(&self, other: &Self) -> bool {
        self.ns() == other.ns()
    }
}

impl Eq for Objective {}

impl Serialize for Objective {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(self.ns())
    }
}

impl<'de> Deserialize<'de> for Objective {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        u64::deserialize(from).map(Self::of_ns)
    }
}

/// Service-level objectives of a request. `None` means no objective.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objectives {
    /// Time from arrival to the first token.
    #[serde(rename = "ttft_ns")]
    pub ttft: Option<Objective>,
    /// Time per token after the first.
    #[serde(rename = "tpot_ns")]
    pub tpot: Option<Objective>,
    /// Time from arrival to the last token.
    #[serde(rename = "e2e_ns")]
    pub e2e: Option<Objective>,
}

impl Objectives {
    /// Whether no objective is stated.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objective_is_stated_in_milliseconds_and_recorded_in_nanoseconds() {
        for (ms, ns) in [(9.2, 9_200_000), (0.000_001, 1), (60_000.0, 60_000_000_000)] {
            let objective = Objective::of_ms(ms);
            assert_eq!(serde_json::to_value(objective).unwrap(), ns);
            let read: Objective = serde_json::from_value(ns.into()).unwrap();
            assert_eq!((read, read.ns(), read.ms()), (objective, ns, ms));
            assert!(!read.is_exceeded_by(ns as f64) && read.is_exceeded_by(ns as f64 + 0.5));
        }
        assert_eq!(Objective::of_ms(1.0 / 3.0), Objective::of_ns(333_333), "rounded, as the record is");
        for ns in [0, 1, 333_333, 1 << 50] {
            assert_eq!(Objective::of_ns(ns).ns(), ns);
        }
    }
}
