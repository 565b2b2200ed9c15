//! What a server answered, and when.

use std::time::{Duration, Instant};

use crate::FailureKind;

/// Why a generation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// The model's end token.
    End,
    /// The token limit.
    Length,
    /// A stop text of the request.
    StopText,
    /// The end token or a stop text: the protocol does not say which.
    Stop,
    /// Another reason, in the server's word.
    Other(String),
}

impl Finish {
    /// Returns the word of records.
    pub fn word(&self) -> &str {
        match self {
            Self::End => "end",
            Self::Length => "length",
            Self::StopText => "stop_text",
            Self::Stop => "stop",
            Self::Other(word) => word,
        }
    }

    /// Reads a server's word. MindIE writes `stop_sequence` for internal errors, too.
    pub(crate) fn from_word(word: &str) -> Self {
        match word {
            "eos_token" | "eos" => Self::End,
            "length" | "limit" | "max_tokens" => Self::Length,
            "stop_sequence" | "word" => Self::StopText,
            "stop" => Self::Stop,
            other => Self::Other(other.chars().take(64).collect()),
        }
    }
}

/// When the parts of one attempt happened.
///
/// The time to the first token is `first_token - sent`, or `first_token - started` with the connection in it. The
/// end-to-end time ends at `last_token`; `end` is the end of the stream, after usage and end markers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// The call began.
    pub started: Instant,
    /// A new connection stood, encryption included. `None`: an earlier connection was used.
    pub connected: Option<Instant>,
    /// The last byte of the request was handed to the system.
    pub sent: Option<Instant>,
    /// The head of the answer was complete.
    pub headers: Option<Instant>,
    /// The first byte of the answer body arrived.
    pub first_byte: Option<Instant>,
    /// The first event with a token arrived. Role events and empty events do not count.
    pub first_token: Option<Instant>,
    /// The last event with a token arrived.
    pub last_token: Option<Instant>,
    /// The end marker arrived, or the attempt failed.
    pub end: Instant,
}

impl Times {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            started: now,
            connected: None,
            sent: None,
            headers: None,
            first_byte: None,
            first_token: None,
            last_token: None,
            end: now,
        }
    }
}

/// When an event with tokens arrived, and how large it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventTime {
    /// Arrival of the bytes that completed the event. Events that arrive together have one time.
    pub at: Instant,
    /// The tokens in the event, where the protocol reveals their number.
    pub tokens: Option<u32>,
    /// Bytes of text.
    pub bytes: u32,
}

/// An event of a stream, as the caller sees it while the stream goes on.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// Arrival and size.
    pub time: EventTime,
    /// The text. May be empty: a server holds back incomplete characters.
    pub text: &'a str,
    /// Token ids, where the protocol reveals them.
    pub ids: &'a [u32],
}

/// Times by the server's own clock, in milliseconds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServerTimes {
    /// Waiting before the first step.
    pub queue_ms: Option<f64>,
    /// The prompt.
    pub prefill_ms: Option<f64>,
    /// Each later step (MindIE), or their sum as one entry (llama.cpp).
    pub decode_ms: Vec<f64>,
    /// The whole request.
    pub total_ms: Option<f64>,
}

/// An attempt that failed before the one that is reported.
///
/// Without any [`Retry`](crate::Retry), only one of kind [`FailureKind::Cut`] that waited for nothing: the server had closed the
/// kept connection, and nothing of an answer came.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Its times.
    pub times: Times,
    /// Why it failed.
    pub kind: FailureKind,
    /// How long the client waited before the next one.
    pub waited: Duration,
}

/// One candidate for a position, with its natural-logarithm probability.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The id, where the protocol reveals it.
    pub id: Option<u32>,
    /// The token's text as the server decodes it alone.
    pub text: String,
    /// Natural logarithm of the probability. Negative infinity is possible.
    pub logprob: f64,
}

/// A complete answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// The generated text, without the prompt.
    pub text: String,
    /// The generated ids, where the protocol reveals them all.
    pub ids: Option<Vec<u32>>,
    /// Why the generation ended.
    pub finish: Finish,
    /// Prompt tokens as the server counts them, special tokens included.
    pub prompt_tokens: Option<u32>,
    /// Generated tokens as the server counts them.
    pub output_tokens: Option<u32>,
    /// When the parts happened.
    pub times: Times,
    /// Events with tokens, in order.
    pub events: Vec<EventTime>,
    /// Candidates of each generated token, if asked for.
    pub top_logprobs: Vec<Vec<TokenLogprob>>,
    /// The server's own times, where the protocol reveals them.
    pub server_times: Option<ServerTimes>,
    /// The model id that the server named.
    pub model: Option<String>,
    /// Failed attempts before this one. Load counts a request with attempts as failed.
    pub attempts: Vec<Attempt>,
}

impl Response {
    /// Returns the time to the first token, from the last byte sent. `None` if there was no token.
    pub fn ttft(&self) -> Option<Duration> {
        Some(self.times.first_token?.duration_since(self.times.sent?))
    }

    /// Returns the time per output token after the first: (last token - first token) / (tokens - 1).
    ///
    /// Tokens are the server's count, or events where it does not count. `None` below two tokens.
    pub fn tpot(&self) -> Option<Duration> {
        let tokens = self.output_tokens.or_else(|| u32::try_from(self.events.len()).ok())?;
        let span = self.times.last_token?.duration_since(self.times.first_token?);
        (tokens >= 2).then(|| span / (tokens - 1))
    }

    /// Returns events per token by the server's count. Gaps between events are gaps between tokens only near 1.
    pub fn events_per_token(&self) -> Option<f64> {
        let tokens = self.output_tokens.filter(|&tokens| tokens > 0)?;
        Some(self.events.len() as f64 / f64::from(tokens))
    }
}

/// Log-probabilities of choices as the next token.
#[derive(Debug, Clone, PartialEq)]
pub struct ChoiceLogprobs {
    /// One entry a choice, in the order of the request. `None`: the server did not reveal it, or two of its tokens have
    /// the choice's text.
    pub logprobs: Vec<Option<f64>>,
    /// Whether choices were found by id. By text, byte-fallback tokens are ambiguous.
    pub by_id: bool,
    /// Choices without an entry because two tokens of the vocabulary have the text that the server shows.
    pub ambiguous: u32,
    /// Requests that were sent for this, retries apart.
    pub requests: u32,
    /// Candidates that the server revealed.
    pub depth: u32,
    /// Prompt tokens as the server counts them.
    pub prompt_tokens: Option<u32>,
    /// Times of the (last) request.
    pub times: Times,
    /// Failed attempts before.
    pub attempts: Vec<Attempt>,
}

/// Log-probabilities of the prompt tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptLogprobs {
    /// One entry a prompt token. The first is `None`: nothing stands before it.
    pub logprobs: Vec<Option<f64>>,
    /// The ids as the server saw them, where revealed.
    pub ids: Option<Vec<u32>>,
    /// The tokens' texts, where revealed.
    pub texts: Option<Vec<String>>,
    /// Times of the request.
    pub times: Times,
    /// Failed attempts before.
    pub attempts: Vec<Attempt>,
}

impl PromptLogprobs {
    /// Returns the sum over the last `count` tokens. `None` if one of them is not revealed, or there are fewer.
    pub fn tail_sum(&self, count: usize) -> Option<f64> {
        let start = self.logprobs.len().checked_sub(count)?;
        self.logprobs[start..].iter().copied().sum()
    }
}
