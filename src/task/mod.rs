//! Protocols: from items to prompts, model calls and [`Outcome`]s, with few-shot prompts and answer extraction. The
//! report counts the outcomes, from the records.
//!
//! A [`Protocol`] is a pure function from an item and its finished stages to the next [`Step`]: ask the model, or
//! judge. So it can be restarted and re-scored, and the caller may mix any items in one batch. [`Plan`] selects the
//! items of a data set. [`Evaluation`] binds a plan to a tokenizer and drives the steps: it turns them into engine
//! requests, and completions into outcomes.

pub mod audit;
mod boolq;
mod ceval;
mod evaluation;
pub mod extract;
pub mod file;
mod outcome;
mod plan;
pub mod program;
#[cfg(test)]
mod toy;

pub use evaluation::{Evaluation, Heard, Next, Progress};
pub use outcome::{Outcome, Stage, State, margin};
pub use plan::{Demonstrations, Draws, Pick, Plan, Settings};

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use glmbench_engine::sampler::RandomSampling;
use glmbench_engine::tokenizer::{Memo, Tokenizer};
use glmbench_sandbox::Language;

use self::program::Trial;
use crate::dataset::{Answer, Benchmark, DatasetError, Item, Subject};

/// Converts text to token ids and back: the part of a tokenizer that scoring needs.
pub trait TextCodec: Sync {
    /// Returns the ids of a text, without prefix ids.
    fn encode(&self, text: &str) -> Vec<u32>;
    /// Returns the ids of a whole prompt, after the model's prefix ids (`[gMASK] sop`).
    fn encode_prompt(&self, text: &str) -> Vec<u32>;
    /// Returns what [`encode_prompt`](Self::encode_prompt) returns, and remembers it for the next prompt that begins alike.
    fn encode_prompt_from(&self, _memo: &mut Memo, text: &str) -> Vec<u32> {
        self.encode_prompt(text)
    }
    /// Returns the text of ids. Special tokens have no text.
    fn decode(&self, ids: &[u32]) -> String;
}

impl TextCodec for Tokenizer {
    fn encode(&self, text: &str) -> Vec<u32> {
        self.encode(text)
    }

    fn encode_prompt(&self, text: &str) -> Vec<u32> {
        self.encode_prompt(text)
    }

    fn encode_prompt_from(&self, memo: &mut Memo, text: &str) -> Vec<u32> {
        [self.prefix_ids(), self.encode_from(memo, text)].concat()
    }

    fn decode(&self, ids: &[u32]) -> String {
        self.decode(ids)
    }
}

/// A codec that remembers its last prompt. For many prompts one after another, such as those of a subject, which share their
/// demonstrations.
struct Remembering<'a> {
    codec: &'a dyn TextCodec,
    memo: Mutex<Memo>,
}

impl TextCodec for Remembering<'_> {
    fn encode(&self, text: &str) -> Vec<u32> {
        self.codec.encode(text)
    }

    fn encode_prompt(&self, text: &str) -> Vec<u32> {
        let mut memo = self.memo.lock().unwrap_or_else(PoisonError::into_inner);
        self.codec.encode_prompt_from(&mut memo, text)
    }

    fn decode(&self, ids: &[u32]) -> String {
        self.codec.decode(ids)
    }
}

/// Why a protocol cannot be run on a data set with a tokenizer.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The data set cannot be read.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The data set lacks what the protocol needs.
    #[error("protocol {protocol}: {message}")]
    Data {
        /// The protocol's name.
        protocol: &'static str,
        /// What is missing and what was expected.
        message: String,
    },
    /// The protocol runs programs that the model writes, and this machine cannot run them safely.
    #[error(
        "protocol {protocol} runs programs that the model writes: {message}; nothing is run; leave the case out, or see docs/SANDBOX.md"
    )]
    Programs {
        /// The protocol's name.
        protocol: &'static str,
        /// What is missing and what to do.
        message: String,
    },
    /// The tokenizer does not give the choices that the protocol scores.
    #[error("protocol {protocol}: {message}; the score would not be comparable, so nothing is run")]
    Choices {
        /// The protocol's name.
        protocol: &'static str,
        /// What was found and what was expected.
        message: String,
    },
}

/// Description of a protocol, for printing.
#[derive(Debug, PartialEq, Eq)]
pub struct Definition {
    /// Name of the protocol, shown with every score.
    pub name: &'static str,
    /// The benchmark of the protocol.
    pub benchmark: &'static Benchmark,
    /// Description in one sentence.
    pub about: &'static str,
    /// Prompt templates by stage, verbatim. `{…}` stands for a field of the item.
    pub prompts: &'static [(&'static str, &'static str)],
    /// Default number of demonstrations; 0 for protocols without demonstrations.
    pub shots: usize,
    /// Default limit of generated tokens; 0 for protocols that generate nothing.
    pub max_new_tokens: usize,
    /// Origin of the choice ids; empty for protocols that read text.
    pub choices: &'static str,
    /// How the answer is extracted.
    pub extraction: &'static str,
    /// The metric.
    pub metric: &'static str,
    /// Source of the protocol.
    pub source: &'static str,
}

