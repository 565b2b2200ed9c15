//! Binds a plan to a tokenizer, drives the steps of each item, and checks requests and completions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};

use sha2::{Digest, Sha256};

use glmbench_engine::sampler::Sampling;
use glmbench_engine::{Completion, FinishReason, Request, Stop};
use glmbench_sandbox::Language;

use super::outcome::{self, Outcome, Stage, State};
use super::program::{Ran, Runner};
use super::{Ask, ChoiceToken, Judgement, Plan, Question, Remembering, Step, TaskError, TextCodec};

/// A plan, a tokenizer, and the resulting choices.
pub struct Evaluation<'a> {
    plan: Plan,
    codec: &'a dyn TextCodec,
    seq_length: usize,
    choices: Vec<ChoiceToken>,
    runner: Option<Arc<dyn Runner>>,
    inputs: OnceLock<Inputs>,
}

/// What is known of the first prompts of all items.
struct Inputs {
    hash: String,
    longest: Option<usize>,
}

/// Items that one thread cuts into tokens at a time.
const CHUNK: usize = 1024;

/// Progress of one item.
#[derive(Debug, Clone)]
pub struct Progress {
    index: usize,
    done: Vec<Stage>,
    asked: Option<Ask>,
    whole: OnceLock<Vec<u32>>,
}

/// The next action for an item.
#[derive(Debug)]
pub enum Next {
    /// Send this request to the model, then call [`Evaluation::advance`].
    Ask(Request),
    /// The item is finished.
    Done(Outcome),
}

/// What is known of a completion that came over a wire.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Heard {
    /// The generated text. It replaces the text of the completed ids, which a server may not tell.
    pub text: Option<String>,
    /// Why the completion has no usable answer.
    pub fault: Option<Judgement>,
}

impl<'a> Evaluation<'a> {
    /// Binds `plan` to a tokenizer and a model with `seq_length` positions.
    ///
    /// # Errors
    /// [`TaskError::Choices`] if the tokenizer does not give the choices that the protocol scores.
    pub fn new(plan: Plan, codec: &'a dyn TextCodec, seq_length: usize) -> Result<Self, TaskError> {
        let choices = plan.protocol.choices(codec)?;
        Ok(Self { plan, codec, seq_length, choices, runner: None, inputs: OnceLock::new() })
    }

    /// Returns the same with what runs the programs of a protocol that [has some](super::Protocol::runs_programs). Without it,
    /// items that come to a program fail.
    #[must_use]
    pub fn with_runner(self, runner: Arc<dyn Runner>) -> Self {
        Self { runner: Some(runner), ..self }
    }

    /// Returns the languages of the programs in the items. Empty for protocols that run none.
    pub fn languages(&self) -> BTreeSet<Language> {
        let all = (0..self.len()).filter_map(|index| self.plan.protocol.language(self.plan.item(index)));
        all.collect()
    }

    /// Returns what runs programs.
    pub fn runner(&self) -> Option<&dyn Runner> {
        self.runner.as_deref()
    }

    /// Returns the plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns the choices scored by probability, for the run header. Empty for protocols that read text.
    pub fn choices(&self) -> &[ChoiceToken] {
        &self.choices
    }

    /// Returns the number of items. Their indices are `0..len()`.
    pub fn len(&self) -> usize {
        self.plan.chosen.len()
    }

    /// Returns whether there are no items. A plan always has some.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the first prompt of an item and its ids, or `None` if the item cannot be asked.
    pub fn first_prompt(&self, index: usize) -> Option<(String, Vec<u32>)> {
        self.first_prompt_by(self.codec, index)
    }

    /// Like [`first_prompt`](Self::first_prompt), by a codec that gives the same ids.
    fn first_prompt_by(&self, codec: &dyn TextCodec, index: usize) -> Option<(String, Vec<u32>)> {
        let whole = OnceLock::new();
        match self.plan.protocol.step(&Question { codec, ..self.question(index, &whole) }, &[]) {
            Step::Ask(ask) => Some((ask.prompt, ask.prompt_ids)),
            Step::Run(_) | Step::Judge(_) => None,
        }
    }

