//! Max-batch searches of the plan, their probes, and the rows of `max_batch.csv`.

use crate::language::{Text, ToText, text};
use crate::record::course::{Course, Timed};
use crate::record::{Clock, Keyed, Objective, RecordError, RunDir, Word};
use glmbench_device::{DeviceName, Precision};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A search of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchCase {
    /// The search's name, as in the probes.
    pub search_id: String,
    /// Tensor-parallel ranks.
    pub tp: u32,
    /// Prompt tokens of each sequence.
    pub input_tokens: u32,
    /// Tokens to generate for each sequence.
    pub output_tokens: u32,
    /// Smallest batch of the range.
    pub low: u32,
    /// Largest batch of the range.
    pub high: u32,
    /// Maximum time per token after the first.
    #[serde(rename = "limit_tpot_ns")]
    pub limit_tpot: Objective,
    /// Maximum time to the first token of all sequences.
    #[serde(rename = "limit_ttft_ns")]
    pub limit_ttft: Option<Objective>,
    /// Timed repetitions of each probe.
    pub repetitions: u32,
}

/// The result of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeOutcome {
    /// The batch ran within the limits.
    Fits,
    /// The batch ran and exceeded a limit.
    TooSlow,
    /// The batch does not fit in memory.
    OutOfMemory,
    /// Another error, which ends the search.
    Failed,
}

impl ProbeOutcome {
    /// Returns the words used in tables.
    pub fn words(self) -> Text {
        match self {
            Self::Fits => text!("fits"),
            Self::TooSlow => text!("too slow"),
            Self::OutOfMemory => text!("out of memory"),
            Self::Failed => text!("failed"),
        }
    }
}

/// Why a batch was probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbePurpose {
    /// To find the boundary.
    Search,
    /// To measure both sides of the boundary once more.
    Verify,
}

impl ToText for ProbePurpose {
    fn to_text(&self) -> Text {
        match self {
            Self::Search => text!("search"),
            Self::Verify => text!("verify"),
        }
    }
}

impl fmt::Display for ProbePurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Search => "search",
            Self::Verify => "verify",
        })
    }
}

/// One timed repetition of a probe. Points in time on the run's clock, in nanoseconds from run start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeRepetition {
    /// When the batch was passed to the engine.
    pub start_ns: u64,
    /// When the last sequence of the batch had its first token.
    pub first_token_ns: u64,
    /// When the last token of the batch was chosen.
    pub end_ns: u64,
}

/// A line of `probes.jsonl`. TTFT and TPOT are defined as in [`crate::record::RequestRecord`]. Their medians over the
/// repetitions decide the outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeRecord {
    /// The search in the plan.
    pub search_id: String,
    /// Index within the search, from 0; search and probe are the line's key.
    pub probe: u32,
    /// Why this batch was probed.
    pub purpose: ProbePurpose,
    /// The clock of every time below.
    pub clock: Clock,
    /// Sequences in the batch.
    pub batch: u32,
    /// The result.
    pub outcome: ProbeOutcome,
    /// Which limit was exceeded and by how much, how much memory was missing, or what failed. `None` if the batch fits.
    pub reason: Option<String>,
    /// Memory that the batch needs, if it was not run for lack of memory.
    pub wanted_bytes: Option<u64>,
    /// Peak memory in use on one card during the repetitions. `None` if no card was read, or an older program wrote the line.
    /// KV blocks are taken for the largest batch of the range that fits, so batches differ in working memory alone.
    #[serde(default)]
    pub device_memory_bytes: Option<u64>,
    /// Median time to the first token of all sequences.
    pub ttft_ns: Option<u64>,
    /// Median time per token after the first.
    pub tpot_ns: Option<u64>,
    /// The timed repetitions. The warm-up before them is not recorded.
    pub repetitions: Vec<ProbeRepetition>,
    /// Hash of all generated ids, equal in every repetition.
    pub output_hash: Option<String>,
    /// When the probe finished, on the run's clock.
    pub end_ns: u64,
}

/// The key of a line of `probes.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProbeKey {
    /// The search.
    pub search_id: String,
    /// Index within it.
    pub probe: u32,
}

impl fmt::Display for ProbeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "probe {} of search {}", self.probe, self.search_id)
    }
}

impl Keyed for ProbeRecord {
    type Key = ProbeKey;

    fn key(&self) -> ProbeKey {
        ProbeKey { search_id: self.search_id.clone(), probe: self.probe }
    }
}

