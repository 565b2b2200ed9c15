//! What became of one item.

use crate::dataset::sha256_hex;

/// One model call of an item, asked and answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// The prompt's text.
    pub prompt: String,
    /// The prompt's ids, prefix ids included.
    pub prompt_ids: Vec<u32>,
    /// Generated ids, without the end-of-sequence token.
    pub tokens: Vec<u32>,
    /// Their text.
    pub text: String,
    /// Natural-log probabilities of the choice ids asked for, in that order.
    pub choice_logprobs: Vec<f32>,
    /// When the call began, nanoseconds on the engine's clock.
    pub start_ns: u64,
    /// When it ended, nanoseconds on the engine's clock.
    pub end_ns: u64,
}

/// The three ends of an item; they are never mixed up in a score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// An answer was read.
    Scored,
    /// The model answered and no answer can be read from it: a wrong answer of the model; the reason.
    Unscorable(String),
    /// The item could not be put to the model, or the model's numbers are no numbers: no answer at all, and
    /// the run is incomplete; the reason.
    Failed(String),
}

/// What became of one item.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The item's [`crate::dataset::Item::doc_id`].
    pub doc_id: String,
    /// The item's [`crate::dataset::Item::doc_hash`].
    pub doc_hash: String,
    /// The item's subject.
    pub subject: String,
    /// How it ended.
    pub state: State,
    /// The right answer.
    pub gold: &'static str,
    /// The model's answer, if one was read.
    pub pred: Option<&'static str>,
    /// Log-probabilities of the choices in the protocol's order; empty where text was read.
    pub choice_logprobs: Vec<f32>,
    /// Log-probability of the best choice less that of the second best.
    pub margin: Option<f32>,
    /// The rule that found the answer; empty if none was found.
    pub rule: String,
    /// Every model call made for it, in order.
    pub stages: Vec<Stage>,
}

impl Outcome {
    /// Whether the answer read is the right one.
    pub fn is_correct(&self) -> bool {
        self.pred == Some(self.gold)
    }

    /// Why no answer stands, for items that are not scored.
    pub fn reason(&self) -> Option<&str> {
        match &self.state {
            State::Scored => None,
            State::Unscorable(reason) | State::Failed(reason) => Some(reason),
        }
    }

    /// Tokens fed to the model, all calls together.
    pub fn input_tokens(&self) -> usize {
        self.stages.iter().map(|stage| stage.prompt_ids.len()).sum()
    }

    /// Tokens generated, all calls together.
    pub fn output_tokens(&self) -> Vec<u32> {
        self.stages.iter().flat_map(|stage| stage.tokens.iter().copied()).collect()
    }

    /// Text generated, all calls together.
    pub fn text(&self) -> String {
        self.stages.iter().map(|stage| stage.text.as_str()).collect()
    }

    /// SHA-256 of the first prompt's text; empty if none was made.
    pub fn prompt_hash(&self) -> String {
        self.stages.first().map(|stage| sha256_hex(stage.prompt.as_bytes())).unwrap_or_default()
    }
}

/// The distance of the best from the second best; `None` for fewer than two.
pub fn margin(logprobs: &[f32]) -> Option<f32> {
    let mut sorted = logprobs.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    match sorted.as_slice() {
        [best, second, ..] => Some(best - second),
        _ => None,
    }
}
