//! A server behind an HTTP endpoint as a backend.
//!
//! Every request has a thread of its own for as long as it is under way: the client blocks, and an event's time is taken
//! where it arrives. [`Remote::step`] waits for the next request to end, so a step of a server is a finished request. A
//! request for a given time is sent by its thread at that time, whatever the caller does.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use glmbench_device::sensors::Sensors;
use glmbench_device::{DType, DeviceError, DeviceInfo};
use glmbench_engine::config::ModelConfig;
use glmbench_engine::model::Capacity;
use glmbench_engine::profile::OperatorTime;
use glmbench_engine::tokenizer::Tokenizer;
use glmbench_engine::{Completion, EngineError, FinishReason, Request, RequestId, Saved, Step, StepKind};
use glmbench_remote::{
    Attempt, Choice, ChoiceLogprobs, Client, Endpoint, EventTime, Failure, FailureKind, Finish, Generation,
    Phase, Prompt, RemoteError, Response, Retry, Times,
};

use super::{Allowance, Backend, Capabilities, Exchange, WireTimes};

/// How long a step waits for a request to end, so that its caller can look at other things.
const PATIENCE: Duration = Duration::from_millis(20);
/// Most requests under way. A thread of each has a small stack, but the system limits their number.
pub const MOST_UNDER_WAY: usize = 8_192;
/// How long new requests wait for dropped ones.
const LET_END: Duration = Duration::from_mins(2);
/// Stack of a request's thread, in bytes.
const STACK: usize = 512 << 10;

/// Time between two samples of the server's metrics.
const METRICS_EVERY: Duration = Duration::from_secs(5);
/// Samples kept until a run takes them.
const MOST_METRICS: usize = 1 << 20;

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

/// What the threads of requests share.
struct Shared {
    client: Client,
    /// The same server, without retries.
    timed: Client,
    /// Requests before this one were dropped; they are not sent any more, and what comes of them is ignored.
    first_of_interest: AtomicU64,
    tokenizer: Tokenizer,
    ids_in: bool,
    ignores_end: bool,
    end_ids: Vec<u32>,
    epoch: Instant,
    under_way: AtomicUsize,
    /// Requests that were sent, and those that the ones under way may still send.
    sent: AtomicU64,
    /// Most requests that a question for choices sends.
    most_for_choices: u64,
    done: Sender<Done>,
    /// Samples of the server's metrics that no one has taken yet.
    metrics: Mutex<Vec<(u64, String, f64)>>,
}

/// A request that has ended.
struct Done {
    completion: Completion,
    exchange: Exchange,
    /// No connection can be made any more.
    is_gone: bool,
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

/// Returns at how many different times events arrived. Events that arrive together count once: what lies between them
/// was not measured.
fn arrivals(events: &[EventTime]) -> u64 {
    events.chunk_by(|a, b| a.at == b.at).count() as u64
}

/// Samples the server's metrics for as long as the backend lives.
fn watch(shared: &Arc<Shared>) {
    let weak = Arc::downgrade(shared);
    let sample = move || {
        while let Some(shared) = weak.upgrade() {
            shared.sample_metrics();
            drop(shared);
            thread::sleep(METRICS_EVERY);
        }
    };
    // Without the thread there are no samples, and nothing else is lost.
    let _ = thread::Builder::new().name("metrics".into()).stack_size(STACK).spawn(sample);
}

impl Shared {
    /// Keeps a sample of each of the server's metrics, buckets of histograms apart.
    fn sample_metrics(&self) {
        let Ok(samples) = self.client.metrics() else { return };
        let now_ns = self.now_ns();
        let plain = samples.into_iter().filter(|(series, value)| {
            value.is_finite() && !series.split('{').next().unwrap_or_default().ends_with("_bucket")
        });
        let mut kept = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MOST_METRICS {
            kept.extend(plain.map(|(series, value)| (now_ns, series, value)));
        }
    }