/// Returns the next batch to probe and why, or `None` when the search has ended. This is a pure function of the lines
/// so far and part of the format: readers use it to detect missing lines. A different rule therefore needs a new
/// [`crate::record::SCHEMA`].
///
/// The search starts with the low end. It then doubles the largest batch that fits, until a batch does not fit or the
/// high end fits. After that it bisects between the largest batch that fits and the smallest that does not, until they
/// are neighbours. Finally it probes both of these once more.
pub fn next_probe(search: &SearchCase, probes: &[ProbeRecord]) -> Option<(u32, ProbePurpose)> {
    if probes.iter().any(|p| p.outcome == ProbeOutcome::Failed) {
        return None;
    }
    let of = |purpose| probes.iter().filter(move |p| p.purpose == purpose);
    let fits = |p: &&ProbeRecord| p.outcome == ProbeOutcome::Fits;
    let good = of(ProbePurpose::Search).filter(fits).map(|p| p.batch).max();
    let bad = of(ProbePurpose::Search).filter(|p| !fits(p)).min_by_key(|p| p.batch);
    let search_for = |batch| Some((batch, ProbePurpose::Search));
    match (good, bad.map(|p| p.batch)) {
        (None, None) => return search_for(search.low),
        (Some(good), None) if good < search.high => {
            return search_for(good.saturating_mul(2).min(search.high));
        }
        (Some(good), Some(bad)) if bad.saturating_sub(good) > 1 => {
            return search_for(good + (bad - good) / 2);
        }
        _ => {}
    }
    // A batch that was not run for lack of memory would not run now either.
    let measured = bad.filter(|p| p.wanted_bytes.is_none()).map(|p| p.batch);
    let neighbours: Vec<u32> = good.into_iter().chain(measured).collect();
    let verified = of(ProbePurpose::Verify).count();
    neighbours.get(verified).map(|&batch| (batch, ProbePurpose::Verify))
}

/// The result of the probes of one search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchAnswer {
    /// The largest batch that fits, provided that no batch at or below it does not fit; 0 if there is none.
    pub batch: u32,
    /// Two probes that contradict each other, assuming that a larger batch is never easier.
    pub contradiction: Option<Text>,
    /// The error that ended the search early.
    pub failure: Option<Text>,
}

/// Derives the result of a search from its probes, in order.
pub fn search_answer(probes: &[ProbeRecord]) -> SearchAnswer {
    let fits = |p: &&ProbeRecord| p.outcome == ProbeOutcome::Fits;
    let least_bad = probes.iter().filter(|p| !fits(p)).min_by_key(|p| p.batch);
    let below = |p: &&ProbeRecord| least_bad.is_none_or(|bad| p.batch < bad.batch);
    let batch = probes.iter().filter(fits).filter(below).map(|p| p.batch).max().unwrap_or(0);
    let most_good = probes.iter().filter(fits).max_by_key(|p| p.batch);
    let contradiction =
        most_good.zip(least_bad).filter(|(good, bad)| good.batch >= bad.batch).map(|(good, bad)| {
            text!(
                "batch {bad} {how} (probe {bad_probe}), batch {good} fits (probe {good_probe})",
                bad = bad.batch,
                how = match bad.outcome {
                    ProbeOutcome::TooSlow => text!("is too slow"),
                    ProbeOutcome::OutOfMemory => text!("is out of memory"),
                    ProbeOutcome::Failed | ProbeOutcome::Fits => text!("failed"),
                },
                bad_probe = bad.probe,
                good = good.batch,
                good_probe = good.probe
            )
        });
    let failed = probes.iter().find(|p| p.outcome == ProbeOutcome::Failed);
    let failure = failed.map(|p| {
        let reason = p.reason.as_ref().map_or_else(|| text!("no reason was recorded"), Text::from);
        text!("batch {batch}: {reason}", batch = p.batch, reason)
    });
    SearchAnswer { batch, contradiction, failure }
}

impl Timed for ProbeRecord {
    fn clock(&self) -> Clock {
        self.clock
    }

    fn end_ns(&self) -> u64 {
        self.end_ns
    }

    fn has_failed(&self) -> bool {
        self.outcome == ProbeOutcome::Failed
    }
}

impl SearchCase {
    /// Whether the outcome follows from the times and the limits.
    fn is_judged_so(&self, line: &ProbeRecord) -> bool {
        let passes = |ns: Option<u64>, limit: Option<Objective>| {
            ns.zip(limit).is_some_and(|(ns, limit)| limit.is_exceeded_by(ns as f64))
        };
        let slow = passes(line.tpot_ns, Some(self.limit_tpot)) || passes(line.ttft_ns, self.limit_ttft);
        match line.outcome {
            ProbeOutcome::Fits => !slow,
            ProbeOutcome::TooSlow => slow,
            ProbeOutcome::OutOfMemory | ProbeOutcome::Failed => true,
        }
    }
}

impl Course for SearchCase {
    type Line = ProbeRecord;
    type State = Vec<ProbeRecord>;
    const KIND: &'static str = "search";
    const JOURNAL: &'static str = "probes.jsonl";

