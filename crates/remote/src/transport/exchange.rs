//! One answer: its head, its body in bounded pieces, and what its errors mean.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, Response};
use ureq::{Body, BodyReader, Timeout};

use super::{Transport, stamp};
use crate::response::Times;
use crate::{Failure, FailureKind, Phase};

/// Bytes of server text that a failure keeps.
pub(super) const MAX_TEXT: usize = 2_048;
/// How long the rest of a complete answer is awaited, so that its connection can serve again.
const REST: Duration = Duration::from_millis(250);

/// An answer whose head has arrived.
pub(crate) struct Exchange<'t> {
    transport: &'t Transport,
    /// Times so far. The caller adds those of tokens.
    pub(crate) times: Times,
    /// The status.
    pub(crate) status: u16,
    /// The head.
    pub(crate) headers: HeaderMap,
    body: BodyReader<'static>,
    read: usize,
}

impl<'t> Exchange<'t> {
    pub(super) fn new(transport: &'t Transport, started: Instant, response: Response<Body>) -> Self {
        let clock = stamp::read();
        let mut times = Times::new(started);
        (times.connected, times.sent, times.headers) = (clock.connected, clock.sent, clock.arrived);
        let (head, body) = response.into_parts();
        let (status, headers) = (head.status.as_u16(), head.headers);
        Self { transport, times, status, headers, body: body.into_reader(), read: 0 }
    }

    /// Reads what has arrived, or waits for more. 0: the body has ended as it should.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let count = loop {
            match self.body.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(count) => break count,
                Err(e) => {
                    let (kind, text) = classify(&ureq::Error::from(e), &stamp::read());
                    return Err(self.failed(kind, &text));
                }
            }
        };
        if count > 0 && self.times.first_byte.is_none() {
            self.times.first_byte = stamp::read().arrived;
        }
        self.read += count;
        if self.read > self.transport.endpoint.max_body {
            let limit = self.transport.endpoint.max_body;
            return Err(self.failed(FailureKind::TooLarge, &format!("more than {limit} bytes")));
        }
        Ok(count)
    }

    /// Returns when the latest bytes arrived.
    pub(crate) fn arrived() -> Instant {
        stamp::read().arrived.unwrap_or_else(Instant::now)
    }

    /// From now on the next event is awaited.
    pub(crate) fn event_seen(&self) {
        stamp::expect_within(self.transport.endpoint.timeouts.between_events);
    }

    /// Reads the whole body.
    pub(crate) fn read_all(&mut self) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 16 << 10];
        loop {
            match self.read(&mut buffer)? {
                0 => break,
                count => bytes.extend_from_slice(&buffer[..count]),
            }
            self.event_seen();
        }
        self.times.end = Self::arrived();
        Ok(bytes)
    }

    /// Reads what is left after an end marker, for a moment: a connection with unread bytes cannot serve again.
    pub(crate) fn finish(mut self) {
        stamp::expect_within(REST);
        let mut buffer = [0; 4 << 10];
        for _ in 0..64 {
            if !matches!(self.body.read(&mut buffer), Ok(1..)) {
                return;
            }
        }
    }

    /// Adds what follows in the body to a server's message, up to the bound for the text of a failure.
    pub(crate) fn append_rest(&mut self, text: &mut Vec<u8>) {
        stamp::expect_within(REST);
        let mut buffer = [0; 1 << 10];
        while text.len() < MAX_TEXT {
            match self.body.read(&mut buffer) {
                Ok(count @ 1..) => text.extend_from_slice(&buffer[..count]),
                _ => return,
            }
        }
    }

    /// Passes an answer of status 200 on, and makes a failure of every other.
    pub(crate) fn expect_ok(mut self) -> Result<Self, Failure> {
        if self.status == 200 {
            return Ok(self);
        }
        let header = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok());
        if (300..400).contains(&self.status) {
            let text = format!("status {} to {}", self.status, header("location").unwrap_or("nowhere"));
            return Err(self.failed(FailureKind::Redirect, &text));
        }
        // Dates are not read: a server that means to be asked again soon says seconds.
        let wait = header("retry-after").and_then(|value| value.trim().parse().ok()).map(Duration::from_secs);
        let mut body = Vec::new();
        self.append_rest(&mut body);
        let text = match self.transport.json(&body) {
            Ok(json) => json.error_text().unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned()),
            Err(_) => String::from_utf8_lossy(&body).into_owned(),
        };
        let mut failure = self.failed(FailureKind::Status(self.status), &text);
        failure.retry_after = wait;
        Err(failure)
    }

    /// Returns a failure at this moment.
    pub(crate) fn failed(&self, kind: FailureKind, text: &str) -> Failure {
        self.transport.failed(kind, text, Times { end: Instant::now(), ..self.times })
    }
}

/// Returns what an error of the library means for the request.
pub(super) fn classify(error: &ureq::Error, clock: &stamp::Clock) -> (FailureKind, String) {
    use ureq::Error as E;
    let kind = match error {
        E::Timeout(Timeout::Global | Timeout::PerCall) => FailureKind::Timeout(Phase::Whole),
        E::Timeout(Timeout::Connect | Timeout::Resolve) => FailureKind::Timeout(Phase::Connect),
        E::Timeout(_) => FailureKind::Timeout(clock.phase),
        E::Io(e) if e.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => FailureKind::Tls,
        E::Rustls(_) | E::Tls(_) | E::Pem(_) | E::TlsRequired => FailureKind::Tls,
        E::Io(_) if clock.connected.is_some() || clock.sent.is_some() => FailureKind::Cut,
        E::Io(_) | E::HostNotFound | E::ConnectionFailed | E::BadUri(_) => FailureKind::Connect,
        E::Protocol(_) | E::Http(_) | E::Decompress(..) => FailureKind::NotHttp,
        E::LargeResponseHeader(..) | E::BodyExceedsLimit(_) => FailureKind::TooLarge,
        _ => FailureKind::Cut,
    };
    let text = match error {
        E::Timeout(_) => String::new(),
        other => other.to_string(),
    };
    (kind, text)
}
