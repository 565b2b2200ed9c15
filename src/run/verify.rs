//! Reruns a sample of the items in a run on a backend and compares the answers with the record.
//!
//! A token's numbers depend only on weights, prompt, type, kernel family and ranks ([`glmbench_device`]). Within a
//! family, a record can therefore be checked to the last bit. Elsewhere sums are rounded in another order, and a
//! [`Bound`] applies.

mod answers;
mod sample;

use std::collections::{BTreeSet, HashMap};

use glmbench_engine::config::ModelConfig;
use glmbench_engine::tokenizer::Tokenizer;
use glmbench_engine::{EngineError, Savings};

use crate::backend::Backend;
use crate::bench::{Shape, WarmUpRule, prompts, repeat};
use crate::dataset::Source;
use crate::record::{AccuracyCase, Contents, PerformanceCase, RequestRecord, SampleRecord};
use crate::task::{self, Draws, Evaluation, Settings, TaskError, TextCodec};

use self::sample::recorded_hashes;
use super::accuracy::AccuracyRun;
use super::plan::{PerformanceRun, Plan, ordinary_tokens, ready};
use super::score::benchmark_of;

pub use self::answers::{Bound, Verified, items};
pub use self::sample::{Picked, Skipped};

/// A difference from the record.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// The item with its task, or the timed case.
    pub of: String,
    /// What was recorded and what was found.
    pub what: String,
}

/// Errors of rerunning a task's items.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The data set is unusable, or a protocol does not fit it.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// What was found is not what the run used.
    #[error("{0}")]
    Other(String),
}

/// Returns a task's items as they were run, from the data set in `folder`, which must have the recorded hash.
///
/// # Errors
/// The data set cannot be read or is a different one, or this program does not know the protocol or items.
pub fn task_run<'a>(
    contents: &Contents,
    case: &AccuracyCase,
    picked: &[SampleRecord],
    folder: &std::path::Path,
    codec: &'a dyn TextCodec,
    seq_length: usize,
) -> Result<AccuracyRun<'a>, VerifyError> {
    let other = |message: String| VerifyError::Other(message);
    let benchmark = benchmark_of(case);
    let asked = case.asked_under();
    let protocol = benchmark.and_then(|benchmark| task::find(benchmark, asked));
    let (Some(benchmark), Some(protocol)) = (benchmark, protocol) else {
        return Err(other(format!("this program has no protocol {asked} for {}", case.task)));
    };
    let identity = |field: &str| contents.run.identity.get(&format!("{}.{field}", case.task));
    let split = case.dataset.rsplit_once(' ').map_or(benchmark.default_split, |(_, split)| split);
    let settings = |subjects: Vec<String>| Settings {
        split: split.to_owned(),
        subjects,
        shots: Some(case.shots as usize),
        max_new_tokens: identity("max_new_tokens").and_then(|n| n.parse().ok()),
        limit: None,
        draws: draws(&identity),
    };
    let source = Source::open(benchmark, folder).map_err(TaskError::from)?;
    let mut plan = task::Plan::new(protocol, &source, &settings(Vec::new()))?;
    let hash = identity("dataset").unwrap_or_default();
    if plan.dataset.content_hash() != hash {
        // The run may have used only some of the subjects.
        let subjects: BTreeSet<String> =
            contents.samples.iter().filter(|s| s.task == case.task).map(|s| s.subject.clone()).collect();
        let known = subjects.iter().all(|subject| plan.dataset.subjects.contains_key(subject));
        if known {
            plan = task::Plan::new(protocol, &source, &settings(subjects.into_iter().collect()))?;
        }
    }
    let found = plan.dataset.content_hash();
    if found != hash {
        return Err(other(format!(
            "{}: the data set's hash is {found}, the run recorded {hash} for {}",
            folder.display(),
            case.task
        )));
    }
    let places: HashMap<&str, usize> =
        plan.dataset.items.iter().map(|item| item.doc_id.as_str()).zip(0..).collect();
    let place = |sample: &SampleRecord| {
        places.get(sample.doc_id.as_str()).copied().ok_or_else(|| {
            other(format!("{} has no item {}, which the record has", folder.display(), sample.doc_id))
        })
    };
    plan.chosen = picked.iter().map(place).collect::<Result<_, _>>()?;
    let evaluation = ready(Evaluation::new(plan, codec, seq_length)?)?;
    let batch = contents.run.provenance.batch.max(1) as usize;
    let run = AccuracyRun::new(case.task.clone(), evaluation, batch, case.tp as usize);
    Ok(AccuracyRun { savings: Savings::NONE, ..run })
}

/// Returns how a run drew its answers, from the fields of its identity.
fn draws<'i>(identity: &impl Fn(&str) -> Option<&'i str>) -> Option<Draws> {
    Some(Draws {
        samples: identity("samples")?.parse().ok()?,
        temperature: identity("temperature")?.parse().ok()?,
        top_p: identity("top_p")?.parse().ok()?,
        seed: identity("seed")?.parse().ok()?,
    })
}

/// Runs a timed case once and compares its output with the record. Returns `None` if it is the same.
///
/// # Errors
/// Errors of the backend.
pub fn timed_case(
    case: &PerformanceCase,
    requests: &[RequestRecord],
    plan: &Plan<'_>,
    backend: &mut dyn Backend,
) -> Result<Option<Difference>, EngineError> {
    let shape = shape(case);
    let prompts = prompts(shape, &plan.tokens, case.seed.unwrap_or_default());
    let found = repeat(backend, shape, &prompts)?.output_hash;
    let recorded = recorded_hashes(case, requests);
    if recorded.len() == 1 && recorded.contains(found.as_str()) {
        return Ok(None);
    }
    let recorded = recorded.into_iter().collect::<Vec<_>>().join(", ");
    let what = format!("output hash: recorded {recorded}, found {found}");
    Ok(Some(Difference { of: format!("timed case {}", case.case_id), what }))
}

impl<'a> Plan<'a> {
    /// Creates a plan of these cases for running them on an engine of `tp` ranks again.
    pub fn for_verification(
        accuracy: Vec<AccuracyRun<'a>>,
        performance: &[&PerformanceCase],
        tp: usize,
        config: &ModelConfig,
        tokenizer: Option<&Tokenizer>,
        step_tokens: usize,
    ) -> Self {
        let timed = |case: &&PerformanceCase| PerformanceRun {
            shape: shape(case),
            prompts: None,
            tp,
            unfit: None,
            largest_batch: None,
            alone_bytes: None,
            repetitions: 1,
            warm_up: WarmUpRule::default(),
            seed: case.seed.unwrap_or_default(),
            budget_s: None,
        };
        let mut plan = Self::empty(ordinary_tokens(config, tokenizer), step_tokens);
        plan.accuracy = accuracy;
        plan.performance = performance.iter().map(timed).collect();
        plan.capacities = plan.tp_sizes().into_iter().map(|tp| (tp, plan.largest(config, tp))).collect();
        plan
    }
}

/// Returns the shape of a timed case with random prompts.
fn shape(case: &PerformanceCase) -> Shape {
    Shape {
        batch: case.batch as usize,
        input_tokens: case.input_tokens as usize,
        output_tokens: case.output_tokens as usize,
    }
}
