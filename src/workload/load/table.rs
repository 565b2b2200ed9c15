//! Suite types for load.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::record::{Arrival, Objective, Objectives};
use crate::stats::ArrivalProcess;
use crate::suite::{CaseScope, CaseTable, Lengths, PromptSource};

/// Maximum number of requests at one rate. Each request keeps the time of each of its tokens.
pub(crate) const MAX_REQUESTS: usize = 1_000_000;
/// Default number of sequences at once under load.
pub const DEFAULT_LOAD_BATCH: usize = 16;

/// The request rates of a load case.
#[derive(Debug, Clone, PartialEq)]
pub enum Rates {
    /// Each of these rates, in requests per second.
    Listed(Vec<f64>),
    /// A search for the highest rate that the engine sustains.
    Saturation,
    /// A closed loop with each of these numbers of requests under way.
    Concurrency(Vec<u32>),
    /// The own rate of a trace, times each of these speeds.
    Trace {
        /// The trace file.
        file: PathBuf,
        /// Factors of its own rate.
        speeds: Vec<f64>,
    },
}

/// How many requests to send at each rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Extent {
    /// This number of requests.
    Requests(usize),
    /// The requests that arrive within this time, in seconds.
    DurationS(f64),
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
    pub lengths: Vec<Lengths>,
    /// Source of real prompts; random tokens if `None`.
    pub prompts: Option<PromptSource>,
    /// Maximum number of sequences at once in an engine of this process.
    pub max_batch: usize,
    /// Most prompt tokens of a step that also decodes, in an engine of this process. `None` feeds all prompts first.
    pub prefill_chunk: Option<usize>,
    /// Service-level objectives of each request.
    pub objectives: Objectives,
    /// Seed of arrivals and input tokens.
    pub seed: u64,
    /// Where the cases run.
    pub scope: CaseScope,
}

impl CaseTable for LoadCase {
    fn scope(&self) -> &CaseScope {
        &self.scope
    }

    fn scope_mut(&mut self) -> &mut CaseScope {
        &mut self.scope
    }

    fn cases(&self) -> usize {
        self.scope.tp_ranks.len()
    }

    fn words(&self, _modelled: &[bool]) -> String {
        let rates = match &self.rates {
            Rates::Listed(rates) => format!("{} rates", rates.len()),
            Rates::Saturation => "a search for saturation".to_owned(),
            Rates::Concurrency(levels) => format!("{} concurrencies", levels.len()),
            Rates::Trace { speeds, .. } => format!("{} speeds", speeds.len()),
        };
        let steps = self.prefill_chunk.map(|tokens| format!(", {tokens} prompt tokens beside decoding"));
        format!(
            "load         {rates}, {} arrivals, batch {}{}",
            self.arrival.name(),
            self.max_batch,
            steps.unwrap_or_default()
        )
    }

    fn content(&self) -> Value {
        let rates = match &self.rates {
            Rates::Listed(rates) => json!(rates),
            Rates::Saturation => json!("saturation"),
            Rates::Concurrency(levels) => json!(["concurrency", levels]),
            Rates::Trace { speeds, .. } => json!(["speeds", speeds]),
        };
        let arrival = match self.arrival {
            Arrival::Process(ArrivalProcess::Gamma(burstiness)) => json!(["gamma", burstiness]),
            named => json!(named.name()),
        };
        let extent = match self.extent {
            Extent::Requests(requests) => json!(["requests", requests]),
            Extent::DurationS(seconds) => json!(["seconds", seconds]),
        };
        let Objectives { ttft, tpot, e2e } = self.objectives;
        let prompts = self.prompts.as_ref().map(PromptSource::content);
        let slo = [ttft, tpot, e2e].map(|objective| objective.map(Objective::ms));
        let mut all = vec![
            json!(arrival),
            json!(rates),
            json!(extent),
            json!(self.lengths),
            json!(prompts),
            json!(self.max_batch),
            json!(slo),
            json!(self.seed),
        ];
        // Loads keep the hash that they had before steps could be mixed.
        all.extend(self.prefill_chunk.map(|tokens| json!(["prefill_chunk", tokens])));
        all.into()
    }
}
