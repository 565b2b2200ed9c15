//! The ChatGLM2 engine, independent of the harness: tokens in, tokens and log-probabilities out.
//!
//! The engine holds the model's configuration ([`config`]), the [`tokenizer`] and chat template ([`chat`]), and the readers of
//! [`weights`]. It has the forward pass ([`model`]) of a whole model or of one rank's shard ([`cut`]). It has tensor parallelism
//! ([`parallel`]) and the paged KV cache ([`cache`]).
//! Requests are batched continuously ([`scheduler`]): the [`sampler`] with its [`logprobs`] chooses tokens, `lookup` guesses
//! the next ones, and [`output`] makes text. [`cost`] is the minimum work of a pass, and [`quantise`] exports quantised
//! checkpoints. [`load`] builds all this from the values of a command line.
//!
//! It may use the devices: [`glmbench_device`], [`glmbench_cpu`], [`glmbench_ascend`]. Only [`load`] and [`memory`] name the
//! latter two; everything else is generic over [`glmbench_device::Device`]. The engine prints nothing, and its only `unsafe`
//! maps files of weights (`weights/map.rs`).
#![deny(unsafe_code)]

pub mod cache;
pub mod chat;
pub mod config;
pub mod cost;
pub mod cut;
mod lfs;
mod linear;
pub mod load;
pub mod logprobs;
mod lookup;
pub mod memory;
pub mod model;
pub mod output;
pub mod parallel;
pub mod profile;
pub mod quantise;
pub mod sampler;
pub mod scheduler;
mod sequence;
pub mod tokenizer;
pub mod weights;

pub use scheduler::{Engine, Forced, Scheduling};

use std::fmt;
use std::sync::Arc;

use glmbench_device::DeviceError;

use self::config::ConfigError;
use self::logprobs::TokenLogprobs;
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
    /// A bound of the user on the work is reached. What is done stays done, and the rest can be done later.
    #[error("{0}")]
    Spent(String),
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
    /// Place in the prompt of the first token whose log-probability is returned ([`Completion::prompt_logprobs`]), at least
    /// 1. The tokens before the one in front of it may come from the KV cache, unlike with [`Report::prompt`].
    pub score_from: Option<usize>,
    /// What ends the output besides its length and the end-of-sequence token.
    pub stop: Stop,
    /// What steps report of the tokens.
    pub report: Report,
    /// What the engine may spare itself.
    pub savings: Savings,
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
            score_from: None,
            stop: Stop::default(),
            report: Report::default(),
            savings: Savings::NONE,
        }
    }
}

/// What the engine may spare itself for a request. The results are the same to the last bit; only the work and its duration
/// are not. Work that is timed spares nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Savings {
    /// Takes the beginning of the prompt from the KV cache if an earlier prompt began with it, and leaves its own there.
    /// Only on devices that are known to give the same numbers for any chunks ([`DeviceInfo::chunks_are_independent`]).
    ///
    /// [`DeviceInfo::chunks_are_independent`]: glmbench_device::DeviceInfo::chunks_are_independent
    pub shared_prefixes: bool,
    /// Guesses the next tokens from what followed the same tokens earlier in the sequence, and verifies several in one
    /// step. Devices whose rows depend on each other never do ([`DeviceInfo::rows_are_independent`]).
    ///
    /// [`DeviceInfo::rows_are_independent`]: glmbench_device::DeviceInfo::rows_are_independent
    pub prompt_lookup: PromptLookup,
}

/// When to guess the next tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptLookup {
    /// One token a step.
    Never,
    /// While the times of earlier steps say that guesses gain. Which tokens are guessed then differs from run to run.
    WhereItGains,
    /// Wherever the last tokens occurred before, at any cost. Which tokens are guessed depends on the tokens alone.
    Always,
}

impl Default for Savings {
    fn default() -> Self {
        Self::ALL
    }
}

impl Savings {
    /// Computes everything.
    pub const NONE: Self = Self { shared_prefixes: false, prompt_lookup: PromptLookup::Never };
    /// Spares what can be spared, where it gains.
    pub const ALL: Self = Self { shared_prefixes: true, prompt_lookup: PromptLookup::WhereItGains };
}

/// What the engine spared itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Saved {
    /// Prompt tokens taken from the KV cache.
    pub reused: usize,
    /// Tokens guessed.
    pub guessed: usize,
    /// Guessed tokens that were right.
    pub accepted: usize,
}