    /// Returns the lengths in tokens of the prompts that an item is asked with before anything is known of its answers. They
    /// are the windows of a text, or the first prompt alone. Empty if the item cannot be asked.
    pub fn prompt_lengths(&self, index: usize) -> Vec<usize> {
        let whole = OnceLock::new();
        let windows = self.plan.protocol.windows(&self.question(index, &whole));
        if windows.is_empty() {
            self.first_prompt(index).into_iter().map(|(_, ids)| ids.len()).collect()
        } else {
            windows
        }
    }

    /// Returns the number of tokens in the second prompt of an item after an empty answer to the first. `None` if the protocol
    /// asks once, or several times with the same prompt, or the item cannot be asked.
    pub fn second_prompt_tokens(&self, index: usize) -> Option<usize> {
        if self.plan.draws.is_some() {
            return None;
        }
        let (prompt, prompt_ids) = self.first_prompt(index)?;
        let answered = Stage {
            prompt,
            prompt_ids,
            tokens: Vec::new(),
            text: String::new(),
            choice_logprobs: Vec::new(),
            scored: 0,
            start_ns: 0,
            end_ns: 0,
        };
        match self.plan.protocol.step(&self.question(index, &OnceLock::new()), &[answered]) {
            Step::Ask(ask) => Some(ask.prompt_ids.len()),
            Step::Run(_) | Step::Judge(_) => None,
        }
    }

    /// Returns the SHA-256 over the ids in the first prompt of every item. It depends on data, shots, protocol and tokenizer.
    pub fn input_hash(&self) -> String {
        self.inputs().hash.clone()
    }

    /// Returns the number of tokens of the longest first prompt; `None` if no item can be asked.
    pub fn longest_prompt(&self) -> Option<usize> {
        self.inputs().longest
    }

    /// Cuts all first prompts into tokens once, on all cores: a data set may have a million.
    fn inputs(&self) -> &Inputs {
        self.inputs.get_or_init(|| {
            let of_chunk = |start: usize| {
                let (mut bytes, mut longest) = (Vec::new(), None);
                let codec = Remembering { codec: self.codec, memo: Mutex::default() };
                for index in start..self.len().min(start + CHUNK) {
                    let ids = self.first_prompt_by(&codec, index).map(|(_, ids)| ids);
                    longest = longest.max(ids.as_ref().map(Vec::len));
                    let ids = ids.unwrap_or_default();
                    bytes.extend((ids.len() as u64).to_le_bytes());
                    bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
                }
                (bytes, longest)
            };
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let (mut digest, mut longest) = (Sha256::new(), None);
            for round in (0..self.len()).step_by(CHUNK * threads) {
                let starts = (round..self.len().min(round + CHUNK * threads)).step_by(CHUNK);
                let chunks: Vec<_> = std::thread::scope(|scope| {
                    let all: Vec<_> = starts.map(|start| scope.spawn(move || of_chunk(start))).collect();
                    all.into_iter()
                        .map(|one| one.join().expect("invariant: tokenizing does not panic"))
                        .collect()
                });
                for (bytes, of_chunk) in chunks {
                    digest.update(bytes);
                    longest = longest.max(of_chunk);
                }
            }
            let hash = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            Inputs { hash, longest }
        })
    }

    /// Starts an item and returns its first action.
    pub fn start(&self, index: usize) -> (Progress, Next) {
        let mut progress = Progress { index, done: Vec::new(), asked: None, whole: OnceLock::new() };
        let next = self.next(&mut progress);
        (progress, next)
    }

