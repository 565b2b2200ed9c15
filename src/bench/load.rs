//! Open-loop load: requests arrive by a schedule, whether or not the engine keeps up.
//!
//! The thread that submits requests also drives the engine. Before each step it submits the requests that have
//! arrived; if none are running, it waits for the next arrival. A request that arrives during a step is submitted after
//! it, but its times count from its arrival.

use std::collections::HashMap;

use glmbench_engine::sampler::Sampling;
use glmbench_engine::{Completion, EngineError, FinishReason, Request, RequestId};

use crate::backend::Backend;

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
    /// Start of the request's first step.
    pub start_ns: u64,
    /// Time at which each token was chosen.
    pub token_ns: Vec<u64>,
    /// Why the request was not completed.
    pub error: Option<String>,
}

/// Maximum sleep between checks of `stopped`, in nanoseconds.
const NAP_NS: u64 = 50_000_000;

/// Serves all of `offered` (sorted by arrival) on an idle engine, with at most `max_batch` sequences at once. Returns
/// the start of the schedule and the results, or `None` if `stopped` returned true before the end. Calls `progress`
/// with the number of finished requests.
///
/// # Errors
/// Errors of the engine. No requests are left running.
pub fn serve(
    engine: &mut dyn Backend,
    offered: &[Offered],
    max_batch: usize,
    stopped: &mut dyn FnMut() -> bool,
    progress: &mut dyn FnMut(usize),
) -> Result<Option<(u64, Vec<Served>)>, EngineError> {
    let mut load = Load::new(engine.now_ns(), offered);
    load.modelled = engine.device_info().modelled_by.is_some();
    let result = load.run(engine, max_batch, stopped, progress);
    if !matches!(result, Ok(true)) {
        engine.clear();
    }
    Ok(result?.then_some((load.begin_ns, load.served)))
}

struct Load<'a> {
    begin_ns: u64,
    offered: &'a [Offered],
    served: Vec<Served>,
    /// Index of the next request to submit.
    next: usize,
    running: HashMap<RequestId, usize>,
    done: usize,
    /// Whether the engine's clock is virtual.
    modelled: bool,
}

impl<'a> Load<'a> {
    fn new(begin_ns: u64, offered: &'a [Offered]) -> Self {
        let to_come = |request: &Offered| Served {
            arrival_ns: begin_ns.saturating_add(request.arrival_ns),
            start_ns: 0,
            token_ns: Vec::with_capacity(request.output_tokens),
            error: None,
        };
        let served = offered.iter().map(to_come).collect();
        Self { begin_ns, offered, served, next: 0, running: HashMap::new(), done: 0, modelled: false }
    }

    /// Returns true when all requests are served, false when stopped earlier.
    fn run(
        &mut self,
        engine: &mut dyn Backend,
        max_batch: usize,
        stopped: &mut dyn FnMut() -> bool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<bool, EngineError> {
        while self.done < self.offered.len() {
            if stopped() {
                return Ok(false);
            }
            self.hand_over(engine, max_batch)?;
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
                self.finish(completion);
            }
            progress(self.done);
        }
        Ok(true)
    }

    /// Submits the requests that have arrived while the batch has room. The others wait here, as they would in the
    /// engine.
    fn hand_over(&mut self, engine: &mut dyn Backend, max_batch: usize) -> Result<(), EngineError> {
        let now_ns = engine.now_ns();
        while self.running.len() < max_batch
            && self.served.get(self.next).is_some_and(|request| request.arrival_ns <= now_ns)
        {
            let request = &self.offered[self.next];
            let id = engine.submit(Request {
                prompt: request.prompt.clone(),
                max_new_tokens: request.output_tokens,
                sampling: Sampling::Greedy,
                ignore_eos: true,
                ..Request::probe()
            });
            match id {
                Ok(id) => {
                    self.running.insert(id, self.next);
                }
                // This request cannot be served, but the others can.
                Err(EngineError::Request(reason)) => {
                    let served = &mut self.served[self.next];
                    (served.start_ns, served.error) = (now_ns, Some(reason));
                    self.done += 1;
                }
                Err(error) => return Err(error),
            }
            self.next += 1;
        }
        Ok(())
    }

    fn finish(&mut self, completion: &Completion) {
        let Some(index) = self.running.remove(&completion.id) else { return };
        let (served, wanted) = (&mut self.served[index], self.offered[index].output_tokens);
        served.start_ns = completion.start_ns;
        let found = completion.tokens.len();
        served.error = match completion.finish {
            FinishReason::BrokenLogits(place) => Some(place.to_string()),
            _ if found == wanted => None,
            finish => Some(format!("ended after {found} of {wanted} tokens ({finish:?})")),
        };
        self.done += 1;
    }
}
