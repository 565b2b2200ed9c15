//! A load of the plan, and a line of `load.jsonl`: one level with all its requests.

use super::level::{Level, next_level, rate_text};
use super::request::LoadRequest;
use crate::record::course::{Course, Timed};
use crate::record::{Arrival, Clock, Keyed, Objectives, RecordError, RunDir, Word};
use crate::stats::{Growth, LEAST_FOR_GROWTH, growth};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Growth of E2E, per unit of time, above which a rate exceeds what the engine can sustain. At a slope of 0.05 the
/// engine serves 1 / 1.05 = 95 % of what is offered.
pub const SATURATED_SLOPE: f64 = 0.05;

/// Largest share of failed requests at a rate that is sustained.
const MOST_FAILED: f64 = 0.05;

/// A load of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadCase {
    /// The load's name, as in the lines.
    pub load_id: String,
    /// Tensor-parallel ranks.
    pub tp: u32,
    /// `poisson`, `gamma 0.25` with its shape, `fixed`, `trace` or `closed`.
    pub arrival: Word<Arrival>,
    /// The rates, in requests per second. Empty in a closed loop, and if the highest sustained rate is searched for.
    pub rates: Vec<f64>,
    /// The numbers of requests under way in a closed loop. Empty in an open one, and in records older than this field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub concurrency: Vec<u32>,
    /// Maximum number of concurrent sequences in an engine of this process. A server decides for itself.
    pub max_batch: u32,
    /// Most prompt tokens of a step that also decodes, in an engine of this process. `None` if all prompts are fed first, and in
    /// records older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill_chunk: Option<u32>,
    /// Description of the requests: lengths, or a data set and how its prompts were prepared.
    pub prompts: String,
    /// The latency objectives that a request must meet to count towards goodput.
    pub objectives: Objectives,
}

/// A line of `load.jsonl`: one rate, run until its last request has finished. The line is written after that, so a kill
/// costs at most the current rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadLevelRecord {
    /// The load in the plan.
    pub load_id: String,
    /// Index within the load, from 0; load and level are the line's key.
    pub level: u32,
    /// The clock of every time below.
    pub clock: Clock,
    /// Scheduled requests per second; `None` if all arrive at once, and in a closed loop.
    pub rate_per_s: Option<f64>,
    /// Requests under way in a closed loop; `None` in an open one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// How the engine shared its steps, if the load asks for other than prefill first: `mixed 128`, or `alternating 2` on a device
    /// that cannot mix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<String>,
    /// When the schedule began.
    pub start_ns: u64,
    /// When the last request was served.
    pub end_ns: u64,
    /// All requests, in order of arrival.
    pub requests: Vec<LoadRequest>,
}

impl LoadLevelRecord {
    /// Returns what the level offers.
    pub fn offers(&self) -> Level {
        match (self.concurrency, self.rate_per_s) {
            (Some(requests), _) => Level::Concurrency(requests),
            (None, Some(rate)) => Level::Rate(rate),
            (None, None) => Level::AtOnce,
        }
    }

    /// Returns the completed requests.
    pub fn served(&self) -> impl Iterator<Item = &LoadRequest> {
        self.requests.iter().filter(|r| r.error.is_none())
    }

    /// Returns the requests served per second, from the start of the schedule to the end of the last request.
    pub fn achieved_per_s(&self) -> Option<f64> {
        let seconds = self.end_ns.checked_sub(self.start_ns).filter(|ns| *ns > 0)? as f64 / 1e9;
        Some(self.served().count() as f64 / seconds)
    }

    /// Returns the growth of E2E with arrival time, or `None` if it is undetermined.
    pub fn growth(&self) -> Option<Growth> {
        // A closed loop never offers more than is served.
        if self.concurrency.is_some() {
            return None;
        }
        let (arrivals, times): (Vec<f64>, Vec<f64>) =
            self.served().map(|r| (r.arrival_ns as f64, r.e2e_ns() as f64)).unzip();
        growth(&arrivals, &times)
    }

