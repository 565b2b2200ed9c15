//! An accuracy case: runs its items through the engine and writes their lines in the plan's order.

use std::collections::{BTreeMap, HashMap};

use glmbench_engine::{EngineError, Request, RequestId, Savings, Step};

use crate::backend::Exchange;
use crate::record::{
    CallRecord, ItemLines, ProgramRecord, PromptRecord, RecordError, RunDir, SampleRecord, SampleState,
    TaskWork,
};
use crate::task::program::Tried;
use crate::task::{Evaluation, Heard, Judgement, Next, Outcome, Progress, Stage, State};

use super::error::RunError;
use super::session::{Ending, Session};

/// Limit on items running, or done and waiting for an earlier one, as a multiple of the batch. Enough to keep the batch
/// full, and all that a killed process can lose.
const WINDOW: usize = 2;

/// An accuracy case that is ready to run.
pub struct AccuracyRun<'a> {
    /// Name in the records.
    pub task: String,
    /// Items, protocol and tokenizer.
    pub evaluation: Evaluation<'a>,
    /// Number of concurrent sequences.
    pub batch: usize,
    /// Number of tensor-parallel ranks.
    pub tp: usize,
    /// What the engine may spare itself. The results are the same.
    pub savings: Savings,
    /// Indices in the evaluation of the items to run, in order: all, or those of a shard.
    pub own: Vec<usize>,
}

impl<'a> AccuracyRun<'a> {
    /// Returns the case with all items of the evaluation.
    pub fn new(task: String, evaluation: Evaluation<'a>, batch: usize, tp: usize) -> Self {
        let own = (0..evaluation.len()).collect();
        Self { task, evaluation, batch, tp, savings: Savings::ALL, own }
    }

    /// Returns name and content hash of each item to run, in the order of their lines.
    pub fn items(&self) -> impl Iterator<Item = (&str, &str)> {
        let plan = self.evaluation.plan();
        self.own.iter().map(|&index| {
            let item = plan.item(index);
            (item.doc_id.as_str(), item.doc_hash.as_str())
        })
    }
}

