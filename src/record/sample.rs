//! One scored item of a precision suite.

use super::keyed::Keyed;
use super::wire::floats;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The outcome of an item. The three are counted separately: an error never becomes a wrong answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SampleState {
    /// An answer was extracted. It is right or wrong.
    Scored,
    /// The model answered, but no choice could be extracted from its answer. Counts as not correct.
    Unscorable,
    /// The model did not answer (device error, prompt too long). Excluded from the accuracy's denominator.
    Failed,
}

/// A line of `samples.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleRecord {
    /// The task's name in the suite.
    pub task: String,
    /// The item's name within the task; task and doc_id are the line's key.
    pub doc_id: String,
    /// SHA-256 (hex) of the item as stored in the dataset.
    pub doc_hash: String,
    /// SHA-256 (hex) of the full prompt.
    pub prompt_hash: String,
    /// Subject within the set (`high_school_physics`); empty if the set has none.
    pub subject: String,
    /// The set's category (`STEM`, `Social Science`, `Humanities`, `Other`); empty if the set has none.
    pub category: String,
    /// Whether the item belongs to the set's hard part (C-Eval Hard).
    pub hard: bool,
    /// The outcome.
    pub state: SampleState,
    /// The right answer in words: `A`, `yes`, `18`.
    pub gold: String,
    /// The model's answer in words; `None` unless scored, and where items have no right answer.
    pub pred: Option<String>,
    /// `pred == gold`; false unless scored.
    pub correct: bool,
    /// Log-probability (natural) of each choice token, in the task's order; empty if the protocol reads text. A value
    /// that is not finite is `null` on disk and NaN here.
    #[serde(with = "floats")]
    pub choice_logprobs: Vec<f32>,
    /// Log-probability of the best choice minus that of the second best.
    pub margin: Option<f32>,
    /// Tokens fed to the model for this item, over all rounds.
    pub input_tokens_n: u64,
    /// Generated token ids.
    pub output_tokens: Vec<u32>,
    /// Generated text.
    pub text: String,
    /// Further measures of a scored item, by name (`acc-characters`, `mc2`). Empty in records older than this field.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub measures: BTreeMap<String, f64>,
    /// The programs that were made of the answers, one for each answer. Empty unless the protocol runs programs, and in records
    /// older than this field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<ProgramRecord>,
    /// The rule that extracted the answer from the text or the probabilities.
    pub extract_rule: String,
    /// When the item's first step began, in nanoseconds from run start.
    pub t_start_ns: u64,
    /// When the item's last step ended, in nanoseconds from run start.
    pub t_end_ns: u64,
    /// The error, if the item failed.
    pub error: Option<String>,
}

/// A program made of an answer, and what it came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramRecord {
    /// The code as it was read from the answer, without the item's own part.
    pub code: String,
    /// `passed`, `failed: …`, `timed out` or `unreadable: …`.
    pub verdict: String,
}

/// The key of a line of `samples.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SampleKey {
    /// The task.
    pub task: String,
    /// The item within it.
    pub doc_id: String,
}

impl fmt::Display for SampleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "item {} of task {}", self.doc_id, self.task)
    }
}

impl Keyed for SampleRecord {
    type Key = SampleKey;

    fn key(&self) -> SampleKey {
        SampleKey { task: self.task.clone(), doc_id: self.doc_id.clone() }
    }
}

impl SampleRecord {
    /// Whether the answer equals the key, which [`correct`](Self::correct) must record.
    pub fn is_right(&self) -> bool {
        self.state == SampleState::Scored && self.pred.as_deref() == Some(self.gold.as_str())
    }

    /// Whether the item was put to the model, so that its prompts were recorded.
    pub fn was_asked(&self) -> bool {
        !self.prompt_hash.is_empty()
    }
}
