//! One rate of a load with all its requests, and its row in `load.csv`.

use crate::record::course::{Course, Timed};
use crate::record::{Arrival, Clock, Keyed, Objective, Objectives, RecordError, RunDir, Word};
use crate::stats::{Growth, LEAST_FOR_GROWTH, growth, tell_token_times};
use glmbench_device::{DeviceName, Precision};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Growth of E2E, per unit of time, above which a rate exceeds what the engine can sustain. At a slope of 0.05 the
/// engine serves 1 / 1.05 = 95 % of what is offered.
pub const SATURATED_SLOPE: f64 = 0.05;

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
    let next = match bracket(levels) {
        (None, None) => 0.8 * capacity,
        (Some(good), None) => 1.25 * good,
        (None, Some(bad)) => bad / 2.0,
        (Some(good), Some(bad)) if bad / good > CLOSE => (good * bad).sqrt(),
        _ => return None,
    };
    Some(Level::Rate(readable(next)))
}

/// Returns the highest sustained rate below all saturated ones, and the lowest saturated rate.
fn bracket(levels: &[LoadLevelRecord]) -> (Option<f64>, Option<f64>) {
    let rates = |saturated: bool| {
        let of = move |level: &&LoadLevelRecord| level.is_saturated().unwrap_or(false) == saturated;
        levels.iter().filter(of).filter_map(|level| level.rate_per_s)
    };
    let bad = rates(true).min_by(f64::total_cmp);
    let good = rates(false).filter(|rate| bad.is_none_or(|bad| *rate < bad)).max_by(f64::total_cmp);
    (good, bad)
}

/// Rounds a rate to three significant digits, so that it can be written in a suite.
fn readable(rate: f64) -> f64 {
    format!("{rate:.2e}").parse().unwrap_or(rate)
}

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
    /// Description of the requests: lengths, or a data set and how its prompts were prepared.
    pub prompts: String,
    /// The latency objectives that a request must meet to count towards goodput.
    pub objectives: Objectives,
}

impl Objectives {
    /// Whether the request succeeded and meets all stated objectives. A request of one token has no TPOT, so it meets
    /// any.
    pub fn keeps(&self, request: &LoadRequest) -> bool {
        let within = |time: Option<f64>, most: Option<Objective>| {
            time.zip(most).is_none_or(|(time, most)| !most.is_exceeded_by(time))
        };
        request.error.is_none()
            && within(Some(request.ttft_ns() as f64), self.ttft)
            && within(request.tpot_ns(), self.tpot)
            && within(Some(request.e2e_ns() as f64), self.e2e)
    }

    /// Whether the times of a served request tell if it meets the objectives. If tokens arrived together, its TPOT is
    /// unknown; then goodput is unknown, neither met nor missed.
    pub fn are_told(&self, request: &LoadRequest) -> bool {
        self.tpot.is_none() || request.output_tokens <= 1 || request.has_token_times()
    }
}

/// One request. All fields but the gaps are points in time on the run's clock, in nanoseconds from run start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadRequest {
    /// Scheduled arrival, whether or not the engine was free to accept the request then.
    pub arrival_ns: u64,
    /// When the first step that fed any of its tokens began.
    pub start_ns: u64,
    /// When its first token was chosen.
    pub first_token_ns: u64,
    /// Gaps between its tokens, from the first token on.
    pub itl_ns: Vec<u64>,
    /// When its last token was chosen.
    pub end_ns: u64,
    /// Prompt tokens.
    pub input_tokens: u32,
    /// Generated tokens.
    pub output_tokens: u32,
    /// The exchange with a server. `None` for an engine in this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire: Option<Wire>,
    /// Why the request was not completed. If set, its times are meaningless.
    pub error: Option<String>,
}

/// A request over a wire. Points in time are on the run's clock, in nanoseconds from run start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// When the request's last byte was sent.
    pub sent_ns: u64,
    /// Duration of connecting (address, TCP and TLS); 0 for a reused connection.
    pub connect_ns: u64,
    /// When the first byte of the answer arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_ns: Option<u64>,
    /// When the answer ended, its end marker included.
    pub closed_ns: u64,
    /// Events that carried text or tokens. Those that arrived together count once.
    pub events: u64,
    /// How often the request was sent: 2 if the server had closed the kept connection, which did not answer. Such a request has
    /// failed, and the times above are those of its last attempt.
    pub attempts: u32,
    /// The attempts before the last one. Empty in records older than this field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Attempted>,
    /// Prompt tokens as the server counted them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u64>,
}

