//! ChatGLM2, and nothing of the harness: tokens in, tokens and log-probabilities out.

pub mod cache;
pub mod chat;
pub mod config;
mod lfs;
pub mod load;
pub mod memory;
pub mod model;
pub mod parallel;
pub mod profile;
pub mod sampler;
pub mod scheduler;
pub mod tokenizer;
pub mod weights;

use std::fmt;

use crate::device::DeviceError;

use self::config::ConfigError;
use self::sampler::Sampling;
use self::weights::WeightError;

/// Why the engine cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The model's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The checkpoint.
    #[error(transparent)]
    Weights(WeightError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A request that this model can never run.
    #[error("{0}")]
    Request(String),
    /// An option that makes no sense for this model or machine.
    #[error("{0}")]
    Option(String),
    /// The model's numbers broke down.
    #[error("{of}: {place}")]
    NotFinite {
        /// What was being computed.
        of: String,
        /// Where the first number stood that is none.
        place: NotFinite,
    },
}

/// Where a model's numbers broke down: the first logit of a position that is NaN or infinite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotFinite {
    /// Position in the sequence, from 0, of the token that the logits follow.
    pub position: usize,
    /// Token id of the logit.
    pub token: u32,
    /// What stands there: `NaN`, `inf` or `-inf`.
    pub value: &'static str,
}

impl NotFinite {
    /// The first logit of a position that is not finite; `None` where all are.
    pub fn find(position: usize, logits: &[f32]) -> Option<Self> {
        let token = logits.iter().position(|logit| !logit.is_finite())?;
        Some(Self { position, token: token as u32, value: not_finite(logits[token]) })
    }
}

/// The word for a number that is none.
pub fn not_finite(value: f32) -> &'static str {
    match value {
        value if value.is_nan() => "NaN",
        value if value > 0.0 => "inf",
        _ => "-inf",
    }
}

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, token, value } = self;
        write!(f, "logits not finite: position {position}, token id {token} is {value}")
    }
}

/// Names one submitted [`Request`]; unique within a model's life.
pub type RequestId = u64;

/// One sequence to be continued.
#[derive(Debug, Clone)]
pub struct Request {
    /// Token ids of the whole prompt, prefix ids (`[gMASK] sop`) included.
    pub prompt: Vec<u32>,
    /// Most tokens to generate; 0 asks for the choice log-probabilities alone.
    pub max_new_tokens: usize,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// Run to `max_new_tokens` even past the end-of-sequence token (performance runs).
    pub ignore_eos: bool,
    /// Token ids whose log-probability after the prompt is wanted, in this order.
    pub choice_ids: Vec<u32>,
}

impl Request {
    /// Nothing but a forward pass over a prompt to be filled in.
    pub fn probe() -> Self {
        Self {
            prompt: Vec::new(),
            max_new_tokens: 0,
            sampling: Sampling::Greedy,
            ignore_eos: false,
            choice_ids: Vec::new(),
        }
    }
}

/// What one step of the engine did.
#[derive(Debug, Clone)]
pub struct Step {
    /// Prefill, decode, or nothing to do.
    pub kind: StepKind,
    /// When it began, nanoseconds on the engine's clock.
    pub start_ns: u64,
    /// When it ended, sampling included.
    pub end_ns: u64,
    /// Sequences that took part.
    pub sequences: usize,
    /// Rows of the batch.
    pub tokens: usize,
    /// Tokens chosen, in the order of the batch.
    pub emitted: Vec<(RequestId, u32)>,
    /// Sequences that ended.
    pub finished: Vec<Completion>,
}

/// Kinds of [`Step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// No sequence was there.
    Idle,
    /// Prompt tokens were fed.
    Prefill,
    /// One token of every running sequence was fed.
    Decode,
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The end-of-sequence token was chosen (it is not part of the output).
    Eos,
    /// `max_new_tokens` were generated.
    Length,
    /// A logit was NaN or infinite: the numbers broke down, and the output is what came before.
    BrokenLogits(NotFinite),
}

/// A finished [`Request`].
#[derive(Debug, Clone)]
pub struct Completion {
    /// The request it answers.
    pub id: RequestId,
    /// Generated token ids, without the end-of-sequence token.
    pub tokens: Vec<u32>,
    /// Natural-log probabilities of `choice_ids`, softmax over the whole vocabulary after the prompt.
    pub choice_logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: FinishReason,
    /// When its first step began, nanoseconds on the engine's clock.
    pub start_ns: u64,
    /// When its last step ended, nanoseconds on the engine's clock.
    pub end_ns: u64,
}
