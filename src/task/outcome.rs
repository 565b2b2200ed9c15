//! The outcome of one item.

use std::collections::BTreeMap;

use super::program::Tried;
use crate::dataset::{Answer, sha256_hex};

/// One model call of an item, with the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// The prompt's text.
    pub prompt: String,
    /// The prompt's ids, including prefix ids.
    pub prompt_ids: Vec<u32>,
    /// Generated ids, without the end-of-sequence token.
    pub tokens: Vec<u32>,
    /// The text of the generated ids.
    pub text: String,
    /// Natural-log probabilities of the requested choice ids, in request order. If the prompt's own tokens are scored, their sum.
    pub choice_logprobs: Vec<f32>,
    /// Number of prompt tokens that were scored.
    pub scored: usize,
    /// Start of the call, in nanoseconds on the engine's clock.
    pub start_ns: u64,
    /// End of the call, in nanoseconds on the engine's clock.
    pub end_ns: u64,
}

/// The final state of an item. Scores count the three states separately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// An answer was read.
    Scored,
    /// The model answered, but no answer can be read from it, which counts as wrong. Holds the reason.
    Unscorable(String),
    /// The item could not be put to the model, or the model returned non-finite numbers. The item has no answer, and
    /// the run is incomplete. Holds the reason.
    Failed(String),
}

/// The outcome of one item.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The item's [`crate::dataset::Item::doc_id`].
    pub doc_id: String,
    /// The item's [`crate::dataset::Item::doc_hash`].
    pub doc_hash: String,
    /// The item's subject.
    pub subject: String,
    /// The final state.
    pub state: State,
    /// The right answer.
    pub gold: Answer,
    /// The model's answer, if the protocol found one. None if items have no right answer.
    pub pred: Option<Answer>,
    /// Log-probabilities of the choices, in the protocol's order. Empty if the protocol reads text.
    pub choice_logprobs: Vec<f32>,
    /// Difference between the two largest log-probabilities of the choices.
    pub margin: Option<f32>,
    /// The rule that found the answer. Empty if none did.
    pub rule: String,
    /// Further measures of a scored item, by name.
    pub measures: BTreeMap<String, f64>,
    /// What the programs came to that were made of the answers, one for each answer. Empty if none are.
    pub programs: Vec<Tried>,
    /// All model calls of the item, in order.
    pub stages: Vec<Stage>,
}

impl Outcome {
    /// Returns whether the model's answer is right.
    pub fn is_correct(&self) -> bool {
        self.pred.as_ref() == Some(&self.gold)
    }

    /// Returns the reason why the item has no answer, or `None` if it is scored.
    pub fn reason(&self) -> Option<&str> {
        match &self.state {
            State::Scored => None,
            State::Unscorable(reason) | State::Failed(reason) => Some(reason),
        }
    }

    /// Returns the number of tokens fed to the model, over all calls.
    pub fn input_tokens(&self) -> usize {
        self.stages.iter().map(|stage| stage.prompt_ids.len()).sum()
    }

    /// Returns the generated tokens of all calls.
    pub fn output_tokens(&self) -> Vec<u32> {
        self.stages.iter().flat_map(|stage| stage.tokens.iter().copied()).collect()
    }

    /// Returns the generated text of all calls.
    pub fn text(&self) -> String {
        self.stages.iter().map(|stage| stage.text.as_str()).collect()
    }

    /// Returns the SHA-256 of the text of the first prompt, or an empty string without a prompt.
    pub fn prompt_hash(&self) -> String {
        self.stages.first().map(|stage| sha256_hex(stage.prompt.as_bytes())).unwrap_or_default()
    }
}

/// Returns the difference between the two largest values, or `None` for fewer than two.
pub fn margin(logprobs: &[f32]) -> Option<f32> {
    let mut sorted = logprobs.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    match sorted.as_slice() {
        [best, second, ..] => Some(best - second),
        _ => None,
    }
}
