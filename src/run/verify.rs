//! Reruns a sample of a run's items on the engine and compares the answers with the record.
//!
//! A token's numbers depend only on weights, prompt, type, kernel family and ranks ([`glmbench_device`]). Within a
//! family, a record can therefore be checked to the last bit. Elsewhere sums are rounded in another order, and a
//! [`Bound`] applies.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use glmbench_device::DType;

use glmbench_engine::Engine;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::tokenizer::Tokenizer;
use glmbench_engine::{EngineError, RequestId, Savings};

use crate::backend::Backend;
use crate::bench::{Shape, WarmUpRule, prompts, repeat};
use crate::dataset::Source;
use crate::record::{
    AccuracyCase, Contents, PerformanceCase, PromptRecord, RepetitionKind, RequestRecord, SampleRecord,
    SampleState,
};
use crate::stats::Rng;
use crate::task::{self, Evaluation, Next, Outcome, Progress, Settings, State, TaskError, TextCodec};

use super::AccuracyRun;
use super::accuracy::heard;
use super::plan::{PerformanceRun, Plan, ordinary_tokens};
use super::score::benchmark_of;

/// The sample to rerun.
#[derive(Debug, Clone, Default)]
pub struct Picked {
    /// Items by task, in the order of the record.
    pub items: BTreeMap<String, Vec<SampleRecord>>,
    /// Timed cases with random prompts.
    pub cases: Vec<PerformanceCase>,
    /// Timed cases that cannot be rerun.
    pub skipped: Vec<Skipped>,
}

/// A timed case that cannot be rerun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The case.
    pub case_id: String,
    /// Why it cannot be rerun.
    pub reason: &'static str,
}

impl Picked {
    /// Draws `items` items and `cases` timed cases, all equally likely. The result depends on seed and record only.
    pub fn of(contents: &Contents, (items, cases): (usize, usize), seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut picked = Self::default();
        let tasks: BTreeSet<&str> =
            contents.run.plan.accuracy.iter().map(|case| case.task.as_str()).collect();
        let known: Vec<&SampleRecord> =
            contents.samples.iter().filter(|sample| tasks.contains(sample.task.as_str())).collect();
        for at in draw(known.len(), items, &mut rng) {
            picked.items.entry(known[at].task.clone()).or_default().push(known[at].clone());
        }
        let mut timed = Vec::new();
        for case in contents.run.plan.performance.iter().filter(|case| case.unfit.is_none()) {
            let reason = if recorded_hashes(case, &contents.requests).is_empty() {
                "the record has no timed repetition"
            } else if case.prompts.is_some() {
                "its prompts come from a data set, and a record does not keep them"
            } else if case.seed.is_none() {
                "the record has no seed of its prompts, because an older version made it"
            } else {
                timed.push(case);
                continue;
            };
            picked.skipped.push(Skipped { case_id: case.case_id.clone(), reason });
        }
        picked.cases = draw(timed.len(), cases, &mut rng).into_iter().map(|at| timed[at].clone()).collect();
        picked
    }

    /// Returns the number of items.
    pub fn item_count(&self) -> usize {
        self.items.values().map(Vec::len).sum()
    }
}

/// Draws `count` different numbers below `of`, all equally likely, and returns them in order.
fn draw(of: usize, count: usize, rng: &mut Rng) -> BTreeSet<usize> {
    let mut all: Vec<usize> = (0..of).collect();
    for i in 0..count.min(of) {
        let other = i + rng.below((of - i) as u64) as usize;
        all.swap(i, other);
    }
    all.truncate(count);
    all.into_iter().collect()
}

/// Returns the output hashes of a case's timed repetitions.
fn recorded_hashes<'a>(case: &PerformanceCase, requests: &'a [RequestRecord]) -> BTreeSet<&'a str> {
    let timed = requests
        .iter()
        .filter(|r| r.case_id == case.case_id && r.kind == RepetitionKind::Timed && r.error.is_none());
    timed.map(|request| request.output_hash.as_str()).collect()
}

/// Allowed difference between answers and the record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// The same bits.
    Exact,
    /// Log-probabilities and logits differ by at most this much, in nats.
    Within(f32),
}

impl Bound {
    /// Returns the bound for sums in another order in this type: at least five times the largest difference on 240
    /// items of the demo model. The differences were 1.6e-2 nat in fp16, 1.1e-1 in bf16 and 7.2e-6 in fp32. They were
    /// measured between kernel families, between one rank and two, and between the CPU and emulated cards.
    pub fn across(dtype: DType) -> Self {
        Self::Within(match dtype {
            DType::Fp32 => 1e-4,
            DType::Fp16 => 0.1,
            DType::Bf16 => 0.5,
        })
    }

