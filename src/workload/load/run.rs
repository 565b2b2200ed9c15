//! A load case. Open-loop levels have one rate after another, or rates that close in on saturation. Closed-loop levels
//! have one concurrency after another. Each level gives one line.

use super::trace::{TraceRequest, trace_hash};
use super::{serve, table};
use crate::backend::Capabilities;
use crate::bench::{LEAD_NS, OrdinaryTokens, Shape};
use crate::record::{self, Arrival, Level, LoadCase, LoadLevelRecord, Objectives, Word};
use crate::run::cases::{Case, Planning, Recording, Room, Workload};
use crate::run::duration::{Counted, Expected, Rates};
use crate::run::questions::input_hash;
use crate::run::requests::Wanted;
use crate::run::{Ending, RunError, Session};
use crate::stats::{ArrivalProcess, Rng, arrivals};
use crate::suite::Lengths;
use crate::text::one_line;

/// When the requests of a load arrive.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// By a process at each rate.
    Process(ArrivalProcess),
    /// As in a trace, faster or slower. The first number is the trace's own rate.
    Trace(f64, Vec<TraceRequest>),
    /// When an earlier request ends, at each of these concurrencies.
    Closed(Vec<u32>),
}

impl Schedule {
    /// Returns when requests arrive, for records.
    fn arrival(&self) -> Arrival {
        match self {
            Self::Process(process) => Arrival::Process(*process),
            Self::Trace(..) => Arrival::Trace,
            Self::Closed(_) => Arrival::Closed,
        }
    }

    /// Returns the concurrencies of a closed loop.
    fn concurrency(&self) -> Vec<u32> {
        if let Self::Closed(levels) = self { levels.clone() } else { Vec::new() }
    }
}

/// A load case that is ready to run.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadRun {
    /// Name within a run: `poisson-i128-o32-b16`.
    pub load_id: String,
    /// When the requests arrive.
    pub schedule: Schedule,
    /// The rates in requests per second; `None` in a closed loop, and to search for the highest sustained rate.
    pub rates: Option<Vec<f64>>,
    /// Maximum number of requests per rate.
    pub requests: usize,
    /// Latest arrival of a request, in nanoseconds from the start of the schedule.
    pub duration_ns: u64,
    /// Input and output lengths, which the requests take in turn. With real prompts only the outputs apply.
    pub lengths: Vec<Lengths>,
    /// Real prompts for each pair of lengths. Empty for random tokens.
    pub pools: Vec<Vec<Vec<u32>>>,
    /// Description of the prompts.
    pub prompts: String,
    /// Maximum number of concurrent sequences.
    pub max_batch: usize,
    /// Most prompt tokens of a step that also decodes. `None` feeds all prompts first.
    pub prefill_chunk: Option<usize>,
    /// Objectives that a request must meet to count as served well.
    pub objectives: Objectives,
    /// Number of tensor-parallel ranks.
    pub tp: usize,
    /// Seed of the arrivals and prompts.
    pub seed: u64,
}

impl Case for LoadRun {
    fn id(&self) -> String {
        self.load_id.clone()
    }

    fn tp(&self) -> usize {
        self.tp
    }

    fn room(&self) -> Room {
        Room::of(self.max_batch, self.longest())
    }

    /// A server that cannot ignore the end answers as a user sees it: shorter answers are counted as they are.
    fn needs(&self, can: Capabilities) -> Capabilities {
        Capabilities { ignores_end: !can.schedules, ..Capabilities::NONE }
    }

    fn input_hash(&self) -> Option<String> {
        match &self.schedule {
            Schedule::Trace(_, requests) => Some(trace_hash(requests)),
            Schedule::Process(_) | Schedule::Closed(_) => {
                (!self.pools.is_empty()).then(|| input_hash(self.pools.iter().flatten()))
            }
        }
    }

    fn prompts(&self) -> Option<String> {
        (!self.pools.is_empty()).then(|| self.prompts.clone())
    }

    fn words(&self) -> Vec<String> {
        let rates = match &self.rates {
            Some(rates) => {
                let rates: Vec<String> = rates.iter().map(|rate| record::rate_text(*rate)).collect();
                format!("{} requests/s", rates.join(", "))
            }
            None if !self.schedule.concurrency().is_empty() => {
                let levels: Vec<String> = self.schedule.concurrency().iter().map(u32::to_string).collect();
                format!("concurrency {}", levels.join(", "))
            }
            None => "the highest sustained rate is searched".to_owned(),
        };
        vec![format!("load      {}: {rates}; {}", self.load_id, one_line(&self.prompts))]
    }

