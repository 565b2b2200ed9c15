//! An accuracy case: runs its items through the engine and writes their lines in the plan's order.

use std::collections::{BTreeMap, HashMap};

use glmbench_engine::{EngineError, Request, RequestId};

use crate::backend::Exchange;
use crate::record::{CallRecord, PromptRecord, RecordError, RunDir, SampleRecord, SampleState};
use crate::task::{Evaluation, Heard, Judgement, Next, Outcome, Progress, Stage, State};

use super::{AccuracyRun, Ending, RunError, Session};

/// Limit on items running, or done and waiting for an earlier one, as a multiple of the batch. Enough to keep the batch
/// full, and all that a killed process can lose.
const WINDOW: usize = 2;

/// Runs the items that have no line yet.
pub(super) fn run(case: &AccuracyRun<'_>, session: &mut Session<'_>) -> Result<Ending, RunError> {
    let done = recorded(case, session)?;
    let total = case.evaluation.len();
    session.observer.begin(&case.task, "items", total as u64, done as u64);
    let kept = kept(case, session.dir)?;
    let ending = Flow::new(case, done, kept).run(session);
    session.observer.end();
    if !matches!(ending, Ok(Ending::Complete)) {
        session.engine.clear();
    }
    ending
}

/// Returns how many items have their lines. Lines must be in the plan's order; a journal edited to break that order is
/// rejected.
fn recorded(case: &AccuracyRun<'_>, session: &Session<'_>) -> Result<usize, RunError> {
    let samples = session.dir.read_samples()?;
    let lines = samples.iter().enumerate().filter(|(_, s)| s.task == case.task);
    let mut done = 0;
    for (line, sample) in lines {
        let planned =
            (done < case.evaluation.len()).then(|| case.evaluation.plan().item(done).doc_id.as_str());
        if planned != Some(sample.doc_id.as_str()) {
            return Err(RecordError::Malformed {
                path: session.dir.file("samples.jsonl"),
                line: line + 1,
                message: format!(
                    "item {} of {} was found, {} was expected: lines stand in the plan's order",
                    sample.doc_id,
                    case.task,
                    planned.unwrap_or("no further item")
                ),
            }
            .into());
        }
        done += 1;
    }
    Ok(done)
}

/// Returns the good lines of a repaired run that wait for their places, by the item's index.
fn kept(case: &AccuracyRun<'_>, dir: &RunDir) -> Result<HashMap<usize, Line>, RecordError> {
    let kept = dir.kept_samples()?;
    if kept.is_empty() {
        return Ok(HashMap::new());
    }
    let places: HashMap<(&str, &str), usize> = case.items().zip(0..).collect();
    let of_case = kept.into_iter().filter(|(sample, _)| sample.task == case.task);
    let placed = of_case.filter_map(|(sample, prompts)| {
        let place = *places.get(&(sample.doc_id.as_str(), sample.doc_hash.as_str()))?;
        Some((place, Line { sample, prompts }))
    });
    Ok(placed.collect())
}

/// The journal entries of an item.
struct Line {
    sample: SampleRecord,
    /// The model's prompts; `None` for an item that the model was never asked.
    prompts: Option<PromptRecord>,
}

/// The items in progress.
struct Flow<'a, 'b> {
    case: &'a AccuracyRun<'b>,
    /// Next item to start.
    next: usize,
    /// Next item to write.
    written: usize,
    running: HashMap<RequestId, InEngine>,
    /// Finished items that wait for an earlier one.
    finished: BTreeMap<usize, Line>,
    /// Items finished before the run was repaired.
    kept: HashMap<usize, Line>,
}

/// An item in the engine.
struct InEngine {
    index: usize,
    progress: Progress,
}

/// Converts an exchange over a wire to what a protocol has to know of it.
fn heard(exchange: Exchange) -> Heard {
    // What a server does not reveal is no answer of the model: it is not wrong, it is missing.
    Heard { text: exchange.text, fault: exchange.fault.map(Judgement::Impossible) }
}

impl<'a, 'b> Flow<'a, 'b> {
    fn new(case: &'a AccuracyRun<'b>, done: usize, kept: HashMap<usize, Line>) -> Self {
        let (running, finished) = (HashMap::new(), BTreeMap::new());
        Self { case, next: done, written: done, running, finished, kept }
    }

    fn evaluation(&self) -> &'a Evaluation<'b> {
        &self.case.evaluation
    }