    fn holds(self, recorded: f32, found: f32) -> bool {
        match self {
            Self::Exact => recorded.to_bits() == found.to_bits() || (recorded.is_nan() && found.is_nan()),
            Self::Within(most) => (recorded - found).abs() <= most || (recorded.is_nan() && found.is_nan()),
        }
    }
}

/// A difference from the record.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// The item with its task, or the timed case.
    pub of: String,
    /// What was recorded and what was found.
    pub what: String,
}

/// The result for a sample.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verified {
    /// The differences found.
    pub differences: Vec<Difference>,
    /// Items with other generated tokens, where each recorded token is within the bound of the likeliest.
    pub other_tokens: usize,
    /// The largest difference between log-probabilities.
    pub largest: f32,
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
    (contents, case): (&Contents, &AccuracyCase),
    picked: &[SampleRecord],
    folder: &std::path::Path,
    (codec, seq_length): (&'a dyn TextCodec, usize),
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
    let evaluation = Evaluation::new(plan, codec, seq_length)?;
    let batch = contents.run.provenance.batch.max(1) as usize;
    let run = AccuracyRun::new(case.task.clone(), evaluation, batch, case.tp as usize);
    Ok(AccuracyRun { savings: Savings::NONE, ..run })
}

/// Runs a task's items and compares each answer with its sample. Calls `each` for every item.
///
/// # Errors
/// Errors of the engine.
pub fn items(
    run: &AccuracyRun<'_>,
    picked: &[SampleRecord],
    kept: &BTreeMap<String, PromptRecord>,
    (engine, bound): (&mut Engine, Bound),
    each: &mut dyn FnMut(),
) -> Result<Verified, EngineError> {
    let outcomes = outcomes(run, engine, each)?;
    let mut verified = Verified::default();
    for (sample, outcome) in picked.iter().zip(&outcomes) {
        let mut differences = facts(sample, outcome);
        let same_text = sample.output_tokens == outcome.output_tokens();
        match bound {
            Bound::Exact => differences.extend(numbers(sample, outcome, bound, &mut verified.largest)),
            Bound::Within(_) if same_text => {
                differences.extend(numbers(sample, outcome, bound, &mut verified.largest));
            }
            Bound::Within(most) => match kept.get(&sample.doc_id) {
                Some(prompts) => {
                    let forced = Forced { sample, prompts, most, run };
                    let found = forced.differences(engine, &mut verified.largest)?;
                    verified.other_tokens += usize::from(found.is_empty());
                    differences.extend(found);
                }
                None => differences
                    .push("other tokens, and the run kept no prompts to force the recorded ones".to_owned()),
            },
        }
        if !differences.is_empty() {
            verified.differences.push(Difference {
                of: format!("item {} of {}", sample.doc_id, sample.task),
                what: differences.join("; "),
            });
        }
    }
    Ok(verified)
}

/// Runs a task's items on a server and compares each answer with its sample. A server cannot be given the recorded tokens, so
/// other tokens are a difference.
///
/// # Errors
/// Errors of the backend.
pub fn items_of_server(
    run: &AccuracyRun<'_>,
    picked: &[SampleRecord],
    (server, bound): (&mut dyn Backend, Bound),
    each: &mut dyn FnMut(),
) -> Result<Verified, EngineError> {
    let outcomes = outcomes(run, server, each)?;
    let mut verified = Verified::default();
    for (sample, outcome) in picked.iter().zip(&outcomes) {
        let mut differences = facts(sample, outcome);
        differences.extend(numbers(sample, outcome, bound, &mut verified.largest));
        if !differences.is_empty() {
            verified.differences.push(Difference {
                of: format!("item {} of {}", sample.doc_id, sample.task),
                what: differences.join("; "),
            });
        }
    }
    Ok(verified)
}

