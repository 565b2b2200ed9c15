//! Connections, bounded bodies and times.

mod exchange;
mod resolve;
mod stamp;
mod tls;

use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::config::AutoHeaderValue;
use ureq::unversioned::transport::{Connector, RustlsConnector, TcpConnector};

pub(crate) use self::exchange::Exchange;
use self::resolve::LookUpOnce;
use self::stamp::StampConnector;
use crate::json::Json;
use crate::response::{Attempt, Times};
use crate::{Endpoint, Failure, FailureKind, Phase, RemoteError, Url};

/// Maximum bytes of a response head.
const MAX_HEAD: usize = 24 << 10;
/// Bytes of connection buffers. More than a head, or a head that is too long would end as a cut.
const BUFFER: usize = 32 << 10;
/// Connections kept alive. A sweep's largest concurrency should find all of its connections again.
const MAX_IDLE: usize = 4_096;

/// A connection that ends later after the request was sent was not closed before: the server may have begun, so that the
/// request fails.
/// The end of one that was closed before is here within a round trip.
const CLOSED_WITHIN: Duration = Duration::from_millis(250);
/// The same without retries, which is load: a request that a server sees twice is load that nobody offered.
const CLOSED_WITHIN_LOAD: Duration = Duration::from_millis(20);

/// The connections to one endpoint.
#[derive(Debug)]
pub(crate) struct Transport {
    agent: Agent,
    /// Keeps no connections: what a closed one swallowed goes over a new one, and not over another that may be closed, too.
    fresh: Agent,
    endpoint: Endpoint,
}

impl Transport {
    /// Reads certificates if one of the URLs needs them.
    pub(crate) fn new(endpoint: &Endpoint) -> Result<Self, RemoteError> {
        let urls = [Some(&endpoint.url), endpoint.management.as_ref(), endpoint.metrics.as_ref()];
        let encrypts = urls.into_iter().flatten().any(Url::is_https);
        let tls = if encrypts { Some(tls::config(&endpoint.tls)?) } else { None };
        let resolver = LookUpOnce::default();
        let agent = |idle: usize| {
            let mut config = Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .proxy(None)
                .no_delay(true)
                .user_agent(concat!("glmbench/", env!("CARGO_PKG_VERSION")))
                // Nobody is asked to compress: compressors hold events back. Compressed answers are read all the same.
                .accept_encoding(AutoHeaderValue::None)
                .max_response_header_size(MAX_HEAD)
                .input_buffer_size(BUFFER)
                .output_buffer_size(BUFFER)
                .max_idle_connections(idle)
                .max_idle_connections_per_host(idle)
                .timeout_resolve(Some(endpoint.timeouts.connect))
                .timeout_connect(Some(endpoint.timeouts.connect))
                .timeout_global(Some(endpoint.timeouts.whole));
            if let Some(tls) = &tls {
                config = config.tls_config(tls.clone());
            }
            let connector =
                ().chain(TcpConnector::default()).chain(RustlsConnector::default()).chain(StampConnector);
            Agent::with_parts(config.build(), connector, resolver.clone())
        };
        Ok(Self {
            agent: agent(if endpoint.keep_alive { MAX_IDLE } else { 0 }),
            fresh: agent(0),
            endpoint: endpoint.clone(),
        })
    }