/// What ends an output besides its length and the end-of-sequence token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stop {
    /// Token ids that end the output. They are not part of it. The sequences of one request share them.
    pub ids: Arc<[u32]>,
    /// Texts that end the output, looked for in the decoded text. Empty ones never end it.
    pub texts: Vec<String>,
    /// Whether a stop text is the last part of the output text.
    pub keep: bool,
    /// Number of tokens before which nothing but the length ends the output: end-of-sequence and stop tokens are not
    /// chosen, and stop texts are ordinary text.
    pub min_new_tokens: usize,
}

/// What steps report of the tokens of a request ([`Step::details`], [`Step::prompts`]).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Report every chosen token with its text.
    pub tokens: bool,
    /// Add the log-probability of the chosen token and of this number of likeliest ones.
    pub top: Option<usize>,
    /// Report the log-probabilities of the prompt tokens, with this number of likeliest ones at each position.
    pub prompt: Option<usize>,
    /// Token ids to add the log-probabilities of at every reported position.
    pub ids: Vec<u32>,
}

/// What one step of the engine did.
#[derive(Debug, Clone)]
pub struct Step {
    /// Prefill, decode, both, or nothing to do.
    pub kind: StepKind,
    /// Start time, in nanoseconds on the engine's clock.
    pub start_ns: u64,
    /// End time, sampling included, in nanoseconds on the engine's clock.
    pub end_ns: u64,
    /// Sequences that took part.
    pub sequences: usize,
    /// Rows of the batch.
    pub tokens: usize,
    /// Rows of prompts among them. The others are of sequences that decode.
    pub prompt_tokens: usize,
    /// What was spared, in this step and in admitting its sequences.
    pub saved: Saved,
    /// Sequences that were fed for the first time.
    pub started: Vec<RequestId>,
    /// Tokens chosen, in the order of the batch. A sequence has several if guesses were right.
    pub emitted: Vec<(RequestId, u32)>,
    /// Chosen tokens of requests that asked for a report, in the order of the batch. Unlike `emitted`, they include the
    /// token that ended a sequence.
    pub details: Vec<TokenDetail>,
    /// Prompts that were fed to their end in this step, of requests that asked for a report of them.
    pub prompts: Vec<PromptDetail>,
    /// Sequences that ended.
    pub finished: Vec<Completion>,
}

/// A chosen token.
#[derive(Debug, Clone)]
pub struct TokenDetail {
    /// The request that it belongs to.
    pub id: RequestId,
    /// The token id.
    pub token: u32,
    /// Text that became final with this token. Empty while a character is incomplete or a stop text may have begun.
    pub text: String,
    /// Log-probabilities at this position, if [`Report::top`] asks for them.
    pub logprobs: Option<TokenLogprobs>,
    /// Why the sequence ended with this token, if it did.
    pub finish: Option<FinishReason>,
}

/// The log-probabilities of the tokens of a prompt.
#[derive(Debug, Clone)]
pub struct PromptDetail {
    /// The request that the prompt belongs to.
    pub id: RequestId,
    /// One entry per token. The first token has none.
    pub logprobs: Vec<Option<TokenLogprobs>>,
}

/// How much of an engine is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupancy {
    /// Sequences that wait for a place.
    pub waiting: usize,
    /// Sequences that run.
    pub running: usize,
    /// Blocks of the KV cache that running sequences hold.
    pub kv_blocks_used: usize,
    /// Blocks of the KV cache.
    pub kv_blocks: usize,
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
    /// Both: one token of every sequence that decodes, and prompt tokens ([`Scheduling::Mixed`]).
    Mixed,
}

/// Reasons why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The end-of-sequence token was chosen. It is not part of the output.
    Eos,
    /// `max_new_tokens` were generated.
    Length,
    /// A token of [`Stop::ids`] was chosen. It is not part of the output.
    StopToken(u32),
    /// The text of [`Stop::texts`] with this index was generated. The tokens include it.
    StopText(usize),
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
    /// The output as text, up to a stop text, if the request has stop texts or asked for a report of its tokens.
    pub text: Option<String>,
    /// Natural-log probabilities of `choice_ids` after the prompt, from a softmax over the whole vocabulary.
    pub choice_logprobs: Vec<f32>,
    /// Natural-log probabilities of the prompt tokens from [`Request::score_from`] on, each after all tokens before it.
    pub prompt_logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: FinishReason,
    /// Start of its first step, in nanoseconds on the engine's clock.
    pub start_ns: u64,
    /// End of its last step, in nanoseconds on the engine's clock.
    pub end_ns: u64,
}
