//! The port between runs and whatever answers a task or is timed.
//!
//! A run sees a [`Backend`]: it submits requests, takes steps and reads a clock. `embedded.rs` makes this program's own engine one.
//! [`Remote`] sends requests to an endpoint over HTTP. [`Scripted`] answers from a table on a virtual clock of its own, for tests
//! that need no model. A backend says what it can do ([`Capabilities`]), and a run that needs more is refused before its first
//! line is written.

mod embedded;
mod exchange;
mod remote;
mod scripted;

use glmbench_device::DeviceInfo;
use glmbench_device::sensors::Sensors;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::model::Capacity;
use glmbench_engine::profile::OperatorTime;
use glmbench_engine::{EngineError, Request, RequestId, Scheduling, Step};

pub use exchange::{AttemptTimes, Exchange, WireTimes};
pub use remote::{MOST_UNDER_WAY, Remote, RemoteFacts};
pub use scripted::{SCRIPTED_DTYPE, Script, Scripted, ScriptedAnswer};

/// One value of the server metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricSample {
    /// When it was read, in nanoseconds on the backend's clock.
    pub t_ns: u64,
    /// Its name, with labels.
    pub series: String,
    /// The value.
    pub value: f64,
}

/// What a backend can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent answer of the backend")]
pub struct Capabilities {
    /// Returns log-probabilities of chosen token ids after the prompt.
    pub choice_logprobs: bool,
    /// Returns log-probabilities of the prompt tokens, so that continuations of several tokens can be compared.
    pub prompt_logprobs: bool,
    /// Continues past the end-of-sequence token if asked.
    pub ignores_end: bool,
    /// Reports the times of its steps, so that prefill and decode can be told apart.
    pub step_times: bool,
    /// Knows the memory that a batch takes, so that a search can be bounded by it.
    pub memory: bool,
    /// Returns the logits of every position of given tokens ([`Backend::teacher_force`]).
    pub logits: bool,
    /// Sends requests at given times by itself ([`Backend::submit_at`]), and tells the token times of each request
    /// ([`Backend::exchange`]).
    pub schedules: bool,
}

impl Capabilities {
    /// Everything that an engine in this process can do.
    pub const ALL: Self = Self {
        choice_logprobs: true,
        prompt_logprobs: true,
        ignores_end: true,
        step_times: true,
        memory: true,
        logits: true,
        schedules: false,
    };
    /// Nothing.
    pub const NONE: Self = Self {
        choice_logprobs: false,
        prompt_logprobs: false,
        ignores_end: false,
        step_times: false,
        memory: false,
        logits: false,
        schedules: false,
    };
}

/// How much a bounded backend may still send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Requests over the wire that are neither sent nor set aside for those under way.
    pub left: u64,
    /// The bound.
    pub most: u64,
    /// Most requests over the wire that a question for choices needs.
    pub for_choices: u64,
}

impl Allowance {
    /// Returns an error if `needed` requests over the wire are too many.
    ///
    /// # Errors
    /// [`EngineError::Spent`].
    pub fn check(self, needed: u64, what: &str) -> Result<(), EngineError> {
        let Self { left, most, .. } = self;
        if needed <= left {
            return Ok(());
        }
        Err(EngineError::Spent(format!(
            "--max-requests {most}: {left} are left, and {what} may need {needed}; what is done is recorded"
        )))
    }
}

/// Answers requests, and is timed.
pub trait Backend {
    /// Returns what this backend can do.
    fn capabilities(&self) -> Capabilities;

    /// Describes the device. The record keeps it.
    fn device_info(&self) -> DeviceInfo;

    /// Queues a request.
    ///
    /// # Errors
    /// [`EngineError::Request`] for a request that can never be answered; others can.
    fn submit(&mut self, request: Request) -> Result<RequestId, EngineError>;

    /// Queues a request with a prompt that is known as text, too, without prefix ids. A backend that sends text instead of ids
    /// needs it.
    ///
    /// # Errors
    /// As [`Backend::submit`].
    fn submit_text(&mut self, request: Request, _prompt: &str) -> Result<RequestId, EngineError> {
        self.submit(request)
    }

    /// Queues a request to be sent when the backend's clock shows `at_ns`. Only backends that
    /// [schedule](Capabilities::schedules) can do this.
    ///
    /// # Errors
    /// As [`Backend::submit`]. Always for a backend that does not schedule.
    fn submit_at(&mut self, _request: Request, _at_ns: u64) -> Result<RequestId, EngineError> {
        Err(EngineError::Option("this backend does not send requests at given times".into()))
    }

    /// Feeds `tokens` to the idle backend and passes the logits of every position to `each(position, logits)`. Only backends that
    /// have [logits](Capabilities::logits) can do this.
    ///
    /// # Errors
    /// Errors of the backend. Always for a backend that returns no logits.
    fn teacher_force(
        &mut self,
        _tokens: &[u32],
        _each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), EngineError> {
        Err(EngineError::Option("this backend returns no logits".into()))
    }

    /// Returns what the backend knows of a finished request besides its completion, once. `None` for an engine in this process:
    /// its steps say everything.
    fn exchange(&mut self, _id: RequestId) -> Option<Exchange> {
        None
    }

    /// Advances by one step and returns what it did.
    ///
    /// # Errors
    /// Errors of the backend. Requests may be left; [`Backend::clear`] drops them.
    fn step(&mut self) -> Result<Step, EngineError>;

    /// Sets how prompts share the steps with the sequences that decode. Returns what applies
    /// ([`glmbench_engine::Engine::set_scheduling`]), or `None` if the backend decides for itself.
    fn set_scheduling(&mut self, _wanted: Scheduling) -> Option<Scheduling> {
        None
    }

    /// Returns whether no request is waiting or running.
    fn is_idle(&self) -> bool;

    /// Drops all requests.
    fn clear(&mut self);

    /// Returns the nanoseconds on the backend's clock.
    fn now_ns(&self) -> u64;

    /// Idles until [`Backend::now_ns`] reaches `ns`.
    ///
    /// # Errors
    /// The clock does not advance while the backend is idle.
    fn wait_until(&mut self, ns: u64) -> Result<(), EngineError>;

    /// Returns what a server said of itself since the last call. Empty for an engine in this process.
    fn take_server_metrics(&mut self) -> Vec<MetricSample> {
        Vec::new()
    }

    /// Returns how much the backend may still send; `None` without a bound.
    fn allowance(&self) -> Option<Allowance> {
        None
    }

    /// Drops all requests and all that is cached, so that later work takes the time that it takes in a new process.
    ///
    /// # Errors
    /// Errors of the backend.
    fn start_afresh(&mut self) -> Result<(), EngineError>;

    /// Returns whether an error has ended the backend for good.
    fn has_failed(&self) -> bool;

    /// Returns the sensors of the devices, if this program reads any.
    fn sensors(&self) -> Option<&dyn Sensors>;

    /// Returns each operator's totals since the last call; empty if operators are not timed.
    fn take_profile(&mut self) -> Vec<OperatorTime>;

    /// Returns the model's shape and what memory was taken for, if the backend knows them.
    fn model(&self) -> Option<(&ModelConfig, Capacity)>;
}
