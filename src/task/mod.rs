//! Protocols: item → prompts → model calls → [`Outcome`]; few-shot, extraction. Counting is the report's, from the records.
//!
//! A [`Protocol`] is a pure function from an item and the stages done so far to the next [`Step`]: ask the
//! model something, or judge. That makes it restartable and re-scorable, and the caller may mix any items in
//! one batch. [`Plan`] chooses the items of a data set, [`Evaluation`] binds a plan to a tokenizer and drives
//! the steps, turning them into engine requests and what comes back into outcomes.

mod boolq;
mod ceval;
mod evaluation;
pub mod extract;
mod outcome;
mod plan;

pub use evaluation::{Evaluation, Next, Progress};
pub use outcome::{Outcome, Stage, State, margin};
pub use plan::{Plan, Settings};

use crate::dataset::{Benchmark, DatasetError, Item, Subject};
use crate::engine::tokenizer::Tokenizer;

/// Text to token ids and back: all that scoring needs of a tokenizer.
pub trait TextCodec: Sync {
    /// Ids of a text, without prefix ids.
    fn encode(&self, text: &str) -> Vec<u32>;
    /// Ids of a whole prompt, with the model's prefix ids (`[gMASK] sop`) in front.
    fn encode_prompt(&self, text: &str) -> Vec<u32>;
    /// The text of ids; special tokens have none.
    fn decode(&self, ids: &[u32]) -> String;
}

impl TextCodec for Tokenizer {
    fn encode(&self, text: &str) -> Vec<u32> {
        self.encode(text)
    }

    fn encode_prompt(&self, text: &str) -> Vec<u32> {
        self.encode_prompt(text)
    }

    fn decode(&self, ids: &[u32]) -> String {
        self.decode(ids)
    }
}

/// Why a protocol cannot be run on a data set with a tokenizer.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The data set.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The data set lacks what the protocol needs.
    #[error("protocol {protocol}: {message}")]
    Data {
        /// The protocol's name.
        protocol: &'static str,
        /// What is missing, what was expected.
        message: String,
    },
    /// The tokenizer does not give the choices the protocol scores.
    #[error("protocol {protocol}: {message}; the score would not be comparable, so nothing is run")]
    Choices {
        /// The protocol's name.
        protocol: &'static str,
        /// What was found, what was expected.
        message: String,
    },
}

/// What a protocol is, in words that are printed.
#[derive(Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name; stands beside every score.
    pub name: &'static str,
    /// The benchmark it is for.
    pub task: Benchmark,
    /// What it is, in a sentence.
    pub about: &'static str,
    /// Prompt templates by stage, verbatim; `{…}` is filled in from the item.
    pub prompts: &'static [(&'static str, &'static str)],
    /// Demonstrations shown unless the suite says otherwise; 0 for protocols that show none.
    pub shots: usize,
    /// Most tokens generated unless the suite says otherwise; 0 for protocols that generate nothing.
    pub max_new_tokens: usize,
    /// Where the ids of the choices come from; empty for protocols that read text.
    pub choices: &'static str,
    /// How the answer is found.
    pub extraction: &'static str,
    /// What is counted.
    pub metric: &'static str,
    /// Where the protocol comes from.
    pub source: &'static str,
}

/// A choice that is scored by its probability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChoiceToken {
    /// The answer it stands for, such as `A` or `yes`.
    pub answer: &'static str,
    /// Its token id.
    pub id: u32,
}

/// All that a protocol sees of one item.
pub struct Question<'a> {
    /// The item.
    pub item: &'a Item,
    /// Its subject.
    pub subject: &'a Subject,
    /// Demonstrations to show, in order.
    pub shots: &'a [Item],
    /// Most tokens to generate, where the protocol generates.
    pub max_new_tokens: usize,
    /// The tokenizer.
    pub codec: &'a dyn TextCodec,
    /// The protocol's choices for this tokenizer.
    pub choices: &'a [ChoiceToken],
}

/// What to ask the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// The prompt's text.
    pub prompt: String,
    /// The prompt's ids.
    pub prompt_ids: Vec<u32>,
    /// Most tokens to generate, greedily.
    pub max_new_tokens: usize,
    /// Ids whose log-probability after the prompt is wanted.
    pub choice_ids: Vec<u32>,
}

