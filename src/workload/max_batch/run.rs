//! A max-batch search: the largest batch in a range that fits into memory and keeps the limits.
//!
//! The model is loaded once, with KV blocks for the largest batch of the range that fits into memory
//! ([`crate::run::plan::Plan::fit_memory`]). Larger batches count as out of memory without being run. The next probe depends
//! on the existing lines only ([`record::next_probe`]), so an interrupted search continues as if it had not been.

use glmbench_device::DeviceError;

use glmbench_engine::EngineError;
use glmbench_engine::memory::{MemoryEstimate, MemoryOf};

use super::schema::MaxBatchCase;
use crate::backend::Capabilities;
use crate::bench::{OrdinaryTokens, Repetition, Shape, prompts, repeat};
use crate::record::{
    self, Clock, Objective, ProbeOutcome, ProbePurpose, ProbeRecord, ProbeRepetition, SearchCase,
};
use crate::run::cases::{Case, Planning, Recording, Room, Workload};
use crate::run::duration::Counted;
use crate::run::memory::wanted_capacity;
use crate::run::{Ending, RunError, Session};
use crate::stats::median;

/// A search that is ready to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchRun {
    /// Prompt tokens per sequence.
    pub input_tokens: usize,
    /// Generated tokens per sequence.
    pub output_tokens: usize,
    /// Smallest batch to consider.
    pub low: usize,
    /// Largest batch to consider.
    pub high: usize,
    /// Maximum time per token after the first.
    pub limit_tpot: Objective,
    /// Maximum time until all sequences have their first token.
    pub limit_ttft: Option<Objective>,
    /// Timed repetitions per probe, after one warm-up.
    pub repetitions: usize,
    /// Number of tensor-parallel ranks.
    pub tp: usize,
    /// Seed of the prompts.
    pub seed: u64,
}

impl Case for SearchRun {
    fn id(&self) -> String {
        self.search_id()
    }

    fn tp(&self) -> usize {
        self.tp
    }

    fn room(&self) -> Room {
        let tokens = self.input_tokens + self.output_tokens;
        Room { least_batch: self.low, most_batch: self.high, ..Room::of(1, tokens) }
    }

    fn is_elastic(&self) -> bool {
        true
    }

    fn needs(&self, _: Capabilities) -> Capabilities {
        Capabilities { ignores_end: true, step_times: true, memory: true, ..Capabilities::NONE }
    }

    /// The batches that a search doubles through.
    fn work(&self, on: Counted<'_>) -> u64 {
        let doubled = std::iter::successors(Some(self.low.max(1)), |batch| batch.checked_mul(2));
        let batches = doubled.take_while(|batch| *batch <= self.high);
        let of = |batch| on.work(self.shape(batch)).saturating_mul(self.repetitions as u64 + 1);
        batches.map(of).fold(0, u64::saturating_add)
    }

    fn words(&self) -> Vec<String> {
        vec![format!("max batch {}: {} to {}", self.search_id(), self.low, self.high)]
    }
}

impl Workload for SearchRun {
    type Table = MaxBatchCase;
    type Recorded = SearchCase;

    fn plan(tables: &[MaxBatchCase], on: Planning<'_>) -> Result<Vec<Self>, String> {
        super::plan::plan(tables, on)
    }

    fn record(&self, _: Recording<'_>) -> SearchCase {
        self.case()
    }

    fn is_done(&self, lines: &[ProbeRecord]) -> bool {
        next_probe(self, lines).is_none()
    }

    fn run(&self, tokens: &OrdinaryTokens, session: &mut Session<'_>) -> Result<Ending, RunError> {
        run(self, tokens, session)
    }
}

impl SearchRun {
    /// Returns the name within a run: `max-batch-i256-o64`, plus the number of ranks if there are several.
    pub fn search_id(&self) -> String {
        let tp = if self.tp == 1 { String::new() } else { format!("-tp{}", self.tp) };
        format!("max-batch-i{}-o{}{tp}", self.input_tokens, self.output_tokens)
    }

    /// Returns the plan's record of this search.
    pub fn case(&self) -> SearchCase {
        SearchCase {
            search_id: self.search_id(),
            tp: self.tp as u32,
            input_tokens: self.input_tokens as u32,
            output_tokens: self.output_tokens as u32,
            low: self.low as u32,
            high: self.high as u32,
            limit_tpot: self.limit_tpot,
            limit_ttft: self.limit_ttft,
            repetitions: self.repetitions as u32,
        }
    }