/// An attempt to send a request that was not answered. Points in time are on the run's clock, in nanoseconds from run start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempted {
    /// When it began.
    pub start_ns: u64,
    /// When its last byte was sent. `None` if it was not sent whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_ns: Option<u64>,
    /// When it failed.
    pub end_ns: u64,
}

impl LoadRequest {
    /// Returns the time to first token from when the request was sent, for one over a wire.
    pub fn ttft_sent_ns(&self) -> Option<u64> {
        Some(self.first_token_ns.saturating_sub(self.wire.as_ref()?.sent_ns))
    }

    /// Returns the end-to-end latency from when the request was sent, for one over a wire.
    pub fn e2e_sent_ns(&self) -> Option<u64> {
        Some(self.end_ns.saturating_sub(self.wire.as_ref()?.sent_ns))
    }

    /// Returns how late the request was sent: from its arrival by the schedule until its connection was begun, the first one if
    /// it was sent again.
    pub fn late_ns(&self) -> Option<u64> {
        let wire = self.wire.as_ref()?;
        let last = wire.sent_ns.saturating_sub(wire.connect_ns);
        let begun = wire.before.first().map_or(last, |first| first.start_ns);
        Some(begun.saturating_sub(self.arrival_ns))
    }

    /// Returns the queueing time, from arrival until the first step began.
    pub fn queue_ns(&self) -> u64 {
        self.start_ns.saturating_sub(self.arrival_ns)
    }

    /// Returns the time to first token, from arrival.
    pub fn ttft_ns(&self) -> u64 {
        self.first_token_ns.saturating_sub(self.arrival_ns)
    }

    /// Whether the time of each token is known: over a wire, if nearly every token arrived at a time of its own.
    pub fn has_token_times(&self) -> bool {
        self.wire.as_ref().is_none_or(|wire| tell_token_times(wire.events, self.output_tokens.into()))
    }

    /// Returns the time per token after the first; undefined for one token, and if the times of tokens are unknown.
    pub fn tpot_ns(&self) -> Option<f64> {
        if !self.has_token_times() {
            return None;
        }
        let gaps = self.output_tokens.checked_sub(1).filter(|gaps| *gaps > 0)?;
        Some(self.end_ns.saturating_sub(self.first_token_ns) as f64 / f64::from(gaps))
    }

    /// Returns the end-to-end latency, from arrival to the last token.
    pub fn e2e_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.arrival_ns)
    }
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

