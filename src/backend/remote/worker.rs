//! What the threads of requests share, and what each does: sends a request and makes a completion of the answer.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use glmbench_engine::sampler::Sampling;
use glmbench_engine::tokenizer::Tokenizer;
use glmbench_engine::{Completion, FinishReason, Request, RequestId};
use glmbench_remote::{
    Attempt, Choice, ChoiceLogprobs, Client, EventTime, Failure, FailureKind, Finish, Generation, Phase,
    Prompt, Response, Times,
};

use super::super::{AttemptTimes, Exchange, MetricSample, WireTimes};

/// How long a step waits for a request to end, so that its caller can look at other things.
pub(super) const PATIENCE: Duration = Duration::from_millis(20);
/// How long new requests wait for dropped ones.
const LET_END: Duration = Duration::from_mins(2);
/// How long before its time a request's thread is awake.
const AWAKE: Duration = Duration::from_millis(2);
/// How long before its time a thread stops giving way to others. Who gives way on a busy core gets it back some milliseconds later.
const RESOLUTE: Duration = Duration::from_micros(300);
/// Stack of a request thread, in bytes.
pub(super) const STACK: usize = 512 << 10;

/// Time until the second sample of the server metrics. The first is from before the run, which may be short.
const METRICS_SOON: Duration = Duration::from_secs(1);
/// Time between later samples.
const METRICS_EVERY: Duration = Duration::from_secs(5);
/// Why a timed request failed that was answered when it was sent again.
const SENT_AGAIN: &str = "sent twice, because the server had closed its kept connection; a retry counts as a failure, \
                          and --no-keep-alive would do without";
/// Samples kept until a run takes them.
const MOST_METRICS: usize = 1 << 20;

/// What the threads of requests share.
pub(super) struct Shared {
    pub(super) client: Client,
    /// The same server, without retries.
    pub(super) timed: Client,
    /// Requests before this one were dropped; they are not sent any more, and what comes of them is ignored.
    pub(super) first_of_interest: AtomicU64,
    pub(super) tokenizer: Tokenizer,
    pub(super) ids_in: bool,
    pub(super) ignores_end: bool,
    pub(super) end_ids: Vec<u32>,
    pub(super) epoch: Instant,
    pub(super) under_way: AtomicUsize,
    /// Requests that were sent, and those that the ones under way may still send.
    pub(super) sent: AtomicU64,
    /// Most requests that a question for choices sends.
    pub(super) most_for_choices: u64,
    pub(super) done: Sender<Done>,
    /// Samples of the server metrics that no one has taken yet.
    pub(super) metrics: Mutex<Vec<MetricSample>>,
}

/// A request that has ended.
pub(super) struct Done {
    pub(super) completion: Completion,
    pub(super) exchange: Exchange,
    /// No connection can be made any more.
    pub(super) is_gone: bool,
}

/// Returns at how many different times events arrived. Events that arrive together count once: what lies between them
/// was not measured.
fn arrivals(events: &[EventTime]) -> u64 {
    events.chunk_by(|a, b| a.at == b.at).count() as u64
}

impl Shared {
    /// Keeps a sample of each metric of the server, buckets of histograms apart.
    pub(super) fn sample_metrics(&self) {
        let Ok(samples) = self.client.metrics() else { return };
        let now_ns = self.now_ns();
        let plain = samples.into_iter().filter(|(series, value)| {
            value.is_finite() && !series.split('{').next().unwrap_or_default().ends_with("_bucket")
        });
        let mut kept = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MOST_METRICS {
            kept.extend(plain.map(|(series, value)| MetricSample { t_ns: now_ns, series, value }));
        }
    }

    fn ns(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.ns(Instant::now())
    }