    fn shape(&self, batch: usize) -> Shape {
        Shape { batch, input_tokens: self.input_tokens, output_tokens: self.output_tokens }
    }
}

/// Returns the batch to probe next, and why; `None` if the search is finished ([`record::next_probe`]).
pub fn next_probe(search: &SearchRun, probes: &[ProbeRecord]) -> Option<(usize, ProbePurpose)> {
    record::next_probe(&search.case(), probes).map(|(batch, purpose)| (batch as usize, purpose))
}

/// Runs the probes that have no line yet.
fn run(search: &SearchRun, tokens: &OrdinaryTokens, session: &mut Session<'_>) -> Result<Ending, RunError> {
    let id = search.search_id();
    session.dir.restore::<SearchCase>(&id)?;
    let mut probes = session.dir.read_probes()?;
    probes.retain(|p| p.search_id == id);
    session.observer.begin(&id, "probes", most_probes(search), probes.len() as u64);
    let ending = probe_all(search, tokens, &mut probes, session);
    session.observer.end();
    ending
}

fn probe_all(
    search: &SearchRun,
    tokens: &OrdinaryTokens,
    probes: &mut Vec<ProbeRecord>,
    session: &mut Session<'_>,
) -> Result<Ending, RunError> {
    while let Some((batch, purpose)) = next_probe(search, probes) {
        let Some(mut record) = probe(search, batch, tokens, session)? else { return Ok(Ending::Interrupted) };
        record.probe = probes.len() as u32;
        record.purpose = purpose;
        session.dir.append_probe(&record)?;
        session.sample()?;
        session.observer.advance();
        probes.push(record);
        if session.engine.has_failed() {
            session.spent = true;
            return Ok(Ending::Interrupted);
        }
    }
    Ok(Ending::Complete)
}

/// Returns the maximum number of probes: the low end, doubling up, bisecting back, and both neighbours once more.
fn most_probes(search: &SearchRun) -> u64 {
    // `high` is at most `width` times `low`, and neighbours by doubling are less than `width` apart. This bounds the
    // steps in both directions.
    let width = (search.high - search.low + 1) as u64;
    2 * u64::from(width.next_power_of_two().ilog2()) + 3
}

/// Probes one batch. Returns `None` if the run was stopped.
fn probe(
    search: &SearchRun,
    batch: usize,
    tokens: &OrdinaryTokens,
    session: &mut Session<'_>,
) -> Result<Option<ProbeRecord>, RunError> {
    let mut record = ProbeRecord {
        search_id: search.search_id(),
        probe: 0,
        purpose: ProbePurpose::Search,
        clock: session.clock(),
        batch: batch as u32,
        outcome: ProbeOutcome::Fits,
        reason: None,
        wanted_bytes: None,
        device_memory_bytes: None,
        ttft_ns: None,
        tpot_ns: None,
        repetitions: Vec::new(),
        output_hash: None,
        end_ns: 0,
    };
    if let Some((reason, wanted_bytes)) = no_room(search, batch, session) {
        record.outcome = ProbeOutcome::OutOfMemory;
        record.reason = Some(reason);
        record.wanted_bytes = Some(wanted_bytes);
    } else {
        session.forget_peak();
        match repetitions(search, batch, tokens, session) {
            Ok(None) => return Ok(None),
            Ok(Some(times)) => {
                judge(search, &times, session, &mut record);
                record.device_memory_bytes = session.peak_device_memory();
            }
            Err(RunError::Engine(lost @ EngineError::Device(DeviceError::Lost { .. }))) => {
                return Err(lost.into());
            }
            Err(error @ RunError::Record(_)) => return Err(error),
            Err(error) => {
                let oom = |e: &RunError| {
                    matches!(e, RunError::Engine(EngineError::Device(DeviceError::OutOfMemory { .. })))
                };
                let out_of_memory = oom(&error);
                record.outcome = if out_of_memory { ProbeOutcome::OutOfMemory } else { ProbeOutcome::Failed };
                record.reason = Some(error.to_string());
            }
        }
        session.engine.clear();
    }
    record.end_ns = session.run_ns(session.engine.now_ns());
    Ok(Some(record))
}

