//! What all routes share: the model's facts, the way to the engine, limits, counters.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use glmbench_engine::tokenizer::Tokenizer;
use glmbench_engine::{Engine, Request};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::bell::{Bell, Events};
use crate::error::{ApiError, Kind};
use crate::job::{CHANNEL_EVENTS, Command, Job};
use crate::log::Log;
use crate::metrics::Metrics;
use crate::names::TokenNames;
use crate::settings::Settings;

/// Texts longer than this, in bytes, are encoded on another thread.
const LONG_TEXT: usize = 16 << 10;

/// What the server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Ready,
    /// It still works, but says that it is not healthy, so that a load balancer sends its clients elsewhere.
    Leaving,
    /// It finishes what runs, and takes nothing new.
    Draining,
    /// An error ended the model.
    Failed,
}

/// What is known of the model.
pub(crate) struct Model {
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) names: TokenNames,
    /// Most tokens of a sequence.
    pub(crate) context: usize,
    pub(crate) vocab: usize,
    pub(crate) max_batch: usize,
    pub(crate) eos: Vec<u32>,
}

impl Model {
    pub(crate) fn of(engine: &Engine, tokenizer: Arc<Tokenizer>) -> Self {
        let (config, capacity) = (engine.config(), engine.capacity());
        let taken = capacity.max_context - config.pre_seq_len.unwrap_or(0);
        Self {
            names: TokenNames::of(&tokenizer, config.padded_vocab_size),
            tokenizer,
            context: taken.min(config.seq_length),
            vocab: config.padded_vocab_size,
            max_batch: capacity.max_batch,
            eos: config.eos_token_ids.clone(),
        }
    }
}

/// State of the server.
pub(crate) struct App {
    pub(crate) settings: Settings,
    pub(crate) model: Model,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) log: Log,
    pub(crate) started: u64,
    commands: SyncSender<Command>,
    bell: Bell,
    /// Places of sequences, running and waiting.
    places: Arc<Semaphore>,
    all_places: usize,
    /// Kibibytes of bodies.
    bodies: Arc<Semaphore>,
    /// Log-probabilities.
    logprobs: Arc<Semaphore>,
    /// Requests for work that were let in and are not answered yet, from their head to their last byte.
    pub(crate) requests: Arc<AtomicUsize>,
    phase: AtomicU8,
    next_id: AtomicU64,
    random: RandomState,
}

impl App {
    pub(crate) fn new(
        settings: Settings,
        model: Model,
        metrics: Arc<Metrics>,
        log: Log,
        commands: SyncSender<Command>,
        bell: Bell,
    ) -> Self {
        let all_places = settings.limits.queue + model.max_batch;
        Self {
            places: Arc::new(Semaphore::new(all_places)),
            all_places,
            bodies: Arc::new(Semaphore::new(settings.limits.all_bodies().div_ceil(1 << 10))),
            logprobs: Arc::new(Semaphore::new(settings.limits.all_logprobs)),
            started: unix_seconds(),
            settings,
            model,
            metrics,
            log,
            commands,
            bell,
            requests: Arc::default(),
            phase: AtomicU8::new(0),
            next_id: AtomicU64::new(0),
            random: RandomState::new(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Ready,
            1 => Phase::Leaving,
            2 => Phase::Draining,
            _ => Phase::Failed,
        }
    }

    /// Goes on to a later phase.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::SeqCst);
    }

    /// Returns a number that differs between requests and between starts of the server.
    pub(crate) fn fresh_number(&self) -> u64 {
        self.random.hash_one(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Sequences that run, wait for the engine, or have unread events.
    pub(crate) fn busy_places(&self) -> usize {
        self.all_places - self.places.available_permits()
    }

    /// Most prompts of a request: more than there are places could never run.
    pub(crate) fn most_prompts(&self) -> usize {
        self.settings.limits.prompts.min(self.all_places)
    }

    /// Whether no request is read, worked on or answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.requests.load(Ordering::SeqCst) == 0 && self.busy_places() == 0
    }

    /// Reserves the room that a body of `bytes` needs beyond the `held` kibibytes that it has.
    pub(crate) fn room_for_body(&self, bytes: usize, held: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let full = "the server holds as many request bodies as it may; try again";
        take(&self.bodies, bytes.div_ceil(1 << 10).saturating_sub(held), full)
    }

    /// Reserves room for a reply's log-probabilities.
    pub(crate) fn room_for_logprobs(&self, count: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let most = self.settings.limits.all_logprobs;
        if count > most {
            let message = format!("the reply would hold {count} log-probabilities, expected at most {most}");
            return Err(ApiError::invalid("logprobs", message));
        }
        take(&self.logprobs, count, "the server holds as many log-probabilities as it may; try again")
    }

    /// Hands requests to the engine. Dropping the events cancels them.
    ///
    /// # Errors
    /// The queue is full, or the server ends.
    pub(crate) fn submit(&self, requests: Vec<Request>, arrived: Instant) -> Result<Events, ApiError> {
        let places = take(&self.places, requests.len(), "the queue is full; try again")?;
        let (events, receiver) = mpsc::channel(CHANNEL_EVENTS);
        let deadline = arrived + self.settings.limits.request;
        let job = Box::new(Job { requests, events, arrived, deadline, places });
        // The queue has a place for every sequence, so it is full only if the thread is gone.
        self.commands.try_send(Command::Job(job)).map_err(|_| gone())?;
        Ok(self.bell.events(receiver))
    }

    /// Tells the engine's thread something.
    pub(crate) fn tell(&self, command: Command) {
        // A thread that is gone needs to be told nothing.
        let _ = self.commands.try_send(command);
    }

    /// Encodes a text. A long one is encoded on another thread, so that other requests go on.
    pub(crate) async fn encode(&self, text: String, with_prefix: bool) -> Result<Vec<u32>, ApiError> {
        let tokenizer = Arc::clone(&self.model.tokenizer);
        let encode = move |text: &str| {
            if with_prefix { tokenizer.encode_prompt(text) } else { tokenizer.encode(text) }
        };
        if text.len() <= LONG_TEXT {
            return Ok(encode(&text));
        }
        let encoded = tokio::task::spawn_blocking(move || encode(&text)).await;
        encoded.map_err(|_| ApiError::new(Kind::Generation, "the tokenizer failed on the prompt"))
    }

    /// Accepts the model's name. Clients that do not know it say nothing, `dummy` or `tgi`.
    ///
    /// # Errors
    /// It is the name of another model.
    pub(crate) fn check_model(&self, name: Option<&str>) -> Result<(), ApiError> {
        let ours = &self.settings.model;
        match name {
            None | Some("" | "dummy" | "tgi") => Ok(()),
            Some(name) if name == ours || self.settings.any_model => Ok(()),
            Some(name) => {
                let name: String = name.chars().take(100).collect();
                let message = format!("model \"{name}\" is not here, expected \"{ours}\"");
                Err(ApiError { param: Some("model".into()), ..ApiError::new(Kind::UnknownModel, message) })
            }
        }
    }
}

/// The engine's thread takes no more jobs.
fn gone() -> ApiError {
    ApiError::new(Kind::Unavailable, "the engine takes no more requests")
}

fn take(of: &Arc<Semaphore>, count: usize, full: &str) -> Result<OwnedSemaphorePermit, ApiError> {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    Arc::clone(of).try_acquire_many_owned(count).map_err(|_| ApiError::new(Kind::Overloaded, full))
}

/// Returns the seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
