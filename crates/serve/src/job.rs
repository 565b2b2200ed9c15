//! What goes to the engine's thread and what comes back: jobs and their events.

use std::time::{Duration, Instant};

use glmbench_engine::logprobs::TokenLogprobs;
use glmbench_engine::{FinishReason, Request};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::Sender;

use crate::error::ApiError;

/// Events that a channel holds before the thread keeps them itself.
pub(crate) const CHANNEL_EVENTS: usize = 256;

/// What the thread is told.
pub(crate) enum Command {
    /// Run this.
    Job(Box<Job>),
    /// Give up all jobs, because the server ends.
    Abort,
    /// End the thread once no job is left.
    Stop,
}

/// The sequences of one HTTP request.
pub(crate) struct Job {
    pub(crate) requests: Vec<Request>,
    pub(crate) events: Sender<Event>,
    /// When the request's head had arrived.
    pub(crate) arrived: Instant,
    /// When the job has to be done.
    pub(crate) deadline: Instant,
    /// The places in the queue, given back when the job is gone.
    pub(crate) places: OwnedSemaphorePermit,
}

/// What happened to a job. `index` counts its requests.
#[derive(Debug)]
pub(crate) enum Event {
    /// The log-probabilities of the prompt tokens.
    Prompt { index: usize, logprobs: Vec<Option<TokenLogprobs>> },
    /// A chosen token.
    Token { index: usize, token: Token },
    /// The end of a sequence without a token.
    End { index: usize, end: End },
    /// The end of the whole job.
    Failed(ApiError),
}

/// A chosen token.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) id: u32,
    /// Text that became final.
    pub(crate) text: String,
    pub(crate) logprobs: Option<TokenLogprobs>,
    /// Set with the last token.
    pub(crate) end: Option<End>,
}

/// How a sequence ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) reason: FinishReason,
    pub(crate) times: Times,
}

/// Where a sequence's time went.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    /// From its arrival until its first step.
    pub(crate) queue: Duration,
    /// From its arrival until its first token.
    pub(crate) first_token: Option<Duration>,
    /// From its arrival until its end.
    pub(crate) total: Duration,
}

/// The figures of a finished sequence, for the metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measure {
    pub(crate) times: Times,
    pub(crate) prompt_tokens: usize,
    pub(crate) tokens: usize,
    pub(crate) max_new_tokens: usize,
    pub(crate) prefill: Duration,
    pub(crate) decode: Duration,
}
