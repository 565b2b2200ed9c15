//! The plan of a suite with a model: its cases, what must fit into memory, and what decides comparability.

use std::collections::{BTreeMap, HashSet};

use glmbench_device::Precision;

use glmbench_engine::config::ModelConfig;
use glmbench_engine::model::Capacity;
use glmbench_engine::tokenizer::Tokenizer;

use crate::bench::{OrdinaryTokens, Shape, WarmUpRule};
use crate::dataset::Source;
use crate::record::{self, ChoiceToken, Cost, FirstPrompt};
use crate::suite::{self, Suite};
use crate::task::{self, Evaluation, TextCodec};

pub use super::load::LoadRun;
pub use super::performance::PerformanceRun;
use super::published::published;
pub use super::questions::RealPrompts;
pub use super::search::SearchRun;
use super::{AccuracyRun, RunError, limits, workload};

/// A suite with a model: everything known before the weights are loaded.
pub struct Plan<'a> {
    /// Accuracy cases.
    pub accuracy: Vec<AccuracyRun<'a>>,
    /// Performance cases.
    pub performance: Vec<PerformanceRun>,
    /// Searches for the largest batch.
    pub searches: Vec<SearchRun>,
    /// Load cases.
    pub loads: Vec<LoadRun>,
    /// The tokens from which prompts for timing are drawn.
    pub tokens: OrdinaryTokens,
    /// Maximum number of tokens per step.
    pub(super) step_tokens: usize,
    /// The engine's limits, by number of ranks.
    pub(super) limits: BTreeMap<usize, Capacity>,
}

impl<'a> Plan<'a> {
    /// Reads the data sets and builds every first prompt. Prompts are fed `step_tokens` at a time.
    ///
    /// # Errors
    /// Data sets, protocols or tokenizer do not fit, or the model or device cannot run a shape.
    pub fn new(
        suite: &Suite,
        config: &ModelConfig,
        tokenizer: Option<&'a Tokenizer>,
        step_tokens: usize,
    ) -> Result<Self, RunError> {
        let refuse = |problem: String| RunError::Suite { suite: suite.path.clone(), problem };
        let mut accuracy = Vec::new();
        if !suite.accuracy.is_empty() {
            let Some(tokenizer) = tokenizer else {
                return Err(refuse(
                    "random weights have no tokenizer, and accuracy cases need one; give a model folder"
                        .into(),
                ));
            };
            for (case, name) in suite.accuracy.iter().zip(case_names(suite)) {
                accuracy.push(accuracy_run(case, name, config, tokenizer)?);
            }
        }
        let performance = performance_runs(suite, config, tokenizer).map_err(refuse)?;
        let searches = workload::searches(suite, config).map_err(refuse)?;
        let loads = workload::loads(suite, config, tokenizer).map_err(refuse)?;
        let tokens = ordinary_tokens(config, tokenizer);
        let limits = BTreeMap::new();
        let mut plan = Self { accuracy, performance, searches, loads, tokens, step_tokens, limits };
        plan.limits = plan.worlds().into_iter().map(|world| (world, plan.largest(config, world))).collect();
        Ok(plan)
    }

    /// Returns the maximum number of tokens per step.
    pub(super) fn step_tokens(&self) -> usize {
        self.step_tokens
    }

    /// Returns the numbers of tensor-parallel ranks that the cases need, in the order in which they run: accuracy
    /// first.
    pub fn worlds(&self) -> Vec<usize> {
        let accuracy = self.accuracy.iter().map(|run| run.tp);
        let mut worlds = Vec::new();
        let timed = self.performance.iter().filter(|run| run.unfit.is_none()).map(|run| run.tp);
        let searches = self.searches.iter().map(|run| run.tp);
        let loads = self.loads.iter().map(|run| run.tp);
        for tp in accuracy.chain(timed).chain(searches).chain(loads) {
            if !worlds.contains(&tp) {
                worlds.push(tp);
            }
        }
        worlds
    }

    /// Returns the number of cases that run.
    pub fn cases(&self) -> usize {
        let timed = self.performance.iter().filter(|run| run.unfit.is_none()).count();
        self.accuracy.len() + timed + self.searches.len() + self.loads.len()
    }

