//! What a level of a load offers, and which level comes next.

use super::record::{LoadCase, LoadLevelRecord};
use crate::language::{Text, ToText, text};
use std::fmt;

/// A search for saturation ends when the lowest saturated rate is within this factor of the highest sustained one.
const CLOSE: f64 = 1.1;

/// Maximum number of levels in a search.
pub const MOST_LEVELS: usize = 14;

/// What a level of a load offers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Level {
    /// All requests at once.
    AtOnce,
    /// Requests by a schedule of this many a second.
    Rate(f64),
    /// This many requests under way at all times: a closed loop.
    Concurrency(u32),
}

impl Level {
    /// Returns the requests per second of a schedule.
    pub fn rate_per_s(self) -> Option<f64> {
        match self {
            Self::Rate(rate) => Some(rate),
            Self::AtOnce | Self::Concurrency(_) => None,
        }
    }

    /// Returns the number of requests under way in a closed loop.
    pub fn concurrency(self) -> Option<u32> {
        match self {
            Self::Concurrency(requests) => Some(requests),
            Self::AtOnce | Self::Rate(_) => None,
        }
    }
}

impl ToText for Level {
    fn to_text(&self) -> Text {
        match self {
            Self::AtOnce => text!("all at once"),
            Self::Rate(rate) => format!("{}/s", rate_text(*rate)).into(),
            Self::Concurrency(requests) => text!("concurrency {requests}", requests),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtOnce => f.write_str("all at once"),
            Self::Rate(rate) => write!(f, "{}/s", rate_text(*rate)),
            Self::Concurrency(requests) => write!(f, "concurrency {requests}"),
        }
    }
}

/// Formats a rate: as it is if that is short, otherwise to four significant digits. The rates of a trace are its own rate
/// times its speeds.
pub fn rate_text(rate: f64) -> String {
    let exact = rate.to_string();
    if exact.len() <= SHORT_RATE { exact } else { format!("{rate:.3e}").parse().unwrap_or(rate).to_string() }
}

/// Most characters of a rate that is shown as it is.
const SHORT_RATE: usize = 6;

/// Returns the next level, or `None` when the load is finished. This is a pure function of the lines so far and part of
/// the format: readers use it to detect missing lines. A different rule therefore needs a new [`crate::record::SCHEMA`]. An
/// interrupted load resumes as if it had not been interrupted.
///
/// A search for saturation first offers all requests at once. The rate served then is the engine's capacity, and the
/// highest sustained rate is near it. The search starts at 0.8 of the capacity. It goes up by a quarter or down by half
/// until it has a saturated and a sustained rate. It then bisects between the two on a logarithmic scale until they are
/// within 10 %.
pub fn next_level(load: &LoadCase, levels: &[LoadLevelRecord]) -> Option<Level> {
    if !load.concurrency.is_empty() {
        return load.concurrency.get(levels.len()).copied().map(Level::Concurrency);
    }
    if !load.rates.is_empty() {
        return load.rates.get(levels.len()).copied().map(Level::Rate);
    }
    let Some(first) = levels.first() else { return Some(Level::AtOnce) };
    let capacity = first.achieved_per_s().filter(|rate| *rate > 0.0)?;
    if levels.len() >= MOST_LEVELS {
        return None;
    }
    let Bracket { sustained, saturated } = bracket(levels);
    let next = match (sustained, saturated) {
        (None, None) => 0.8 * capacity,
        (Some(good), None) => 1.25 * good,
        (None, Some(bad)) => bad / 2.0,
        (Some(good), Some(bad)) if bad / good > CLOSE => (good * bad).sqrt(),
        _ => return None,
    };
    Some(Level::Rate(readable(next)))
}

/// The rates between which a search bisects.
struct Bracket {
    /// The highest sustained rate below all saturated ones.
    sustained: Option<f64>,
    /// The lowest saturated rate.
    saturated: Option<f64>,
}

fn bracket(levels: &[LoadLevelRecord]) -> Bracket {
    let rates = |saturated: bool| {
        let of = move |level: &&LoadLevelRecord| level.is_saturated().unwrap_or(false) == saturated;
        levels.iter().filter(of).filter_map(|level| level.rate_per_s)
    };
    let bad = rates(true).min_by(f64::total_cmp);
    let good = rates(false).filter(|rate| bad.is_none_or(|bad| *rate < bad)).max_by(f64::total_cmp);
    Bracket { sustained: good, saturated: bad }
}

/// Rounds a rate to three significant digits, so that it can be written in a suite.
fn readable(rate: f64) -> f64 {
    format!("{rate:.2e}").parse().unwrap_or(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_shown_as_it_was_written_or_rounded() {
        assert_eq!([2.5, 0.05, 12.345, 1000.0].map(rate_text), ["2.5", "0.05", "12.345", "1000"]);
        assert_eq!([20.833_333_333_333_332, 0.133_333_333].map(rate_text), ["20.83", "0.1333"]);
        assert_eq!(Level::Rate(100.0 / 3.0).to_string(), "33.33/s");
    }
}
