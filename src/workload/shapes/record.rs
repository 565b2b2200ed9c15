//! Performance cases of the plan, and their timed repetitions.

use crate::record::course::{Course, Timed};
use crate::record::{Clock, Keyed, OperatorRecord, RecordError, RooflineSamples, RunDir};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A shape of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PerformanceCase {
    /// The case's name, as in the requests.
    pub case_id: String,
    /// Tensor-parallel ranks.
    #[serde(default = "crate::record::wire::one")]
    pub tp: u32,
    /// Sequences in the batch.
    pub batch: u32,
    /// Prompt tokens of each sequence. For real prompts, which differ: their mean over all batches, rounded.
    pub input_tokens: u32,
    /// Tokens to generate for each sequence.
    pub output_tokens: u32,
    /// Real prompts; `None` for random tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<PromptsCase>,
    /// Why the case does not fit on the device. If set, it was not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfit: Option<String>,
    /// The largest batch of these lengths that fits the card's memory beside the weights, by estimate. `None` off a card, and in
    /// records older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest_batch: Option<u32>,
    /// Memory of a chip for this case alone, in bytes, by estimate. `None` off a card, and in records older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone_bytes: Option<u64>,
    /// Timed repetitions to run; for real prompts, per batch.
    pub repetitions: u32,
    /// Seed of the random prompts. `None` for real prompts, and in records older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Minimum work of the prefill phase, for the roofline.
    pub prefill_cost: Option<Cost>,
    /// Minimum work of all decode steps together.
    pub decode_cost: Option<Cost>,
}

impl PerformanceCase {
    /// Returns the number of timed repetitions over all batches of prompts.
    pub fn timed(&self) -> u64 {
        u64::from(self.repetitions) * u64::from(self.prompts.as_ref().map_or(1, |prompts| prompts.groups))
    }

    /// Whether nothing is left to run. The case was skipped, all timed repetitions have lines, or a repetition failed,
    /// which ends the case.
    pub fn is_finished(&self, requests: &[RequestRecord]) -> bool {
        let own = || requests.iter().filter(|request| request.case_id == self.case_id);
        let timed = own().filter(|request| request.kind == RepetitionKind::Timed).count() as u64;
        self.unfit.is_some() || timed >= self.timed() || own().any(|request| request.error.is_some())
    }
}

/// The real prompts of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptsCase {
    /// Data set or file.
    pub source: String,
    /// Number of timed batches. Each is timed [`PerformanceCase::repetitions`] times.
    pub groups: u32,
    /// Tokens of the shortest prompt fed.
    pub shortest: u32,
    /// Tokens of the longest prompt fed.
    pub longest: u32,
    /// How questions were turned into prompts and batches, in words.
    pub notes: Vec<String>,
}

/// Work of one phase of one repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Bytes that must cross the memory bus.
    pub bytes: u64,
    /// Floating-point operations.
    pub flops: u64,
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
    #[serde(default = "crate::record::wire::one")]
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
    /// Peak resident memory of the process, since the start of the case or the roofline sample before this repetition.
    pub peak_rss_bytes: Option<u64>,
    /// Peak memory use of one card of the run during the repetition. Only for timed repetitions, if the cards report it. Older
    /// programs wrote the use after the repetition.
    #[serde(default)]
    pub device_memory_bytes: Option<u64>,
    /// Operator times of the steps. Empty unless operators were timed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<OperatorRecord>,
    /// The roofline just before and after the repetition, outside all times above. Present if a target names
    /// the case and the clock is measured.
    #[serde(rename = "spots", default, skip_serializing_if = "Option::is_none")]
    pub roofline_samples: Option<RooflineSamples>,
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

impl Timed for RequestRecord {
    fn clock(&self) -> Clock {
        self.clock
    }

    fn end_ns(&self) -> u64 {
        self.end_ns
    }

    fn has_failed(&self) -> bool {
        self.error.is_some()
    }
}

impl PerformanceCase {
    /// Whether the line has the planned shape. Real prompts have lengths of their own.
    fn is_shape_of(&self, line: &RequestRecord) -> bool {
        (line.batch, line.output_tokens, line.tp) == (self.batch, self.output_tokens, self.tp)
            && (self.prompts.is_some() || line.input_tokens == self.input_tokens)
    }
}

/// The recorded repetitions of a case.
#[derive(Default)]
pub(crate) struct Repeated {
    warm_ups: u32,
    timed: u32,
    has_failed: bool,
}

impl Course for PerformanceCase {
    type Line = RequestRecord;
    type State = Repeated;
    const KIND: &'static str = "case";
    const JOURNAL: &'static str = "requests.jsonl";
    const IN_EVERY_RUN: bool = true;

    fn id(&self) -> &str {
        &self.case_id
    }

    fn tp(&self) -> u32 {
        self.tp
    }

    fn is_run(&self) -> bool {
        self.unfit.is_none()
    }

    fn part_of(line: &RequestRecord) -> &str {
        &line.case_id
    }

    fn follows(&self, state: &Repeated, line: &RequestRecord) -> bool {
        let before = match line.kind {
            RepetitionKind::Warmup => state.warm_ups,
            RepetitionKind::Timed => state.timed,
        };
        !self.is_whole(state) && line.repetition == before && self.is_shape_of(line)
    }

    fn take(state: &mut Repeated, line: &RequestRecord) {
        match line.kind {
            RepetitionKind::Warmup => state.warm_ups += 1,
            RepetitionKind::Timed => state.timed += 1,
        }
        state.has_failed |= line.error.is_some();
    }

    /// A failed repetition ends its case.
    fn is_whole(&self, state: &Repeated) -> bool {
        self.unfit.is_some() || u64::from(state.timed) >= self.timed() || state.has_failed
    }

    fn extent(&self, state: &Repeated) -> String {
        format!("{} of {} timed repetitions", state.timed, self.timed())
    }

    fn in_turns(line: &RequestRecord) -> bool {
        line.block.is_some()
    }

    /// Every repetition has operator times, if they were requested.
    fn shortcoming(operators: bool, lines: &[RequestRecord]) -> Option<String> {
        let without = |r: &&RequestRecord| r.operators.is_empty() && r.error.is_none();
        let count = lines.iter().filter(without).count();
        (operators && count > 0)
            .then(|| format!("{count} repetitions are without the times of their operators"))
    }
}

impl RunDir {
    /// Appends a line to `requests.jsonl`. Rejects a repetition that is already there.
    pub fn append_request(&mut self, record: &RequestRecord) -> Result<(), RecordError> {
        self.append::<PerformanceCase>(record)
    }

    /// Reads all whole lines of `requests.jsonl`, in order; none if the file does not exist.
    pub fn read_requests(&self) -> Result<Vec<RequestRecord>, RecordError> {
        self.read::<PerformanceCase>()
    }
}
