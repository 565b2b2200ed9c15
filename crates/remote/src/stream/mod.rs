//! Framing of streams: from bytes, cut anywhere, to payloads.

mod nul;
mod sse;

pub use nul::Nul;
pub use sse::Sse;

/// One thing that a stream said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The payload of an event, normally JSON.
    Data {
        /// The event's name, if it has one.
        event: Option<String>,
        /// The payload. Bytes that are not UTF-8 become U+FFFD.
        text: String,
    },
    /// A line that is no part of an event, such as MindIE's `Engine callback timeout`.
    Raw(String),
}

/// A line or event is longer than the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {0} bytes")]
pub struct TooLong(pub usize);

/// How a stream is framed.
#[derive(Debug)]
pub enum Framing {
    /// Server-sent events.
    Sse(Sse),
    /// Payloads, each followed by a NUL byte.
    Nul(Nul),
}

impl Framing {
    /// Takes bytes and appends what they complete to `frames`.
    ///
    /// # Errors
    /// If an event is longer than the bound. The stream cannot go on.
    pub fn push(&mut self, bytes: &[u8], frames: &mut Vec<Frame>) -> Result<(), TooLong> {
        match self {
            Self::Sse(sse) => sse.push(bytes, frames),
            Self::Nul(nul) => nul.push(bytes, frames),
        }
    }

    /// Ends the stream and returns the payload that was not closed, if there is one.
    pub fn finish(self) -> Option<Frame> {
        match self {
            Self::Sse(sse) => sse.finish(),
            Self::Nul(nul) => nul.finish(),
        }
    }
}