/// Returns why the loaded engine cannot hold a batch, and the memory that it would take; `None` if it can.
fn no_room(search: &SearchRun, batch: usize, session: &Session<'_>) -> Option<(String, u64)> {
    let (config, capacity) = session.engine.model()?;
    let wanted = wanted_capacity(
        search.input_tokens + search.output_tokens,
        batch,
        config.pre_seq_len.unwrap_or(0),
        capacity,
    );
    if wanted.kv_blocks <= capacity.kv_blocks && batch <= capacity.max_batch {
        return None;
    }
    let device = session.engine.device_info();
    let rank = MemoryEstimate::per_rank(config, MemoryOf::device(&device), wanted, device.tp).ok()?;
    let bytes = rank.of_ranks(device.tp).total_bytes();
    let reason = format!(
        "{} KV blocks are wanted, memory was taken for {} and {} sequences; by the estimate it takes {:.2} GB",
        wanted.kv_blocks,
        capacity.kv_blocks,
        capacity.max_batch,
        bytes as f64 / 1e9
    );
    Some((reason, bytes))
}

/// Runs one warm-up, then the timed repetitions. Returns `None` if the run was stopped.
fn repetitions(
    search: &SearchRun,
    batch: usize,
    tokens: &OrdinaryTokens,
    session: &mut Session<'_>,
) -> Result<Option<Vec<Repetition>>, RunError> {
    let shape = search.shape(batch);
    let prompts = prompts(shape, tokens, search.seed);
    let mut times = Vec::with_capacity(search.repetitions);
    session.start_afresh()?;
    for number in 0..=search.repetitions {
        if session.stopped() {
            return Ok(None);
        }
        let repetition = repeat(session.engine, shape, &prompts)?;
        if number > 0 {
            times.push(repetition);
        } else if session.clock() == Clock::Modelled {
            session.go_on_from_lines()?;
        }
    }
    Ok(Some(times))
}