/// Returns every item's outcome, in order.
fn outcomes(
    run: &AccuracyRun<'_>,
    engine: &mut dyn Backend,
    each: &mut dyn FnMut(),
) -> Result<Vec<Outcome>, EngineError> {
    let evaluation = &run.evaluation;
    let mut running: HashMap<RequestId, (usize, Progress)> = HashMap::new();
    let mut done: BTreeMap<usize, Outcome> = BTreeMap::new();
    let mut next = 0;
    while done.len() < evaluation.len() {
        let mut ready: Vec<(usize, Progress, Next)> = Vec::new();
        while next < evaluation.len() && running.len() + ready.len() < run.batch {
            let (progress, ask) = evaluation.start(next);
            ready.push((next, progress, ask));
            next += 1;
        }
        if ready.is_empty() {
            for completion in engine.step()?.finished {
                let Some((index, mut progress)) = running.remove(&completion.id) else { continue };
                let heard = engine.exchange(completion.id).map(heard).unwrap_or_default();
                let ask = evaluation.advance_heard(&mut progress, &completion, heard);
                ready.push((index, progress, ask));
            }
        }
        for (index, mut progress, ask) in ready {
            let outcome = match ask {
                Next::Done(outcome) => outcome,
                Next::Ask(request) => match engine.submit_text(request, evaluation.asked(&progress)) {
                    Ok(id) => {
                        running.insert(id, (index, progress));
                        continue;
                    }
                    Err(EngineError::Request(reason)) => evaluation.give_up(&mut progress, reason),
                    Err(error) => return Err(error),
                },
            };
            done.insert(index, outcome);
            each();
        }
    }
    Ok(done.into_values().collect())
}

/// Compares the properties of an item that do not depend on the computation.
fn facts(sample: &SampleRecord, outcome: &Outcome) -> Vec<String> {
    let compared = [
        ("content hash", sample.doc_hash.as_str(), outcome.doc_hash.as_str()),
        ("prompt hash", sample.prompt_hash.as_str(), &outcome.prompt_hash()),
        ("key", sample.gold.as_str(), &outcome.gold.to_string()),
        ("subject", sample.subject.as_str(), outcome.subject.as_str()),
    ];
    let differs = compared.iter().filter(|(_, recorded, found)| recorded != found);
    differs.map(|(name, recorded, found)| format!("{name}: recorded {recorded}, found {found}")).collect()
}

/// Compares the model's results.
fn numbers(sample: &SampleRecord, outcome: &Outcome, bound: Bound, largest: &mut f32) -> Vec<String> {
    let mut differences = Vec::new();
    let mut differ = |name: &str, recorded: String, found: String| {
        if recorded != found {
            differences.push(format!("{name}: recorded {recorded}, found {found}"));
        }
    };
    let state = match outcome.state {
        State::Scored => SampleState::Scored,
        State::Unscorable(_) => SampleState::Unscorable,
        State::Failed(_) => SampleState::Failed,
    };
    let found = &outcome.choice_logprobs;
    differ("outcome", format!("{:?}", sample.state), format!("{state:?}"));
    differ("output tokens", format!("{:?}", sample.output_tokens), format!("{:?}", outcome.output_tokens()));
    differ("text", format!("{:?}", sample.text), format!("{:?}", outcome.text()));
    differ("choices", sample.choice_logprobs.len().to_string(), found.len().to_string());
    let mut tie = false;
    for (index, (recorded, found)) in sample.choice_logprobs.iter().zip(found).enumerate() {
        *largest = largest.max((recorded - found).abs());
        if !bound.holds(*recorded, *found) {
            differ(
                &format!("log-probability of choice {}", index + 1),
                recorded.to_string(),
                found.to_string(),
            );
        }
    }
    if let Bound::Within(most) = bound {
        // Either side may be off by the bound, so a lead of up to twice the bound may reverse.
        tie = sample.margin.is_some_and(|margin| margin <= 2.0 * most);
    }
    if !tie {
        let word = |pred: Option<String>| pred.unwrap_or_else(|| "none".to_owned());
        let found = outcome.pred.as_ref().map(ToString::to_string);
        differ("answer", word(sample.pred.clone()), word(found));
        differ("right", sample.correct.to_string(), outcome.is_correct().to_string());
        differ("rule", sample.extract_rule.clone(), outcome.rule.clone());
    }
    differences
}

/// A recorded answer for which other tokens were generated. Each recorded token must be nearly the likeliest at its
/// place.
struct Forced<'a> {
    sample: &'a SampleRecord,
    prompts: &'a PromptRecord,
    most: f32,
    run: &'a AccuracyRun<'a>,
}

