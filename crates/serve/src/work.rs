//! The engine's thread: takes jobs, steps, and hands out events. No async inside.
//!
//! A job is the sequences of one HTTP request. Its events go through a bounded channel that the thread never waits for.
//! What does not fit is kept beside the job; the job is cancelled when its reader stays behind for too long. A job whose
//! receiver is gone is cancelled before the next step.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use glmbench_engine::{Engine, EngineError, FinishReason, RequestId, Step};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::bell::Ringer;
use crate::error::{ApiError, Kind};
use crate::job::{Command, End, Event, Job, Measure, Times, Token};
use crate::metrics::Metrics;

/// Most events of one sequence in one step: its prompt, a token, an end.
const STEP_EVENTS: usize = 3;
/// Wait between two tries to hand over events when no sequence runs.
const RETRY: Duration = Duration::from_millis(20);

/// A job that is not gone.
struct Track {
    events: Sender<Event>,
    deadline: Instant,
    arrived: Instant,
    /// `None` once the engine is done with the job and no event waits.
    places: Option<OwnedSemaphorePermit>,
    sequences: Vec<Sequence>,
    /// Sequences that have not ended.
    open: usize,
    /// Events that the channel had no room for.
    pending: VecDeque<Event>,
    behind_since: Option<Instant>,
}

/// What is known of one sequence of a job.
struct Sequence {
    id: RequestId,
    prompt_tokens: usize,
    max_new_tokens: usize,
    started: Option<Instant>,
    first: Option<Instant>,
    last: Option<Instant>,
    tokens: usize,
}

/// The thread's state.
pub(crate) struct Worker {
    engine: Engine,
    commands: Receiver<Command>,
    metrics: Arc<Metrics>,
    slow_reader: Duration,
    jobs: HashMap<u64, Track>,
    /// The job and the index of every running or waiting request.
    owners: HashMap<RequestId, (u64, usize)>,
    next_job: u64,
    stopping: bool,
    /// Rings a last time behind the jobs' own end.
    bell: Ringer,
}

impl Worker {
    pub(crate) fn new(
        engine: Engine,
        commands: Receiver<Command>,
        metrics: Arc<Metrics>,
        slow_reader: Duration,
        bell: Ringer,
    ) -> Self {
        Self {
            engine,
            commands,
            metrics,
            slow_reader,
            jobs: HashMap::new(),
            owners: HashMap::new(),
            next_job: 0,
            stopping: false,
            bell,
        }
    }

    /// Runs until it is stopped, or until an error ends the model.
    ///
    /// # Errors
    /// The error that ended the model.
    pub(crate) fn run(mut self) -> Result<(), EngineError> {
        while self.wait() {
            self.sweep();
            self.bell.ring();
            if !self.engine.is_idle() {
                let begin = Instant::now();
                match self.engine.step() {
                    Ok(step) => {
                        // Before the events: who has read the last one finds the blocks free.
                        self.metrics.occupancy(self.engine.occupancy());
                        self.deliver(step, begin);
                    }
                    Err(error) => self.fail(error)?,
                }
                self.bell.ring();
            }
        }
        Ok(())
    }

