//! The kinds of failed requests.

use std::fmt;

/// The limit of [`Timeouts`](crate::Timeouts) that was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Connecting.
    Connect,
    /// Waiting for the first event.
    FirstByte,
    /// Waiting for the next event.
    BetweenEvents,
    /// The whole attempt.
    Whole,
}

/// The kinds of failed requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// No connection.
    Connect,
    /// No encryption: certificate, protocol, or this CPU.
    Tls,
    /// A limit was passed.
    Timeout(Phase),
    /// A status other than 200.
    Status(u16),
    /// A redirect, which is refused.
    Redirect,
    /// The answer is not HTTP, or its framing or compression is broken.
    NotHttp,
    /// The answer ended before its length or its end marker.
    Cut,
    /// The stream ended properly, without its end marker.
    NoEndMarker,
    /// The end marker came without a reason.
    NoFinishReason,
    /// The server reported an error within the stream or with status 200.
    ErrorEvent,
    /// Text in the stream that is no event, such as MindIE's timeouts.
    RawText,
    /// The body is not JSON.
    NotJson,
    /// JSON without what the protocol promises.
    Shape,
    /// Another model answered.
    WrongModel,
    /// The server's counts contradict its finish reason or its stream.
    Contradiction,
    /// The answer or a line of it is larger than the limit.
    TooLarge,
    /// The answer lacks what was asked for, such as log-probabilities of the prompt.
    NotRevealed,
    /// The protocol has no way to ask for this. Nothing was sent.
    Unsupported,
}

impl FailureKind {
    /// Returns the word of records.
    pub fn word(&self) -> String {
        let word = match self {
            Self::Status(code) => return format!("status_{code}"),
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout(Phase::Connect) => "timeout_connect",
            Self::Timeout(Phase::FirstByte) => "timeout_first_byte",
            Self::Timeout(Phase::BetweenEvents) => "timeout_between_events",
            Self::Timeout(Phase::Whole) => "timeout_whole",
            Self::Redirect => "redirect",
            Self::NotHttp => "not_http",
            Self::Cut => "cut",
            Self::NoEndMarker => "no_end_marker",
            Self::NoFinishReason => "no_finish_reason",
            Self::ErrorEvent => "error_event",
            Self::RawText => "raw_text",
            Self::NotJson => "not_json",
            Self::Shape => "shape",
            Self::WrongModel => "wrong_model",
            Self::Contradiction => "contradiction",
            Self::TooLarge => "too_large",
            Self::NotRevealed => "not_revealed",
            Self::Unsupported => "unsupported",
        };
        word.to_owned()
    }

    fn describe(&self) -> String {
        match self {
            Self::Status(code) => return format!("the server answered with status {code}"),
            Self::Connect => "no connection",
            Self::Tls => "no encrypted connection",
            Self::Timeout(Phase::Connect) => "no connection within the limit",
            Self::Timeout(Phase::FirstByte) => "no first event within the limit",
            Self::Timeout(Phase::BetweenEvents) => "no further event within the limit",
            Self::Timeout(Phase::Whole) => "not complete within the limit",
            Self::Redirect => "the server redirects, which is refused: give the URL it points to",
            Self::NotHttp => "the answer is not HTTP",
            Self::Cut => "the answer was cut off",
            Self::NoEndMarker => "the stream ended without its end marker",
            Self::NoFinishReason => "the answer has no finish reason",
            Self::ErrorEvent => "the server reported an error",
            Self::RawText => "the stream holds text that is no event",
            Self::NotJson => "the answer is not JSON",
            Self::Shape => "the answer lacks a field of the protocol",
            Self::WrongModel => "another model answered",
            Self::Contradiction => "the answer contradicts itself",
            Self::TooLarge => "the answer is larger than the limit",
            Self::NotRevealed => "the answer lacks what was asked for",
            Self::Unsupported => "the protocol cannot do this",
        }
        .to_owned()
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}