/// Decides the outcome by the medians of the repetitions.
fn judge(search: &SearchRun, times: &[Repetition], session: &Session<'_>, record: &mut ProbeRecord) {
    let middle = |of: fn(&Repetition) -> f64| median(&times.iter().map(of).collect::<Vec<_>>());
    let gaps = search.output_tokens.saturating_sub(1).max(1) as f64;
    let ttft = middle(|r| (r.first_token_ns - r.start_ns) as f64);
    let tpot = middle(|r| (r.end_ns - r.first_token_ns) as f64).map(|decode| decode / gaps);
    record.ttft_ns = ttft.map(|ns| ns.round() as u64);
    record.tpot_ns = tpot.map(|ns| ns.round() as u64);
    record.output_hash = times.first().map(|r| r.output_hash.clone());
    record.repetitions = times
        .iter()
        .map(|r| ProbeRepetition {
            start_ns: session.run_ns(r.start_ns),
            first_token_ns: session.run_ns(r.first_token_ns),
            end_ns: session.run_ns(r.end_ns),
        })
        .collect();
    if times.windows(2).any(|pair| pair[0].output_hash != pair[1].output_hash) {
        record.outcome = ProbeOutcome::Failed;
        record.reason = Some("output differs between repetitions of the same prompts".into());
        return;
    }
    let passed = |name: &str, ns: Option<u64>, limit: Option<Objective>| {
        let (ns, limit) = ns.zip(limit).filter(|(ns, limit)| limit.is_exceeded_by(*ns as f64))?;
        Some(format!("{name} {} ms, limit {} ms", ns as f64 / 1e6, limit.ms()))
    };
    let reasons: Vec<String> = [
        passed("TPOT", record.tpot_ns, Some(search.limit_tpot)),
        passed("TTFT", record.ttft_ns, search.limit_ttft),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !reasons.is_empty() {
        record.outcome = ProbeOutcome::TooSlow;
        record.reason = Some(reasons.join("; "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::search_answer;
    use proptest::prelude::*;

    fn range(low: usize, high: usize) -> SearchRun {
        SearchRun {
            input_tokens: 16,
            output_tokens: 3,
            low,
            high,
            limit_tpot: Objective::of_ns(1),
            limit_ttft: None,
            repetitions: 1,
            tp: 1,
            seed: 1,
        }
    }

    /// Runs a search in which `outcome` gives the outcome of a batch at its n-th probe.
    fn search(run: &SearchRun, outcome: &dyn Fn(usize, usize) -> ProbeOutcome) -> Vec<ProbeRecord> {
        let mut probes: Vec<ProbeRecord> = Vec::new();
        while let Some((batch, purpose)) = next_probe(run, &probes) {
            let before = probes.iter().filter(|p| p.batch == batch as u32).count();
            let outcome = outcome(batch, before);
            probes.push(ProbeRecord {
                search_id: run.search_id(),
                probe: probes.len() as u32,
                purpose,
                clock: crate::record::Clock::Modelled,
                batch: batch as u32,
                outcome,
                reason: None,
                wanted_bytes: (outcome == ProbeOutcome::OutOfMemory).then_some(1),
                device_memory_bytes: None,
                ttft_ns: None,
                tpot_ns: None,
                repetitions: Vec::new(),
                output_hash: None,
                end_ns: 0,
            });
            assert!(probes.len() < 100, "no end");
        }
        probes
    }

    fn batches(probes: &[ProbeRecord]) -> Vec<u32> {
        probes.iter().map(|p| p.batch).collect()
    }

    use ProbeOutcome::{Failed, Fits, OutOfMemory, TooSlow};

    #[test]
    fn it_doubles_then_halves_then_looks_at_both_sides_again() {
        let found = search(&range(1, 64), &|batch, _| if batch <= 11 { Fits } else { TooSlow });
        assert_eq!(batches(&found), [1, 2, 4, 8, 16, 12, 10, 11, 11, 12]);
        assert_eq!(found.iter().filter(|p| p.purpose == ProbePurpose::Verify).count(), 2);
        let found = search(&range(600, 700), &|_, _| Fits);
        assert_eq!(batches(&found), [600, 700, 700]);
        let found = search(&range(4, 9), &|batch, _| if batch > 6 { OutOfMemory } else { Fits });
        assert_eq!(batches(&found), [4, 8, 6, 7, 6], "memory is not measured twice");
        let found = search(&range(5, 5), &|_, _| TooSlow);
        assert_eq!((batches(&found), search_answer(&found).batch), (vec![5, 5], 0));
    }

    #[test]
    fn another_error_ends_it() {
        let found = search(&range(1, 64), &|batch, _| if batch == 8 { Failed } else { Fits });
        assert_eq!(batches(&found), [1, 2, 4, 8]);
        let answer = search_answer(&found);
        assert!(answer.batch == 4 && answer.failure.is_some());
    }

    #[test]
    fn answers_that_contradict_one_another_are_told() {
        let moody = |batch, before| if batch <= 6 && !(batch == 6 && before == 1) { Fits } else { TooSlow };
        let answer = search_answer(&search(&range(1, 32), &moody));
        assert!(answer.contradiction.unwrap().starts_with("batch 6 is too slow"));
        assert_eq!(answer.batch, 4);
        let relenting = |batch, before| if batch <= 6 || before > 0 { Fits } else { TooSlow };
        let answer = search_answer(&search(&range(1, 32), &relenting));
        assert!(answer.contradiction.unwrap().contains("batch 7 is too slow"));
        assert_eq!(answer.batch, 6);
    }

    #[test]
    fn the_longest_way_to_a_threshold_is_as_long_as_foretold() {
        let run = range(1, 1724);
        let found = search(&run, &|batch, _| if batch <= 1037 { Fits } else { TooSlow });
        assert_eq!((found.len(), most_probes(&run)), (24, 25));
    }

    proptest! {
        #[test]
        fn a_monotone_threshold_is_found_exactly_and_soon(low in 1_usize..50, width in 0_usize..2000, at in 0_usize..2100) {
            let run = range(low, low + width);
            let found = search(&run, &|batch, _| if batch <= at { Fits } else { TooSlow });
            let answer = search_answer(&found);
            let wanted = if at < low { 0 } else { at.min(run.high) };
            prop_assert_eq!(answer.batch as usize, wanted);
            prop_assert_eq!(answer.contradiction, None);
            prop_assert!(found.iter().all(|p| (run.low..=run.high).contains(&(p.batch as usize))));
            prop_assert!(found.len() as u64 <= most_probes(&run), "{} probes", found.len());
        }
    }
}