    /// Takes the commands that are there; waits for one if there is nothing to do. Returns whether to go on.
    fn wait(&mut self) -> bool {
        if self.jobs.is_empty() {
            if self.stopping {
                return false;
            }
            match self.commands.recv() {
                Ok(command) => self.take(command),
                Err(_) => return false,
            }
        } else if self.engine.is_idle() {
            match self.commands.recv_timeout(RETRY) {
                Ok(command) => self.take(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.stopping = true,
            }
        }
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.take(command),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => {
                    self.stopping = true;
                    return true;
                }
            }
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Job(job) => self.start(*job),
            Command::Abort => {
                let jobs: Vec<u64> = self.jobs.keys().copied().collect();
                for job in jobs {
                    self.give_up(job, &ApiError::new(Kind::Unavailable, "the server ends"));
                }
            }
            Command::Stop => self.stopping = true,
        }
    }

    fn start(&mut self, job: Job) {
        let number = self.next_job;
        self.next_job += 1;
        let mut track = Track {
            events: job.events,
            deadline: job.deadline,
            arrived: job.arrived,
            places: Some(job.places),
            sequences: Vec::with_capacity(job.requests.len()),
            open: job.requests.len(),
            pending: VecDeque::new(),
            behind_since: None,
        };
        let mut refused = None;
        for (index, request) in job.requests.into_iter().enumerate() {
            let (prompt_tokens, max_new_tokens) = (request.prompt.len(), request.max_new_tokens);
            match self.engine.submit(request) {
                Ok(id) => {
                    self.owners.insert(id, (number, index));
                    track.sequences.push(Sequence {
                        id,
                        prompt_tokens,
                        max_new_tokens,
                        started: None,
                        first: None,
                        last: None,
                        tokens: 0,
                    });
                }
                Err(error) => {
                    refused = Some(ApiError::invalid("prompt", error.to_string()));
                    break;
                }
            }
        }
        self.jobs.insert(number, track);
        if let Some(error) = refused {
            self.give_up(number, &error);
        }
    }

    /// Cancels what nobody reads, what is late and what is read too slowly, and hands over what waits.
    fn sweep(&mut self) {
        let now = Instant::now();
        let (mut gone, mut ended) = (Vec::new(), Vec::new());
        for (&number, track) in &mut self.jobs {
            track.flush(now);
            let is_done = track.is_done();
            let is_late = track.open > 0 && now >= track.deadline;
            let is_slow = track.behind_since.is_some_and(|since| now - since > self.slow_reader);
            if track.events.is_closed() {
                gone.push(number);
            } else if is_done || is_late || is_slow {
                ended.push(number);
            }
        }
        let changed = !gone.is_empty() || !ended.is_empty();
        for number in gone {
            self.cancel(number);
        }
        for number in ended {
            let Some(track) = self.jobs.get(&number) else { continue };
            if track.behind_since.is_some() {
                let words = "the client reads too slowly, so its request was cancelled";
                self.give_up(number, &ApiError::new(Kind::SlowReader, words));
            } else if track.open > 0 {
                let words = "the request took longer than the server's limit";
                self.give_up(number, &ApiError::new(Kind::Timeout, words));
            } else {
                self.jobs.remove(&number);
            }
        }
        if changed {
            self.metrics.occupancy(self.engine.occupancy());
        }
    }

    /// Takes a job's sequences from the engine. Its blocks are free before the next step.
    fn cancel(&mut self, number: u64) -> Option<Track> {
        let track = self.jobs.remove(&number)?;
        for sequence in &track.sequences {
            self.engine.cancel(sequence.id);
            self.owners.remove(&sequence.id);
        }
        self.metrics.cancelled(track.open);
        Some(track)
    }

    /// Cancels a job and tells its reader why, if there is room for that.
    fn give_up(&mut self, number: u64, error: &ApiError) {
        if let Some(track) = self.cancel(number) {
            let _ = track.events.try_send(Event::Failed(error.clone()));
        }
    }

    /// Gives up all jobs after an error of the engine.
    ///
    /// # Errors
    /// The same error, if the model cannot go on.
    fn fail(&mut self, error: EngineError) -> Result<(), EngineError> {
        let told = ApiError::new(Kind::Generation, format!("the engine failed: {error}"));
        let jobs: Vec<u64> = self.jobs.keys().copied().collect();
        jobs.into_iter().for_each(|job| self.give_up(job, &told));
        self.engine.clear();
        self.metrics.occupancy(self.engine.occupancy());
        if self.engine.has_failed() { Err(error) } else { Ok(()) }
    }

    fn deliver(&mut self, step: Step, begin: Instant) {
        let now = Instant::now();
        self.metrics.step(&step, now - begin);
        self.count_finished(&step);
        // A prompt may take several steps until its first token.
        for &id in &step.started {
            if let Some((track, index)) = self.owner(id) {
                track.sequences[index].started = Some(begin);
            }
        }
        for prompt in step.prompts {
            if let Some((track, index)) = self.owner(prompt.id) {
                track.send(Event::Prompt { index, logprobs: prompt.logprobs }, now);
            }
        }
        for detail in step.details {
            let Some(&(number, index)) = self.owners.get(&detail.id) else { continue };
            let Some(track) = self.jobs.get_mut(&number) else { continue };
            let (arrived, sequence) = (track.arrived, &mut track.sequences[index]);
            sequence.started.get_or_insert(begin);
            sequence.tokens += 1;
            if let Some(last) = sequence.last.replace(now) {
                self.metrics.next_token(now - last);
            } else {
                sequence.first = Some(now);
                self.metrics.first_token(now - arrived);
            }
            let end = detail.finish.map(|reason| End { reason, times: sequence.times(arrived, now) });
            let token = Token { id: detail.token, text: detail.text, logprobs: detail.logprobs, end };
            track.send(Event::Token { index, token }, now);
        }
        for completion in step.finished {
            let Some((number, index)) = self.owners.remove(&completion.id) else { continue };
            let Some(track) = self.jobs.get_mut(&number) else { continue };
            let sequence = &mut track.sequences[index];
            sequence.started.get_or_insert(begin);
            let times = sequence.times(track.arrived, now);
            self.metrics.finished(&completion.finish, sequence.measure(track.arrived, now));
            let told = sequence.tokens > 0 && !matches!(completion.finish, FinishReason::BrokenLogits(_));
            if let FinishReason::BrokenLogits(place) = completion.finish {
                track.send(Event::Failed(ApiError::new(Kind::Generation, place.to_string())), now);
            } else if !told {
                track.send(Event::End { index, end: End { reason: completion.finish, times } }, now);
            }
        }
        self.jobs.retain(|_, track| !track.is_done());
    }

    /// Counts ended sequences and gives places back before their last events, so that who has read those finds a place.
    fn count_finished(&mut self, step: &Step) {
        for completion in &step.finished {
            let Some(&(number, _)) = self.owners.get(&completion.id) else { continue };
            let Some(track) = self.jobs.get_mut(&number) else { continue };
            track.open -= 1;
            let has_room = track.events.capacity() >= track.sequences.len() * STEP_EVENTS;
            if track.is_done() && has_room {
                track.places = None;
            }
        }
    }

    fn owner(&mut self, id: RequestId) -> Option<(&mut Track, usize)> {
        let &(number, index) = self.owners.get(&id)?;
        Some((self.jobs.get_mut(&number)?, index))
    }
}