    fn ns(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    fn now_ns(&self) -> u64 {
        self.ns(Instant::now())
    }

    fn sleep_until(&self, ns: u64) {
        thread::sleep(Duration::from_nanos(ns.saturating_sub(self.now_ns())));
    }

    /// Returns the most requests over the wire that a request may need.
    fn most_of(&self, request: &Request) -> u64 {
        let choices = if request.choice_ids.is_empty() { 0 } else { self.most_for_choices };
        choices + u64::from(request.max_new_tokens > 0)
    }

    /// The end of a request that was dropped before it was sent.
    fn unsent(&self, id: RequestId, request: &Request) -> Done {
        self.sent.fetch_sub(self.most_of(request), Ordering::Relaxed);
        self.unanswered(id)
    }

    /// Sends a request and waits for its answer: generated text, log-probabilities of choices, or both.
    fn answer(&self, id: RequestId, request: &Request, text: Option<String>) -> Done {
        let prompt = if self.ids_in {
            Prompt::Ids(request.prompt.clone())
        } else {
            Prompt::Text(text.unwrap_or_else(|| self.tokenizer.decode(&request.prompt)))
        };
        let mut done = self.unanswered(id);
        if request.max_new_tokens > 0 {
            let generation = Generation {
                ignore_end: request.ignore_eos && self.ignores_end,
                ..Generation::greedy(
                    prompt.clone(),
                    u32::try_from(request.max_new_tokens).unwrap_or(u32::MAX),
                )
            };
            let client = if request.ignore_eos { &self.timed } else { &self.client };
            match client.generate(&generation, &mut |_| {}) {
                Ok(response) => self.take_response(&mut done, response, request.ignore_eos),
                Err(failure) => self.fail(&mut done, &failure),
            }
        }
        if !request.choice_ids.is_empty() && done.exchange.fault.is_none() {
            match self.client.next_token_logprobs(&prompt, &self.choices(&request.choice_ids)) {
                Ok(told) => {
                    let unused = self.most_for_choices.saturating_sub(u64::from(told.requests));
                    self.sent.fetch_sub(unused, Ordering::Relaxed);
                    self.take_choices(&mut done, &told);
                }
                Err(failure) => self.fail(&mut done, &failure),
            }
        }
        done
    }

    /// Waits until dropped requests have ended, but no longer than their patience: what comes next is timed alone.
    fn let_end(&self) {
        let deadline = Instant::now() + LET_END;
        while self.under_way.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
            thread::sleep(PATIENCE);
        }
    }

    /// The end of a request that this program broke off.
    fn broken(&self, id: RequestId) -> Done {
        let mut done = self.unanswered(id);
        done.exchange.fault = Some("this program failed while it read the answer".into());
        done
    }

    fn unanswered(&self, id: RequestId) -> Done {
        let now_ns = self.now_ns();
        let times = WireTimes { sent_ns: now_ns, closed_ns: now_ns, attempts: 1, ..WireTimes::default() };
        Done {
            completion: Completion {
                id,
                tokens: Vec::new(),
                text: None,
                choice_logprobs: Vec::new(),
                prompt_logprobs: Vec::new(),
                finish: FinishReason::Length,
                start_ns: now_ns,
                end_ns: now_ns,
            },
            exchange: Exchange {
                text: None,
                fault: None,
                token_ns: Vec::new(),
                prompt_tokens: None,
                output_tokens: 0,
                times,
            },
            is_gone: false,
        }
    }

    /// Returns the choices with the text that a server shows for their token alone.
    fn choices(&self, ids: &[u32]) -> Vec<Choice> {
        let choice = |&id: &u32| {
            let piece = self.tokenizer.piece(id).unwrap_or_default();
            let bare = piece.strip_prefix('\u{2581}');
            let twin = bare.map_or_else(|| format!("\u{2581}{piece}"), str::to_owned);
            Choice {
                id: Some(id),
                text: self.tokenizer.decode(&[id]),
                begins_word: bare.is_some(),
                has_twin: self.tokenizer.token_id(&twin).is_some_and(|twin| twin != id),
            }
        };
        ids.iter().map(choice).collect()
    }

