//! A server behind an HTTP endpoint as a backend.
//!
//! Every request has a thread of its own for as long as it is under way. The client blocks, and an event's time is taken
//! where it arrives. [`Remote::step`] waits for the next request to end, so a step of a server is a finished request. A
//! request for a given time is sent by its thread at that time, whatever the caller does.

mod worker;

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use glmbench_device::sensors::Sensors;
use glmbench_device::{DType, DeviceError, DeviceInfo};
use glmbench_engine::config::ModelConfig;
use glmbench_engine::model::Capacity;
use glmbench_engine::profile::OperatorTime;
use glmbench_engine::tokenizer::Tokenizer;
use glmbench_engine::{EngineError, Request, RequestId, Saved, Step, StepKind};
use glmbench_remote::{Client, Endpoint, RemoteError, Retry};

use self::worker::{Done, PATIENCE, STACK, Shared, watch};
use super::{Allowance, Backend, Capabilities, Exchange, MetricSample};

/// Most requests under way. A thread of each has a small stack, but the system limits their number.
pub const MOST_UNDER_WAY: usize = 8_192;

/// What was found out about a server, as far as requests depend on it.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent answer of the server")]
pub struct RemoteFacts {
    /// What the server calls itself, for people: `vllm 0.11.0`.
    pub server: String,
    /// The word of the protocol.
    pub api: String,
    /// Takes prompts of token ids. Otherwise prompts are sent as text.
    pub ids_in: bool,
    /// Returns log-probabilities of choices after a prompt.
    pub choice_logprobs: bool,
    /// Continues past the end of the text if asked.
    pub ignores_end: bool,
    /// Answers `/metrics`.
    pub metrics: bool,
    /// Named facts for the record.
    pub details: Vec<(String, String)>,
}

impl RemoteFacts {
    /// Returns what a run may ask of the server.
    pub fn capabilities(&self) -> Capabilities {
        Capabilities {
            choice_logprobs: self.choice_logprobs,
            prompt_logprobs: false,
            ignores_end: self.ignores_end,
            step_times: false,
            memory: false,
            logits: false,
            schedules: true,
        }
    }
}

/// A server as a backend.
pub struct Remote {
    shared: Arc<Shared>,
    facts: RemoteFacts,
    next_id: RequestId,
    /// Requests without a completion yet.
    open: HashSet<RequestId>,
    done: Receiver<Done>,
    exchanges: HashMap<RequestId, Exchange>,
    /// Requests were dropped, and may still be under way.
    dropped: bool,
    /// Most requests that may be sent.
    max_requests: Option<u64>,
}

impl Remote {
    /// Creates a backend of a probed server. `end_ids` end a text and are no part of it. At most `max_requests` requests
    /// are sent, retries apart; what would need more ends with [`EngineError::Spent`].
    pub fn new(
        client: Client,
        facts: RemoteFacts,
        tokenizer: Tokenizer,
        end_ids: Vec<u32>,
        max_requests: Option<u64>,
    ) -> Result<Self, RemoteError> {
        let (sender, done) = channel();
        // A retry would hide a failure, and take the place of a punctual request.
        let timed = Client::new(Endpoint { retry: Retry::NEVER, ..client.endpoint().clone() })?;
        let shared = Shared {
            most_for_choices: u64::from(client.most_choice_requests()),
            client,
            timed,
            tokenizer,
            ids_in: facts.ids_in,
            ignores_end: facts.ignores_end,
            end_ids,
            epoch: Instant::now(),
            first_of_interest: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            done: sender,
            metrics: Mutex::new(Vec::new()),
        };
        let shared = Arc::new(shared);
        if facts.metrics {
            watch(&shared);
        }
        Ok(Self {
            shared,
            facts,
            next_id: 0,
            open: HashSet::new(),
            done,
            exchanges: HashMap::new(),
            max_requests,
            dropped: false,
        })
    }