    /// Returns the text of the prompt that the item waits for, without prefix ids.
    pub fn asked<'p>(&self, progress: &'p Progress) -> &'p str {
        progress.asked.as_ref().map_or("", |ask| &ask.prompt)
    }

    /// Takes the model's completion for this item's last [`Next::Ask`] and returns the next action.
    pub fn advance(&self, progress: &mut Progress, completion: &Completion) -> Next {
        self.advance_heard(progress, completion, Heard::default())
    }

    /// Like [`Evaluation::advance`], for a completion that came over a wire.
    pub fn advance_heard(&self, progress: &mut Progress, completion: &Completion, heard: Heard) -> Next {
        let Some(ask) = progress.asked.take() else {
            return self.fail(
                progress,
                "found a completion of a request that was not made; expected the item's last request".into(),
            );
        };
        let fault = heard.fault.or_else(|| fault(&ask, completion).map(Judgement::Impossible));
        progress.done.push(Stage {
            text: heard.text.unwrap_or_else(|| self.codec.decode(&completion.tokens)),
            prompt: ask.prompt,
            prompt_ids: ask.prompt_ids,
            tokens: completion.tokens.clone(),
            choice_logprobs: logprobs_of(ask.score_from, completion),
            scored: completion.prompt_logprobs.len(),
            start_ns: completion.start_ns,
            end_ns: completion.end_ns,
        });
        match fault {
            Some(judgement) => Next::Done(self.outcome(progress, judgement)),
            None => self.next(progress),
        }
    }

    /// Ends an item after the engine rejected or aborted its request, for the given reason.
    pub fn give_up(&self, progress: &mut Progress, reason: String) -> Outcome {
        self.outcome(progress, Judgement::Impossible(reason))
    }

    fn question<'q>(&'q self, index: usize, whole: &'q OnceLock<Vec<u32>>) -> Question<'q> {
        let item = self.plan.item(index);
        Question {
            item,
            subject: self.plan.subject(index),
            shots: self.plan.demonstrations.get(&item.subject).map_or(&[], Vec::as_slice),
            max_new_tokens: self.plan.max_new_tokens,
            draws: self.plan.draws,
            codec: self.codec,
            choices: &self.choices,
            whole,
        }
    }

    fn next(&self, progress: &mut Progress) -> Next {
        let ask =
            match self.plan.protocol.step(&self.question(progress.index, &progress.whole), &progress.done) {
                Step::Judge(judgement) => return Next::Done(self.outcome(progress, judgement)),
                Step::Run(trial) => {
                    let Some(runner) = &self.runner else {
                        return self.fail(
                            progress,
                            "found nothing that runs its program; expected a sandbox".into(),
                        );
                    };
                    return Next::Done(self.ran(progress, trial.run(&**runner)));
                }
                Step::Ask(ask) => ask,
            };
        let (prompt, new) = (ask.prompt_ids.len(), ask.max_new_tokens);
        if prompt + new > self.seq_length {
            return self.fail(progress, too_long(prompt, new, self.seq_length));
        }
        let request = Request {
            prompt: ask.prompt_ids.clone(),
            max_new_tokens: new,
            sampling: ask.sampling.map_or(Sampling::Greedy, Sampling::Random),
            ignore_eos: false,
            choice_ids: ask.choice_ids.clone(),
            score_from: ask.score_from,
            stop: Stop { texts: ask.stop.clone(), keep: true, ..Stop::default() },
            ..Request::probe()
        };
        progress.asked = Some(ask);
        Next::Ask(request)
    }

    fn fail(&self, progress: &mut Progress, reason: String) -> Next {
        Next::Done(self.outcome(progress, Judgement::Impossible(reason)))
    }

    /// Ends an item after its programs were run.
    fn ran(&self, progress: &mut Progress, ran: Ran) -> Outcome {
        let outcome = self.outcome(progress, ran.judgement);
        Outcome { measures: ran.measures, programs: ran.tried, ..outcome }
    }

    fn outcome(&self, progress: &mut Progress, judgement: Judgement) -> Outcome {
        let item = self.plan.item(progress.index);
        let mut outcome = Outcome {
            doc_id: item.doc_id.clone(),
            doc_hash: item.doc_hash.clone(),
            subject: item.subject.clone(),
            state: State::Scored,
            gold: self.plan.protocol.gold(item).expect("invariant: a plan has only items with answers"),
            pred: None,
            choice_logprobs: Vec::new(),
            margin: None,
            rule: String::new(),
            measures: BTreeMap::new(),
            programs: Vec::new(),
            stages: std::mem::take(&mut progress.done),
        };
        match judgement {
            Judgement::Answer { pred, choice_logprobs, rule } => {
                outcome.pred = Some(pred).filter(|_| self.plan.protocol.has_key());
                outcome.margin = outcome::margin(&choice_logprobs);
                outcome.choice_logprobs = choice_logprobs;
                outcome.rule = rule;
                outcome.measures = self
                    .plan
                    .protocol
                    .measures(&self.question(progress.index, &progress.whole), &outcome.stages);
            }
            Judgement::Unreadable(reason) => outcome.state = State::Unscorable(reason),
            Judgement::Impossible(reason) => {
                // Keeps the model's last log-probabilities for the record, as they often are the reason.
                outcome.choice_logprobs =
                    outcome.stages.last().map(|stage| stage.choice_logprobs.clone()).unwrap_or_default();
                outcome.state = State::Failed(reason);
            }
        }
        outcome
    }
}

