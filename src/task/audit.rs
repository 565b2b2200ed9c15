//! Looks through a data set and a protocol before any model does: `glmbench check TASK.toml DATA`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use glmbench_engine::{Completion, FinishReason};
use glmbench_sandbox::{Language, Verdict};

use super::program::Runner;
use super::{Evaluation, Next, State};

/// Runs nothing: an audit renders programs, and the model has written none.
struct Unrun;

impl Runner for Unrun {
    fn run(&self, _language: Language, _program: &str, _timeout: Duration) -> Result<Verdict, String> {
        Ok(Verdict::Failed("not run".into()))
    }

    fn interpreter(&self) -> String {
        "none".into()
    }
}

/// Most prompts of an item that are rendered. A corpus in one text has thousands of windows.
const MOST_CALLS: usize = 1_000_000;

/// What was found in the items of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// Number of items.
    pub items: usize,
    /// Items by subject.
    pub subjects: BTreeMap<String, usize>,
    /// Items by right answer. Answers that are texts or numbers are often all different.
    pub answers: BTreeMap<String, usize>,
    /// Items with the content of an earlier one: both names.
    pub duplicates: Vec<(String, String)>,
    /// Items with the same question as a demonstration shown with them: both names.
    pub leaks: Vec<(String, String)>,
    /// Items that cannot be put to the model, with the reason: a template that does not render, a prompt over length.
    pub refused: Vec<(String, String)>,
    /// Tokens of the longest prompt.
    pub longest_prompt: usize,
    /// Calls of the model, if every answer were empty.
    pub calls: usize,
}

impl Audit {
    /// Renders every prompt of every item, with empty answers of the model. Programs are made and not run.
    pub fn of(evaluation: Evaluation<'_>) -> Self {
        let evaluation = &evaluation.with_runner(Arc::new(Unrun));
        let plan = evaluation.plan();
        let benchmark = plan.dataset.benchmark;
        let mut audit = Self { items: evaluation.len(), ..Self::default() };
        let mut seen: HashMap<&str, &str> = HashMap::new();
        for index in 0..evaluation.len() {
            let item = plan.item(index);
            *audit.subjects.entry(item.subject.clone()).or_default() += 1;
            if let Some(gold) = plan.protocol.gold(item) {
                *audit.answers.entry(gold.to_string()).or_default() += 1;
            }
            match seen.get(item.doc_hash.as_str()) {
                Some(first) => audit.duplicates.push((item.doc_id.clone(), (*first).to_owned())),
                None => {
                    seen.insert(&item.doc_hash, &item.doc_id);
                }
            }
            let question = benchmark.question_of(item);
            let shown = plan.demonstrations.get(&item.subject).map_or(&[][..], Vec::as_slice);
            if let Some(shot) =
                shown.iter().find(|shot| benchmark.question_of(shot).trim() == question.trim())
            {
                audit.leaks.push((item.doc_id.clone(), shot.doc_id.clone()));
            }
            if let Some(reason) = audit.render(evaluation, index) {
                audit.refused.push((item.doc_id.clone(), reason));
            }
        }
        audit
    }

    /// Drives an item to its end. Returns why it cannot be asked.
    fn render(&mut self, evaluation: &Evaluation<'_>, index: usize) -> Option<String> {
        let (mut progress, mut next) = evaluation.start(index);
        for _ in 0..MOST_CALLS {
            let request = match next {
                Next::Done(outcome) => {
                    return match outcome.state {
                        State::Failed(reason) => Some(reason),
                        State::Scored | State::Unscorable(_) => None,
                    };
                }
                Next::Ask(request) => request,
            };
            self.calls += 1;
            self.longest_prompt = self.longest_prompt.max(request.prompt.len());
            let scored = request.score_from.map_or(0, |from| request.prompt.len() - from);
            let completion = Completion {
                id: 0,
                tokens: Vec::new(),
                text: None,
                choice_logprobs: vec![-1.0; request.choice_ids.len()],
                prompt_logprobs: vec![-1.0; scored],
                finish: FinishReason::Eos,
                start_ns: 0,
                end_ns: 0,
            };
            next = evaluation.advance(&mut progress, &completion);
        }
        Some(format!("the protocol asks more than {MOST_CALLS} times"))
    }

    /// Whether something is wrong that a run would suffer from.
    pub fn has_faults(&self) -> bool {
        !self.refused.is_empty() || !self.leaks.is_empty()
    }
}
