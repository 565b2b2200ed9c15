//! Rescoring of stored answers without a model: with a repaired extraction, or another one on the same text.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::dataset::{self, Benchmark, sha256_hex};
use crate::record::{
    AccuracyCase, Identity, RunRecord, SampleRecord, SampleState, Status, rfc3339_utc, run_id,
};
use crate::task::{self, Evidence, Judgement, Output, Protocol};

/// Errors of rescoring.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// The run has no samples to score.
    #[error("run {0} has no samples; expected some (a run of performance cases alone has no score)")]
    NoSamples(String),
    /// This program does not know a task or protocol.
    #[error("task {task} was run under {protocol}; expected one of {}", known.join(", "))]
    Unknown {
        /// The task.
        task: String,
        /// Its protocol.
        protocol: String,
        /// The known protocols.
        known: Vec<&'static str>,
    },
    /// The requested protocol can read no task of the run.
    #[error("--protocol {protocol}: it is for no benchmark of the run; expected one of {}", known.join(", "))]
    NoTask {
        /// The protocol.
        protocol: String,
        /// Protocols for the run's tasks.
        known: Vec<&'static str>,
    },
    /// The run did not store what the protocol reads.
    #[error("--protocol {reader}: {missing}; make a new run with this protocol (`glmbench run`)")]
    Missing {
        /// The protocol.
        reader: &'static str,
        /// What is missing.
        missing: String,
    },
}

/// The reading of the stored answers in a task.
#[derive(Clone, Copy)]
pub struct Reading {
    /// The protocol that asked.
    pub asked: &'static dyn Protocol,
    /// The protocol that reads.
    pub reader: &'static dyn Protocol,
}

impl Reading {
    /// Chooses the reading of a task: `protocol` if it is for the task's benchmark, else the previous one.
    ///
    /// # Errors
    /// [`ScoreError::Unknown`], or [`ScoreError::Missing`] if `protocol` reads what the run did not store.
    pub fn of(case: &AccuracyCase, protocol: Option<&str>) -> Result<Self, ScoreError> {
        let benchmark = benchmark_of(case);
        let find = |name: &str| benchmark.and_then(|b| task::find(b, name));
        let (Some(asked), Some(read)) = (find(case.asked_under()), find(case.read_by())) else {
            let known = task::protocols().iter().map(|p| p.definition().name).collect();
            return Err(ScoreError::Unknown {
                task: case.task.clone(),
                protocol: case.protocol.clone(),
                known,
            });
        };
        let reader = protocol.and_then(find).unwrap_or(read);
        let reading = Self { asked, reader };
        reading.missing().map_or(Ok(reading), |missing| {
            Err(ScoreError::Missing {
                reader: reader.definition().name,
                missing: format!("{} {missing}", case.task),
            })
        })
    }

    /// Returns what the reader needs that the asking protocol does not store.
    fn missing(self) -> Option<String> {
        let (asked, reader) = (self.asked.definition(), self.reader.definition());
        match self.reader.evidence() {
            _ if asked.name == reader.name => None,
            Evidence::Choices(answers) => Some(format!(
                "was asked under {}, so the log-probabilities of {} after {}'s prompt were never computed",
                asked.name,
                task::words(&answers),
                reader.name
            )),
            Evidence::Item => Some(format!(
                "was asked under {}, and {} needs its items' tests or references, which a record does not keep",
                asked.name, reader.name
            )),
            Evidence::Text if asked.max_new_tokens == 0 => {
                Some(format!("was asked under {}, which generates no text to read", asked.name))
            }
            Evidence::Text => None,
        }
    }

    /// Returns the name shown beside the score.
    pub fn name(self) -> String {
        AccuracyCase::protocol_name(self.asked.definition().name, self.reader.definition().name)
    }

    /// Judges the sample's stored answer again. A failed item has no answer and stays unchanged.
    pub fn score(self, sample: &SampleRecord) -> SampleRecord {
        let mut scored = sample.clone();
        // What an answer was judged by besides its text is not in the record, so its judgement stays.
        if sample.state == SampleState::Failed || self.reader.evidence() == Evidence::Item {
            return scored;
        }
        scored.pred = None;
        scored.correct = false;
        scored.extract_rule.clear();
        scored.choice_logprobs.clear();
        scored.margin = None;
        scored.error = None;
        match self.reader.judge(Output { text: &sample.text, choice_logprobs: &sample.choice_logprobs }) {
            Judgement::Answer { pred, choice_logprobs, rule } => {
                scored.state = SampleState::Scored;
                let pred = pred.to_string();
                scored.correct = pred == sample.gold;
                scored.pred = Some(pred);
                scored.margin = task::margin(&choice_logprobs);
                scored.choice_logprobs = choice_logprobs;
                scored.extract_rule = rule;
            }
            Judgement::Unreadable(reason) => {
                scored.state = SampleState::Unscorable;
                scored.error = Some(reason);
            }
            Judgement::Impossible(reason) => {
                scored.state = SampleState::Failed;
                scored.error = Some(reason);
            }
        }
        scored
    }
}

