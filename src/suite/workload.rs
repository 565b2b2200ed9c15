//! Suite types for max-batch searches, load, and the prompts of real data sets.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::dataset::Benchmark;

/// Default number of repetitions of each probe of a max-batch search.
pub const DEFAULT_PROBE_REPETITIONS: usize = 3;
/// Default number of sequences at once under load.
pub const DEFAULT_LOAD_BATCH: usize = 16;

/// One `[[max_batch]]` table: finds the largest batch within a range that meets the limits, for every pair of lengths.
#[derive(Debug, Clone, PartialEq)]
pub struct MaxBatchCase {
    /// Input and output lengths in tokens.
    pub lengths: Vec<(usize, usize)>,
    /// Smallest and largest batch to consider, inclusive.
    pub batch_range: (usize, usize),
    /// Maximum milliseconds per token after the first (ModelTest: non-first token time).
    pub limit_tpot_ms: f64,
    /// Maximum milliseconds until every sequence of the batch has its first token.
    pub limit_ttft_ms: Option<f64>,
    /// Timed repetitions of each probe. Their median decides.
    pub repetitions: usize,
    /// Tensor-parallel sizes.
    pub tp_ranks: Vec<usize>,
    /// Seed of the input tokens.
    pub seed: u64,
    /// Configurations that the case applies to; all if empty.
    pub configurations: Vec<String>,
}

/// When the requests of a load arrive.
#[derive(Debug, Clone, PartialEq)]
pub enum Arrival {
    /// Poisson arrivals: independent exponential gaps.
    Poisson,
    /// Gamma-distributed gaps with this burstiness, the shape of the distribution: 1 is Poisson, less is burstier.
    Gamma(f64),
    /// Equal gaps.
    Fixed,
    /// As recorded in a trace file.
    Trace(PathBuf),
    /// When an earlier request ends: a closed loop.
    Closed,
}

impl Arrival {
    /// The names used in suites. A closed loop has `concurrency` instead of a name.
    pub const NAMES: [&'static str; 4] = ["poisson", "gamma", "fixed", "trace"];

    /// Returns the name used in suites and records.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Poisson => "poisson",
            Self::Gamma(_) => "gamma",
            Self::Fixed => "fixed",
            Self::Trace(_) => "trace",
            Self::Closed => "closed",
        }
    }
}

/// The request rates of a load case.
#[derive(Debug, Clone, PartialEq)]
pub enum Rates {
    /// Each of these rates, in requests per second.
    Listed(Vec<f64>),
    /// A search for the highest rate that the engine sustains.
    Saturation,
    /// A closed loop with each of these numbers of requests under way.
    Concurrency(Vec<u32>),
    /// The trace's own rate times each of these speeds.
    Speeds(Vec<f64>),
}

/// How many requests to send at each rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Extent {
    /// This number of requests.
    Requests(usize),
    /// The requests that arrive within this time, in seconds.
    DurationS(f64),
}

/// Service-level objectives of a request. `None` means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Objectives {
    /// Maximum milliseconds from arrival to the first token.
    pub ttft_ms: Option<f64>,
    /// Maximum milliseconds per token after the first.
    pub tpot_ms: Option<f64>,
    /// Maximum milliseconds from arrival to the last token.
    pub e2e_ms: Option<f64>,
}

/// One `[[load]]` table: requests that arrive whether or not the engine keeps up, or a closed loop.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadCase {
    /// The arrival process.
    pub arrival: Arrival,
    /// The request rates.
    pub rates: Rates,
    /// The number of requests at each rate.
    pub extent: Extent,
    /// Input and output lengths in tokens, which requests use in turn. With real prompts, input lengths are maxima. Empty
    /// for a trace, which has its own.
    pub lengths: Vec<(usize, usize)>,
    /// Source of real prompts; random tokens if `None`.
    pub prompts: Option<PromptSource>,
    /// Maximum number of sequences at once in an engine of this process.
    pub max_batch: usize,
    /// Service-level objectives of each request.
    pub objectives: Objectives,
    /// Tensor-parallel sizes.
    pub tp_ranks: Vec<usize>,
    /// Seed of arrivals and input tokens.
    pub seed: u64,
    /// Configurations that the case applies to; all if empty.
    pub configurations: Vec<String>,
}

/// The data behind real prompts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PromptSet {
    /// The default split of a data set in its own layout, in this folder.
    Dataset(&'static Benchmark, PathBuf),
    /// A file with one JSON object per line, each with a `question`.
    Jsonl(PathBuf),
}

/// Prompts from a data set instead of random tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptSource {
    /// The data.
    pub set: PromptSet,
    /// Whether to cut prompts to the input length. Otherwise a longer prompt is an error if it does not fit the model.
    pub truncate: bool,
    /// Whether to repeat a shorter prompt's tokens until the input length is reached, then cut.
    pub padding: bool,
    /// Number of batches to time; all if `None`. Load has no batches and sets this to 1.
    pub groups: Option<usize>,
}

impl MaxBatchCase {
    /// Returns the settings that determine the results, for the suite's content hash.
    pub(super) fn content(&self) -> Value {
        json!([
            self.lengths,
            self.batch_range,
            self.limit_tpot_ms,
            self.limit_ttft_ms,
            self.repetitions,
            self.seed
        ])
    }
}

impl LoadCase {
    /// Returns the settings that determine the results, for the suite's content hash.
    pub(super) fn content(&self) -> Value {
        let rates = match &self.rates {
            Rates::Listed(rates) => json!(rates),
            Rates::Saturation => json!("saturation"),
            Rates::Concurrency(levels) => json!(["concurrency", levels]),
            Rates::Speeds(speeds) => json!(["speeds", speeds]),
        };
        let arrival = match &self.arrival {
            Arrival::Gamma(burstiness) => json!(["gamma", burstiness]),
            named => json!(named.as_str()),
        };
        let extent = match self.extent {
            Extent::Requests(requests) => json!(["requests", requests]),
            Extent::DurationS(seconds) => json!(["seconds", seconds]),
        };
        let Objectives { ttft_ms, tpot_ms, e2e_ms } = self.objectives;
        let prompts = self.prompts.as_ref().map(PromptSource::content);
        let slo = json!([ttft_ms, tpot_ms, e2e_ms]);
        json!([arrival, rates, extent, self.lengths, prompts, self.max_batch, slo, self.seed])
    }
}

impl PromptSource {
    /// Returns the settings that determine the prompts, except the data. The run's identity covers the data by the hash
    /// of all token ids.
    pub(super) fn content(&self) -> Value {
        let set = match &self.set {
            PromptSet::Dataset(task, _) => task.name,
            PromptSet::Jsonl(_) => "jsonl",
        };
        json!([set, self.truncate, self.padding, self.groups])
    }
}