    fn wanted(&self) -> Option<Wanted> {
        let longest = self.lengths.iter().map(|lengths| lengths.input).max().unwrap_or(0) as u64;
        let output = self.lengths.iter().map(|lengths| lengths.output).max().unwrap_or(0) as u64;
        let one = Wanted::one(longest, output);
        // Each level has a warm-up request.
        let all = match (&self.schedule, &self.rates) {
            (Schedule::Trace(_, requests), rates) => {
                let of = |request: &TraceRequest| {
                    Wanted::one(request.input_tokens as u64, request.output_tokens as u64)
                };
                let level = requests.iter().map(of).fold(Wanted::default(), Wanted::and);
                let warm_up = requests.first().map(of).unwrap_or_default();
                level.and(warm_up).times(rates.as_ref().map_or(1, Vec::len) as u64)
            }
            (Schedule::Process(process), Some(rates)) => {
                let of = |(index, rate): (usize, &f64)| self.times(*process, *rate, index).len() as u64 + 1;
                one.times(rates.iter().enumerate().map(of).sum())
            }
            (Schedule::Closed(levels), _) => one.times((self.requests as u64 + 1) * levels.len() as u64),
            // A search for saturation ends after this many levels, and has one at least.
            (Schedule::Process(_), None) => {
                let level = self.requests as u64 + 1;
                one.times(level * record::MOST_LEVELS as u64).at_least(level)
            }
        };
        Some(all)
    }

    fn at_once(&self) -> usize {
        let of_rate = |(index, rate): (usize, &f64)| match &self.schedule {
            Schedule::Process(process) => most_within(&self.times(*process, *rate, index), LEAD_NS),
            Schedule::Trace(own_rate, requests) => {
                let arrivals: Vec<u64> = requests.iter().map(|request| request.arrival_ns).collect();
                most_within(&arrivals, (LEAD_NS as f64 * rate / own_rate) as u64)
            }
            Schedule::Closed(_) => 0,
        };
        match (&self.schedule, &self.rates) {
            (Schedule::Closed(levels), _) => levels.iter().max().copied().unwrap_or(0) as usize,
            (_, Some(rates)) => rates.iter().enumerate().map(of_rate).max().unwrap_or(0),
            // The first level of a search offers all at once.
            (_, None) => self.requests,
        }
    }

    /// Counts batches of mean length, as many as the requests fill.
    fn work(&self, on: Counted<'_>) -> u64 {
        let Some(wanted) = self.wanted() else { return 0 };
        let mean = |tokens: u64| (tokens / wanted.requests.max(1)) as usize;
        let batch = self.max_batch.max(1);
        let (input_tokens, output_tokens) = (mean(wanted.prompt_tokens), mean(wanted.output_tokens));
        on.work(Shape { batch, input_tokens, output_tokens })
            .saturating_mul(wanted.requests.div_ceil(batch as u64))
    }

    /// Returns the time of the schedule, which is the least that the case takes.
    fn expected(&self, _: Option<(&Rates, Counted<'_>)>) -> Expected {
        let Some(rates) = &self.rates else { return Expected::Unknown };
        let of_rate = |rate: &f64| match (&self.schedule, self.duration_ns) {
            (Schedule::Trace(own_rate, requests), _) => {
                requests.last().map_or(0.0, |last| last.arrival_ns as f64 / 1e9 * own_rate / rate)
            }
            (_, u64::MAX) => self.requests as f64 / rate,
            (_, ns) => ns as f64 / 1e9,
        };
        Expected::AtLeast { seconds: rates.iter().map(of_rate).sum(), by: "its arrivals".into() }
    }
}

impl Workload for LoadRun {
    type Table = table::LoadCase;
    type Recorded = LoadCase;

    fn plan(tables: &[table::LoadCase], on: Planning<'_>) -> Result<Vec<Self>, String> {
        super::plan::plan(tables, on)
    }

    fn record(&self, _: Recording<'_>) -> LoadCase {
        self.case()
    }

    fn is_done(&self, lines: &[LoadLevelRecord]) -> bool {
        next_level(self, lines).is_none()
    }

    fn run(&self, tokens: &OrdinaryTokens, session: &mut Session<'_>) -> Result<Ending, RunError> {
        serve::run(self, tokens, session)
    }
}

impl LoadRun {
    /// Returns when the requests of a level arrive. Each level draws its own arrivals.
    pub(super) fn times(&self, process: ArrivalProcess, rate_per_s: f64, level: usize) -> Vec<u64> {
        let seed = Rng::new(self.seed.wrapping_add(level as u64)).next_u64();
        arrivals(process, rate_per_s, seed, self.requests, self.duration_ns)
    }

    /// Returns the plan's record of this load.
    pub fn case(&self) -> LoadCase {
        LoadCase {
            load_id: self.load_id.clone(),
            tp: self.tp as u32,
            arrival: Word::of(self.schedule.arrival()),
            rates: self.rates.clone().unwrap_or_default(),
            concurrency: self.schedule.concurrency(),
            max_batch: self.max_batch as u32,
            prefill_chunk: self.prefill_chunk.map(|tokens| tokens as u32),
            prompts: self.prompts.clone(),
            objectives: self.objectives,
        }
    }

