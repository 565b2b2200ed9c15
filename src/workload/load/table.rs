//! Suite types for load.

use serde_json::{Value, json};

use crate::suite::{CaseTable, PromptSource};

/// Default number of sequences at once under load.
pub const DEFAULT_LOAD_BATCH: usize = 16;

/// The arrival process of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Poisson arrivals: independent exponential gaps.
    Poisson,
    /// Equal gaps.
    Fixed,
}

impl Arrival {
    /// The names used in suites.
    pub const NAMES: [&'static str; 2] = ["poisson", "fixed"];

    /// Returns the name used in suites.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Poisson => "poisson",
            Self::Fixed => "fixed",
        }
    }

    /// Returns the process called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Poisson, Self::Fixed].into_iter().find(|a| a.as_str() == name)
    }
}

/// The request rates of a load case.
#[derive(Debug, Clone, PartialEq)]
pub enum Rates {
    /// Each of these rates, in requests per second.
    Listed(Vec<f64>),
    /// A search for the highest rate that the engine sustains.
    Saturation,
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

/// One `[[load]]` table: requests that arrive whether or not the engine keeps up.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadCase {
    /// The arrival process.
    pub arrival: Arrival,
    /// The request rates.
    pub rates: Rates,
    /// The number of requests at each rate.
    pub extent: Extent,
    /// Input and output lengths in tokens, which requests use in turn. With real prompts, input lengths are maxima.
    pub lengths: Vec<(usize, usize)>,
    /// Source of real prompts; random tokens if `None`.
    pub prompts: Option<PromptSource>,
    /// Maximum number of sequences at once.
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

    fn words(&self) -> String {
        let rates = match &self.rates {
            Rates::Listed(rates) => format!("{} rates", rates.len()),
            Rates::Saturation => "a search for saturation".to_owned(),
        };
        format!("load         {rates}, {} arrivals, batch {}", self.arrival.as_str(), self.max_batch)
    }

    fn content(&self) -> Value {
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
