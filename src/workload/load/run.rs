//! A load case: open-loop levels at one rate after another, or at rates that close in on saturation. Each level gives
//! one line.

use super::table;
use crate::backend::Capabilities;
use crate::bench::{ArrivalProcess, Offered, Served, Shape, arrivals, prompts, serve};
use crate::record::{self, Clock, LoadCase, LoadLevelRecord, LoadRequest, Objectives};
use crate::run::cases::{Case, Planning, Recording, Room, Workload};
use crate::run::duration::{Counted, Expected, Rates};
use crate::run::questions::input_hash;
use crate::run::{Ending, RunError, Session};
use crate::stats::Rng;
use crate::text::one_line;

/// A load case that is ready to run.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadRun {
    /// Name within a run: `poisson-i128-o32-b16`.
    pub load_id: String,
    /// Arrival process of the requests.
    pub arrival: ArrivalProcess,
    /// The rates in requests per second; `None` to search for the highest sustained rate.
    pub rates: Option<Vec<f64>>,
    /// Maximum number of requests per rate.
    pub requests: usize,
    /// Latest arrival of a request, in nanoseconds from the start of the schedule.
    pub duration_ns: u64,
    /// Input and output lengths, which the requests take in turn. With real prompts only the outputs apply.
    pub lengths: Vec<(usize, usize)>,
    /// Real prompts for each pair of lengths. Empty for random tokens.
    pub pools: Vec<Vec<Vec<u32>>>,
    /// Description of the prompts.
    pub prompts: String,
    /// Maximum number of concurrent sequences.
    pub max_batch: usize,
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
        Room { batch: (self.max_batch, self.max_batch), tokens: self.longest(), optional: false }
    }

    fn needs(&self) -> Capabilities {
        Capabilities { choice_logprobs: false, step_times: false, memory: false, ..Capabilities::ALL }
    }

    fn input_hash(&self) -> Option<String> {
        (!self.pools.is_empty()).then(|| input_hash(self.pools.iter().flatten()))
    }

    fn prompts(&self) -> Option<String> {
        (!self.pools.is_empty()).then(|| self.prompts.clone())
    }

    fn words(&self) -> Vec<String> {
        let rates = match &self.rates {
            Some(rates) => {
                let rates: Vec<String> = rates.iter().map(f64::to_string).collect();
                format!("{} requests/s", rates.join(", "))
            }
            None => "the highest sustained rate is searched".to_owned(),
        };
        vec![format!("load      {}: {rates}; {}", self.load_id, one_line(&self.prompts))]
    }

    /// Returns the time of the schedule, which is the least that the case takes.
    fn expected(&self, _: Option<(&Rates, Counted<'_>)>) -> Expected {
        let Some(rates) = &self.rates else { return Expected::Unknown };
        let of_rate = |rate: &f64| match self.duration_ns {
            u64::MAX => self.requests as f64 / rate,
            ns => ns as f64 / 1e9,
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
        next_rate(self, lines).is_none()
    }

    fn run(
        &self,
        tokens: &crate::bench::OrdinaryTokens,
        session: &mut Session<'_>,
    ) -> Result<Ending, RunError> {
        run(self, tokens, session)
    }
}

impl LoadRun {
    /// Returns the plan's record of this load.
    pub fn case(&self) -> LoadCase {
        LoadCase {
            load_id: self.load_id.clone(),
            tp: self.tp as u32,
            arrival: match self.arrival {
                ArrivalProcess::Poisson => "poisson",
                ArrivalProcess::Fixed => "fixed",
            }
            .into(),
            rates: self.rates.clone().unwrap_or_default(),
            max_batch: self.max_batch as u32,
            prompts: self.prompts.clone(),
            objectives: self.objectives,
        }
    }

    /// Returns the length of the longest sequence in tokens.
    pub fn longest(&self) -> usize {
        let random = self.lengths.iter().map(|(input, output)| input + output);
        let real = self
            .pools
            .iter()
            .zip(&self.lengths)
            .map(|(pool, (_, output))| pool.iter().map(Vec::len).max().unwrap_or(0) + output);
        if self.pools.is_empty() { random.max() } else { real.max() }.unwrap_or(0)
    }
}

/// Returns the rate of the next level (`Some(None)`: all requests at once), or `None` if the load is finished
/// ([`record::next_rate`]).
pub fn next_rate(load: &LoadRun, levels: &[LoadLevelRecord]) -> Option<Option<f64>> {
    record::next_rate(&load.case(), levels)
}

/// Runs the levels that have no line yet.
fn run(
    load: &LoadRun,
    tokens: &crate::bench::OrdinaryTokens,
    session: &mut Session<'_>,
) -> Result<Ending, RunError> {
    session.dir.restore::<LoadCase>(&load.load_id)?;
    let mut levels = session.dir.read_loads()?;
    levels.retain(|level| level.load_id == load.load_id);
    while let Some(rate) = next_rate(load, &levels) {
        let index = levels.len();
        let offered = offered(load, tokens, rate, index);
        let label = rate.map_or("all at once".to_owned(), |rate| format!("{rate}/s"));
        let label = format!("{} {label}", load.load_id);
        session.observer.begin(&label, "requests", offered.len() as u64, 0);
        let level = level(load, &offered, rate, index, session);
        session.observer.end();
        let Some(level) = level? else { return Ok(Ending::Interrupted) };
        session.dir.append_load(&level)?;
        session.sample()?;
        levels.push(level);
    }
    Ok(Ending::Complete)
}

/// Returns a level's requests, which depend on seed, index and rate only.
fn offered(
    load: &LoadRun,
    tokens: &crate::bench::OrdinaryTokens,
    rate: Option<f64>,
    index: usize,
) -> Vec<Offered> {
    // Each level draws its own arrivals. Prompts are the same in all levels.
    let seed = Rng::new(load.seed.wrapping_add(index as u64)).next_u64();
    let times = match rate {
        Some(rate) => arrivals(load.arrival, rate, seed, load.requests, load.duration_ns),
        None => vec![0; load.requests],
    };
    let pairs = load.lengths.len();
    // As many prompts per pair of lengths as there are requests with it.
    let each = times.len().div_ceil(pairs);
    let random: Vec<Vec<Vec<u32>>> = if load.pools.is_empty() {
        let shape = |&(input_tokens, output_tokens)| Shape { batch: each, input_tokens, output_tokens };
        load.lengths.iter().map(|pair| prompts(shape(pair), tokens, load.seed)).collect()
    } else {
        Vec::new()
    };
    let pools = if load.pools.is_empty() { &random } else { &load.pools };
    let request = |(i, arrival_ns): (usize, u64)| {
        let (pool, turn) = (&pools[i % pairs], i / pairs);
        Offered {
            arrival_ns,
            prompt: pool[turn % pool.len()].clone(),
            output_tokens: load.lengths[i % pairs].1,
        }
    };
    times.into_iter().enumerate().map(request).collect()
}

/// Serves one level, after a warm-up request. Returns `None` if the run was stopped.
fn level(
    load: &LoadRun,
    offered: &[Offered],
    rate: Option<f64>,
    index: usize,
    session: &mut Session<'_>,
) -> Result<Option<LoadLevelRecord>, RunError> {
    session.start_afresh()?;
    // On a virtual clock, the warm-up is a full batch, which allocates the memory that the level needs.
    let modelled = session.clock() == Clock::Modelled;
    let (stop, observer) = (session.stop, &mut *session.observer);
    let mut stopped = || stop.load(std::sync::atomic::Ordering::Relaxed);
    let alone = if modelled { load.max_batch } else { 1 };
    let at_once = |request: &Offered| Offered { arrival_ns: 0, ..request.clone() };
    let warm_up: Vec<Offered> = offered.iter().take(alone).map(at_once).collect();
    if serve(session.engine, &warm_up, load.max_batch, &mut stopped, &mut |_| {})?.is_none() {
        return Ok(None);
    }
    let mut told = 0;
    let mut progress = |done: usize| {
        (told..done).for_each(|_| observer.advance());
        told = done;
    };
    if modelled {
        session.offset_ns = session.dir.recorded_until_ns()?.wrapping_sub(session.engine.now_ns());
    }
    let served = serve(session.engine, offered, load.max_batch, &mut stopped, &mut progress)?;
    let Some((begin_ns, served)) = served else { return Ok(None) };
    let requests: Vec<LoadRequest> =
        served.iter().zip(offered).map(|(served, offered)| record(served, offered, session)).collect();
    let start_ns = session.run_ns(begin_ns);
    Ok(Some(LoadLevelRecord {
        load_id: load.load_id.clone(),
        level: index as u32,
        clock: session.clock(),
        rate_per_s: rate,
        start_ns,
        end_ns: requests.iter().map(|r| r.end_ns).max().unwrap_or(start_ns).max(start_ns),
        requests,
    }))
}

fn record(served: &Served, offered: &Offered, session: &Session<'_>) -> LoadRequest {
    let first = served.token_ns.first().copied().unwrap_or(served.start_ns);
    let last = served.token_ns.last().copied().unwrap_or(served.start_ns);
    LoadRequest {
        arrival_ns: session.run_ns(served.arrival_ns),
        start_ns: session.run_ns(served.start_ns),
        first_token_ns: session.run_ns(first),
        itl_ns: served.token_ns.windows(2).map(|pair| pair[1] - pair[0]).collect(),
        end_ns: session.run_ns(last),
        input_tokens: offered.prompt.len() as u32,
        output_tokens: served.token_ns.len() as u32,
        error: served.error.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(rates: Option<Vec<f64>>) -> LoadRun {
        LoadRun {
            load_id: "l".into(),
            arrival: ArrivalProcess::Fixed,
            rates,
            requests: 100,
            duration_ns: u64::MAX,
            lengths: vec![(4, 2), (8, 3)],
            pools: Vec::new(),
            prompts: String::new(),
            max_batch: 4,
            objectives: Objectives::default(),
            tp: 1,
            seed: 1,
        }
    }

    /// Simulates a server that handles one request at a time, in 0.1 s each.
    fn served(rate: Option<f64>, level: usize) -> LoadLevelRecord {
        let mut free = 0;
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
                error: None,
            }
        };
        let requests: Vec<_> = times.into_iter().map(request).collect();
        LoadLevelRecord {
            load_id: "l".into(),
            level: level as u32,
            clock: Clock::Modelled,
            rate_per_s: rate,
            start_ns: 0,
            end_ns: free,
            requests,
        }
    }

    #[test]
    fn listed_rates_come_in_order() {
        let load = load(Some(vec![1.0, 4.0]));
        assert_eq!(next_rate(&load, &[]), Some(Some(1.0)));
        assert_eq!(next_rate(&load, &[served(Some(1.0), 0)]), Some(Some(4.0)));
        assert_eq!(next_rate(&load, &[served(Some(1.0), 0), served(Some(4.0), 1)]), None);
    }

    #[test]
    fn saturation_is_closed_in_on() {
        let load = load(None);
        let mut levels = Vec::new();
        while let Some(rate) = next_rate(&load, &levels) {
            levels.push(served(rate, levels.len()));
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

    #[test]
    fn requests_take_the_lengths_in_turn() {
        let tokens = crate::bench::OrdinaryTokens { prefix: vec![1], range: 10..90 };
        let all = offered(&load(None), &tokens, Some(10.0), 0);
        let lengths: Vec<_> = all.iter().map(|o| (o.prompt.len(), o.output_tokens)).take(4).collect();
        assert_eq!(lengths, [(4, 2), (8, 3), (4, 2), (8, 3)]);
        assert_ne!(all[0].prompt, all[2].prompt);
        assert_eq!(all, offered(&load(None), &tokens, Some(10.0), 0));
        let real = LoadRun { pools: vec![vec![vec![1], vec![2, 3]], vec![vec![4]]], ..load(None) };
        let all = offered(&real, &tokens, None, 0);
        let prompts: Vec<_> = all.iter().map(|o| o.prompt.as_slice()).take(6).collect();
        assert_eq!(prompts, [&[1][..], &[4], &[2, 3], &[4], &[1], &[4]]);
        assert_eq!((real.longest(), load(None).longest()), (4, 11));
    }
}