impl Sequence {
    fn times(&self, arrived: Instant, now: Instant) -> Times {
        Times {
            queue: self.started.map_or(Duration::ZERO, |started| started - arrived),
            first_token: self.first.map(|first| first - arrived),
            total: now - arrived,
        }
    }

    fn measure(&self, arrived: Instant, now: Instant) -> Measure {
        let started = self.started.unwrap_or(now);
        let first = self.first.unwrap_or(now);
        Measure {
            times: self.times(arrived, now),
            prompt_tokens: self.prompt_tokens,
            tokens: self.tokens,
            max_new_tokens: self.max_new_tokens,
            prefill: first - started,
            decode: now - first,
        }
    }
}

impl Track {
    /// Whether nothing of the job is left to compute or to hand over.
    fn is_done(&self) -> bool {
        self.open == 0 && self.pending.is_empty()
    }

    fn send(&mut self, event: Event, now: Instant) {
        if self.pending.is_empty() {
            match self.events.try_send(event) {
                // A closed channel is noticed by the next sweep.
                Ok(()) | Err(TrySendError::Closed(_)) => return,
                Err(TrySendError::Full(event)) => self.pending.push_back(event),
            }
            self.behind_since = Some(now);
        } else {
            self.pending.push_back(event);
        }
    }

    /// Hands over what waits. The reader is behind for as long as not a single event fits.
    fn flush(&mut self, now: Instant) {
        while let Some(event) = self.pending.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => self.behind_since = Some(now),
                Err(TrySendError::Full(event)) => {
                    self.pending.push_front(event);
                    return;
                }
                Err(TrySendError::Closed(_)) => return,
            }
        }
        self.behind_since = None;
    }
}