    /// Returns the length of the longest sequence in tokens.
    pub fn longest(&self) -> usize {
        if let Schedule::Trace(_, requests) = &self.schedule {
            return requests.iter().map(|r| r.input_tokens + r.output_tokens).max().unwrap_or(0);
        }
        let random = self.lengths.iter().map(|lengths| lengths.input + lengths.output);
        let real = self
            .pools
            .iter()
            .zip(&self.lengths)
            .map(|(pool, lengths)| pool.iter().map(Vec::len).max().unwrap_or(0) + lengths.output);
        if self.pools.is_empty() { random.max() } else { real.max() }.unwrap_or(0)
    }
}

/// Returns the most arrivals within a span. A server's requests are prepared that long before they are due.
fn most_within(arrivals: &[u64], span_ns: u64) -> usize {
    let within = |(first, &from): (usize, &u64)| {
        arrivals[first..].partition_point(|&ns| ns <= from.saturating_add(span_ns))
    };
    arrivals.iter().enumerate().map(within).max().unwrap_or(0)
}

/// Returns the next level, or `None` if the load is finished ([`record::next_level`]).
pub fn next_level(load: &LoadRun, levels: &[LoadLevelRecord]) -> Option<Level> {
    record::next_level(&load.case(), levels)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::record::{Clock, LoadRequest};

    pub(in crate::workload::load) fn load_of(rates: Option<Vec<f64>>) -> LoadRun {
        LoadRun {
            load_id: "l".into(),
            schedule: Schedule::Process(ArrivalProcess::Fixed),
            rates,
            requests: 100,
            duration_ns: u64::MAX,
            lengths: vec![Lengths { input: 4, output: 2 }, Lengths { input: 8, output: 3 }],
            pools: Vec::new(),
            prompts: String::new(),
            max_batch: 4,
            prefill_chunk: None,
            objectives: Objectives::default(),
            tp: 1,
            seed: 1,
        }
    }

    /// Simulates a server that handles one request at a time, in 0.1 s each.
    fn served(offers: Level, level: usize) -> LoadLevelRecord {
        let mut free = 0;
        let rate = offers.rate_per_s();
        let times = rate.map_or(vec![0; 100], |rate| arrivals(ArrivalProcess::Fixed, rate, 1, 100, u64::MAX));
        let request = |arrival_ns: u64| {
            let start_ns = arrival_ns.max(free);
            free = start_ns + 100_000_000;
            LoadRequest {
                arrival_ns,
                start_ns,
                first_token_ns: free,
                itl_ns: vec![],
                end_ns: free,
                input_tokens: 1,
                output_tokens: 1,
                wire: None,
                error: None,
            }
        };
        let requests: Vec<_> = times.into_iter().map(request).collect();
        LoadLevelRecord {
            load_id: "l".into(),
            level: level as u32,
            clock: Clock::Modelled,
            rate_per_s: rate,
            concurrency: offers.concurrency(),
            scheduling: None,
            start_ns: 0,
            end_ns: free,
            requests,
        }
    }

    #[test]
    fn listed_rates_come_in_order() {
        let load = load_of(Some(vec![1.0, 4.0]));
        let at = |rate, level| served(Level::Rate(rate), level);
        assert_eq!(next_level(&load, &[]), Some(Level::Rate(1.0)));
        assert_eq!(next_level(&load, &[at(1.0, 0)]), Some(Level::Rate(4.0)));
        assert_eq!(next_level(&load, &[at(1.0, 0), at(4.0, 1)]), None);
        let closed = LoadRun { schedule: Schedule::Closed(vec![2, 8]), ..load_of(None) };
        assert_eq!(next_level(&closed, &[]), Some(Level::Concurrency(2)));
        let first = served(Level::Concurrency(2), 0);
        assert_eq!(first.is_saturated(), None);
        assert_eq!(next_level(&closed, &[first]), Some(Level::Concurrency(8)));
    }

    #[test]
    fn saturation_is_closed_in_on() {
        let load = load_of(None);
        let mut levels = Vec::new();
        while let Some(level) = next_level(&load, &levels) {
            levels.push(served(level, levels.len()));
        }
        let rates: Vec<Option<f64>> = levels.iter().map(|l| l.rate_per_s).collect();
        assert_eq!(rates[..2], [None, Some(8.0)], "{rates:?}");
        let rated = |saturated| {
            levels.iter().filter(move |l| l.is_saturated() == Some(saturated)).filter_map(|l| l.rate_per_s)
        };
        let bad = rated(true).min_by(f64::total_cmp).unwrap();
        let good = rated(false).filter(|rate| *rate < bad).max_by(f64::total_cmp).unwrap();
        // The maximum is ten requests per second. Up to 10.5 count as sustained, because 95 % of them are served.
        assert!(good >= 9.0 && bad <= 11.6 && bad / good <= 1.1, "{rates:?}");
    }
}
