//! ChatGLM2, and nothing of the harness: tokens in, tokens and log-probabilities out.

pub mod chat;
pub mod config;
pub mod sampler;
pub mod tokenizer;
pub mod weights;

use crate::engine::sampler::Sampling;

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

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The end-of-sequence token was chosen (it is not part of the output).
    Eos,
    /// `max_new_tokens` were generated.
    Length,
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