/// Runs the items that have no line yet.
pub(super) fn run(case: &AccuracyRun<'_>, session: &mut Session<'_>) -> Result<Ending, RunError> {
    let done = recorded(case, session)?;
    let total = case.own.len();
    session.observer.begin(&case.task, "items", total as u64, done as u64);
    let kept = kept(case, session.dir)?;
    let mut flow = Flow::new(case, done, kept);
    let ending = flow.run(session);
    if flow.work != TaskWork::default() {
        session.work.entry(case.task.clone()).or_default().add(flow.work);
    }
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
        let planned = case.own.get(done).map(|&index| case.evaluation.plan().item(index).doc_id.as_str());
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

/// Returns the good lines of a repaired run that wait for their places, by the item's place in the run.
fn kept(case: &AccuracyRun<'_>, dir: &RunDir) -> Result<HashMap<usize, ItemLines>, RecordError> {
    let kept = dir.kept_samples()?;
    if kept.is_empty() {
        return Ok(HashMap::new());
    }
    let places: HashMap<(&str, &str), usize> = case.items().zip(0..).collect();
    let of_case = kept.into_iter().filter(|kept| kept.sample.task == case.task);
    let placed = of_case.filter_map(|kept| {
        let place = *places.get(&(kept.sample.doc_id.as_str(), kept.sample.doc_hash.as_str()))?;
        Some((place, kept))
    });
    Ok(placed.collect())
}

/// The items in progress.
struct Flow<'a, 'b> {
    case: &'a AccuracyRun<'b>,
    /// Place in the run of the next item to start.
    next: usize,
    /// Place in the run of the next item to write.
    written: usize,
    running: HashMap<RequestId, InEngine>,
    /// Finished items that wait for an earlier one.
    finished: BTreeMap<usize, ItemLines>,
    /// Items finished before the run was repaired.
    kept: HashMap<usize, ItemLines>,
    /// Why no further item is started. Those in the engine are finished first.
    spent: Option<EngineError>,
    work: TaskWork,
}

/// An item in the engine.
struct InEngine {
    index: usize,
    progress: Progress,
}

/// Returns the work of a step.
fn work_of(step: &Step) -> TaskWork {
    TaskWork {
        prefilled: step.prompt_tokens as u64,
        reused: step.saved.reused as u64,
        generated: step.emitted.len() as u64,
        guessed: step.saved.guessed as u64,
        accepted: step.saved.accepted as u64,
    }
}

fn program_record(tried: &Tried) -> ProgramRecord {
    ProgramRecord { code: tried.code.clone(), verdict: tried.verdict.clone() }
}

/// Converts an exchange over a wire to what a protocol has to know of it.
pub(super) fn heard(exchange: Exchange) -> Heard {
    // What a server does not reveal is no answer of the model: it is not wrong, it is missing.
    Heard { text: exchange.text, fault: exchange.fault.map(Judgement::Impossible) }
}

impl<'a, 'b> Flow<'a, 'b> {
    fn new(case: &'a AccuracyRun<'b>, done: usize, kept: HashMap<usize, ItemLines>) -> Self {
        let (running, finished) = (HashMap::new(), BTreeMap::new());
        Self {
            case,
            next: done,
            written: done,
            running,
            finished,
            kept,
            spent: None,
            work: TaskWork::default(),
        }
    }

    fn evaluation(&self) -> &'a Evaluation<'b> {
        &self.case.evaluation
    }

    fn run(&mut self, session: &mut Session<'_>) -> Result<Ending, RunError> {
        while self.written < self.case.own.len() {
            if session.stopped() {
                return Ok(Ending::Interrupted);
            }
            self.start_items(session)?;
            if self.running.is_empty()
                && let Some(spent) = self.spent.take()
            {
                return Err(spent.into());
            }
            let step = session.engine.step()?;
            self.work.add(work_of(&step));
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
        let end = self.case.own.len().min(self.written + WINDOW * self.case.batch);
        while self.next < end && self.running.len() < self.case.batch && self.spent.is_none() {
            if let Some(line) = self.kept.remove(&self.next) {
                self.finished.insert(self.next, line);
            } else if let Err(spent) = self.afford_item(session) {
                self.spent = Some(spent);
                break;
            } else {
                let (progress, next) = self.evaluation().start(self.case.own[self.next]);
                self.proceed(InEngine { index: self.next, progress }, next, session)?;
            }
            self.next += 1;
        }
        self.write_finished(session)
    }

    /// Checks that a bounded backend can answer all questions of one more item, besides those of the items that it has.
    fn afford_item(&self, session: &Session<'_>) -> Result<(), EngineError> {
        let Some(allowance) = session.engine.allowance() else { return Ok(()) };
        let plan = self.evaluation().plan();
        let samples = plan.draws.map_or(1, |draws| draws.samples as u64);
        let generates = if plan.max_new_tokens > 0 { samples } else { 0 };
        let choices = if self.evaluation().choices().is_empty() { 0 } else { allowance.for_choices };
        let second = generates * choices * self.running.len() as u64;
        allowance.check(generates + choices + second, "the next item, with those under way,")
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
        let line = ItemLines { sample: self.record(&outcome, session), prompts: self.prompts(&outcome) };
        self.finished.insert(item.index, line);
        Ok(())
    }

    fn submit(
        &self,
        request: Request,
        item: &InEngine,
        session: &mut Session<'_>,
    ) -> Result<RequestId, EngineError> {
        let request = Request { savings: self.case.savings, ..request };
        session.engine.submit_text(request, self.evaluation().asked(&item.progress))
    }

    /// Writes outcomes up to the first missing item.
    fn write_finished(&mut self, session: &mut Session<'_>) -> Result<(), RunError> {
        while let Some(ItemLines { sample, prompts }) = self.finished.remove(&self.written) {
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
            measures: outcome.measures.clone(),
            programs: outcome.programs.iter().map(program_record).collect(),
            extract_rule: outcome.rule.clone(),
            t_start_ns: session.run_ns(times().map(|s| s.start_ns).min().unwrap_or(0)),
            t_end_ns: session.run_ns(times().map(|s| s.end_ns).max().unwrap_or(0)),
            error: outcome.reason().map(str::to_owned),
        }
    }
}