    fn take_response(&self, done: &mut Done, response: Response, ignores_end: bool) {
        self.take_times(done, &response.times, &response.attempts);
        let Done { completion, exchange, .. } = done;
        completion.finish = match &response.finish {
            Finish::Length => FinishReason::Length,
            // MindIE's oldest route states no reason.
            Finish::Other(word) if word != "unstated" => {
                exchange.fault = Some(format!("the server ended the answer for the reason `{word}`"));
                FinishReason::Eos
            }
            _ => FinishReason::Eos,
        };
        exchange.times.events = arrivals(&response.events);
        exchange.prompt_tokens = response.prompt_tokens.map(u64::from);
        let by_events = || response.events.iter().map(|e| u64::from(e.tokens.unwrap_or(1))).sum();
        let by_ids = response.ids.as_ref().map(|ids| ids.len() as u64);
        exchange.output_tokens = response.output_tokens.map(u64::from).or(by_ids).unwrap_or_else(by_events);
        exchange.token_ns = self.token_times(&response.events, exchange.output_tokens);
        match response.ids {
            Some(mut ids) => {
                // An end that was ignored is a token like any other.
                if !ignores_end && ids.last().is_some_and(|id| self.end_ids.contains(id)) {
                    ids.pop();
                }
                completion.tokens = ids;
            }
            None => exchange.text = Some(response.text),
        }
    }

    /// Returns the arrival time of each token. Where the number of an event's tokens is not told, an event counts as one,
    /// and the tokens beyond the events came with the last.
    fn token_times(&self, events: &[EventTime], tokens: u64) -> Vec<u64> {
        let most = usize::try_from(tokens).unwrap_or(usize::MAX);
        let of_event = |event: &EventTime| {
            std::iter::repeat_n(self.ns(event.at), event.tokens.unwrap_or(1).min(1 << 16) as usize)
        };
        let mut times: Vec<u64> = events.iter().flat_map(of_event).take(most).collect();
        if let (Some(&last), true) = (times.last(), most <= 1 << 20) {
            times.resize(most, last);
        }
        times
    }

    fn take_choices(&self, done: &mut Done, told: &ChoiceLogprobs) {
        self.take_times(done, &told.times, &told.attempts);
        done.exchange.prompt_tokens = told.prompt_tokens.map(u64::from).or(done.exchange.prompt_tokens);
        let revealed: Vec<f32> = told.logprobs.iter().flatten().map(|&logprob| logprob as f32).collect();
        if revealed.len() == told.logprobs.len() {
            done.completion.choice_logprobs = revealed;
        } else {
            let twins = match told.ambiguous {
                0 => "",
                _ => "; it shows tokens by their text, and more than one token has that of a choice",
            };
            done.exchange.fault = Some(format!(
                "the server reveals {} of {} choices among its {} most probable tokens{twins}",
                revealed.len(),
                told.logprobs.len(),
                told.depth
            ));
        }
    }

    fn fail(&self, done: &mut Done, failure: &Failure) {
        self.take_times(done, &failure.times, &failure.attempts);
        done.exchange.times.events = arrivals(&failure.events);
        // Retries are used up: what is asked next would fail, too. A closed connection before was none.
        let is_gone =
            |kind: &FailureKind| matches!(kind, FailureKind::Connect | FailureKind::Timeout(Phase::Connect));
        let last = failure.attempts.last();
        done.is_gone = is_gone(&failure.kind) && last.is_some_and(|last| is_gone(&last.kind));
        done.exchange.fault = Some(failure.to_string());
    }

    fn take_times(&self, done: &mut Done, times: &Times, attempts: &[Attempt]) {
        // Retries began earlier; what a user waits for begins with the first.
        let started = attempts.first().map_or(times.started, |attempt| attempt.times.started);
        let connected = times.connected.map(|at| at.saturating_duration_since(times.started));
        done.completion.start_ns = done.completion.start_ns.min(self.ns(started));
        done.completion.end_ns = self.ns(times.end);
        done.exchange.times = WireTimes {
            sent_ns: self.ns(times.sent.unwrap_or(times.started)),
            connect_ns: connected.map_or(0, |duration| duration.as_nanos() as u64),
            first_byte_ns: times.first_byte.map(|at| self.ns(at)),
            closed_ns: self.ns(times.end),
            events: done.exchange.times.events,
            attempts: attempts.len() as u32 + 1,
        };
    }
}

impl Backend for Remote {
    fn capabilities(&self) -> Capabilities {
        self.facts.capabilities()
    }

    fn device_info(&self) -> DeviceInfo {
        // The type of a server's numbers is not told; the record says so in words.
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
            saved: Saved::default(),
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

    fn take_server_metrics(&mut self) -> Vec<(u64, String, f64)> {
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