    /// Returns the plan as kept in `run.json`.
    pub fn record(&self, suite: &Suite, config: &ModelConfig, precision: Precision) -> record::Plan {
        let accuracy = self.accuracy.iter().zip(&suite.accuracy).map(|(run, case)| {
            let plan = run.evaluation.plan();
            let published = published(case, plan, run.evaluation.len(), config, precision);
            record::AccuracyCase {
                task: run.task.clone(),
                benchmark: case.task.name.to_owned(),
                dataset: format!("{} {}", folder_name(case), case.split),
                protocol: plan.protocol.definition().name.to_owned(),
                shots: plan.shots as u32,
                tp: run.tp as u32,
                items: run.evaluation.len() as u64,
                items_hash: Some(record::items_hash(run.items())),
                available: Some(plan.dataset.items.len() as u64),
                version_hash: run.evaluation.input_hash()[..6].to_owned(),
                chance: case.task.chance,
                expected: published.as_ref().map(|of| of.correct as f64 / of.items as f64),
                published,
                max_failed: case.max_failed,
                generates: Some(plan.max_new_tokens > 0),
                last_rule: plan.protocol.last_rule(),
            }
        });
        let performance = self.performance.iter().map(|run| {
            let shape = run.shape;
            let cost = |c: crate::bench::PhaseCost| Cost { bytes: c.bytes, flops: c.flops };
            // The cost of a shape that does not fit into memory is not counted either.
            let costs = run
                .unfit
                .is_none()
                .then(|| workload::cost(run, config, precision, self.limits(run.tp).max_step_tokens));
            record::PerformanceCase {
                case_id: run.case_id(),
                tp: run.tp as u32,
                batch: shape.batch as u32,
                input_tokens: run.input_tokens() as u32,
                output_tokens: shape.output_tokens as u32,
                prompts: run.prompts.as_ref().map(RealPrompts::record),
                unfit: run.unfit.clone(),
                repetitions: run.repetitions as u32,
                seed: run.prompts.is_none().then_some(run.seed),
                prefill_cost: costs.map(|(prefill, _)| cost(prefill)),
                decode_cost: costs.map(|(_, decode)| cost(decode)),
            }
        });
        record::Plan {
            accuracy: accuracy.collect(),
            performance: performance.collect(),
            searches: self.searches.iter().map(SearchRun::record).collect(),
            loads: self.loads.iter().map(LoadRun::record).collect(),
            targets: limits::targets(suite, precision),
            operators: false,
        }
    }

    /// Returns the choice tokens of each accuracy case.
    pub fn choice_tokens(&self) -> BTreeMap<String, Vec<ChoiceToken>> {
        let of = |run: &AccuracyRun<'_>| {
            let tokens = run.evaluation.choices().iter();
            tokens.map(|c| ChoiceToken { text: c.answer.to_string(), id: c.id }).collect()
        };
        self.accuracy.iter().map(|run| (run.task.clone(), of(run))).collect()
    }

    /// Returns the first prompt of the first accuracy case.
    pub fn first_prompt(&self) -> Option<FirstPrompt> {
        self.accuracy.first().and_then(first_prompt_of)
    }
}

/// Returns the first prompt of a case.
pub fn first_prompt_of(run: &AccuracyRun<'_>) -> Option<FirstPrompt> {
    let (text, token_ids) = run.evaluation.first_prompt(0)?;
    Some(FirstPrompt {
        task: run.task.clone(),
        doc_id: run.evaluation.plan().item(0).doc_id.clone(),
        text,
        token_ids,
    })
}

/// Names each accuracy case after its benchmark. Adds the protocol if the benchmark occurs more than once, and a number
/// if benchmark and protocol do.
fn case_names(suite: &Suite) -> Vec<String> {
    let cases = &suite.accuracy;
    let name = |i: usize| {
        let case = &cases[i];
        let same_task = cases.iter().filter(|c| c.task == case.task).count();
        let same = |c: &&suite::AccuracyCase| c.task == case.task && c.protocol == case.protocol;
        let before = cases[..i].iter().filter(same).count();
        match (same_task, cases.iter().filter(same).count()) {
            (1, _) => case.task.to_string(),
            (_, 1) => format!("{}-{}", case.task, case.protocol),
            _ => format!("{}-{}-{}", case.task, case.protocol, before + 1),
        }
    };
    distinct((0..cases.len()).map(name))
}