    fn id(&self) -> &str {
        &self.search_id
    }

    fn tp(&self) -> u32 {
        self.tp
    }

    fn part_of(line: &ProbeRecord) -> &str {
        &line.search_id
    }

    fn follows(&self, state: &Self::State, line: &ProbeRecord) -> bool {
        line.probe as usize == state.len()
            && next_probe(self, state) == Some((line.batch, line.purpose))
            && self.is_judged_so(line)
    }

    fn take(state: &mut Self::State, line: &ProbeRecord) {
        state.push(line.clone());
    }

    fn is_whole(&self, state: &Self::State) -> bool {
        next_probe(self, state).is_none()
    }

    fn extent(&self, state: &Self::State) -> String {
        match next_probe(self, state) {
            Some((batch, _)) => format!("{} probes, and batch {batch} would be next", state.len()),
            None => format!("{} probes", state.len()),
        }
    }
}

impl RunDir {
    /// Appends a line to `probes.jsonl`. Rejects a probe that is already there.
    pub fn append_probe(&mut self, record: &ProbeRecord) -> Result<(), RecordError> {
        self.append::<SearchCase>(record)
    }

    /// Reads all whole lines of `probes.jsonl`, in order; none if the file does not exist.
    pub fn read_probes(&self) -> Result<Vec<ProbeRecord>, RecordError> {
        self.read::<SearchCase>()
    }
}

/// A row of `max_batch.csv`: one probe, with the search it belongs to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeRow {
    /// [`crate::record::SCHEMA`].
    pub schema: u32,
    /// The run.
    pub run_id: String,
    /// The search.
    pub search_id: String,
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
    /// Prompt tokens of each sequence.
    pub input_tokens: u32,
    /// Tokens generated for each sequence.
    pub output_tokens: u32,
    /// Maximum time per token after the first.
    pub limit_tpot_ns: u64,
    /// Maximum time to the first token.
    pub limit_ttft_ns: Option<u64>,
    /// Index of the probe.
    pub probe: u32,
    /// Why this batch was probed.
    pub purpose: ProbePurpose,
    /// Sequences in the batch.
    pub batch: u32,
    /// The result.
    pub outcome: ProbeOutcome,
    /// Timed repetitions.
    pub reps: u64,
    /// Median time to the first token of all sequences.
    pub ttft_ns: Option<u64>,
    /// Median time per token after the first.
    pub tpot_ns: Option<u64>,
    /// Decode throughput at that median: batch ÷ TPOT.
    pub decode_tokens_per_s: Option<f64>,
    /// Memory that the batch needs, if it was not run for lack of memory.
    pub wanted_bytes: Option<u64>,
    /// Why the batch does not fit.
    pub reason: Option<String>,
    /// Whether the batch is the result of the search.
    pub answer: bool,
    /// The host that ran the search.
    pub host: String,
}

impl ProbeRow {
    /// The header of `max_batch.csv`.
    pub const HEADER: &'static str = "schema,run_id,search_id,engine,device,clock,dtype,tp,threads,input_tokens,\
        output_tokens,limit_tpot_ns,limit_ttft_ns,probe,purpose,batch,outcome,reps,ttft_ns,tpot_ns,\
        decode_tokens_per_s,wanted_bytes,reason,answer,host";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::golden::probe;

    fn probes(outcomes: &[(u32, ProbeOutcome)]) -> Vec<ProbeRecord> {
        let record = |(index, &(batch, outcome))| ProbeRecord { probe: index, batch, outcome, ..probe() };
        (0..).zip(outcomes).map(record).collect()
    }

    #[test]
    fn the_answer_is_the_largest_batch_with_nothing_bad_at_or_below_it() {
        use ProbeOutcome::{Failed, Fits, OutOfMemory, TooSlow};
        let of = |outcomes: &[(u32, ProbeOutcome)]| search_answer(&probes(outcomes));
        let answer = of(&[(1, Fits), (8, OutOfMemory), (4, Fits), (6, TooSlow), (5, Fits), (5, Fits)]);
        assert_eq!((answer.batch, answer.contradiction, answer.failure), (5, None, None));
        assert_eq!(of(&[(3, TooSlow)]).batch, 0);
        assert_eq!(of(&[]).batch, 0);
        let answer = of(&[(4, Fits), (5, TooSlow), (4, TooSlow), (3, Fits)]);
        assert_eq!(answer.batch, 3);
        assert_eq!(answer.contradiction.unwrap(), "batch 4 is too slow (probe 2), batch 4 fits (probe 0)");
        let answer = of(&[(4, Fits), (8, Failed)]);
        assert_eq!(
            (answer.batch, answer.failure.unwrap().to_string().as_str()),
            (4, "batch 8: TPOT 61 ms, limit 50 ms")
        );
    }
}