    /// Starts the thread of a request.
    fn start(
        &mut self,
        request: Request,
        text: Option<String>,
        at_ns: Option<u64>,
    ) -> Result<RequestId, EngineError> {
        if request.prompt.is_empty() {
            return Err(EngineError::Request("the prompt is empty".into()));
        }
        if std::mem::take(&mut self.dropped) {
            self.shared.let_end();
        }
        let shared = &self.shared;
        let costs = shared.most_of(&request);
        if let Some(allowance) = self.allowance() {
            allowance.check(costs, "the next question")?;
        }
        // Only this thread adds. Threads of requests give back what they did not need.
        shared.sent.fetch_add(costs, Ordering::Relaxed);
        if shared.under_way.fetch_add(1, Ordering::Relaxed) >= MOST_UNDER_WAY {
            shared.under_way.fetch_sub(1, Ordering::Relaxed);
            return Err(EngineError::Request(format!(
                "{MOST_UNDER_WAY} requests are under way, the most that this program keeps; the server does not keep up"
            )));
        }
        let id = self.next_id;
        let thread = {
            let shared = Arc::clone(shared);
            let run = move || {
                if let Some(at_ns) = at_ns {
                    shared.sleep_until(at_ns);
                }
                let wanted = id >= shared.first_of_interest.load(Ordering::Relaxed);
                let answer =
                    || if wanted { shared.answer(id, &request, text) } else { shared.unsent(id, &request) };
                // A request that ends in a panic ends all the same, so that nobody waits for it.
                let done = catch_unwind(AssertUnwindSafe(answer)).unwrap_or_else(|_| shared.broken(id));
                shared.under_way.fetch_sub(1, Ordering::Relaxed);
                // The backend is gone if the run has ended.
                let _ = shared.done.send(done);
            };
            thread::Builder::new().name("request".into()).stack_size(STACK).spawn(run)
        };
        if let Err(error) = thread {
            shared.under_way.fetch_sub(1, Ordering::Relaxed);
            return Err(EngineError::Request(format!("no thread for the request: {error}")));
        }
        self.next_id += 1;
        self.open.insert(id);
        Ok(id)
    }
}

impl Backend for Remote {
    fn capabilities(&self) -> Capabilities {
        self.facts.capabilities()
    }

    fn device_info(&self) -> DeviceInfo {
        // A server does not tell its number type; the record says so in words.
        let plain =
            DeviceInfo::plain(&format!("endpoint ({})", self.facts.api), &self.facts.server, 0, DType::Fp16);
        DeviceInfo { details: self.facts.details.clone(), ..plain }
    }

    fn submit(&mut self, request: Request) -> Result<RequestId, EngineError> {
        self.start(request, None, None)
    }

    fn submit_text(&mut self, request: Request, prompt: &str) -> Result<RequestId, EngineError> {
        self.start(request, Some(prompt.to_owned()), None)
    }

    fn submit_at(&mut self, request: Request, at_ns: u64) -> Result<RequestId, EngineError> {
        self.start(request, None, Some(at_ns))
    }

    fn exchange(&mut self, id: RequestId) -> Option<Exchange> {
        self.exchanges.remove(&id)
    }

    fn step(&mut self) -> Result<Step, EngineError> {
        let start_ns = self.now_ns();
        let mut finished = Vec::new();
        let mut gone = None;
        let mut take = |done: Done, open: &mut HashSet<RequestId>| {
            let id = done.completion.id;
            if let (true, Some(text)) = (done.is_gone, &done.exchange.fault) {
                gone = Some(text.clone());
            } else if open.remove(&id) {
                self.exchanges.insert(id, done.exchange);
                finished.push(done.completion);
            }
        };
        if !self.open.is_empty() {
            match self.done.recv_timeout(PATIENCE) {
                Ok(done) => take(done, &mut self.open),
                // The sender lives as long as this backend.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            while let Ok(done) = self.done.try_recv() {
                take(done, &mut self.open);
            }
        }
        if let Some(text) = gone {
            self.clear();
            let message = format!("{}: {text}; is the server running?", self.shared.client.endpoint().url);
            return Err(DeviceError::Lost { device: "endpoint", message }.into());
        }
        Ok(Step {
            kind: if finished.is_empty() { StepKind::Idle } else { StepKind::Decode },
            start_ns,
            end_ns: self.now_ns(),
            sequences: finished.len(),
            tokens: 0,
            prompt_tokens: 0,
            saved: Saved::default(),
            started: Vec::new(),
            emitted: Vec::new(),
            details: Vec::new(),
            prompts: Vec::new(),
            finished,
        })
    }

    fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    fn clear(&mut self) {
        // Threads end with their requests; a request over a wire cannot be recalled.
        self.shared.first_of_interest.store(self.next_id, Ordering::Relaxed);
        self.dropped |= !self.open.is_empty();
        self.open.clear();
        self.exchanges.clear();
    }

    fn now_ns(&self) -> u64 {
        self.shared.now_ns()
    }

    fn wait_until(&mut self, ns: u64) -> Result<(), EngineError> {
        self.shared.sleep_until(ns);
        Ok(())
    }

    fn allowance(&self) -> Option<Allowance> {
        let most = self.max_requests?;
        let left = most.saturating_sub(self.shared.sent.load(Ordering::Relaxed));
        Some(Allowance { left, most, for_choices: self.shared.most_for_choices })
    }

    fn take_server_metrics(&mut self) -> Vec<MetricSample> {
        std::mem::take(&mut *self.shared.metrics.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn start_afresh(&mut self) -> Result<(), EngineError> {
        self.clear();
        Ok(())
    }

    fn has_failed(&self) -> bool {
        false
    }

    fn sensors(&self) -> Option<&dyn Sensors> {
        None
    }

    fn take_profile(&mut self) -> Vec<OperatorTime> {
        Vec::new()
    }

    fn model(&self) -> Option<(&ModelConfig, Capacity)> {
        None
    }
}
