//! Renders the prompts of an item, stage by stage, and reads the finished stages.

use std::collections::BTreeMap;

use glmbench_engine::chat;
use glmbench_metrics::count_words;
use minijinja::value::Value;

use super::judged::{PROGRAM, Run};
use super::measure::Scores;
use super::parse::{DEMONSTRATION, DEMONSTRATION_ANSWER, HEADER, Spec, UNCONDITIONAL, cut};
use super::score::Score;
use super::stage::{Continuations, Likelihood, Scored, StageKind, StageSpec};
use super::windows::Windows;
use crate::dataset::{Answer, Content, Fields, Item};
use crate::task::program::{Attempt, Trial};
use crate::task::{Ask, Question, Stage};

/// An item on its way through the stages of a protocol.
pub(super) struct Stages<'a> {
    spec: &'a Spec,
    question: &'a Question<'a>,
}

impl<'a> Stages<'a> {
    pub(super) fn new(spec: &'a Spec, question: &'a Question<'a>) -> Self {
        Self { spec, question }
    }

    /// Returns what to ask after the finished stages; `None` after the last.
    ///
    /// # Errors
    /// Why the item cannot be asked.
    pub(super) fn next(&self, done: &[Stage]) -> Result<Option<Ask>, String> {
        let mut left = done;
        let mut texts: Vec<String> = Vec::new();
        for (index, stage) in self.spec.stages.iter().enumerate() {
            let calls = self.calls(stage)?;
            if left.len() < calls {
                let context = self.context(self.question.item, &texts)?;
                return self.ask(stage, index, &context, left.len()).map(Some);
            }
            if let StageKind::Generate { stop, .. } = &stage.kind {
                texts.extend(left[..calls].iter().map(|one| cut(&one.text, stop).to_owned()));
            }
            left = &left[calls..];
        }
        Ok(None)
    }

    /// Returns the number of questions to the model that a stage takes.
    fn calls(&self, stage: &StageSpec) -> Result<usize, String> {
        Ok(match &stage.kind {
            StageKind::Continuations(of) => self.options()?.len() * if of.unconditional { 2 } else { 1 },
            StageKind::Likelihood(of) => self.windows(stage, of)?.count(),
            // Several samples are drawn from the prompt with the programs, which is the last.
            StageKind::Generate { .. } if self.is_last(stage) => self.samples(),
            _ => 1,
        })
    }

    fn is_last(&self, stage: &StageSpec) -> bool {
        self.spec.stages.last().is_some_and(|last| std::ptr::eq(last, stage))
    }

    /// Returns the number of answers that the last stage generates.
    fn samples(&self) -> usize {
        self.question.draws.map_or(1, |draws| draws.samples)
    }

    /// Returns the programs in the answers of the last stage.
    pub(super) fn trial(&self, run: &Run, done: &[Stage]) -> Result<Trial, String> {
        let own = done.len().checked_sub(self.samples()).map_or(&[][..], |first| &done[first..]);
        let context = self.context(self.question.item, &[])?;
        let subject = Some(self.question.item.subject.as_str());
        let attempt = |stage: &Stage| {
            let Some((code, rule)) = self.spec.read(&stage.text, subject) else {
                return Ok(Attempt::Unreadable(self.spec.unreadable()));
            };
            let code = code.to_string();
            let more = BTreeMap::from([("completion", Value::from(code.as_str()))]);
            let text = self.spec.templates.render(PROGRAM, &merged(&context, more))?;
            Ok(Attempt::Program { code, rule, text })
        };
        let attempts = own.iter().map(attempt).collect::<Result<_, String>>()?;
        let language = run.language(&self.question.item.subject).ok_or_else(|| {
            format!(
                "the subject {:?} has no entry in `language` of [protocol.run]",
                self.question.item.subject
            )
        })?;
        Ok(Trial { language, attempts, timeout: run.timeout, pass_at: run.pass_at.clone() })
    }