/// Appends a number to each name that an earlier one has. Benchmarks and protocols may contain `-`, so two pairs of them
/// can make one name.
fn distinct(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut taken: Vec<String> = Vec::new();
    for name in names {
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|name| !taken.contains(name));
        taken.extend(free);
    }
    taken
}

fn folder_name(case: &suite::AccuracyCase) -> String {
    let name = case.dataset.file_name().map(|n| n.to_string_lossy().into_owned());
    name.unwrap_or_else(|| case.dataset.display().to_string())
}

fn accuracy_run<'a>(
    case: &suite::AccuracyCase,
    task: String,
    config: &ModelConfig,
    tokenizer: &'a Tokenizer,
) -> Result<AccuracyRun<'a>, RunError> {
    let protocol = task::find(case.task, case.protocol).expect("invariant: the suite was checked");
    let source = Source::open(case.task, &case.dataset).map_err(task::TaskError::from)?;
    let plan = task::Plan::new(protocol, &source, &case.settings())?;
    let evaluation = Evaluation::new(plan, tokenizer as &dyn TextCodec, config.seq_length)?;
    Ok(AccuracyRun { task, evaluation, batch: case.batch, tp: case.tp })
}

fn performance_runs(
    suite: &Suite,
    config: &ModelConfig,
    tokenizer: Option<&Tokenizer>,
) -> Result<Vec<PerformanceRun>, String> {
    let mut runs: Vec<PerformanceRun> = Vec::new();
    let mut ids = HashSet::new();
    for case in &suite.performance {
        for (shape, prompts) in shapes(case, config, tokenizer)? {
            for &tp in &case.tp_ranks {
                let run = PerformanceRun {
                    shape,
                    prompts: prompts.clone(),
                    tp,
                    unfit: None,
                    repetitions: case.repetitions,
                    warm_up: WarmUpRule { most: case.max_warmups, ..WarmUpRule::default() },
                    seed: case.seed,
                    budget_s: case.budget_s,
                };
                if shape.sequence_tokens() > config.seq_length {
                    return Err(format!(
                        "case {} has sequences of {} tokens, the model's seq_length is {}",
                        run.case_id(),
                        shape.sequence_tokens(),
                        config.seq_length
                    ));
                }
                if !ids.insert(run.case_id()) {
                    return Err(format!("found the case {} twice; expected one", run.case_id()));
                }
                runs.push(run);
            }
        }
    }
    Ok(runs)
}

/// Returns the shapes of a case, by lengths and then batch, with their real prompts if any.
fn shapes(
    case: &suite::PerformanceCase,
    config: &ModelConfig,
    tokenizer: Option<&Tokenizer>,
) -> Result<Vec<(Shape, Option<RealPrompts>)>, String> {
    let mut shapes = Vec::new();
    for &(input_tokens, output_tokens) in &case.lengths {
        match &case.prompts {
            None => {
                let shape = |&batch| (Shape { batch, input_tokens, output_tokens }, None);
                shapes.extend(case.batches.iter().map(shape));
            }
            Some(source) => {
                let real =
                    workload::real_shapes(case, source, config, tokenizer, (input_tokens, output_tokens))?;
                shapes.extend(real.into_iter().map(|(shape, prompts)| (shape, Some(prompts))));
            }
        }
    }
    Ok(shapes)
}

/// Returns the ids from which prompts for timing are drawn. With a tokenizer: ordinary pieces after its prefix ids.
pub fn ordinary_tokens(config: &ModelConfig, tokenizer: Option<&Tokenizer>) -> OrdinaryTokens {
    let mut tokens = OrdinaryTokens::of_vocabulary(config.padded_vocab_size);
    if let Some(tokenizer) = tokenizer {
        tokens.prefix = tokenizer.prefix_ids().to_vec();
        // Special tokens come after the pieces.
        let end = tokens.prefix.iter().copied().min().unwrap_or(tokenizer.vocab_size() as u32);
        tokens.range.end = end.clamp(tokens.range.start + 1, tokens.range.end);
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_of_one_name_are_numbered() {
        let names = |given: &[&str]| distinct(given.iter().map(|name| (*name).to_owned()));
        // Benchmark `a` with protocol `b-c`, and benchmark `a-b` with protocol `c`.
        assert_eq!(names(&["a-b-c", "x", "a-b-c", "a-b-c-2"]), ["a-b-c", "x", "a-b-c-2", "a-b-c-2-2"]);
    }
}
