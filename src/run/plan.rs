//! What a suite comes to with a model: the cases, what must fit in memory, what decides comparability.

use std::collections::BTreeMap;

use crate::bench::{OrdinaryTokens, Shape, WarmUpRule};
use crate::dataset::Source;
use crate::device::DType;
use crate::engine::cache::blocks_for;
use crate::engine::config::ModelConfig;
use crate::engine::model::Limits;
use crate::engine::tokenizer::Tokenizer;
use crate::record::{self, ChoiceToken, Cost, FirstPrompt};
use crate::suite::{self, Suite};
use crate::task::{self, Evaluation, TextCodec};

pub use super::load::LoadRun;
pub use super::performance::PerformanceRun;
pub use super::questions::RealPrompts;
pub use super::search::SearchRun;
use super::{AccuracyRun, RunError, workload};

/// A suite with a model: all that is known before weights are loaded.
pub struct Plan<'a> {
    /// Precision cases.
    pub accuracy: Vec<AccuracyRun<'a>>,
    /// Shapes to time.
    pub performance: Vec<PerformanceRun>,
    /// Searches for the largest batch.
    pub searches: Vec<SearchRun>,
    /// Loads.
    pub loads: Vec<LoadRun>,
    /// What prompts for timing are drawn from.
    pub tokens: OrdinaryTokens,
    /// What the engine must hold.
    pub limits: Limits,
    /// What it must hold besides the searches, which can do with less.
    pub(super) fixed_limits: Limits,
}

/// Tokens fed in one step at most: a few hundred rows fill the matrix kernels.
const STEP_TOKENS: usize = 512;
/// A second stage repeats the first's prompt and answer and adds some words of its own, cut into tokens anew.
const STAGE_SLACK_TOKENS: usize = 128;
/// A generated token's text can come to several tokens when it is cut anew: names of unused pieces, broken characters.
const RETOKENIZED: usize = 8;

impl<'a> Plan<'a> {
    /// Reads the data sets and makes every first prompt.
    ///
    /// # Errors
    /// Data sets, protocols, tokenizer that do not fit; a shape that the model or device cannot run.
    pub fn new(
        suite: &Suite,
        config: &ModelConfig,
        tokenizer: Option<&'a Tokenizer>,
    ) -> Result<Self, RunError> {
        let refuse = |problem: String| RunError::Suite { suite: suite.path.clone(), problem };
        let mut accuracy = Vec::new();
        if !suite.accuracy.is_empty() {
            let Some(tokenizer) = tokenizer else {
                return Err(refuse(
                    "random weights have no tokenizer, so accuracy cannot be had; give a model folder".into(),
                ));
            };
            for (case, name) in suite.accuracy.iter().zip(case_names(suite)) {
                accuracy.push(accuracy_run(case, name, config, tokenizer)?);
            }
        }
        let performance = performance_runs(suite, config, tokenizer).map_err(refuse)?;
        let searches = workload::searches(suite, config).map_err(refuse)?;
        let loads = workload::loads(suite, config, tokenizer).map_err(refuse)?;
        let fixed_limits = limits(config, &accuracy, &performance, &loads);
        let tokens = ordinary_tokens(config, tokenizer);
        let mut plan =
            Self { accuracy, performance, searches, loads, tokens, limits: fixed_limits, fixed_limits };
        plan.limits = plan.workload_limits(config, fixed_limits);
        Ok(plan)
    }

    /// The numbers of tensor-parallel ranks that the cases need, in the order in which they are run: precision first.
    pub fn worlds(&self) -> Vec<usize> {
        let accuracy = self.accuracy.iter().map(|run| run.tp);
        let mut worlds = Vec::new();
        let timed = self.performance.iter().map(|run| run.tp);
        let searches = self.searches.iter().map(|run| run.tp);
        let loads = self.loads.iter().map(|run| run.tp);
        for tp in accuracy.chain(timed).chain(searches).chain(loads) {
            if !worlds.contains(&tp) {
                worlds.push(tp);
            }
        }
        worlds
    }

    /// The plan as `run.json` keeps it.
    pub fn record(&self, suite: &Suite, config: &ModelConfig, dtype: DType) -> record::Plan {
        let accuracy = self.accuracy.iter().zip(&suite.accuracy).map(|(run, case)| {
            let plan = run.evaluation.plan();
            let dtype = suite::Dtype::from_name(dtype.name()).unwrap_or_default();
            record::AccuracyCase {
                task: run.task.clone(),
                dataset: format!("{} {}", folder_name(case), case.split),
                protocol: plan.protocol.definition().name.to_owned(),
                shots: plan.shots as u32,
                items: run.evaluation.len() as u64,
                available: Some(plan.dataset.items.len() as u64),
                version_hash: run.evaluation.input_hash()[..6].to_owned(),
                chance: Some(chance(case.task)),
                expected: case.expected_for(dtype).map(|e| e.correct as f64 / e.items as f64),
            }
        });
        let performance = self.performance.iter().map(|run| {
            let shape = run.shape;
            let (prefill, decode) = workload::cost(run, config, dtype, self.limits.max_step_tokens);
            let cost = |c: crate::bench::PhaseCost| Some(Cost { bytes: c.bytes, flops: c.flops });
            record::PerformanceCase {
                case_id: run.case_id(),
                tp: run.tp as u32,
                batch: shape.batch as u32,
                input_tokens: run.input_tokens() as u32,
                output_tokens: shape.output_tokens as u32,
                prompts: run.prompts.as_ref().map(RealPrompts::record),
                repetitions: run.repetitions as u32,
                prefill_cost: cost(prefill),
                decode_cost: cost(decode),
            }
        });
        record::Plan {
            accuracy: accuracy.collect(),
            performance: performance.collect(),
            searches: self.searches.iter().map(SearchRun::record).collect(),
            loads: self.loads.iter().map(LoadRun::record).collect(),
        }
    }