/// What a protocol read from the stages.
#[derive(Debug, Clone, PartialEq)]
pub enum Judgement {
    /// An answer.
    Answer {
        /// The answer, in the words of [`Item::gold`].
        pred: &'static str,
        /// Log-probabilities of the choices, where they decided.
        choice_logprobs: Vec<f32>,
        /// Which rule found the answer.
        rule: String,
    },
    /// The model answered, and no answer can be read from it; the reason.
    Unreadable(String),
    /// The item cannot be put to this model; the reason.
    Impossible(String),
}

/// What the model answered, as far as a judgement needs it, and as far as a record keeps it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer<'a> {
    /// Text generated.
    pub text: &'a str,
    /// Log-probabilities of the choices.
    pub choice_logprobs: &'a [f32],
}

/// What a protocol reads the answer from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The generated text.
    Text,
    /// Log-probabilities of these answers, in this order.
    Choices(&'static [&'static str]),
}

/// What comes next for an item.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A model call.
    Ask(Ask),
    /// The end.
    Judge(Judgement),
}

/// A way of putting a benchmark's items to a model.
pub trait Protocol: Sync {
    /// What it is.
    fn definition(&self) -> &'static Definition;

    /// The choices it scores by probability, for this tokenizer; none for protocols that read text.
    ///
    /// # Errors
    /// When a choice is not one token, or two choices are the same token.
    fn choices(&self, codec: &dyn TextCodec) -> Result<Vec<ChoiceToken>, TaskError>;

    /// Whether it can be put to items of this subject; the error says what is missing.
    ///
    /// # Errors
    /// A sentence for [`TaskError::Data`].
    fn accepts(&self, _subject: &Subject) -> Result<(), String> {
        Ok(())
    }

    /// What it reads the answer from.
    fn evidence(&self) -> Evidence;

    /// The rule that reads an answer where no better one finds any, as [`Judgement::Answer`] names it; `None` for protocols
    /// without a ladder of rules.
    fn last_rule(&self) -> Option<String> {
        None
    }

    /// What an answer means. A pure function, and the only place where a protocol decides so: stored answers are scored
    /// again by it.
    fn judge(&self, answer: Answer<'_>) -> Judgement;

    /// What comes after the stages done so far. A pure function.
    fn step(&self, question: &Question<'_>, done: &[Stage]) -> Step;
}

/// Every protocol there is.
pub fn protocols() -> [&'static dyn Protocol; 5] {
    [
        &ceval::TwoStage,
        &ceval::ModelTestFewShot,
        &ceval::ModelTestZeroShot,
        &boolq::ModelTest,
        &boolq::LogLikelihood,
    ]
}

/// The protocols for one benchmark.
pub fn protocols_of(task: Benchmark) -> impl Iterator<Item = &'static dyn Protocol> {
    protocols().into_iter().filter(move |protocol| protocol.definition().task == task)
}

/// The protocol of that name for that benchmark.
pub fn find(task: Benchmark, name: &str) -> Option<&'static dyn Protocol> {
    protocols_of(task).find(|protocol| protocol.definition().name == name)
}

/// What a stage answered.
fn answer_of(stage: &Stage) -> Answer<'_> {
    Answer { text: &stage.text, choice_logprobs: &stage.choice_logprobs }
}

/// The most probable answer; the first among equals.
fn most_probable(answers: &[&'static str], logprobs: &[f32]) -> Judgement {
    if logprobs.len() != answers.len() || logprobs.iter().any(|logprob| !logprob.is_finite()) {
        return Judgement::Impossible(format!(
            "found the choice log-probabilities {logprobs:?}; expected {} numbers, for {}",
            answers.len(),
            answers.join(", ")
        ));
    }
    let mut best = 0;
    for (i, logprob) in logprobs.iter().enumerate() {
        if *logprob > logprobs[best] {
            best = i;
        }
    }
    Judgement::Answer {
        pred: answers[best],
        choice_logprobs: logprobs.to_vec(),
        rule: "largest log-probability of the choices".into(),
    }
}

/// Checks that no two choices share a token.
fn all_different(protocol: &'static str, choices: Vec<ChoiceToken>) -> Result<Vec<ChoiceToken>, TaskError> {
    for (i, a) in choices.iter().enumerate() {
        if let Some(b) = choices[..i].iter().find(|b| b.id == a.id) {
            let message = format!("the tokenizer gives {} and {} the same id {}", b.answer, a.answer, a.id);
            return Err(TaskError::Choices { protocol, message });
        }
    }
    Ok(choices)
}
