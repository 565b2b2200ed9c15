//! The engine behind the HTTP routes of TGI and OpenAI.
//!
//! One thread owns the engine and steps it (`work.rs`). Another runs the connections and the routes, without waiting for
//! the first. Jobs go in through one bounded channel; events come out through one per request. The routes translate
//! between the wire and what the program thinks in (`generation.rs`).
//!
//! The crate knows nothing of suites and records, and prints nothing: the log goes where the caller says.
#![forbid(unsafe_code)]

mod app;
mod bell;
mod body;
mod chat;
mod connection;
mod error;
mod generation;
mod job;
mod loading;
mod log;
mod metrics;
mod names;
mod routes;
mod settings;
mod sse;
mod ticket;
mod wire;
mod work;

// The server of the integration tests, for the example of a route, which only unit tests have.
#[cfg(test)]
extern crate self as glmbench_serve;
#[cfg(test)]
#[path = "../tests/it/http.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "the integration tests use the rest")]
mod http;
#[cfg(test)]
#[path = "../tests/it/server.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "the integration tests use the rest")]
mod server;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use glmbench_engine::tokenizer::Tokenizer;
use glmbench_engine::{Engine, EngineError, Scheduling};
use serde_json::{Map, json};

use self::app::{App, Model, Phase};
use self::bell::Bell;
use self::connection::Connections;
use self::job::Command;
use self::log::Log;
use self::metrics::Metrics;
use self::work::Worker;

pub use self::loading::Loading;
pub use self::settings::{Described, Key, ServeLimits, Settings};

/// Wait for connections to send what is left, when the server ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Shortest time that a server which ends answers 503 before its port closes: clients that knocked already get an answer.
const LINGER: Duration = Duration::from_millis(200);

/// Errors of a server.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("{address}: cannot be listened on: {cause}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        cause: std::io::Error,
    },
    /// The system refused a thread or a socket.
    #[error("the server cannot run: {0}")]
    System(#[from] std::io::Error),
    /// An error ended the model.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Listens on an address; port 0 takes a free one.
///
/// # Errors
/// The address is taken, or is not this machine's.
pub fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let cause = |cause| ServeError::Bind { address, cause };
    let listener = TcpListener::bind(address).map_err(cause)?;
    listener.set_nonblocking(true).map_err(cause)?;
    Ok(listener)
}

/// Serves until `stop` says that it is time to end, then finishes what runs.
///
/// The log gets a JSON object a line. When the server ends, `/health` gets 503 at once, and new requests after
/// [`Settings::drain_delay`]. Running requests then have [`Settings::drain`] to end; what is left ends with an error.
///
/// # Errors
/// The system refuses a thread or a socket, or an error ended the model.
pub fn serve(
    mut engine: Engine,
    tokenizer: Arc<Tokenizer>,
    listener: TcpListener,
    settings: Settings,
    log: Box<dyn Write + Send>,
    stop: &dyn Fn() -> bool,
) -> Result<(), ServeError> {
    engine.set_tokenizer(Arc::clone(&tokenizer));
    // New prompts do not stop the streams of the others.
    let scheduling =
        engine.set_scheduling(settings.prefill_chunk.map_or(Scheduling::ALTERNATING, Scheduling::Mixed));
    let metrics = Arc::new(Metrics::new(engine.occupancy()));
    let log = Log::start(log, Arc::clone(&metrics))?;
    let model = Model::of(&engine, tokenizer);
    let slow_reader = settings.limits.slow_reader;
    // A place for every sequence, and for the words at the end.
    let (commands, queue) = sync_channel(settings.limits.queue + model.max_batch + 2);
    let bell = Bell::default();
    let app = Arc::new(App::new(settings, model, Arc::clone(&metrics), log, commands, bell.clone()));
    let of_engine = bell.clone();
    let run_engine = move || Worker::new(engine, queue, metrics, slow_reader, of_engine.ringer()).run();
    let thread = std::thread::Builder::new().name("engine".into()).spawn(run_engine)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(1)
        .build()?;
    runtime.spawn(bell.answer());
    let ended = runtime.block_on(run(&app, listener, &thread, scheduling, stop));
    app.tell(Command::Stop);
    runtime.shutdown_timeout(LAST_WORDS);
    ended?;
    match thread.join() {
        Ok(result) => Ok(result?),
        Err(_) => Err(ServeError::System(std::io::Error::other("the engine's thread panicked"))),
    }
}

async fn run<T>(
    app: &Arc<App>,
    listener: TcpListener,
    thread: &JoinHandle<T>,
    scheduling: Scheduling,
    stop: &dyn Fn() -> bool,
) -> Result<(), ServeError> {
    let address = listener.local_addr()?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let connections = Connections::new(Arc::clone(app), routes::router(Arc::clone(app)));
    let ready = json!({
        "address": address.to_string(),
        "model": app.settings.model,
        "scheduling": scheduling.to_string(),
    });
    note(app, "ready", &ready);
    connections.accept(&listener, || stop() || thread.is_finished()).await;
    let delay = app.settings.drain_delay;
    if !delay.is_zero() && !thread.is_finished() {
        app.enter(Phase::Leaving);
        note(app, "leaving", &json!({"seconds": delay.as_secs_f64()}));
        let until = Instant::now() + delay;
        connections.accept(&listener, || Instant::now() >= until || thread.is_finished()).await;
    }
    let failed = thread.is_finished();
    app.enter(if failed { Phase::Failed } else { Phase::Draining });
    note(app, if failed { "failed" } else { "draining" }, &json!({"requests": app.busy_places()}));
    let begin = Instant::now();
    let is_over = || {
        let waited = begin.elapsed();
        waited >= app.settings.drain || (waited >= LINGER && (app.is_idle() || thread.is_finished()))
    };
    // The listener stays open, so that health checks see 503 rather than a closed port.
    connections.accept(&listener, is_over).await;
    drop(listener);
    if !app.is_idle() {
        note(app, "cancelling", &json!({"requests": app.busy_places()}));
        app.tell(Command::Abort);
    }
    connections.end(LAST_WORDS).await;
    note(app, "ended", &json!({}));
    Ok(())
}

fn note(app: &App, event: &str, fields: &serde_json::Value) {
    app.log.event(event, fields.as_object().cloned().unwrap_or_else(Map::new));
}
