//! The structured log: a JSON object a line, written by a thread of its own.
//!
//! A line that finds the queue full is dropped and counted. A reader of the log that stands still therefore never stalls
//! a request.

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use crate::metrics::Metrics;

/// Lines that wait to be written.
const LINES: usize = 1024;

/// Where lines go.
#[derive(Clone)]
pub(crate) struct Log {
    lines: SyncSender<String>,
    metrics: Arc<Metrics>,
}

impl Log {
    /// Starts the writing thread. It ends when the last copy of the log is gone.
    pub(crate) fn start(mut out: Box<dyn Write + Send>, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let (lines, queue) = sync_channel::<String>(LINES);
        std::thread::Builder::new().name("log".into()).spawn(move || {
            for line in queue {
                let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
            }
        })?;
        Ok(Self { lines, metrics })
    }

    /// Writes an event with its fields.
    pub(crate) fn event(&self, event: &str, fields: Map<String, Value>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = Map::new();
        line.insert("unix_ms".into(), (now.as_millis() as u64).into());
        line.insert("event".into(), event.into());
        line.extend(fields);
        let text = format!("{}\n", Value::Object(line));
        if let Err(TrySendError::Full(_)) = self.lines.try_send(text) {
            self.metrics.dropped_log_line();
        }
    }
}