/// A row of `load.csv`: one rate. Quantiles are of type 7. The 99 % quantile needs at least 100 values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadRow {
    /// [`crate::record::SCHEMA`].
    pub schema: u32,
    /// The run.
    pub run_id: String,
    /// The load.
    pub load_id: String,
    /// Index of the rate.
    pub level: u32,
    /// Program and version.
    pub engine: String,
    /// The device.
    pub device: Word<DeviceName>,
    /// The clock of all times in the row.
    pub clock: Clock,
    /// The compute type.
    pub dtype: Word<Precision>,
    /// Tensor-parallel ranks.
    pub tp: u32,
    /// Threads of the engine.
    pub threads: u32,
    /// As in [`LoadCase::arrival`].
    pub arrival: Word<Arrival>,
    /// Maximum number of concurrent sequences.
    pub max_batch: u32,
    /// Scheduled requests per second; empty if all arrive at once, and in a closed loop.
    pub rate_per_s: Option<f64>,
    /// Requests under way in a closed loop; empty in an open one.
    pub concurrency: Option<u32>,
    /// Actual arrivals per second: (requests − 1) ÷ (last arrival − first). Empty in a closed loop, which follows the server.
    pub offered_per_s: Option<f64>,
    /// Requests served per second, from the start of the schedule to the end of the last request.
    pub achieved_per_s: Option<f64>,
    /// Number of requests.
    pub requests: u64,
    /// Requests that were not completed. They are excluded from all times.
    pub failed: u64,
    /// From the start of the schedule to the end of the last request.
    pub duration_ns: u64,
    /// Prompt tokens of the completed requests.
    pub input_tokens: u64,
    /// Tokens generated for the completed requests.
    pub output_tokens: u64,
    /// Generated tokens ÷ duration.
    pub output_tokens_per_s: Option<f64>,
    /// Queueing time, median.
    pub queue_p50_ns: Option<u64>,
    /// 90 % quantile.
    pub queue_p90_ns: Option<u64>,
    /// Maximum.
    pub queue_max_ns: Option<u64>,
    /// Time to first token from arrival, median.
    pub ttft_p50_ns: Option<u64>,
    /// 90 % quantile.
    pub ttft_p90_ns: Option<u64>,
    /// 99 % quantile.
    pub ttft_p99_ns: Option<u64>,
    /// Maximum.
    pub ttft_max_ns: Option<u64>,
    /// Time per token after the first, median over the requests.
    pub tpot_p50_ns: Option<u64>,
    /// 90 % quantile.
    pub tpot_p90_ns: Option<u64>,
    /// 99 % quantile.
    pub tpot_p99_ns: Option<u64>,
    /// Maximum.
    pub tpot_max_ns: Option<u64>,
    /// Gap between two tokens, median over all gaps.
    pub itl_p50_ns: Option<u64>,
    /// 90 % quantile.
    pub itl_p90_ns: Option<u64>,
    /// 99 % quantile.
    pub itl_p99_ns: Option<u64>,
    /// Maximum.
    pub itl_max_ns: Option<u64>,
    /// From arrival to the last token, median.
    pub e2e_p50_ns: Option<u64>,
    /// 90 % quantile.
    pub e2e_p90_ns: Option<u64>,
    /// 99 % quantile.
    pub e2e_p99_ns: Option<u64>,
    /// Maximum.
    pub e2e_max_ns: Option<u64>,
    /// Objective: maximum time to first token.
    pub slo_ttft_ns: Option<u64>,
    /// Objective: maximum time per token after the first.
    pub slo_tpot_ns: Option<u64>,
    /// Objective: maximum time from arrival to the last token.
    pub slo_e2e_ns: Option<u64>,
    /// Share of all requests that meet every stated objective; empty if none is stated.
    pub goodput_share: Option<f64>,
    /// Requests per second that meet them.
    pub goodput_per_s: Option<f64>,
    /// Growth of E2E with arrival time, as a slope.
    pub growth_slope: Option<f64>,
    /// Lower bound of its one-sided 95 % confidence interval.
    pub growth_low: Option<f64>,
    /// Whether the rate exceeds what the engine sustains; empty if undetermined.
    pub saturated: Option<bool>,
    /// Over a wire: time to first token from when the request was sent, median.
    pub ttft_sent_p50_ns: Option<u64>,
    /// 99 % quantile.
    pub ttft_sent_p99_ns: Option<u64>,
    /// Over a wire: duration of connecting, median.
    pub connect_p50_ns: Option<u64>,
    /// How late requests were sent after their arrival, 99 % quantile, or the maximum of fewer than 100.
    pub late_p99_ns: Option<u64>,
    /// Over a wire: events that carried text or tokens, for each generated token.
    pub events_per_token: Option<f64>,
    /// Over a wire: from when the request was sent to the last token, median.
    pub e2e_sent_p50_ns: Option<u64>,
    /// 99 % quantile.
    pub e2e_sent_p99_ns: Option<u64>,
    /// The host that made the load.
    pub host: String,
    /// Over a wire: requests that were sent again, which count as failed.
    pub resent: Option<u64>,
}

/// Largest share of failed requests at a rate that is sustained.
const MOST_FAILED: f64 = 0.05;

