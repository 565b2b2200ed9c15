//! One timed repetition of a performance case.

use super::journal::Keyed;
use super::limits::Spots;
use super::operators::OperatorRecord;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which clock a time came from. Nothing converts one into the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// A wall or device clock on hardware that was there.
    Measured,
    /// A virtual clock, kept from a chip profile.
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
    /// Run at the measured shape until times settle; kept, not counted.
    Warmup,
    /// Counted.
    Timed,
}

/// A line of `requests.jsonl`: one batch of `batch` equal requests, run once.
///
/// `start_ns`, `first_token_ns` and `end_ns` are points of the run's clock, nanoseconds from run start;
/// `prefill_ns` and `step_ns` are durations. From them (`facts`: ModelTest's words):
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
    /// Which block of an interleaved run it belongs to: repetitions of two configurations with the same block were run
    /// next to each other; where the run's group counts its blocks, in a process that was started for this block. `None` there
    /// where the other configuration's was timed by another process.
    #[serde(default)]
    pub block: Option<u32>,
    /// Sequences in the batch.
    pub batch: u32,
    /// Prompt tokens of each sequence; with real prompts, which differ, their mean, rounded.
    pub input_tokens: u32,
    /// Tokens generated for each sequence.
    pub output_tokens: u32,
    /// The real prompts; `None` for random tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<GroupPrompts>,
    /// When the batch was handed to the engine.
    pub start_ns: u64,
    /// Sum of the prefill steps' durations, sampling of the first token included.
    pub prefill_ns: u64,
    /// When the last sequence of the batch had its first token.
    pub first_token_ns: u64,
    /// Duration of each decode step: `output_tokens − 1` of them when the batch runs in step.
    pub step_ns: Vec<u64>,
    /// When the last token of the batch was chosen.
    pub end_ns: u64,
    /// Hash (hex) of all generated ids; every repetition of a case must have the same.
    pub output_hash: String,
    /// Peak resident memory of the process: since its case began, or since the spot before it.
    pub peak_rss_bytes: Option<u64>,
    /// Most memory in use on one of the run's cards when it had ended; of timed repetitions, where the cards tell.
    #[serde(default)]
    pub device_memory_bytes: Option<u64>,
    /// Where the time of the steps went; empty unless operators were timed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<OperatorRecord>,
    /// The machine's limits right before and after it, outside all times above; where a target speaks of the case and the
    /// clock is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spots: Option<Spots>,
    /// Why the repetition failed; its times then mean nothing, and no further repetition of the case is run.
    pub error: Option<String>,
}

/// Which prompts of a data set a repetition had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPrompts {
    /// Index of the batch of prompts; repetitions of the same one must give the same output.
    pub group: u32,
    /// Prompt tokens of each sequence, as they were fed.
    pub input_tokens: Vec<u32>,
}

impl RequestRecord {
    /// Prompt tokens of the whole batch.
    pub fn prompt_tokens(&self) -> u64 {
        match &self.prompts {
            Some(prompts) => prompts.input_tokens.iter().map(|&n| u64::from(n)).sum(),
            None => u64::from(self.batch) * u64::from(self.input_tokens),
        }
    }
}

/// What names a line of `requests.jsonl`.
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
