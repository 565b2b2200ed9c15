//! Parity cases of the plan, the lines of `parity.jsonl`, and the rows of `parity.csv`.

use crate::language::{Text, text};
use crate::record::course::{Course, Timed};
use crate::record::{Clock, Keyed, RecordError, RunDir, Word};
use glmbench_device::{DeviceName, Precision};
use serde::{Deserialize, Serialize};

/// A parity case of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ParityCase {
    /// The case's name, as in the lines.
    pub parity_id: String,
    /// Tensor-parallel ranks of the run.
    pub tp: u32,
    /// What the run is compared with.
    pub reference: ReferenceCase,
    /// Number of prompts.
    pub prompts: u32,
    /// Where the prompts are from, in words.
    pub source: String,
    /// Tokens of the reference's greedy continuation, fed after each prompt.
    pub continuation: u32,
    /// Seed of random prompts; `None` for real ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Why the case was not run; `None` if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfit: Option<String>,
}

impl ParityCase {
    /// The name without the number of ranks: runs on several ranks are compared with those on one.
    pub fn name(&self) -> &str {
        self.parity_id.trim_end_matches(&format!("-tp{}", self.tp))
    }
}

/// What a run is compared with. Its weights are known by their hash in the lines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReferenceCase {
    /// The model's name.
    pub model: String,
    /// The device.
    pub device: Word<DeviceName>,
    /// The types of weights, activations and cache.
    pub dtype: Word<Precision>,
}

impl ReferenceCase {
    /// Model, device and type.
    pub fn words(&self) -> Text {
        let Self { model, device, dtype } = self;
        text!("{model} on {device} in {dtype}", model, device, dtype)
    }
}

/// A line of `parity.jsonl`: a prompt and its continuation, compared at every position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ParityRecord {
    /// The case in the plan.
    pub parity_id: String,
    /// Index of the prompt; case and prompt are the line's key.
    pub prompt: u32,
    /// The clock of the time below.
    pub clock: Clock,
    /// Hash of the reference's weights.
    pub reference: String,
    /// `KL(reference || run)` of the next token's distribution at each position, in nats.
    pub kl: Vec<f64>,
    /// Positions with the same likeliest token.
    pub top1_equal: u32,
    /// Why the prompt could not be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When the prompt was done, on the run's clock.
    pub end_ns: u64,
}

impl Keyed for ParityRecord {
    type Key = String;

    fn key(&self) -> String {
        format!("prompt {} of {}", self.prompt, self.parity_id)
    }
}

impl Timed for ParityRecord {
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

impl ParityRecord {
    /// Whether the line can be one of a comparison.
    fn is_whole(&self) -> bool {
        let compared = !self.kl.is_empty() && self.top1_equal as usize <= self.kl.len();
        if self.error.is_some() { self.kl.is_empty() } else { compared }
    }
}

impl Course for ParityCase {
    type Line = ParityRecord;
    type State = u32;
    const KIND: &'static str = "parity case";
    const JOURNAL: &'static str = "parity.jsonl";

    fn id(&self) -> &str {
        &self.parity_id
    }

    fn tp(&self) -> u32 {
        self.tp
    }

    fn is_run(&self) -> bool {
        self.unfit.is_none()
    }

    fn part_of(line: &ParityRecord) -> &str {
        &line.parity_id
    }

    fn follows(&self, state: &u32, line: &ParityRecord) -> bool {
        !self.is_whole(state) && line.prompt == *state && line.is_whole()
    }

    fn take(state: &mut u32, _: &ParityRecord) {
        *state += 1;
    }

    fn is_whole(&self, state: &u32) -> bool {
        self.unfit.is_some() || *state >= self.prompts
    }

    fn extent(&self, state: &u32) -> String {
        format!("{state} of {} prompts", self.prompts)
    }
}

impl RunDir {
    /// Reads all whole lines of `parity.jsonl`, in order; none if the file does not exist.
    pub fn read_parities(&self) -> Result<Vec<ParityRecord>, RecordError> {
        self.read::<ParityCase>()
    }
}

/// A row of `parity.csv`: one prompt, with the case that it belongs to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ParityRow {
    /// [`crate::record::SCHEMA`].
    pub schema: u32,
    /// The run.
    pub run_id: String,
    /// The case.
    pub parity_id: String,
    /// Program and version.
    pub engine: String,
    /// The device.
    pub device: Word<DeviceName>,
    /// The clock of the run.
    pub clock: Clock,
    /// The compute type.
    pub dtype: Word<Precision>,
    /// Tensor-parallel ranks.
    pub tp: u32,
    /// Model of the reference.
    pub reference_model: String,
    /// Device of the reference.
    pub reference_device: Word<DeviceName>,
    /// Type of the reference.
    pub reference_dtype: Word<Precision>,
    /// Index of the prompt.
    pub prompt: u32,
    /// Positions compared.
    pub positions: u64,
    /// Mean KL of the positions, in nats.
    pub kl_mean: Option<f64>,
    /// 99 % quantile of the KL, in nats.
    pub kl_p99: Option<f64>,
    /// Largest KL, in nats.
    pub kl_max: Option<f64>,
    /// Share of positions with the same likeliest token.
    pub top1_agreement: Option<f64>,
    /// Why the prompt could not be compared.
    pub error: Option<String>,
    /// The host that ran the case.
    pub host: String,
}

impl ParityRow {
    /// The header of `parity.csv`.
    pub const HEADER: &'static str = "schema,run_id,parity_id,engine,device,clock,dtype,tp,reference_model,\
        reference_device,reference_dtype,prompt,positions,kl_mean,kl_p99,kl_max,top1_agreement,error,host";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::golden::{parity, parity_line};

    #[test]
    fn a_line_follows_if_it_is_the_next_prompts_and_was_compared_or_failed() {
        let (case, line) = (ParityCase { prompts: 2, ..parity() }, parity_line());
        assert!(case.follows(&0, &line) && !case.follows(&1, &line));
        let next = ParityRecord { prompt: 1, ..line.clone() };
        assert!(case.follows(&1, &next) && !case.follows(&2, &ParityRecord { prompt: 2, ..line.clone() }));
        let failed =
            ParityRecord { kl: Vec::new(), top1_equal: 0, error: Some("NaN".into()), ..line.clone() };
        assert!(case.follows(&0, &failed) && failed.has_failed());
        for odd in [
            ParityRecord { kl: Vec::new(), ..line.clone() },
            ParityRecord { error: Some("NaN".into()), ..line.clone() },
            ParityRecord { top1_equal: 4, ..line.clone() },
        ] {
            assert!(!case.follows(&0, &odd), "{odd:?}");
        }
        let left_out = ParityCase { unfit: Some("no memory".into()), ..case };
        assert!(!left_out.is_run() && left_out.is_whole(&0) && !left_out.follows(&0, &line));
    }
}
