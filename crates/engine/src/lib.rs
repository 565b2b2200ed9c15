//! The ChatGLM2 engine, independent of the harness: tokens in, tokens and log-probabilities out.
//!
//! The engine holds the model's configuration ([`config`]), the [`tokenizer`] and chat template ([`chat`]), the readers of
//! [`weights`], the forward pass ([`model`]), tensor parallelism ([`parallel`]), the paged KV cache ([`cache`]), the
//! [`sampler`], continuous batching ([`scheduler`]) and the minimum work of a pass ([`cost`]). [`load`] puts them together from the values of a command line.
//!
//! It may use the devices: [`glmbench_device`], [`glmbench_cpu`], [`glmbench_ascend`]. Only [`load`] and [`memory`] name the
//! latter two; everything else is generic over [`glmbench_device::Device`]. The engine prints nothing, and its only `unsafe`
//! maps files of weights (`weights/map.rs`).

pub mod cache;
pub mod chat;
pub mod config;
pub mod cost;
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

pub use scheduler::Engine;

use std::fmt;

use glmbench_device::DeviceError;

use self::config::ConfigError;
use self::sampler::Sampling;
use self::weights::WeightError;

/// Errors of the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The model's configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Weights(WeightError),
    /// The device failed or cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A request that this model can never run.
    #[error("{0}")]
    Request(String),
    /// An option that is invalid for this model or machine.
    #[error("{0}")]
    Option(String),
    /// A logit is NaN or infinite.
    #[error("{of}: {place}")]
    NotFinite {
        /// What was being computed.
        of: String,
        /// The first non-finite number.
        place: NotFinite,
    },
}

/// The first logit of a position that is NaN or infinite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotFinite {
    /// Position in the sequence, from 0, of the token before these logits.
    pub position: usize,
    /// Token id of the logit.
    pub token: u32,
    /// The value found: `NaN`, `inf` or `-inf`.
    pub value: &'static str,
}

impl NotFinite {
    /// Returns the first non-finite logit of a position; `None` if all are finite.
    pub fn find(position: usize, logits: &[f32]) -> Option<Self> {
        let token = logits.iter().position(|logit| !logit.is_finite())?;
        Some(Self { position, token: token as u32, value: not_finite(logits[token]) })
    }
}

/// Returns the name of a non-finite number.
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

/// Identifies one submitted [`Request`]; unique during a model's lifetime.
pub type RequestId = u64;

/// One sequence to continue.
#[derive(Debug, Clone)]
pub struct Request {
    /// Token ids of the whole prompt, prefix ids (`[gMASK] sop`) included.
    pub prompt: Vec<u32>,
    /// Maximum number of tokens to generate. 0 requests the choice log-probabilities alone.
    pub max_new_tokens: usize,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// Whether to generate `max_new_tokens` tokens even past the end-of-sequence token (performance runs).
    pub ignore_eos: bool,
    /// Token ids to return log-probabilities of after the prompt, in this order.
    pub choice_ids: Vec<u32>,
}

impl Request {
    /// Returns a request for a forward pass only; the caller fills in the prompt.
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
    /// Start time, in nanoseconds on the engine's clock.
    pub start_ns: u64,
    /// End time, sampling included, in nanoseconds on the engine's clock.
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
    /// There was no sequence to run.
    Idle,
    /// Prompt tokens were fed.
    Prefill,
    /// One token of every running sequence was fed.
    Decode,
}

/// Reasons why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The end-of-sequence token was chosen. It is not part of the output.
    Eos,
    /// `max_new_tokens` were generated.
    Length,
    /// A logit was NaN or infinite. The output holds the tokens before it.
    BrokenLogits(NotFinite),
}

/// A finished [`Request`].
#[derive(Debug, Clone)]
pub struct Completion {
    /// The request that this completes.
    pub id: RequestId,
    /// Generated token ids, without the end-of-sequence token.
    pub tokens: Vec<u32>,
    /// Natural-log probabilities of `choice_ids` after the prompt, from a softmax over the whole vocabulary.
    pub choice_logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: FinishReason,
    /// Start of its first step, in nanoseconds on the engine's clock.
    pub start_ns: u64,
    /// End of its last step, in nanoseconds on the engine's clock.
    pub end_ns: u64,
}
