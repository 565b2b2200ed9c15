//! The content of a question, by form.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::answer::{Answer, letter};

/// The content of a question, by form. A protocol takes the form that it can ask, and refuses the others.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A choice of one of several options.
    Choice(Choice),
    /// A yes/no question about a passage.
    YesNo(YesNo),
    /// Named texts with an answer of any kind.
    Fields(Fields),
}

impl Content {
    /// Returns the right answer, or `None` in a split without answers.
    pub fn answer(&self) -> Option<Answer> {
        match self {
            Self::Choice(choice) => choice.answer.map(Answer::Choice),
            Self::YesNo(question) => question.answer.map(Answer::Boolean),
            Self::Fields(fields) => fields.answer.clone(),
        }
    }

    /// Returns the content as a JSON array, independent of the layout. [`Item::doc_hash`](super::Item::doc_hash) is
    /// its hash.
    pub(super) fn canonical(&self) -> String {
        match self {
            Self::Choice(c) => {
                let answer = c.answer.map(|index| Answer::Choice(index).to_string());
                serde_json::json!(["choice", c.question_and_options(), answer])
            }
            Self::YesNo(q) => serde_json::json!(["yes-no", q.title, q.passage, q.question, q.answer]),
            Self::Fields(f) => {
                let answer = f.answer.as_ref().map(Answer::to_string);
                if f.lists.is_empty() {
                    serde_json::json!(["fields", f.texts, answer])
                } else {
                    serde_json::json!(["fields", f.texts, f.lists, answer])
                }
            }
        }
        .to_string()
    }
}

/// A multiple-choice question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The question and its options.
    pub text: ChoiceText,
    /// Index of the right option, if the split has answers.
    pub answer: Option<usize>,
}

/// The two forms of question and options in the releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChoiceText {
    /// Separate (csv).
    Parts {
        /// The question.
        question: String,
        /// The options, from A on.
        options: Vec<String>,
    },
    /// Joined (`inputs_pretokenized` of the jsonl layout).
    Joined(String),
}

impl Choice {
    /// Returns `{question}\nA. {A}\nB. {B}…`, or the joined text as the file has it.
    pub fn question_and_options(&self) -> Cow<'_, str> {
        match &self.text {
            ChoiceText::Parts { question, options } => {
                let mut text = question.clone();
                for (index, option) in options.iter().enumerate() {
                    let _ = match letter(index) {
                        Some(letter) => write!(text, "\n{letter}. {option}"),
                        None => write!(text, "\n{}. {option}", index + 1),
                    };
                }
                text.into()
            }
            ChoiceText::Joined(text) => text.into(),
        }
    }
}

/// A yes/no question about a passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YesNo {
    /// Title of the page that the passage comes from.
    pub title: String,
    /// The passage.
    pub passage: String,
    /// The question, without its question mark.
    pub question: String,
    /// Whether the answer is yes, if the split has answers.
    pub answer: Option<bool>,
}

/// A question of named texts: the form of benchmarks that need no form of their own.
#[derive(Debug, Clone, PartialEq)]
pub struct Fields {
    /// The texts by name, as prompts name them.
    pub texts: BTreeMap<String, String>,
    /// Lists of texts by name, such as the options of a choice.
    pub lists: BTreeMap<String, Vec<String>>,
    /// The right answer, if the split has answers.
    pub answer: Option<Answer>,
}