impl LoadRow {
    /// The header of `load.csv`.
    pub const HEADER: &'static str = "schema,run_id,load_id,level,engine,device,clock,dtype,tp,threads,arrival,max_batch,\
        rate_per_s,concurrency,offered_per_s,achieved_per_s,requests,failed,duration_ns,input_tokens,output_tokens,\
        output_tokens_per_s,queue_p50_ns,queue_p90_ns,queue_max_ns,ttft_p50_ns,ttft_p90_ns,ttft_p99_ns,ttft_max_ns,\
        tpot_p50_ns,tpot_p90_ns,tpot_p99_ns,tpot_max_ns,itl_p50_ns,itl_p90_ns,itl_p99_ns,itl_max_ns,e2e_p50_ns,\
        e2e_p90_ns,e2e_p99_ns,e2e_max_ns,slo_ttft_ns,slo_tpot_ns,slo_e2e_ns,goodput_share,goodput_per_s,growth_slope,\
        growth_low,saturated,ttft_sent_p50_ns,ttft_sent_p99_ns,connect_p50_ns,late_p99_ns,events_per_token,\
        e2e_sent_p50_ns,e2e_sent_p99_ns,host,resent";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arrives at 100, waits 30, has its first token at 180 after prefill, then gaps of 20 and 50. Ends at 250.
    pub(crate) fn timeline() -> LoadRequest {
        LoadRequest {
            arrival_ns: 100,
            start_ns: 130,
            first_token_ns: 180,
            itl_ns: vec![20, 50],
            end_ns: 250,
            input_tokens: 7,
            output_tokens: 3,
            wire: None,
            error: None,
        }
    }

    #[test]
    fn the_definitions_hold_on_a_hand_made_timeline() {
        let request = timeline();
        assert_eq!((request.queue_ns(), request.ttft_ns(), request.e2e_ns()), (30, 80, 150));
        assert_eq!(request.tpot_ns(), Some(35.0));
        // The 80 until the first token are in no gap, so TTFT and gaps add up to E2E.
        assert_eq!(request.ttft_ns() + request.itl_ns.iter().sum::<u64>(), request.e2e_ns());
        let one = LoadRequest { output_tokens: 1, itl_ns: vec![], end_ns: 180, ..timeline() };
        assert_eq!((one.tpot_ns(), one.e2e_ns()), (None, 80));
    }

    #[test]
    fn a_rate_is_shown_as_it_was_written_or_rounded() {
        assert_eq!([2.5, 0.05, 12.345, 1000.0].map(rate_text), ["2.5", "0.05", "12.345", "1000"]);
        assert_eq!([20.833_333_333_333_332, 0.133_333_333].map(rate_text), ["20.83", "0.1333"]);
        assert_eq!(Level::Rate(100.0 / 3.0).to_string(), "33.33/s");
    }

    #[test]
    fn objectives_are_kept_all_or_not() {
        let ns = |ns| Some(Objective::of_ns(ns));
        let all = Objectives { ttft: ns(80), tpot: ns(35), e2e: ns(150) };
        assert!(all.keeps(&timeline()) && Objectives::default().keeps(&timeline()));
        for tighter in [
            Objectives { ttft: ns(79), ..all },
            Objectives { tpot: ns(34), ..all },
            Objectives { e2e: ns(149), ..all },
        ] {
            assert!(!tighter.keeps(&timeline()), "{tighter:?}");
        }
        let failed = LoadRequest { error: Some("x".into()), ..timeline() };
        assert!(!Objectives::default().keeps(&failed));
        let one = LoadRequest { output_tokens: 1, itl_ns: vec![], end_ns: 180, ..timeline() };
        assert!(Objectives { tpot: ns(1), ..Objectives::default() }.keeps(&one), "one token has no TPOT");
        // Tokens that arrive together tell no TPOT, so an objective for it is neither met nor missed.
        let wire = Wire {
            sent_ns: 0,
            connect_ns: 0,
            first_byte_ns: None,
            closed_ns: 0,
            events: 1,
            attempts: 1,
            before: Vec::new(),
            prompt_tokens: None,
        };
        let again = Attempted { start_ns: 130, sent_ns: Some(140), end_ns: 150 };
        let again = Wire { sent_ns: 170, connect_ns: 5, attempts: 2, before: vec![again], ..wire.clone() };
        assert_eq!(
            LoadRequest { wire: Some(again), ..timeline() }.late_ns(),
            Some(30),
            "by its first attempt"
        );
        let joined = LoadRequest { wire: Some(wire), ..timeline() };
        assert!(all.are_told(&timeline()) && !all.are_told(&joined));
        assert!(Objectives { tpot: None, ..all }.are_told(&joined));
    }

    #[test]
    fn a_queue_that_grows_is_saturated_and_all_at_once_cannot_tell() {
        let level = |late: u64, apart: u64| LoadLevelRecord {
            load_id: "l".into(),
            level: 0,
            clock: Clock::Modelled,
            rate_per_s: Some(1e9 / apart as f64),
            concurrency: None,
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