/// A choice that is scored by its probability.
#[derive(Debug, Clone, PartialEq)]
pub struct ChoiceToken {
    /// The answer that the token stands for, such as `A` or `yes`.
    pub answer: Answer,
    /// Its token id.
    pub id: u32,
}

/// Everything that a protocol knows about one item.
pub struct Question<'a> {
    /// The item.
    pub item: &'a Item,
    /// Its subject.
    pub subject: &'a Subject,
    /// Demonstrations to show, in order.
    pub shots: &'a [Item],
    /// Maximum number of tokens to generate, for protocols that generate.
    pub max_new_tokens: usize,
    /// How answers are drawn; `None` for the likeliest.
    pub draws: Option<Draws>,
    /// The tokenizer.
    pub codec: &'a dyn TextCodec,
    /// The protocol's choices for this tokenizer.
    pub choices: &'a [ChoiceToken],
    /// Where a protocol that asks about one long text part by part keeps its ids, so that it is cut into tokens once.
    pub whole: &'a OnceLock<Vec<u32>>,
}

/// A question to the model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ask {
    /// The prompt's text.
    pub prompt: String,
    /// The prompt's ids.
    pub prompt_ids: Vec<u32>,
    /// Maximum number of tokens to generate.
    pub max_new_tokens: usize,
    /// How they are drawn; `None` for the likeliest.
    pub sampling: Option<RandomSampling>,
    /// Ids for which to return the log-probability after the prompt.
    pub choice_ids: Vec<u32>,
    /// Place in the prompt from which on its own tokens are scored. The answer is then the sum of their log-probabilities,
    /// as a choice's.
    pub score_from: Option<usize>,
    /// Texts that end the generated text. It may include the one that ended it.
    pub stop: Vec<String>,
}

/// The result that a protocol reads from the stages.
#[derive(Debug, Clone, PartialEq)]
pub enum Judgement {
    /// An answer.
    Answer {
        /// The answer, of the same kind as [`Item::gold`].
        pred: Answer,
        /// Log-probabilities of the choices, if they decided.
        choice_logprobs: Vec<f32>,
        /// The rule that found the answer.
        rule: String,
    },
    /// The model answered, but the protocol finds no answer in it. Holds the reason.
    Unreadable(String),
    /// The item cannot be put to this model. Holds the reason.
    Impossible(String),
}

/// The part of the model output that a judgement needs and a record keeps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Output<'a> {
    /// The generated text.
    pub text: &'a str,
    /// Log-probabilities of the choices.
    pub choice_logprobs: &'a [f32],
}

/// What a protocol judges an output by.
#[derive(Debug, Clone, PartialEq)]
pub enum Evidence {
    /// The generated text.
    Text,
    /// Log-probabilities of these answers, in this order.
    Choices(Vec<Answer>),
    /// The generated text beside something of the item that records do not keep, such as tests or references.
    Item,
}

/// The next step for an item.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Call the model.
    Ask(Ask),
    /// Run programs. Their verdicts finish the item.
    Run(Trial),
    /// Finish the item.
    Judge(Judgement),
}

/// A protocol for putting a benchmark's items to a model.
pub trait Protocol: Sync {
    /// Returns the description of the protocol.
    fn definition(&self) -> &'static Definition;

    /// Returns the choices that the protocol scores by probability, for this tokenizer. Empty for protocols that read
    /// text.
    ///
    /// # Errors
    /// When the tokenizer does not give the tokens that the protocol needs, such as one distinct token per choice.
    fn choices(&self, codec: &dyn TextCodec) -> Result<Vec<ChoiceToken>, TaskError>;

    /// Checks whether the protocol works for items of this subject.
    ///
    /// # Errors
    /// What is missing, as a sentence for [`TaskError::Data`].
    fn accepts(&self, _subject: &Subject) -> Result<(), String> {
        Ok(())
    }

    /// Whether the protocol scores the tokens of prompts ([`Ask::score_from`]).
    fn scores_prompts(&self) -> bool {
        false
    }

    /// Returns the lengths in tokens of the prompts into which the text of an item is cut. Empty for protocols that do not
    /// cut.
    fn windows(&self, _question: &Question<'_>) -> Vec<usize> {
        Vec::new()
    }

    /// Whether items have a right answer. Otherwise only their measures count.
    fn has_key(&self) -> bool {
        true
    }

    /// Whether the protocol runs programs that the model writes ([`Step::Run`]).
    fn runs_programs(&self) -> bool {
        false
    }

