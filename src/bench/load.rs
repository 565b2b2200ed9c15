//! Load. In an open loop, requests arrive by a schedule, whether or not the backend keeps up. In a closed loop, a fixed
//! number of requests is under way: the next one is sent as soon as one is answered.
//!
//! The thread that submits requests also drives the engine. Before each step it submits the requests that have
//! arrived; if none are running, it waits for the next arrival. A request that arrives during a step is submitted after
//! it, but its times count from its arrival. A backend that [schedules](crate::backend::Capabilities::schedules) gets
//! requests ahead of their arrival and sends them itself, so that reading answers delays none.

use std::collections::HashMap;

use glmbench_engine::sampler::Sampling;
use glmbench_engine::{Completion, EngineError, FinishReason, Request, RequestId};

use crate::backend::{Backend, Capabilities, Exchange, WireTimes};

/// A scheduled request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// Arrival time, in nanoseconds from the start of the schedule.
    pub arrival_ns: u64,
    /// The prompt's token ids.
    pub prompt: Vec<u32>,
    /// Number of tokens to generate. End-of-sequence tokens are ignored.
    pub output_tokens: usize,
}

/// A finished request. All times are on the engine's clock, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Scheduled arrival time.
    pub arrival_ns: u64,
    /// Start of the first step of the request.
    pub start_ns: u64,
    /// Time at which each token was chosen, or arrived.
    pub token_ns: Vec<u64>,
    /// Number of generated tokens.
    pub output_tokens: u64,
    /// Prompt tokens as a server counted them.
    pub prompt_tokens: Option<u64>,
    /// Times of the exchange with a server.
    pub wire: Option<WireTimes>,
    /// Why the request was not completed.
    pub error: Option<String>,
}

/// What limits the requests under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Requests arrive by their schedule. At most this many are under way at once in an engine of this process; a server
    /// gets each at its arrival.
    Open(usize),
    /// This many requests are always under way. A request arrives when one before it ends.
    Closed(usize),
}

impl Pace {
    const fn at_once(self) -> usize {
        match self {
            Self::Open(most) | Self::Closed(most) => most,
        }
    }
}

/// How long before its arrival a backend that schedules gets a request, in nanoseconds.
pub const LEAD_NS: u64 = 500_000_000;

/// Maximum sleep between checks of `stopped`, in nanoseconds.
const NAP_NS: u64 = 50_000_000;

/// What became of a load.
#[derive(Debug)]
pub struct ServedLoad {
    /// Start of the schedule, in nanoseconds on the backend's clock.
    pub begin_ns: u64,
    /// The requests, in the order offered.
    pub requests: Vec<Served>,
}

/// Serves all of `offered` (sorted by arrival) on an idle backend at this pace. Returns `None` if `stopped` returned
/// true before the end. Calls `progress` with the number of finished requests.
///
/// # Errors
/// Errors of the engine. No requests are left running.
pub fn serve(
    engine: &mut dyn Backend,
    offered: &[Offered],
    pace: Pace,
    stopped: &mut dyn FnMut() -> bool,
    progress: &mut dyn FnMut(usize),
) -> Result<Option<ServedLoad>, EngineError> {
    let mut load = Load::new(engine, offered, pace);
    let result = load.run(engine, stopped, progress);
    if !matches!(result, Ok(true)) {
        engine.clear();
    }
    Ok(result?.then_some(ServedLoad { begin_ns: load.begin_ns, requests: load.served }))
}

struct Load<'a> {
    begin_ns: u64,
    offered: &'a [Offered],
    served: Vec<Served>,
    /// Index of the next request to submit.
    next: usize,
    running: HashMap<RequestId, usize>,
    done: usize,
    pace: Pace,
    /// Whether the engine's clock is virtual.
    modelled: bool,
    can: Capabilities,
}

impl<'a> Load<'a> {
    fn new(engine: &dyn Backend, offered: &'a [Offered], pace: Pace) -> Self {
        let can = engine.capabilities();
        // The first requests are ready before they are due.
        let lead_ns = if can.schedules && matches!(pace, Pace::Open(_)) { LEAD_NS } else { 0 };
        let begin_ns = engine.now_ns() + lead_ns;
        let to_come = |request: &Offered| Served {
            arrival_ns: begin_ns.saturating_add(request.arrival_ns),
            start_ns: 0,
            token_ns: Vec::with_capacity(if can.schedules { 0 } else { request.output_tokens }),
            output_tokens: 0,
            prompt_tokens: None,
            wire: None,
            error: None,
        };
        let served = offered.iter().map(to_come).collect();
        let modelled = engine.device_info().modelled_by.is_some();
        Self { begin_ns, offered, served, next: 0, running: HashMap::new(), done: 0, pace, modelled, can }
    }