/// Returns the log-probabilities of the choices, or their sum over the prompt's scored tokens.
fn logprobs_of(score_from: Option<usize>, completion: &Completion) -> Vec<f32> {
    if score_from.is_none() {
        return completion.choice_logprobs.clone();
    }
    let sum: f64 = completion.prompt_logprobs.iter().map(|logprob| f64::from(*logprob)).sum();
    vec![sum as f32]
}

/// Returns the reason why a prompt with too many positions fails its item. Truncation would change the question.
fn too_long(prompt: usize, new: usize, seq_length: usize) -> String {
    match new {
        0 => format!(
            "the prompt has {prompt} tokens; expected at most {seq_length}, the model's seq_length (nothing is cut off)"
        ),
        _ => format!(
            "the prompt has {prompt} tokens and up to {new} are generated; expected at most {seq_length} together, the model's seq_length. Nothing is cut off. The suite can lower max_new_tokens"
        ),
    }
}

/// Returns a technical fault of a completion, whatever its content.
fn fault(ask: &Ask, completion: &Completion) -> Option<String> {
    if let FinishReason::BrokenLogits(place) = completion.finish {
        return Some(match completion.tokens.len() {
            0 => place.to_string(),
            1 => format!("{place}, after 1 new token"),
            after => format!("{place}, after {after} new tokens"),
        });
    }
    let (found, asked) = match ask.score_from {
        Some(from) => (completion.prompt_logprobs.len(), ask.prompt_ids.len() - from),
        None => (completion.choice_logprobs.len(), ask.choice_ids.len()),
    };
    if found != asked {
        let of = if ask.score_from.is_some() {
            "log-probabilities of the prompt"
        } else {
            "choice log-probabilities"
        };
        return Some(format!("the model gave {found} {of}; expected {asked}"));
    }
    if let Some(from) = ask.score_from
        && let Some(index) = completion.prompt_logprobs.iter().position(|logprob| !logprob.is_finite())
    {
        return Some(format!(
            "the log-probability of token {} at place {} of the prompt is {}; expected a number (the model's output is degenerate)",
            ask.prompt_ids[from + index],
            from + index,
            completion.prompt_logprobs[index]
        ));
    }
    let index = completion.choice_logprobs.iter().position(|logprob| !logprob.is_finite())?;
    Some(format!(
        "the log-probability of token {} is {}; expected a number (the model's output is degenerate)",
        ask.choice_ids[index], completion.choice_logprobs[index]
    ))
}
