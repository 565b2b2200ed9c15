//! The record of one HTTP request, written to the log when its last byte is sent or its connection is gone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::job::Times;
use crate::log::Log;
use crate::metrics::Metrics;

/// What is known of a request so far.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) status: u16,
    pub(crate) stream: bool,
    pub(crate) prompts: usize,
    pub(crate) prompt_tokens: usize,
    pub(crate) completion_tokens: usize,
    pub(crate) seed: Option<u64>,
    pub(crate) finish: Option<&'static str>,
    pub(crate) times: Option<Times>,
    pub(crate) error: Option<(&'static str, String)>,
    pub(crate) ignored: Vec<String>,
    /// Whether the engine was asked for something.
    pub(crate) inference: bool,
}

/// The record of a request.
pub(crate) struct Ticket {
    pub(crate) id: String,
    pub(crate) arrived: Instant,
    method: String,
    path: String,
    facts: Mutex<Facts>,
    log: Log,
    metrics: Arc<Metrics>,
}

impl Ticket {
    pub(crate) fn new(id: String, method: &str, path: &str, log: Log, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            id,
            arrived: Instant::now(),
            method: method.to_owned(),
            path: path.chars().take(128).collect(),
            facts: Mutex::default(),
            log,
            metrics,
        })
    }

    /// Returns what is known, to be completed.
    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an error that the client is told.
    pub(crate) fn error(&self, error: &ApiError) {
        self.metrics.failure(error.kind.word());
        self.facts().error = Some((error.kind.word(), error.message.chars().take(300).collect()));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let facts = std::mem::take(&mut *self.facts());
        let ms = |time: Duration| Value::from((time.as_secs_f64() * 1e6).round() / 1e3);
        let mut line = Map::new();
        line.insert("id".into(), self.id.clone().into());
        line.insert("method".into(), self.method.clone().into());
        line.insert("path".into(), self.path.clone().into());
        line.insert("status".into(), facts.status.into());
        line.insert("total_ms".into(), ms(self.arrived.elapsed()));
        if facts.inference {
            line.insert("stream".into(), facts.stream.into());
            line.insert("prompts".into(), facts.prompts.into());
            line.insert("prompt_tokens".into(), facts.prompt_tokens.into());
            line.insert("completion_tokens".into(), facts.completion_tokens.into());
            line.insert("seed".into(), facts.seed.into());
            let left = facts.error.is_none().then_some("abort");
            line.insert("finish".into(), facts.finish.or(left).into());
            if let Some(times) = facts.times {
                line.insert("queue_ms".into(), ms(times.queue));
                line.insert("first_token_ms".into(), times.first_token.map(ms).into());
                line.insert("engine_ms".into(), ms(times.total));
            }
        }
        if let Some((kind, message)) = facts.error {
            line.insert("error".into(), kind.into());
            line.insert("message".into(), message.into());
        }
        if !facts.ignored.is_empty() {
            line.insert("ignored".into(), facts.ignored.into());
        }
        self.log.event("request", line);
    }
}