    /// Returns the program language of an item. `None` if the protocol has none for it.
    fn language(&self, _item: &Item) -> Option<Language> {
        None
    }

    /// Whether the protocol can show demonstrations.
    fn takes_shots(&self) -> bool {
        self.definition().shots > 0
    }

    /// Returns which demonstrations are shown.
    fn demonstrations(&self) -> Demonstrations {
        Demonstrations::default()
    }

    /// Returns an item's right answer in the form in which the protocol compares answers. `None` without one.
    fn gold(&self, item: &Item) -> Option<Answer> {
        item.gold()
    }

    /// Returns further measures of a finished item, by name; their means stand beside the accuracy.
    fn measures(&self, _question: &Question<'_>, _done: &[Stage]) -> BTreeMap<String, f64> {
        BTreeMap::new()
    }

    /// Returns what the protocol judges an output by.
    fn evidence(&self) -> Evidence;

    /// Returns the name of the last-resort rule, as in [`Judgement::Answer`]. `None` for protocols without a ladder of
    /// rules.
    fn last_rule(&self) -> Option<String> {
        None
    }

    /// Judges an output. A pure function, and the only place where a protocol decides: re-scoring of stored outputs
    /// calls it.
    fn judge(&self, output: Output<'_>) -> Judgement;

    /// Returns the step after the finished stages. A pure function.
    fn step(&self, question: &Question<'_>, done: &[Stage]) -> Step;
}

/// The protocols that are code. A new one is its type and a line here. Those of the task files follow ([`mod@file`]).
static PROTOCOLS: &[&dyn Protocol] = &[
    &ceval::TwoStage,
    &ceval::ModelTestFewShot,
    &ceval::ModelTestZeroShot { is_fixed: false },
    &ceval::ModelTestZeroShot { is_fixed: true },
    &boolq::ModelTest,
    &boolq::LogLikelihood,
    #[cfg(test)]
    &toy::LastNumber,
];

/// Returns all protocols, except those of users' task files.
pub fn protocols() -> &'static [&'static dyn Protocol] {
    static ALL: OnceLock<Vec<&'static dyn Protocol>> = OnceLock::new();
    ALL.get_or_init(|| {
        let of_files = Benchmark::all().iter().flat_map(|benchmark| file::protocols_of(benchmark));
        PROTOCOLS.iter().chain(of_files).copied().collect()
    })
}

/// Returns the protocols of a benchmark.
pub fn protocols_of(benchmark: &'static Benchmark) -> impl Iterator<Item = &'static dyn Protocol> {
    let coded =
        PROTOCOLS.iter().copied().filter(move |protocol| protocol.definition().benchmark == benchmark);
    coded.chain(file::protocols_of(benchmark).iter().copied())
}

/// Returns the protocol called `name` of a benchmark.
pub fn find(benchmark: &'static Benchmark, name: &str) -> Option<&'static dyn Protocol> {
    protocols_of(benchmark).find(|protocol| protocol.definition().name == name)
}

/// Returns the output of a stage.
fn output_of(stage: &Stage) -> Output<'_> {
    Output { text: &stage.text, choice_logprobs: &stage.choice_logprobs }
}

/// Returns the step that ends an item if its content has another form than the protocol asks.
fn wrong_form(expected: &str) -> Step {
    Step::Judge(Judgement::Impossible(format!("found a question of another form; expected {expected}")))
}

/// Returns the words of answers, for messages.
pub fn words(answers: &[Answer]) -> String {
    answers.iter().map(Answer::to_string).collect::<Vec<_>>().join(", ")
}

/// Returns the most probable answer; on ties, the first.
fn most_probable(answers: &[Answer], logprobs: &[f32]) -> Judgement {
    if logprobs.len() != answers.len() || logprobs.iter().any(|logprob| !logprob.is_finite()) {
        return Judgement::Impossible(format!(
            "found the choice log-probabilities {logprobs:?}; expected {} numbers, for {}",
            answers.len(),
            words(answers)
        ));
    }
    let mut best = 0;
    for (i, logprob) in logprobs.iter().enumerate() {
        if *logprob > logprobs[best] {
            best = i;
        }
    }
    Judgement::Answer {
        pred: answers[best].clone(),
        choice_logprobs: logprobs.to_vec(),
        rule: "largest log-probability of the choices".into(),
    }
}

/// Checks that all choices have different tokens.
fn all_different(protocol: &'static str, choices: Vec<ChoiceToken>) -> Result<Vec<ChoiceToken>, TaskError> {
    for (i, a) in choices.iter().enumerate() {
        if let Some(b) = choices[..i].iter().find(|b| b.id == a.id) {
            let message = format!("the tokenizer gives {} and {} the same id {}", b.answer, a.answer, a.id);
            return Err(TaskError::Choices { protocol, message });
        }
    }
    Ok(choices)
}