    fn run(mut self, session: &mut Session<'_>) -> Result<Ending, RunError> {
        while self.written < self.evaluation().len() {
            if session.stopped() {
                return Ok(Ending::Interrupted);
            }
            self.start_items(session)?;
            let step = session.engine.step()?;
            for completion in step.finished {
                let Some(mut item) = self.running.remove(&completion.id) else { continue };
                let heard = session.engine.exchange(completion.id).map(heard).unwrap_or_default();
                let next = self.evaluation().advance_heard(&mut item.progress, &completion, heard);
                self.proceed(item, next, session)?;
            }
            self.write_finished(session)?;
        }
        Ok(Ending::Complete)
    }

    /// Keeps the engine's batch full, within the window.
    fn start_items(&mut self, session: &mut Session<'_>) -> Result<(), RunError> {
        let end = self.evaluation().len().min(self.written + WINDOW * self.case.batch);
        while self.next < end && self.running.len() < self.case.batch {
            if let Some(line) = self.kept.remove(&self.next) {
                self.finished.insert(self.next, line);
            } else {
                let (progress, next) = self.evaluation().start(self.next);
                self.proceed(InEngine { index: self.next, progress }, next, session)?;
            }
            self.next += 1;
        }
        self.write_finished(session)
    }

    /// Submits the item's next question to the engine, or keeps its outcome.
    fn proceed(&mut self, mut item: InEngine, next: Next, session: &mut Session<'_>) -> Result<(), RunError> {
        let outcome = match next {
            Next::Done(outcome) => outcome,
            Next::Ask(request) => match self.submit(request, &item, session) {
                Ok(id) => {
                    self.running.insert(id, item);
                    return Ok(());
                }
                // This item cannot be submitted, but others can.
                Err(EngineError::Request(reason)) => self.evaluation().give_up(&mut item.progress, reason),
                Err(error) => return Err(error.into()),
            },
        };
        let line = Line { sample: self.record(&outcome, session), prompts: self.prompts(&outcome) };
        self.finished.insert(item.index, line);
        Ok(())
    }

    fn submit(
        &self,
        request: Request,
        item: &InEngine,
        session: &mut Session<'_>,
    ) -> Result<RequestId, EngineError> {
        session.engine.submit_text(request, self.evaluation().asked(&item.progress))
    }

    /// Writes outcomes up to the first missing item.
    fn write_finished(&mut self, session: &mut Session<'_>) -> Result<(), RunError> {
        while let Some(Line { sample, prompts }) = self.finished.remove(&self.written) {
            // Written before the sample, so that every sample in the journal has its prompts.
            if let Some(prompts) = prompts {
                session.dir.append_prompts(&prompts)?;
            }
            session.dir.append_sample(&sample)?;
            session.observer.advance();
            self.written += 1;
            if self.written.is_multiple_of(64) {
                session.sample()?;
            }
        }
        Ok(())
    }

    /// Returns the model's prompts; `None` for an item that the model was never asked.
    fn prompts(&self, outcome: &Outcome) -> Option<PromptRecord> {
        let call = |stage: &Stage| CallRecord {
            prompt: stage.prompt.clone(),
            input_tokens: stage.prompt_ids.clone(),
        };
        let calls: Vec<CallRecord> = outcome.stages.iter().map(call).collect();
        (!calls.is_empty()).then(|| PromptRecord {
            task: self.case.task.clone(),
            doc_id: outcome.doc_id.clone(),
            calls,
        })
    }

    fn record(&self, outcome: &Outcome, session: &Session<'_>) -> SampleRecord {
        let subject = self.evaluation().plan().dataset.subjects.get(&outcome.subject);
        let state = match outcome.state {
            State::Scored => SampleState::Scored,
            State::Unscorable(_) => SampleState::Unscorable,
            State::Failed(_) => SampleState::Failed,
        };
        let times = || outcome.stages.iter();
        SampleRecord {
            task: self.case.task.clone(),
            doc_id: outcome.doc_id.clone(),
            doc_hash: outcome.doc_hash.clone(),
            prompt_hash: outcome.prompt_hash(),
            subject: outcome.subject.clone(),
            category: subject.and_then(|s| s.category.clone()).unwrap_or_default(),
            hard: subject.is_some_and(|s| s.hard),
            state,
            gold: outcome.gold.to_string(),
            pred: outcome.pred.as_ref().map(ToString::to_string),
            correct: outcome.is_correct(),
            choice_logprobs: outcome.choice_logprobs.clone(),
            margin: outcome.margin,
            input_tokens_n: outcome.input_tokens() as u64,
            output_tokens: outcome.output_tokens(),
            text: outcome.text(),
            extract_rule: outcome.rule.clone(),
            t_start_ns: session.run_ns(times().map(|s| s.start_ns).min().unwrap_or(0)),
            t_end_ns: session.run_ns(times().map(|s| s.end_ns).max().unwrap_or(0)),
            error: outcome.reason().map(str::to_owned),
        }
    }
}