    /// Returns true when all requests are served, false when stopped earlier.
    fn run(
        &mut self,
        engine: &mut dyn Backend,
        stopped: &mut dyn FnMut() -> bool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<bool, EngineError> {
        while self.done < self.offered.len() {
            if stopped() {
                return Ok(false);
            }
            self.hand_over(engine)?;
            if self.running.is_empty() {
                if let Some(request) = self.served.get(self.next) {
                    // A virtual clock jumps to the target at once, however long the gap.
                    let nap_ns =
                        if self.modelled { u64::MAX } else { engine.now_ns().saturating_add(NAP_NS) };
                    engine.wait_until(nap_ns.min(request.arrival_ns))?;
                }
                progress(self.done);
                continue;
            }
            let step = engine.step()?;
            for (id, _) in &step.emitted {
                if let Some(&index) = self.running.get(id) {
                    self.served[index].token_ns.push(step.end_ns);
                }
            }
            for completion in &step.finished {
                self.finish(completion, engine.exchange(completion.id));
            }
            progress(self.done);
        }
        Ok(true)
    }

    /// Submits the requests that have arrived while the batch has room. The others wait here, as they would in the
    /// engine. A backend that schedules gets a request ahead of its arrival, however many are under way.
    fn hand_over(&mut self, engine: &mut dyn Backend) -> Result<(), EngineError> {
        let now_ns = engine.now_ns();
        let ahead = self.can.schedules && matches!(self.pace, Pace::Open(_));
        let until_ns = if ahead { now_ns.saturating_add(LEAD_NS) } else { now_ns };
        while (ahead || self.running.len() < self.pace.at_once())
            && self.served.get(self.next).is_some_and(|request| request.arrival_ns <= until_ns)
        {
            let (request, served) = (&self.offered[self.next], &mut self.served[self.next]);
            if matches!(self.pace, Pace::Closed(_)) {
                served.arrival_ns = engine.now_ns();
            }
            let wanted = Request {
                prompt: request.prompt.clone(),
                max_new_tokens: request.output_tokens,
                sampling: Sampling::Greedy,
                ignore_eos: true,
                ..Request::probe()
            };
            let id = if ahead { engine.submit_at(wanted, served.arrival_ns) } else { engine.submit(wanted) };
            match id {
                Ok(id) => {
                    self.running.insert(id, self.next);
                }
                // This request cannot be served, but the others can.
                Err(EngineError::Request(reason)) => {
                    (served.start_ns, served.error) = (now_ns, Some(reason));
                    self.done += 1;
                }
                Err(error) => return Err(error),
            }
            self.next += 1;
        }
        Ok(())
    }

    fn finish(&mut self, completion: &Completion, exchange: Option<Exchange>) {
        let Some(index) = self.running.remove(&completion.id) else { return };
        let (served, wanted) = (&mut self.served[index], self.offered[index].output_tokens as u64);
        served.start_ns = completion.start_ns;
        served.output_tokens = completion.tokens.len() as u64;
        let mut fault = None;
        if let Some(exchange) = exchange {
            served.output_tokens = exchange.output_tokens;
            served.token_ns = exchange.token_ns;
            served.prompt_tokens = exchange.prompt_tokens;
            let timeless = || "no event carried a token, so its times are unknown".to_owned();
            fault = exchange.fault.or_else(|| served.token_ns.is_empty().then(timeless));
            served.wire = Some(exchange.times);
        }
        served.error = match completion.finish {
            _ if fault.is_some() => fault,
            FinishReason::BrokenLogits(place) => Some(place.to_string()),
            // Without a way to ignore the end, a shorter answer is an answer.
            _ if served.output_tokens == wanted || !self.can.ignores_end => None,
            finish => Some(format!("ended after {} of {wanted} tokens ({finish:?})", served.output_tokens)),
        };
        self.done += 1;
    }
}