    /// Sends a `POST` of JSON, and returns once the head of the answer is there. An attempt that met a closed connection is added
    /// to `attempts`.
    pub(crate) fn post(
        &self,
        url: &Url,
        route: &str,
        body: &[u8],
        stream: bool,
        attempts: &mut Vec<Attempt>,
    ) -> Result<Exchange<'_>, Failure> {
        let at = url.join(route);
        let accept = if stream { "text/event-stream" } else { "application/json" };
        self.exchange(attempts, |agent| {
            let mut request =
                agent.post(&at).header("Content-Type", "application/json").header("Accept", accept);
            if let Some(key) = self.endpoint.key_for(url) {
                request = request.header("Authorization", format!("Bearer {}", key.secret()));
            }
            request.send(body)
        })
    }

    /// Sends a `GET`, and returns once the head of the answer is there.
    pub(crate) fn get(&self, url: &Url, route: &str) -> Result<Exchange<'_>, Failure> {
        let at = url.join(route);
        self.exchange(&mut Vec::new(), |agent| {
            let mut request = agent.get(&at);
            if let Some(key) = self.endpoint.key_for(url) {
                request = request.header("Authorization", format!("Bearer {}", key.secret()));
            }
            request.call()
        })
    }

    /// Sends a request. A kept connection that the server had closed is no answer. The request goes over a new one, once, and
    /// `attempts` gets the times of the first.
    fn exchange(
        &self,
        attempts: &mut Vec<Attempt>,
        send: impl Fn(&Agent) -> Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Exchange<'_>, Failure> {
        let first_byte = self.endpoint.timeouts.first_byte;
        let within = if self.endpoint.retry.times == 0 { CLOSED_WITHIN_LOAD } else { CLOSED_WITHIN };
        let mut started = Instant::now();
        stamp::begin(first_byte);
        let mut sent = send(&self.agent);
        if let Err(error) = &sent
            && was_closed(error, within)
        {
            let times = *self.failure(error, started).times;
            attempts.push(Attempt { times, kind: FailureKind::Cut, waited: Duration::ZERO });
            started = Instant::now();
            stamp::begin(first_byte);
            sent = send(&self.fresh);
        }
        match sent {
            Ok(response) => Ok(Exchange::new(self, started, response)),
            Err(error) => Err(self.failure(&error, started)),
        }
    }

    /// Returns the failure behind an error of the library, with what the clock of this thread shows.
    fn failure(&self, error: &ureq::Error, started: Instant) -> Failure {
        let clock = stamp::read();
        let mut times = Times::new(started);
        (times.connected, times.sent, times.end) = (clock.connected, clock.sent, Instant::now());
        let (kind, text) = exchange::classify(error, &clock);
        self.failed(kind, &text, times)
    }

    /// Returns a server's text without the key.
    pub(crate) fn hide(&self, text: String) -> String {
        match &self.endpoint.key {
            Some(key) => key.hide(text),
            None => text,
        }
    }

    /// The same for a text that may be cut off within the key.
    pub(crate) fn hide_cut(&self, text: String) -> String {
        match &self.endpoint.key {
            Some(key) => key.hide_cut(text),
            None => text,
        }
    }

    /// Parses a server's JSON. The key occurs in none of its texts.
    pub(crate) fn json(&self, bytes: &[u8]) -> Result<Json, serde_json::Error> {
        let mut json = Json::parse(bytes)?;
        if let Some(key) = &self.endpoint.key {
            json.change_texts(&|text| key.hide(text));
        }
        Ok(json)
    }

    /// Returns a failure with bounded text, in which the key does not occur.
    pub(crate) fn failed(&self, kind: FailureKind, text: &str, times: Times) -> Failure {
        let mut text = self.hide_cut(text.trim().to_owned());
        if let FailureKind::Timeout(phase) = kind {
            let limits = &self.endpoint.timeouts;
            let limit = match phase {
                Phase::Connect => limits.connect,
                Phase::FirstByte => limits.first_byte,
                Phase::BetweenEvents => limits.between_events,
                Phase::Whole => limits.whole,
            };
            text = format!("{} s", limit.as_secs_f64());
        }
        let mut end = text.len().min(exchange::MAX_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        Failure {
            kind,
            text,
            times: Box::new(times),
            events: Vec::new(),
            retry_after: None,
            attempts: Vec::new(),
        }
    }
}

/// Whether the server had closed a kept connection when a request was sent over it. The server llama.cpp closes
/// connections behind a stream without saying so, just when the next request is on its way. If bytes of the request were
/// sent, the
/// connection's end must be here `within` this time: later, the server may have begun.
fn was_closed(error: &ureq::Error, within: Duration) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let ureq::Error::Io(error) = error else { return false };
    let clock = stamp::read();
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
        && clock.connected.is_none()
        && !clock.answered
        && clock.sent.is_none_or(|sent| sent.elapsed() < within)
}
