//! MindIE's `/generate` with `prompt`: JSON objects, each followed by a NUL byte.

use super::{Frame, TooLong};

/// Splits a stream at NUL bytes.
#[derive(Debug)]
pub struct Nul {
    payload: Vec<u8>,
    limit: usize,
}

impl Nul {
    /// Returns a splitter of payloads of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { payload: Vec::new(), limit }
    }

    /// Takes bytes and appends the payloads that they complete.
    ///
    /// # Errors
    /// If a payload is longer than the bound.
    pub fn push(&mut self, bytes: &[u8], frames: &mut Vec<Frame>) -> Result<(), TooLong> {
        let mut pieces = bytes.split(|&b| b == 0).peekable();
        while let Some(piece) = pieces.next() {
            if self.payload.len() + piece.len() > self.limit {
                return Err(TooLong(self.limit));
            }
            self.payload.extend_from_slice(piece);
            if pieces.peek().is_some() {
                frames.extend(self.take());
            }
        }
        Ok(())
    }

    /// Ends the stream and returns what no NUL byte closed.
    pub fn finish(mut self) -> Option<Frame> {
        self.take()
    }

    fn take(&mut self) -> Option<Frame> {
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.payload)).trim().to_owned();
        (!text.is_empty()).then_some(Frame::Data { event: None, text })
    }
}
