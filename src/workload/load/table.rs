//! Suite types for load.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::suite::{CaseTable, PromptSource};

/// Maximum number of requests at one rate. Each request keeps the time of each of its tokens.
pub(crate) const MAX_REQUESTS: usize = 1_000_000;
/// Default number of sequences at once under load.
pub const DEFAULT_LOAD_BATCH: usize = 16;

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

impl CaseTable for LoadCase {
    fn configurations(&self) -> &[String] {
        &self.configurations
    }

    fn apply_to_all(&mut self) {
        self.configurations.clear();
    }

    fn set_tp(&mut self, tp: usize) {
        self.tp_ranks = vec![tp];
    }

    fn cases(&self) -> usize {
        self.tp_ranks.len()
    }

    fn words(&self, _modelled: &[bool]) -> String {
        let rates = match &self.rates {
            Rates::Listed(rates) => format!("{} rates", rates.len()),
            Rates::Saturation => "a search for saturation".to_owned(),
            Rates::Concurrency(levels) => format!("{} concurrencies", levels.len()),
            Rates::Speeds(speeds) => format!("{} speeds", speeds.len()),
        };
        format!("load         {rates}, {} arrivals, batch {}", self.arrival.as_str(), self.max_batch)
    }

    fn content(&self) -> Value {
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