impl Forced<'_> {
    fn differences(&self, engine: &mut Engine, largest: &mut f32) -> Result<Vec<String>, EngineError> {
        let Some(first) = self.prompts.calls.first() else { return Ok(Vec::new()) };
        let (prompt, tokens) = (&first.input_tokens, &self.sample.output_tokens);
        let fed: Vec<u32> = prompt.iter().chain(tokens).copied().collect();
        let mut worst: Option<(usize, f32)> = None;
        engine.teacher_force(&fed, &mut |position, logits| {
            let Some(at) = (position + 1).checked_sub(prompt.len()) else { return };
            let Some(chosen) = tokens.get(at).and_then(|&token| logits.get(token as usize)) else { return };
            let likeliest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let lead = likeliest - chosen;
            if worst.is_none_or(|(_, most)| lead > most) {
                worst = Some((at, lead));
            }
        })?;
        let mut differences = Vec::new();
        if let Some((at, lead)) = worst {
            *largest = largest.max(lead);
            if lead.is_nan() || lead > self.most {
                differences.push(format!(
                    "generated token {}: recorded {}, which here is {lead} nat less likely than the likeliest",
                    at + 1,
                    tokens[at]
                ));
            }
        }
        if let (Some(last), [_, ..]) = (self.prompts.calls.last(), self.sample.choice_logprobs.as_slice()) {
            differences.extend(self.choices(&last.input_tokens, engine, largest)?);
        }
        Ok(differences)
    }

    /// Compares the recorded log-probabilities after the recorded last prompt.
    fn choices(
        &self,
        prompt: &[u32],
        engine: &mut Engine,
        largest: &mut f32,
    ) -> Result<Vec<String>, EngineError> {
        let request = glmbench_engine::Request {
            prompt: prompt.to_vec(),
            choice_ids: self.run.evaluation.choices().iter().map(|choice| choice.id).collect(),
            ..glmbench_engine::Request::probe()
        };
        engine.submit(request)?;
        let mut found = Vec::new();
        while !engine.is_idle() {
            found.extend(
                engine.step()?.finished.into_iter().flat_map(|completion| completion.choice_logprobs),
            );
        }
        let pairs = self.sample.choice_logprobs.iter().zip(&found).enumerate();
        let mut differences = Vec::new();
        for (index, (recorded, found)) in pairs {
            *largest = largest.max((recorded - found).abs());
            if !Bound::Within(self.most).holds(*recorded, *found) {
                differences.push(format!(
                    "log-probability of choice {}: recorded {recorded}, found {found}",
                    index + 1
                ));
            }
        }
        Ok(differences)
    }
}

/// Runs a timed case once and compares its output with the record. Returns `None` if it is the same.
///
/// # Errors
/// Errors of the engine.
pub fn timed_case(
    case: &PerformanceCase,
    requests: &[RequestRecord],
    plan: &Plan<'_>,
    engine: &mut Engine,
) -> Result<Option<Difference>, EngineError> {
    let shape = shape(case);
    let prompts = prompts(shape, &plan.tokens, case.seed.unwrap_or_default());
    let found = repeat(engine, shape, &prompts)?.output_hash;
    let recorded = recorded_hashes(case, requests);
    if recorded.len() == 1 && recorded.contains(found.as_str()) {
        return Ok(None);
    }
    let recorded = recorded.into_iter().collect::<Vec<_>>().join(", ");
    let what = format!("output hash: recorded {recorded}, found {found}");
    Ok(Some(Difference { of: format!("timed case {}", case.case_id), what }))
}

impl<'a> Plan<'a> {
    /// Creates a plan of these cases for running them on an engine again.
    pub fn for_verification(
        accuracy: Vec<AccuracyRun<'a>>,
        performance: &[(&PerformanceCase, usize)],
        (config, tokenizer): (&ModelConfig, Option<&Tokenizer>),
        step_tokens: usize,
    ) -> Self {
        let timed = |&(case, tp): &(&PerformanceCase, usize)| PerformanceRun {
            shape: shape(case),
            prompts: None,
            tp,
            unfit: None,
            largest_batch: None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_drawn_without_replacement_and_by_its_seed() {
        let drawn = |seed| draw(100, 20, &mut Rng::new(seed));
        assert_eq!(drawn(1).len(), 20);
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        assert_eq!(draw(3, 20, &mut Rng::new(1)), BTreeSet::from([0, 1, 2]));
        assert!(draw(0, 20, &mut Rng::new(1)).is_empty());
        // All are equally likely: 2,000 draws of 20 of 100 give about 400 of each.
        let mut counts = [0_u32; 100];
        (0..2000).flat_map(drawn).for_each(|at| counts[at] += 1);
        assert!(counts.iter().all(|count| (300..500).contains(count)), "{counts:?}");
    }

    #[test]
    fn exact_is_to_the_bit_and_a_bound_is_a_bound() {
        let next = f32::from_bits(1.0_f32.to_bits() + 1);
        assert!(Bound::Exact.holds(1.0, 1.0) && !Bound::Exact.holds(1.0, next));
        assert!(Bound::Exact.holds(f32::NAN, f32::NAN) && !Bound::Exact.holds(0.0, -0.0));
        assert!(Bound::Within(0.5).holds(1.0, 1.5) && !Bound::Within(0.5).holds(1.0, 1.6));
        assert!(!Bound::Within(0.5).holds(1.0, f32::NAN));
    }
}