    /// Whether the rate exceeds what the engine sustains: E2E grows by more than [`SATURATED_SLOPE`] per unit of time,
    /// and the growth is significantly above 0. `None` if undetermined: too few requests, or all at once.
    ///
    /// A rate is also too high if more than 5 % of its requests failed: a server that turns requests away keeps its times.
    pub fn is_saturated(&self) -> Option<bool> {
        let failed = self.requests.len() - self.served().count();
        let enough = self.requests.len() >= LEAST_FOR_GROWTH;
        if self.rate_per_s.is_some() && enough && failed as f64 > MOST_FAILED * self.requests.len() as f64 {
            return Some(true);
        }
        self.growth().map(|growth| growth.exceeds(SATURATED_SLOPE))
    }
}

/// The key of a line of `load.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LoadKey {
    /// The load.
    pub load_id: String,
    /// Index within it.
    pub level: u32,
}

impl fmt::Display for LoadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "level {} of load {}", self.level, self.load_id)
    }
}

impl Keyed for LoadLevelRecord {
    type Key = LoadKey;

    fn key(&self) -> LoadKey {
        LoadKey { load_id: self.load_id.clone(), level: self.level }
    }
}

impl Timed for LoadLevelRecord {
    fn clock(&self) -> Clock {
        self.clock
    }

    fn end_ns(&self) -> u64 {
        self.end_ns
    }

    fn has_failed(&self) -> bool {
        self.requests.iter().any(|request| request.error.is_some())
    }
}

impl Course for LoadCase {
    type Line = LoadLevelRecord;
    type State = Vec<LoadLevelRecord>;
    const KIND: &'static str = "load";
    const JOURNAL: &'static str = "load.jsonl";

    fn id(&self) -> &str {
        &self.load_id
    }

    fn tp(&self) -> u32 {
        self.tp
    }

    fn part_of(line: &LoadLevelRecord) -> &str {
        &line.load_id
    }

    fn follows(&self, state: &Self::State, line: &LoadLevelRecord) -> bool {
        line.level as usize == state.len() && next_level(self, state) == Some(line.offers())
    }

    fn take(state: &mut Self::State, line: &LoadLevelRecord) {
        state.push(line.clone());
    }

    fn is_whole(&self, state: &Self::State) -> bool {
        next_level(self, state).is_none()
    }

    fn extent(&self, state: &Self::State) -> String {
        match next_level(self, state) {
            Some(Level::Rate(rate)) => {
                format!("{} rates, and {} requests/s would be next", state.len(), rate_text(rate))
            }
            Some(level @ Level::Concurrency(_)) => {
                format!("{} levels, and {level} would be next", state.len())
            }
            Some(Level::AtOnce) => "no rate".to_owned(),
            None => format!("{} rates", state.len()),
        }
    }
}

impl RunDir {
    /// Appends a line to `load.jsonl`. Rejects a level that is already there.
    pub fn append_load(&mut self, record: &LoadLevelRecord) -> Result<(), RecordError> {
        self.append::<LoadCase>(record)
    }

    /// Reads all whole lines of `load.jsonl`, in order; none if the file does not exist.
    pub fn read_loads(&self) -> Result<Vec<LoadLevelRecord>, RecordError> {
        self.read::<LoadCase>()
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::timeline;
    use super::*;

    #[test]
    fn a_queue_that_grows_is_saturated_and_all_at_once_cannot_tell() {
        let level = |late: u64, apart: u64| LoadLevelRecord {
            load_id: "l".into(),
            level: 0,
            clock: Clock::Modelled,
            rate_per_s: Some(1e9 / apart as f64),
            concurrency: None,
            scheduling: None,
            start_ns: 0,
            end_ns: 100 * apart,
            requests: (0..100)
                .map(|i| {
                    let end = i * apart + 50 + i * late;
                    LoadRequest { arrival_ns: i * apart, first_token_ns: end - 1, end_ns: end, ..timeline() }
                })
                .collect(),
        };
        assert_eq!(level(0, 1000).is_saturated(), Some(false));
        assert_eq!(level(40, 1000).is_saturated(), Some(false));
        assert_eq!(level(60, 1000).is_saturated(), Some(true));
        assert_eq!(level(60, 0).is_saturated(), None);
        assert_eq!(level(0, 10_000_000).achieved_per_s(), Some(100.0));
    }
}
