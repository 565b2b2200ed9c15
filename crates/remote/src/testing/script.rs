//! What a server does with one request.

use std::time::Duration;

/// One act of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Writes bytes, and notes the time.
    Write(Vec<u8>),
    /// Waits.
    Wait(Duration),
    /// Waits until a time after the request was read.
    Until(Duration),
    /// Keeps the connection open in silence until the client closes it.
    Stall,
    /// Closes the connection. Without it the connection serves on.
    Close,
}

/// Acts of the server, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    /// The acts.
    pub steps: Vec<Step>,
}

impl Script {
    /// Returns a complete answer with a length.
    pub fn answer(status: &str, content_type: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n");
        Self::default().write(&[head.as_bytes(), body].concat())
    }

    /// Returns a complete answer of JSON with status 200.
    pub fn json(body: impl AsRef<[u8]>) -> Self {
        Self::answer("200 OK", "application/json", body)
    }

    /// Returns the head of a chunked stream of events.
    pub fn stream() -> Self {
        Self::default().write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
    }

    /// Adds an act.
    #[must_use]
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Writes bytes as they are.
    #[must_use]
    pub fn write(self, bytes: &[u8]) -> Self {
        self.step(Step::Write(bytes.to_vec()))
    }

    /// Writes one chunk of a chunked body.
    #[must_use]
    pub fn chunk(self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        let size = format!("{:x}\r\n", bytes.len());
        self.write(&[size.as_bytes(), bytes, b"\r\n"].concat())
    }

    /// Writes one event as one chunk.
    #[must_use]
    pub fn event(self, payload: &str) -> Self {
        self.chunk(format!("data: {payload}\n\n"))
    }

    /// Waits until a time after the request was read.
    #[must_use]
    pub fn until(self, time: Duration) -> Self {
        self.step(Step::Until(time))
    }

    /// Writes the last chunk.
    #[must_use]
    pub fn end(self) -> Self {
        self.write(b"0\r\n\r\n")
    }

    /// Closes the connection.
    #[must_use]
    pub fn close(self) -> Self {
        self.step(Step::Close)
    }
}
