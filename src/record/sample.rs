//! One scored item of a precision suite.

use super::journal::Keyed;
use super::wire::floats;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What became of an item. The three are counted apart: an error never turns into a wrong answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SampleState {
    /// An answer was had; it is right or wrong.
    Scored,
    /// The model answered, but no choice could be read from what it said. Counts as not correct.
    Unscorable,
    /// The model did not answer (device error, context too long). Outside the accuracy's denominator.
    Failed,
}

/// A line of `samples.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleRecord {
    /// The task's name in the suite.
    pub task: String,
    /// The item's name within the task; task and doc_id are the line's key.
    pub doc_id: String,
    /// SHA-256 (hex) of the item as the dataset holds it.
    pub doc_hash: String,
    /// SHA-256 (hex) of the full prompt.
    pub prompt_hash: String,
    /// Subject within the set (`high_school_physics`); empty where the set has none.
    pub subject: String,
    /// The set's category (`STEM`, `Social Science`, `Humanities`, `Other`); empty where the set has none.
    pub category: String,
    /// Belongs to the set's hard part (C-Eval Hard).
    pub hard: bool,
    /// What became of it.
    pub state: SampleState,
    /// The right choice.
    pub gold: String,
    /// The model's choice; `None` unless scored.
    pub pred: Option<String>,
    /// `pred == gold`; false unless scored.
    pub correct: bool,
    /// Natural-log probability of each choice token, in the task's order; empty where the protocol reads text.
    /// A value that is not finite is `null` on disk and NaN here.
    #[serde(with = "floats")]
    pub choice_logprobs: Vec<f32>,
    /// Log-probability of the best choice less that of the second best.
    pub margin: Option<f32>,
    /// Tokens fed to the model for this item, all rounds together.
    pub input_tokens_n: u64,
    /// Generated token ids.
    pub output_tokens: Vec<u32>,
    /// Generated text.
    pub text: String,
    /// Which rule read the answer from the text or the probabilities.
    pub extract_rule: String,
    /// When its first step began, nanoseconds from run start.
    pub t_start_ns: u64,
    /// When its last step ended, nanoseconds from run start.
    pub t_end_ns: u64,
    /// What went wrong; set when failed.
    pub error: Option<String>,
}

/// What names a line of `samples.jsonl`.
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