/// A run's rescored samples.
pub struct Rescored {
    /// The new run's record: its own id, no performance cases, [`scored_from`](crate::record::Provenance::scored_from)
    /// set.
    pub run: RunRecord,
    /// Every sample, in order.
    pub samples: Vec<SampleRecord>,
    /// The reading of each task, by task name.
    pub readings: BTreeMap<String, Reading>,
}

impl Rescored {
    /// Sets the run's dates, and the id that depends on them.
    pub fn date(&mut self, now: SystemTime) {
        let run = &mut self.run;
        let suite = format!("{}-scored", run.provenance.suite);
        run.run_id = run_id(now, &suite, &run.provenance.device, &run.identity);
        run.provenance.started = rfc3339_utc(now);
        run.provenance.finished = Some(rfc3339_utc(now));
    }
}

/// Rescores all samples of a run, by `protocol` where it is for the sample's benchmark. The samples keep the answer
/// times of the model. The new run is dated `now`.
///
/// # Errors
/// [`ScoreError`]; then nothing is rescored.
pub fn rescore(
    run: &RunRecord,
    samples: &[SampleRecord],
    protocol: Option<&str>,
    now: SystemTime,
) -> Result<Rescored, ScoreError> {
    if samples.is_empty() {
        return Err(ScoreError::NoSamples(run.run_id.clone()));
    }
    check_protocol(run, protocol)?;
    let mut readings = BTreeMap::new();
    for case in &run.plan.accuracy {
        readings.insert(case.task.clone(), Reading::of(case, protocol)?);
    }
    let score = |sample: &SampleRecord| match readings.get(&sample.task) {
        Some(reading) => reading.score(sample),
        None => sample.clone(),
    };
    let samples = samples.iter().map(score).collect();
    let mut rescored = Rescored { run: new_record(run, &readings), samples, readings };
    rescored.date(now);
    Ok(rescored)
}

/// Returns the benchmark of a recorded case; `None` if this program does not know it.
pub(super) fn benchmark_of(case: &AccuracyCase) -> Option<&'static Benchmark> {
    dataset::recorded(&case.benchmark, case.task_file.as_ref().map(|file| file.text.as_str()))
}

fn check_protocol(run: &RunRecord, protocol: Option<&str>) -> Result<(), ScoreError> {
    let Some(protocol) = protocol else { return Ok(()) };
    let mut known: Vec<&'static str> = Vec::new();
    for name in run.plan.accuracy.iter().filter_map(benchmark_of).flat_map(task::protocols_of) {
        let name = name.definition().name;
        if !known.contains(&name) {
            known.push(name);
        }
    }
    if known.contains(&protocol) {
        return Ok(());
    }
    Err(ScoreError::NoTask { protocol: protocol.to_owned(), known })
}

/// Returns the record of the rescored run. With unchanged protocols, its identity stays the same.
fn new_record(run: &RunRecord, readings: &BTreeMap<String, Reading>) -> RunRecord {
    let mut new = run.clone();
    new.plan.clear_timed();
    new.plan.targets.clear();
    new.plan.operators = false;
    new.seal = None;
    let mut fields = run.identity.fields().clone();
    for case in &mut new.plan.accuracy {
        let Some(name) = readings.get(&case.task).map(|reading| reading.name()) else { continue };
        if name != case.protocol {
            let hash = sha256_hex(format!("{} {name}", case.version_hash).as_bytes());
            case.version_hash = hash.chars().take(6).collect();
            // Published scores apply to their own protocol only.
            (case.expected, case.published) = (None, None);
            case.last_rule = readings.get(&case.task).and_then(|reading| reading.reader.last_rule());
            fields.insert(format!("{}.protocol", case.task), name.clone());
            case.protocol = name;
        }
    }
    new.identity = Identity::new(fields);
    if new.status == Status::Running {
        new.status = Status::Interrupted;
    }
    new.provenance.scored_from = Some(run.run_id.clone());
    new.provenance.roofline = None;
    new.provenance.load = None;
    new.provenance.group = None;
    new
}