    /// The choice tokens of each precision case.
    pub fn choice_tokens(&self) -> BTreeMap<String, Vec<ChoiceToken>> {
        let of = |run: &AccuracyRun<'_>| {
            let tokens = run.evaluation.choices().iter();
            tokens.map(|c| ChoiceToken { text: c.answer.to_owned(), id: c.id }).collect()
        };
        self.accuracy.iter().map(|run| (run.task.clone(), of(run))).collect()
    }

    /// The first prompt of the first precision case.
    pub fn first_prompt(&self) -> Option<FirstPrompt> {
        self.accuracy.first().and_then(first_prompt_of)
    }
}

/// The first prompt of a case.
pub fn first_prompt_of(run: &AccuracyRun<'_>) -> Option<FirstPrompt> {
    let (text, token_ids) = run.evaluation.first_prompt(0)?;
    Some(FirstPrompt {
        task: run.task.clone(),
        doc_id: run.evaluation.plan().item(0).doc_id.clone(),
        text,
        token_ids,
    })
}

/// A name for each precision case: the task; with its protocol where the task comes more than once; with a number behind it
/// where even that does.
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
    (0..cases.len()).map(name).collect()
}

fn folder_name(case: &suite::AccuracyCase) -> String {
    let name = case.dataset.file_name().map(|n| n.to_string_lossy().into_owned());
    name.unwrap_or_else(|| case.dataset.display().to_string())
}

/// Accuracy by guessing.
fn chance(task: crate::dataset::Benchmark) -> f64 {
    match task {
        crate::dataset::Benchmark::CEval => 0.25,
        crate::dataset::Benchmark::BoolQ => 0.5,
    }
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
    for case in &suite.performance {
        for (shape, prompts) in shapes(case, tokenizer)? {
            for &tp in &case.tp_ranks {
                let run = PerformanceRun {
                    shape,
                    prompts: prompts.clone(),
                    tp,
                    repetitions: case.repetitions,
                    warm_up: WarmUpRule { most: case.max_warmups, ..WarmUpRule::default() },
                    seed: case.seed,
                };
                if shape.sequence_tokens() > config.seq_length {
                    return Err(format!(
                        "case {} has sequences of {} tokens, the model's seq_length is {}",
                        run.case_id(),
                        shape.sequence_tokens(),
                        config.seq_length
                    ));
                }
                if runs.iter().any(|other| other.case_id() == run.case_id()) {
                    return Err(format!("case {} comes twice", run.case_id()));
                }
                runs.push(run);
            }
        }
    }
    Ok(runs)
}

/// The shapes of a case, by lengths and then batch, with their real prompts where it has them.
fn shapes(
    case: &suite::PerformanceCase,
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
                let real = workload::real_shapes(case, source, tokenizer, (input_tokens, output_tokens))?;
                shapes.extend(real.into_iter().map(|(shape, prompts)| (shape, Some(prompts))));
            }
        }
    }
    Ok(shapes)
}

/// The ids that prompts for timing are drawn from: with a tokenizer, ordinary pieces behind its prefix ids.
pub fn ordinary_tokens(config: &ModelConfig, tokenizer: Option<&Tokenizer>) -> OrdinaryTokens {
    let mut tokens = OrdinaryTokens::of_vocabulary(config.padded_vocab_size);
    if let Some(tokenizer) = tokenizer {
        tokens.prefix = tokenizer.prefix_ids().to_vec();
        // Specials lie behind the pieces.
        let end = tokens.prefix.iter().copied().min().unwrap_or(tokenizer.vocab_size() as u32);
        tokens.range.end = end.clamp(tokens.range.start + 1, tokens.range.end);
    }
    tokens
}

/// Room for the longest sequence of every case, and for every case's batch.
fn limits(
    config: &ModelConfig,
    accuracy: &[AccuracyRun<'_>],
    performance: &[PerformanceRun],
    loads: &[LoadRun],
) -> Limits {
    let prefix = config.pre_seq_len.unwrap_or(0);
    let mut limits = Limits {
        max_batch: 1,
        max_step_tokens: STEP_TOKENS,
        max_context: 1 + prefix,
        kv_blocks: 1,
        max_logit_rows: 1,
    };
    // Blocks for a batch of usual sequences, and for one of the longest: the others then wait for it.
    let mut grow = |batch: usize, usual: usize, longest: usize| {
        let context = |tokens: usize| tokens.min(config.seq_length) + prefix;
        limits.max_batch = limits.max_batch.max(batch);
        limits.max_context = limits.max_context.max(context(longest));
        let blocks = (batch * blocks_for(context(usual))).max(blocks_for(context(longest)));
        limits.kv_blocks = limits.kv_blocks.max(blocks);
    };
    for run in accuracy {
        let new = run.evaluation.plan().max_new_tokens;
        let prompt = (0..run.evaluation.len())
            .filter_map(|i| run.evaluation.first_prompt(i))
            .map(|(_, ids)| ids.len())
            .max()
            .unwrap_or(1);
        let usual = prompt + prompt / 4 + 2 * new + STAGE_SLACK_TOKENS;
        grow(run.batch, usual, usual + RETOKENIZED * new);
    }
    for run in performance {
        grow(run.shape.batch, run.shape.sequence_tokens(), run.shape.sequence_tokens());
    }
    for run in loads {
        grow(run.max_batch, run.longest(), run.longest());
    }
    limits.max_step_tokens = STEP_TOKENS.max(limits.max_batch);
    limits.max_logit_rows = limits.max_batch;
    limits
}
