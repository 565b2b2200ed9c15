//! One timed repetition of a performance case.

use super::journal::Keyed;
use super::limits::Spots;
use super::operators::OperatorRecord;
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

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Measured => "measured",
            Self::Modelled => "modelled",
        })
    }
}

/// Whether a repetition counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RepetitionKind {
    /// Run at the measured shape until times settle. Recorded, not counted.
    Warmup,
    /// Counted.
    Timed,
}

/// A line of `requests.jsonl`: one batch of `batch` equal requests, run once.
///
/// `start_ns`, `first_token_ns` and `end_ns` are points in time on the run's clock, in nanoseconds from run start.
/// `prefill_ns` and `step_ns` are durations. The metrics, in ModelTest's terms, are:
/// - TTFT = `first_token_ns − start_ns`, tokenization excluded;
/// - prefill time = `prefill_ns`, the sum of all prefill steps of the batch;
/// - decode time = `end_ns − first_token_ns`; TPOT = decode time / (`output_tokens` − 1), undefined for one token;
/// - ITL = each of `step_ns`;
/// - E2E = `end_ns − start_ns`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// The case in the plan.
    pub case_id: String,
    /// Warm-up or timed.
    pub kind: RepetitionKind,
    /// Index within its kind, from 0; case, kind and repetition are the line's key.
    pub repetition: u32,
    /// The clock of every time below.
    pub clock: Clock,
    /// Tensor-parallel ranks.
    #[serde(default = "super::wire::one")]
    pub tp: u32,
    /// The block of an interleaved run. Repetitions of two configurations with the same block ran next to each other.
    /// If the run's group counts its blocks, they ran in a process started for this block. In that case, `None` means
    /// that another process timed the other configuration's repetition.
    #[serde(default)]
    pub block: Option<u32>,
    /// Sequences in the batch.
    pub batch: u32,
    /// Prompt tokens of each sequence. For real prompts, which differ: their mean, rounded.
    pub input_tokens: u32,
    /// Tokens generated for each sequence.
    pub output_tokens: u32,
    /// The real prompts; `None` for random tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<GroupPrompts>,
    /// When the batch was passed to the engine.
    pub start_ns: u64,
    /// Sum of the durations of the prefill steps, including the sampling of the first token.
    pub prefill_ns: u64,
    /// When the last sequence of the batch had its first token.
    pub first_token_ns: u64,
    /// Duration of each decode step. There are `output_tokens − 1` if all sequences advance together.
    pub step_ns: Vec<u64>,
    /// When the last token of the batch was chosen.
    pub end_ns: u64,
    /// Hash (hex) of all generated ids. It must be equal in all repetitions of a case.
    pub output_hash: String,
    /// Peak resident memory of the process, since the start of the case or the spot measurement before this repetition.
    pub peak_rss_bytes: Option<u64>,
    /// Largest memory use of one of the run's cards after the repetition. Only for timed repetitions, if the cards
    /// report it.
    #[serde(default)]
    pub device_memory_bytes: Option<u64>,
    /// Operator times of the steps. Empty unless operators were timed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<OperatorRecord>,
    /// The machine's limits just before and after the repetition, outside all times above. Present if a target names
    /// the case and the clock is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spots: Option<Spots>,
    /// Why the repetition failed. If set, its times are meaningless, and no further repetition of the case is run.
    pub error: Option<String>,
}

/// The data set prompts of a repetition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPrompts {
    /// Index of the batch of prompts. Repetitions with the same batch must give the same output.
    pub group: u32,
    /// Prompt tokens of each sequence, as fed.
    pub input_tokens: Vec<u32>,
}

impl RequestRecord {
    /// Returns the number of prompt tokens of the whole batch.
    pub fn prompt_tokens(&self) -> u64 {
        match &self.prompts {
            Some(prompts) => prompts.input_tokens.iter().map(|&n| u64::from(n)).sum(),
            None => u64::from(self.batch) * u64::from(self.input_tokens),
        }
    }
}

/// The key of a line of `requests.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// The case.
    pub case_id: String,
    /// Warm-up or timed.
    pub kind: RepetitionKind,
    /// Index within its kind.
    pub repetition: u32,
}

impl fmt::Display for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            RepetitionKind::Warmup => "warm-up",
            RepetitionKind::Timed => "timed",
        };
        write!(f, "{kind} repetition {} of case {}", self.repetition, self.case_id)
    }
}

impl Keyed for RequestRecord {
    type Key = RequestKey;

    fn key(&self) -> RequestKey {
        RequestKey { case_id: self.case_id.clone(), kind: self.kind, repetition: self.repetition }
    }
}