    /// Scores the last stage's text against the item.
    pub(super) fn score(&self, score: &Score, done: &[Stage]) -> Result<BTreeMap<String, f64>, String> {
        let text = done.last().map_or("", |last| last.text.as_str());
        let read = self.spec.read(text, None).map(|(answer, _)| answer.to_string());
        score.of(fields(self.question.item)?, &read.unwrap_or_default())
    }

    /// Returns the item's options.
    fn options(&self) -> Result<&'a [String], String> {
        let options = fields(self.question.item)?.lists.get("options").map_or(&[][..], Vec::as_slice);
        if options.is_empty() {
            Err("the item has no options; expected some to compare".into())
        } else {
            Ok(options)
        }
    }

    fn ask(&self, stage: &StageSpec, index: usize, context: &Value, call: usize) -> Result<Ask, String> {
        let codec = self.question.codec;
        let of_prompt = |prompt: String| {
            let prompt_ids = codec.encode_prompt(&prompt);
            Ask { prompt, prompt_ids, ..Ask::default() }
        };
        Ok(match &stage.kind {
            StageKind::Generate { max_new_tokens, limit_field, stop } => Ask {
                // The suite's limit is that of the first stage that generates.
                max_new_tokens: self.own_limit(limit_field.as_deref())?.min(if self.is_first_text(index) {
                    self.question.max_new_tokens
                } else {
                    *max_new_tokens
                }),
                sampling: self
                    .question
                    .draws
                    .filter(|_| self.is_last(stage))
                    .map(|draws| draws.sampling(&self.question.item.doc_id, call)),
                stop: stop.clone(),
                ..of_prompt(self.prompt(stage, context)?)
            },
            StageKind::Likelihood(of) => {
                let (prompt_ids, scored) = self.windows(stage, of)?.at(call);
                let is_whole = call == 0 && of.scored == Scored::All;
                let prompt = if is_whole { self.prompt(stage, context)? } else { codec.decode(&prompt_ids) };
                Ask { score_from: Some(prompt_ids.len() - scored), prompt, prompt_ids, ..Ask::default() }
            }
            StageKind::Tokens(_) => Ask {
                choice_ids: self.question.choices.iter().map(|choice| choice.id).collect(),
                ..of_prompt(self.prompt(stage, context)?)
            },
            StageKind::Continuations(of) => {
                let options = self.options()?.len();
                let prompt = if call < options {
                    self.prompt(stage, context)?
                } else {
                    self.spec.templates.render(UNCONDITIONAL, context)?
                };
                let place = self.place(&prompt, of, context, call % options)?;
                let from =
                    (place.context + of.skip).min(place.ids.len().saturating_sub(1)).max(place.context);
                Ask { prompt: place.text, prompt_ids: place.ids, score_from: Some(from), ..Ask::default() }
            }
        })
    }

    /// Returns the item's own limit of new tokens; the largest number if it has none.
    fn own_limit(&self, field: Option<&str>) -> Result<usize, String> {
        let Some(field) = field else { return Ok(usize::MAX) };
        let text = fields(self.question.item)?.texts.get(field).map_or("", String::as_str);
        let limit = text.parse().ok().filter(|limit| *limit > 0);
        limit.ok_or_else(|| format!("found {text:?} for `{field}`; expected a number of tokens, at least 1"))
    }

    /// Whether the stage is the first that generates.
    fn is_first_text(&self, index: usize) -> bool {
        self.spec.stages.iter().position(|stage| matches!(stage.kind, StageKind::Generate { .. }))
            == Some(index)
    }

    /// Cuts a text into windows.
    fn windows(&self, stage: &StageSpec, of: &Likelihood) -> Result<Windows<'a>, String> {
        let codec = self.question.codec;
        let whole = if let Some(whole) = self.question.whole.get() {
            whole
        } else {
            let context = self.context(self.question.item, &[])?;
            let text = self.prompt(stage, &context)?;
            self.question.whole.get_or_init(|| codec.encode_prompt(&text))
        };
        let prefix = codec.encode_prompt("").len();
        Windows::new(whole, prefix, of)
    }

    /// Returns the window lengths of a text in tokens. Empty if the text cannot be cut, or is not scored itself.
    pub(super) fn window_lengths(&self) -> Vec<usize> {
        let stage = self.spec.stages.last();
        let Some((stage, StageKind::Likelihood(of))) = stage.map(|stage| (stage, &stage.kind)) else {
            return Vec::new();
        };
        let windows = self.windows(stage, of);
        windows
            .map(|windows| (0..windows.count()).map(|index| windows.at(index).0.len()).collect())
            .unwrap_or_default()
    }

    /// Returns the log-likelihood sums of a text, after the last stage: the measures from which perplexities follow. Words and
    /// bytes are counted where all tokens are scored.
    pub(super) fn likelihood(&self, done: &[Stage]) -> Result<BTreeMap<String, f64>, String> {
        let text = fields(self.question.item)?.texts.get("text").ok_or("the item has no field `text`")?;
        let sum: f64 = done.iter().flat_map(|stage| &stage.choice_logprobs).map(|sum| f64::from(*sum)).sum();
        let tokens: usize = done.iter().map(|stage| stage.scored).sum();
        let mut measures = vec![("loglikelihood", sum), ("tokens", tokens as f64)];
        if self.spec.scores_all_tokens() {
            measures.extend([("words", count_words(text) as f64), ("bytes", text.len() as f64)]);
        }
        Ok(measures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// Appends continuation `index` to a prompt.
    fn place(
        &self,
        prompt: &str,
        of: &Continuations,
        context: &Value,
        index: usize,
    ) -> Result<Placed, String> {
        let option = &self.options()?[index];
        let more = BTreeMap::from([("option", Value::from(option.as_str())), ("index", Value::from(index))]);
        let continuation = self.spec.templates.render(&of.template, &merged(context, more))?;
        let codec = self.question.codec;
        // Blanks at the prompt's end belong to the continuation's first token, as in lm-evaluation-harness.
        let bare = prompt.trim_end();
        let before = codec.encode_prompt(bare).len();
        let text = format!("{prompt}{continuation}");
        let ids = codec.encode_prompt(&text);
        if before == 0 || ids.len() <= before {
            return Err(format!(
                "continuation {} is no token of its own after the prompt: {} ids with it, {before} without",
                index + 1,
                ids.len()
            ));
        }
        Ok(Placed { text, ids, context: before })
    }

    /// Returns the log-likelihoods of the continuations, after the last stage.
    pub(super) fn scores(&self, done: &[Stage]) -> Result<Scores, String> {
        let Some(of) = self.spec.continuations() else {
            return Err("the protocol compares no continuations".into());
        };
        let options = self.options()?;
        let calls = options.len() * if of.unconditional { 2 } else { 1 };
        let Some(own) = done.len().checked_sub(calls).map(|first| &done[first..]) else {
            return Err(format!("found {} answers of the model; expected {calls}", done.len()));
        };
        let sums: Vec<f32> = own.iter().filter_map(|stage| stage.choice_logprobs.first().copied()).collect();
        if sums.len() != calls {
            return Err(format!("found {} log-likelihoods; expected {calls}", sums.len()));
        }
        let item = fields(self.question.item)?;
        let labels = item.lists.get("labels").map_or(&[][..], Vec::as_slice);
        let gold = match item.answer {
            Some(Answer::Choice(index)) => Some(index),
            _ => None,
        };
        // Records name an answer by its place among the options that compete.
        let out = |index: usize| labels.get(index).is_some_and(|label| label_of(label) != Some(false));
        if let Some(index) = (0..gold.unwrap_or(0)).find(|&index| out(index)) {
            return Err(format!(
                "option {} does not compete (`labels`) and stands before the answer; expected such options after it",
                index + 1
            ));
        }
        Ok(Scores {
            sums: sums[..options.len()].to_vec(),
            unconditional: sums[options.len()..].to_vec(),
            options: options.to_vec(),
            tokens: own.iter().map(|stage| stage.scored).collect(),
            gold,
            labels: labels.iter().map(|label| label_of(label)).collect(),
        })
    }

    /// Renders a stage's whole prompt: header, demonstrations, question.
    fn prompt(&self, stage: &StageSpec, context: &Value) -> Result<String, String> {
        let Spec { templates, chat, turns, has_header, .. } = self.spec;
        let header = if *has_header { templates.render(HEADER, context)? } else { String::new() };
        let question = templates.render(&stage.prompt, context)?;
        let mut history = Vec::new();
        let mut shown = String::new();
        for shot in self.question.shots {
            let context = self.context(shot, &[])?;
            let text = templates.render(DEMONSTRATION, &context)?;
            if *turns {
                history.push((text, templates.render(DEMONSTRATION_ANSWER, &context)?));
            } else {
                shown += &text;
            }
        }
        let mut text = format!("{header}{shown}{question}");
        if let Some(most) = stage.keep_ends {
            let around = |name: &Option<String>| match name {
                Some(name) => templates.render(name, context),
                None => Ok(String::new()),
            };
            text = format!("{}{}{}", around(&stage.before)?, self.ends_of(text, most), around(&stage.after)?);
        }
        Ok(if *chat { chat::build_prompt(&history, &text) } else { text })
    }

    /// Returns the two halves of `most` tokens at the ends of a longer prompt, as LongBench cuts it. Special tokens count, and
    /// the halves are decoded and joined.
    fn ends_of(&self, text: String, most: usize) -> String {
        let codec = self.question.codec;
        let ids = codec.encode_prompt(&text);
        if ids.len() <= most {
            return text;
        }
        let half = most / 2;
        codec.decode(&ids[..half]) + &codec.decode(&ids[ids.len() - half..])
    }

    /// Returns the names that a template may use for `item`.
    fn context(&self, item: &Item, texts: &[String]) -> Result<Value, String> {
        let Fields { texts: fields, lists, answer } = fields(item)?;
        let mut names: BTreeMap<&str, Value> =
            fields.iter().map(|(name, text)| (name.as_str(), Value::from(text.as_str()))).collect();
        names.extend(lists.iter().map(|(name, list)| (name.as_str(), Value::from(list.clone()))));
        if let Some(answer) = answer {
            names.insert("answer", Value::from(answer.to_string()));
        }
        names.insert("subject", Value::from(item.subject.as_str()));
        if let Some(name) = &self.question.subject.chinese_name {
            names.insert("chinese_name", Value::from(name.as_str()));
        }
        names.insert("texts", Value::from(texts.to_vec()));
        Ok(Value::from(names))
    }
}

/// A prompt with a continuation.
struct Placed {
    text: String,
    ids: Vec<u32>,
    /// Number of ids of the prompt alone.
    context: usize,
}

fn fields(item: &Item) -> Result<&Fields, String> {
    match &item.content {
        Content::Fields(fields) => Ok(fields),
        _ => Err("found a question of another form; expected one of named texts".into()),
    }
}

/// Reads an entry of `labels`: `1` for a right option, `0` for a wrong one, anything else for neither.
fn label_of(label: &str) -> Option<bool> {
    match label {
        "1" => Some(true),
        "0" => Some(false),
        _ => None,
    }
}

/// Returns `context` with more names.
fn merged(context: &Value, more: BTreeMap<&str, Value>) -> Value {
    let mut names: BTreeMap<String, Value> = BTreeMap::new();
    if let Ok(keys) = context.try_iter() {
        for key in keys {
            if let Ok(value) = context.get_item(&key) {
                names.insert(key.to_string(), value);
            }
        }
    }
    names.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
    Value::from(names)
}
