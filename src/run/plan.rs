//! The plan of a suite with a model: its cases, what must fit into memory, and what decides comparability.

use std::collections::{BTreeMap, BTreeSet};

use glmbench_device::Precision;

use glmbench_engine::config::ModelConfig;
use glmbench_engine::tokenizer::Tokenizer;

use crate::backend::Capabilities;
use crate::bench::OrdinaryTokens;
use crate::dataset::Source;
use crate::record::{self, ChoiceToken, FirstPrompt, PlannedItem};
use crate::suite::{self, Suite};
use crate::task::{self, Evaluation, TextCodec};

use super::accuracy::AccuracyRun;
pub use super::cases::{Case, Plan, Room};
use super::cases::{Planning, Recording};
use super::error::RunError;
use super::published::published;
pub use super::questions::RealPrompts;
use super::requests::{CaseWanted, of_items};
use super::roofline;
pub use crate::workload::load::run::LoadRun;
pub use crate::workload::max_batch::run::SearchRun;
pub use crate::workload::parity::run::ParityRun;
pub use crate::workload::shapes::run::PerformanceRun;

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
        let mut plan = Self::empty(ordinary_tokens(config, tokenizer), step_tokens);
        plan.accuracy = accuracy;
        plan.plan_timed(suite, Planning { config, tokenizer }).map_err(refuse)?;
        plan.capacities = plan.tp_sizes().into_iter().map(|tp| (tp, plan.largest(config, tp))).collect();
        Ok(plan)
    }

    /// Returns the maximum number of tokens per step.
    pub(super) fn step_tokens(&self) -> usize {
        self.step_tokens
    }

    /// Returns the numbers of tensor-parallel ranks that the cases need, in the order in which they run: accuracy
    /// first.
    pub fn tp_sizes(&self) -> Vec<usize> {
        let accuracy = self.accuracy.iter().filter(|run| !run.own.is_empty());
        let mut tp_sizes: Vec<usize> = accuracy.map(|run| run.tp).collect();
        tp_sizes.extend(self.timed().iter().filter(|case| case.unfit().is_none()).map(|case| case.tp()));
        let mut seen = BTreeSet::new();
        tp_sizes.retain(|tp| seen.insert(*tp));
        tp_sizes
    }

    /// Returns the number of ranks that the first case needs. A shard without cases has that of its plan.
    pub(super) fn first_tp(&self) -> usize {
        let first = self.tp_sizes().first().copied();
        first.or_else(|| self.capacities.keys().next().copied()).unwrap_or(1)
    }

    /// Returns the number of cases that run.
    pub fn cases(&self) -> usize {
        self.accuracy.iter().filter(|run| !run.own.is_empty()).count()
            + self.timed().iter().filter(|case| case.unfit().is_none()).count()
    }

    /// Returns what each case costs on a server at most. A question for choices needs up to `for_choices` requests.
    pub fn wanted(&self, for_choices: u64) -> Vec<CaseWanted> {
        let of_task = |run: &AccuracyRun<'_>| CaseWanted {
            case: run.task.clone(),
            wanted: of_items(run, &run.own, for_choices),
        };
        let timed = self.timed().into_iter().filter(|case| case.unfit().is_none());
        let timed = timed.filter_map(|case| Some(CaseWanted { case: case.id(), wanted: case.wanted()? }));
        self.accuracy.iter().map(of_task).chain(timed).collect()
    }

    /// Returns the name of a case that has more than `most` requests under way at once on a server, and their number.
    pub fn more_at_once_than(&self, most: usize) -> Option<(String, usize)> {
        let accuracy = self.accuracy.iter().map(|run| (run.task.clone(), run.batch));
        let timed = self.timed().into_iter().filter(|case| case.unfit().is_none());
        accuracy.chain(timed.map(|case| (case.id(), case.at_once()))).find(|(_, count)| *count > most)
    }

    /// Returns the plan as kept in `run.json`.
    pub fn record(&self, suite: &Suite, config: &ModelConfig, precision: Precision) -> record::Plan {
        let accuracy = self.accuracy.iter().zip(&suite.accuracy).map(|(run, case)| {
            let plan = run.evaluation.plan();
            let published = published(case, plan, run.own.len(), config, precision);
            record::AccuracyCase {
                task: run.task.clone(),
                benchmark: case.task.name.to_owned(),
                dataset: format!("{} {}", folder_name(case), case.split),
                protocol: plan.protocol.definition().name.to_owned(),
                shots: plan.shots as u32,
                tp: run.tp as u32,
                items: run.own.len() as u64,
                items_hash: Some(record::items_hash(run.items())),
                available: Some(plan.dataset.items.len() as u64),
                version_hash: run.evaluation.input_hash()[..6].to_owned(),
                chance: case.task.chance,
                expected: published.as_ref().map(|of| of.correct as f64 / of.items as f64),
                published,
                max_failed: case.max_failed,
                generates: Some(plan.max_new_tokens > 0),
                last_rule: plan.protocol.last_rule(),
                keyless: !plan.protocol.has_key(),
                task_file: case.task.file.map(|file| record::TaskFileRecord {
                    sha256: file.sha256.clone(),
                    text: file.text.clone(),
                }),
            }
        });
        let mut plan = record::Plan {
            // A shard may have no item of a task.
            accuracy: accuracy.filter(|case| case.items > 0).collect(),
            targets: roofline::targets(suite, precision),
            ..record::Plan::default()
        };
        self.record_timed(&mut plan, Recording { config, precision, plan: self });
        plan
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

    /// Returns what the plan needs beyond a backend's capabilities; `None` if it needs nothing more.
    pub fn beyond(&self, can: Capabilities) -> Option<String> {
        let scored = || self.accuracy.iter().find(|case| !case.evaluation.choices().is_empty());
        if !can.choice_logprobs
            && let Some(case) = scored()
        {
            return Some(format!(
                "task {} compares log-probabilities of choices, which it does not return; a protocol that generates text would do",
                case.task
            ));
        }
        let scored = || self.accuracy.iter().find(|case| case.evaluation.plan().protocol.scores_prompts());
        if !can.prompt_logprobs
            && let Some(case) = scored()
        {
            return Some(format!(
                "task {} compares continuations by the log-probabilities of a prompt's tokens, which it does not return; a \
                 protocol that generates text would do",
                case.task
            ));
        }
        let timed = self.timed();
        let need =
            |what: fn(Capabilities) -> bool| !what(can) && timed.iter().any(|case| what(case.needs(can)));
        if need(|has| has.ignores_end) {
            return Some(
                "timed cases generate a fixed number of tokens, and it ends at the end-of-sequence token"
                    .into(),
            );
        }
        if need(|has| has.step_times) {
            return Some(
                "it reports no times of steps, so prefill and decode cannot be told apart; [[load]] would do"
                    .into(),
            );
        }
        if need(|has| has.memory) {
            return Some("it does not know its memory, which [[max_batch]] needs; [[load]] would do".into());
        }
        need(|has| has.logits).then(|| {
            "it returns no logits, which [[parity]] compares; this program's own engine would do".into()
        })
    }

    /// Returns the items of all accuracy cases, in the order in which they run.
    pub fn items(&self) -> Vec<PlannedItem<'_>> {
        let mut all = Vec::new();
        for tp in self.tp_sizes() {
            for case in self.accuracy.iter().filter(|case| case.tp == tp) {
                let item = |(doc_id, doc_hash)| PlannedItem { task: &case.task, doc_id, doc_hash };
                all.extend(case.items().map(item));
            }
        }
        all
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
    let evaluation = ready(Evaluation::new(plan, tokenizer as &dyn TextCodec, config.seq_length)?)?;
    Ok(AccuracyRun::new(task, evaluation, case.batch, case.tp))
}

/// Gives an evaluation what runs its programs, if its protocol has some. Sandbox, compilers and interpreters are tried.
pub(super) fn ready(evaluation: Evaluation<'_>) -> Result<Evaluation<'_>, task::TaskError> {
    let protocol = evaluation.plan().protocol;
    if !protocol.runs_programs() {
        return Ok(evaluation);
    }
    match task::program::sandboxed(&evaluation.languages()) {
        Ok(runner) => Ok(evaluation.with_runner(runner)),
        Err(message) => Err(task::TaskError::Programs { protocol: protocol.definition().name, message }),
    }
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