    /// Waits until a time on the clock of this backend. A sleeping thread can wake some milliseconds late, on a virtual
    /// machine above all, so the last of the wait is spent awake.
    pub(super) fn sleep_until(&self, ns: u64) {
        thread::sleep(Duration::from_nanos(ns.saturating_sub(self.now_ns())).saturating_sub(AWAKE));
        loop {
            match Duration::from_nanos(ns.saturating_sub(self.now_ns())) {
                Duration::ZERO => return,
                left if left > RESOLUTE => thread::yield_now(),
                _ => std::hint::spin_loop(),
            }
        }
    }

    /// Returns the most requests over the wire that a request may need.
    pub(super) fn most_of(&self, request: &Request) -> u64 {
        let choices = if request.choice_ids.is_empty() { 0 } else { self.most_for_choices };
        choices + u64::from(request.max_new_tokens > 0)
    }

    /// The end of a request that was dropped before it was sent.
    pub(super) fn unsent(&self, id: RequestId, request: &Request) -> Done {
        self.sent.fetch_sub(self.most_of(request), Ordering::Relaxed);
        self.unanswered(id)
    }

    /// Sends a request and waits for its answer: generated text, log-probabilities of choices, or both.
    pub(super) fn answer(&self, id: RequestId, request: &Request, text: Option<String>) -> Done {
        let prompt = if self.ids_in {
            Prompt::Ids(request.prompt.clone())
        } else {
            Prompt::Text(text.unwrap_or_else(|| self.tokenizer.decode(&request.prompt)))
        };
        let mut done = self.unanswered(id);
        if request.max_new_tokens > 0 {
            let sampling = match request.sampling {
                Sampling::Greedy => glmbench_remote::Sampling::default(),
                Sampling::Random(of) => glmbench_remote::Sampling {
                    temperature: f64::from(of.temperature),
                    top_p: Some(f64::from(of.top_p)),
                    top_k: u32::try_from(of.top_k).ok().filter(|k| *k > 0),
                    seed: Some(of.seed),
                },
            };
            let generation = Generation {
                ignore_end: request.ignore_eos && self.ignores_end,
                sampling,
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
    pub(super) fn let_end(&self) {
        let deadline = Instant::now() + LET_END;
        while self.under_way.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
            thread::sleep(PATIENCE);
        }
    }

    /// The end of a request that this program broke off.
    pub(super) fn broken(&self, id: RequestId) -> Done {
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
        if ignores_end && !response.attempts.is_empty() {
            exchange.fault.get_or_insert_with(|| SENT_AGAIN.into());
        }
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

    /// Returns the arrival time of each token. Where the number of tokens in an event is not told, an event counts as
    /// one. The tokens beyond the events came with the last.
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
        let before = |Attempt { times, .. }: &Attempt| AttemptTimes {
            start_ns: self.ns(times.started),
            sent_ns: times.sent.map(|at| self.ns(at)),
            end_ns: self.ns(times.end),
        };
        done.completion.start_ns = done.completion.start_ns.min(self.ns(started));
        done.completion.end_ns = self.ns(times.end);
        done.exchange.times = WireTimes {
            sent_ns: self.ns(times.sent.unwrap_or(times.started)),
            connect_ns: connected.map_or(0, |duration| duration.as_nanos() as u64),
            first_byte_ns: times.first_byte.map(|at| self.ns(at)),
            closed_ns: self.ns(times.end),
            events: done.exchange.times.events,
            attempts: attempts.len() as u32 + 1,
            before: attempts.iter().map(before).collect(),
        };
    }
}

/// Samples the server's metrics for as long as the backend lives.
pub(super) fn watch(shared: &Arc<Shared>) {
    let weak = Arc::downgrade(shared);
    let sample = move || {
        let mut pause = METRICS_SOON;
        while let Some(shared) = weak.upgrade() {
            shared.sample_metrics();
            drop(shared);
            thread::sleep(pause);
            pause = METRICS_EVERY;
        }
    };
    // Without the thread there are no samples, and nothing else is lost.
    let _ = thread::Builder::new().name("metrics".into()).stack_size(STACK).spawn(sample);
}
