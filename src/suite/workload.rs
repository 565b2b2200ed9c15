//! What suites say of max-batch searches, load and the prompts of real data sets.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::dataset::Benchmark;

/// Repetitions of each probe of a max-batch search where a suite does not say.
pub const DEFAULT_PROBE_REPETITIONS: usize = 3;
/// Sequences at once under load where a suite does not say.
pub const DEFAULT_LOAD_BATCH: usize = 16;

/// One `[[max_batch]]` table: for every pair of lengths, the largest batch in a range that keeps the limits.
#[derive(Debug, Clone, PartialEq)]
pub struct MaxBatchCase {
    /// Input and output lengths in tokens.
    pub lengths: Vec<(usize, usize)>,
    /// Smallest and largest batch to consider, both included.
    pub batch_range: (usize, usize),
    /// Most milliseconds per token after the first (ModelTest: non-first token time).
    pub limit_tpot_ms: f64,
    /// Most milliseconds until every sequence of the batch has its first token.
    pub limit_ttft_ms: Option<f64>,
    /// Timed repetitions of each probe; their median decides.
    pub repetitions: usize,
    /// Tensor-parallel sizes.
    pub tp_ranks: Vec<usize>,
    /// Seed of the input tokens.
    pub seed: u64,
    /// The configurations it is for; all when empty.
    pub configurations: Vec<String>,
}

/// When requests arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// At random, independent of one another: exponential gaps.
    Poisson,
    /// At equal gaps.
    Fixed,
}

impl Arrival {
    /// The words for them.
    pub const NAMES: [&'static str; 2] = ["poisson", "fixed"];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Poisson => "poisson",
            Self::Fixed => "fixed",
        }
    }

    /// The process of that word.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Poisson, Self::Fixed].into_iter().find(|a| a.as_str() == name)
    }
}

/// At which rates a load is offered.
#[derive(Debug, Clone, PartialEq)]
pub enum Rates {
    /// At each of these, requests a second.
    Listed(Vec<f64>),
    /// At rates that close in on the highest one which the engine sustains.
    Saturation,
}

/// How many requests are offered at each rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Extent {
    /// So many.
    Requests(usize),
    /// As many as arrive in so many seconds.
    DurationS(f64),
}

/// What a request must keep to count as served well; what is `None` is not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Objectives {
    /// Most milliseconds from arrival to the first token.
    pub ttft_ms: Option<f64>,
    /// Most milliseconds per token after the first.
    pub tpot_ms: Option<f64>,
    /// Most milliseconds from arrival to the last token.
    pub e2e_ms: Option<f64>,
}

/// One `[[load]]` table: requests that arrive whether or not the engine keeps up.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadCase {
    /// When requests arrive.
    pub arrival: Arrival,
    /// At which rates.
    pub rates: Rates,
    /// How many at each.
    pub extent: Extent,
    /// Input and output lengths in tokens; requests take them in turn. With real prompts the inputs are their most.
    pub lengths: Vec<(usize, usize)>,
    /// Real prompts; random tokens when `None`.
    pub prompts: Option<PromptSource>,
    /// Most sequences at once.
    pub max_batch: usize,
    /// What a request must keep to count as served well.
    pub objectives: Objectives,
    /// Tensor-parallel sizes.
    pub tp_ranks: Vec<usize>,
    /// Seed of arrivals and input tokens.
    pub seed: u64,
    /// The configurations it is for; all when empty.
    pub configurations: Vec<String>,
}

/// Where real prompts come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PromptSet {
    /// The default split of a data set in its own layout, in this folder.
    Dataset(Benchmark, PathBuf),
    /// A file with one JSON object a line, each with a `question`.
    Jsonl(PathBuf),
}

/// Prompts of a data set instead of random tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptSource {
    /// Where they come from.
    pub set: PromptSet,
    /// Cut prompts to the input length; else a longer one is an error where it does not fit the model.
    pub truncate: bool,
    /// Repeat a shorter prompt's tokens until the input length is reached, then cut.
    pub padding: bool,
    /// Batches to be timed; all there are when `None`. Load takes no batches and has 1 here.
    pub groups: Option<usize>,
}

impl MaxBatchCase {
    /// What decides its results, for the suite's content hash.
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
    /// What decides its results, for the suite's content hash.
    pub(super) fn content(&self) -> Value {
        let rates = match &self.rates {
            Rates::Listed(rates) => json!(rates),
            Rates::Saturation => json!("saturation"),
        };
        let extent = match self.extent {
            Extent::Requests(requests) => json!(["requests", requests]),
            Extent::DurationS(seconds) => json!(["seconds", seconds]),
        };
        let Objectives { ttft_ms, tpot_ms, e2e_ms } = self.objectives;
        let prompts = self.prompts.as_ref().map(PromptSource::content);
        let slo = json!([ttft_ms, tpot_ms, e2e_ms]);
        json!([self.arrival.as_str(), rates, extent, self.lengths, prompts, self.max_batch, slo, self.seed])
    }
}

impl PromptSource {
    /// What decides the prompts besides the data, which a run's identity has by the hash of all token ids.
    pub(super) fn content(&self) -> Value {
        let set = match &self.set {
            PromptSet::Dataset(task, _) => task.as_str(),
            PromptSet::Jsonl(_) => "jsonl",
        };
        json!([set, self.truncate, self.padding, self.groups])
    }
}
