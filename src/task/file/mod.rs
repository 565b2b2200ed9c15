//! Protocols from task files (docs/TASKFILES.md). A file's protocol is a [`Protocol`] like any other: templates, stages and
//! rules are data, and this module interprets them.

mod code;
mod describe;
mod judged;
mod measure;
mod parse;
mod prompt;
mod rules;
mod score;
mod stage;
mod windows;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use glmbench_sandbox::Language;

use self::measure::Normalisation;
use self::parse::Spec;
use self::prompt::Stages;
use super::program::PASSED;
use super::{
    ChoiceToken, Definition, Demonstrations, Evidence, Judgement, Output, Protocol, Question, Stage, Step,
    TaskError, TextCodec, all_different, most_probable,
};
use crate::dataset::file::{AnswerKind, Draft, built_in_path, text_of};
use crate::dataset::{Answer, Benchmark, Item, sha256_hex};
use crate::document::DocumentError;

/// Reads a user's task file and puts it to use.
///
/// # Errors
/// The first fault, with its place. A name that a benchmark of this program has is one, unless the file is that benchmark's.
pub fn load(path: &Path) -> Result<&'static Benchmark, DocumentError> {
    parse(path, &text_of(path)?)
}

/// Like [`load`], for text that is already read.
///
/// # Errors
/// As of [`load`].
pub fn parse(path: &Path, text: &str) -> Result<&'static Benchmark, DocumentError> {
    let mut draft = Draft::parse(path, text)?;
    Spec::parse_all(&mut draft)?;
    if let Some(known) = Benchmark::from_name(draft.name()) {
        if known.file.is_some_and(|file| file.sha256 == sha256_hex(text.as_bytes())) {
            return Ok(known);
        }
        let place = format!("{}:1:1", path.display());
        let message = format!(
            "found the name `{known}`, which a built-in task has; expected a name of its own (`glmbench list tasks`)"
        );
        return Err(DocumentError::Invalid { place, message });
    }
    Ok(draft.intern())
}

/// Returns the protocols of a benchmark that comes from a task file. Empty if its protocols cannot be read, which only the
/// record of another version of this program can bring about.
pub(super) fn protocols_of(benchmark: &'static Benchmark) -> &'static [&'static dyn Protocol] {
    static MADE: Mutex<BTreeMap<&'static str, &'static [&'static dyn Protocol]>> =
        Mutex::new(BTreeMap::new());
    let Some(file) = benchmark.file else { return &[] };
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    made.entry(&file.sha256).or_insert_with(|| {
        let path = built_in_path(benchmark.name);
        let specs = Draft::parse(&path, &file.text).and_then(|mut draft| Spec::parse_all(&mut draft));
        let protocols = specs.unwrap_or_default().into_iter().map(|spec| {
            // Files are interned by their text, so each protocol is leaked once.
            let protocol: &'static dyn Protocol = Box::leak(Box::new(FileProtocol::new(spec, benchmark)));
            protocol
        });
        Box::leak(protocols.collect::<Vec<_>>().into_boxed_slice())
    })
}

/// A protocol that a task file describes.
struct FileProtocol {
    spec: Spec,
    definition: &'static Definition,
}

impl FileProtocol {
    fn new(spec: Spec, benchmark: &'static Benchmark) -> Self {
        // Files are interned by their text, so each definition is leaked once.
        let definition = Box::leak(Box::new(spec.definition(benchmark)));
        Self { spec, definition }
    }

    /// Returns the answers of the choices, for messages and records; empty if the protocol reads text.
    fn answers(&self) -> Vec<Answer> {
        match self.spec.tokens() {
            Some(tokens) => (0..tokens.ids.len()).map(|index| self.answer(index)).collect(),
            None => Vec::new(),
        }
    }

    /// Returns the answer that choice `index` stands for.
    fn answer(&self, index: usize) -> Answer {
        match self.spec.kind {
            AnswerKind::Boolean => Answer::Boolean(index == 1),
            _ => Answer::Choice(index),
        }
    }
}

impl Protocol for FileProtocol {
    fn definition(&self) -> &'static Definition {
        self.definition
    }

    fn choices(&self, codec: &dyn TextCodec) -> Result<Vec<ChoiceToken>, TaskError> {
        let Some(tokens) = self.spec.tokens() else { return Ok(Vec::new()) };
        let protocol = self.definition.name;
        let before = codec.encode(&tokens.after);
        let single = |(index, text): (usize, &String)| {
            let ids = codec.encode(&format!("{}{text}", tokens.after));
            if let Some([id]) = ids.strip_prefix(before.as_slice()) {
                return Ok(ChoiceToken { answer: self.answer(index), id: *id });
            }
            let message = format!(
                "the tokenizer splits \"{}{text}\" into {ids:?}; expected the ids of {:?} {before:?} and one more (a stage of kind \"continuations\" takes any number)",
                tokens.after, tokens.after
            );
            Err(TaskError::Choices { protocol, message })
        };
        all_different(protocol, tokens.ids.iter().enumerate().map(single).collect::<Result<_, _>>()?)
    }

    fn evidence(&self) -> Evidence {
        if self.spec.is_scored() {
            Evidence::Choices(self.answers())
        } else if self.spec.run().is_some() || self.spec.score().is_some() || self.spec.is_likelihood() {
            Evidence::Item
        } else {
            Evidence::Text
        }
    }

    fn windows(&self, question: &Question<'_>) -> Vec<usize> {
        Stages::new(&self.spec, question).window_lengths()
    }

    fn scores_prompts(&self) -> bool {
        self.spec.continuations().is_some() || self.spec.is_likelihood()
    }

    fn last_rule(&self) -> Option<String> {
        let rules = &self.spec.rules;
        (rules.len() > 1).then(|| rules.last().map(|rule| rule.name.clone())).flatten()
    }

    fn takes_shots(&self) -> bool {
        self.spec.has_demonstration
    }

    fn demonstrations(&self) -> Demonstrations {
        self.spec.demonstrations.clone()
    }

    fn gold(&self, item: &Item) -> Option<Answer> {
        if self.spec.run().is_some() {
            return Some(Answer::Text(PASSED.to_owned()));
        }
        if !self.has_key() {
            return Some(Answer::Text(String::new()));
        }
        let gold = item.gold()?;
        let Some(kind) = self.spec.answer else { return Some(self.spec.normalised(gold)) };
        rules::answer_of(&gold.to_string(), kind, &self.spec.normalisers)
    }

    fn has_key(&self) -> bool {
        !self.spec.is_likelihood() && self.spec.score().is_none()
    }

    fn runs_programs(&self) -> bool {
        self.spec.run().is_some()
    }

    fn language(&self, item: &Item) -> Option<Language> {
        self.spec.run()?.language(&item.subject)
    }

    fn judge(&self, output: Output<'_>) -> Judgement {
        if self.spec.is_likelihood() {
            let (pred, rule) = (Answer::Text(String::new()), "scored text".to_owned());
            return Judgement::Answer { pred, choice_logprobs: Vec::new(), rule };
        }
        if self.spec.is_scored() {
            let answers: Vec<Answer> =
                (0..output.choice_logprobs.len()).map(|index| self.answer(index)).collect();
            if answers.is_empty() {
                return Judgement::Impossible("found no log-probabilities of choices; expected some".into());
            }
            return most_probable(&answers, output.choice_logprobs);
        }
        match self.spec.read(output.text, None) {
            Some((pred, rule)) => Judgement::Answer { pred, choice_logprobs: Vec::new(), rule },
            None => Judgement::Unreadable(self.spec.unreadable()),
        }
    }

    fn step(&self, question: &Question<'_>, done: &[Stage]) -> Step {
        let stages = Stages::new(&self.spec, question);
        match stages.next(done) {
            Err(reason) => Step::Judge(Judgement::Impossible(reason)),
            Ok(Some(ask)) => Step::Ask(ask),
            Ok(None) if let Some(run) = self.spec.run() => match stages.trial(run, done) {
                Ok(trial) => Step::Run(trial),
                Err(reason) => Step::Judge(Judgement::Impossible(reason)),
            },
            Ok(None) if self.spec.continuations().is_some() => match stages.scores(done) {
                Ok(scores) => {
                    let values = scores.compared(Normalisation::of(&self.spec));
                    Step::Judge(self.judge(Output { text: "", choice_logprobs: &values }))
                }
                Err(reason) => Step::Judge(Judgement::Impossible(reason)),
            },
            Ok(None)
                if let Some(score) = self.spec.score()
                    && let Err(reason) = stages.score(score, done) =>
            {
                Step::Judge(Judgement::Impossible(reason))
            }
            Ok(None) => match done.last() {
                Some(last) => Step::Judge(self.judge(super::output_of(last))),
                None => Step::Judge(Judgement::Impossible("the protocol has no stage".into())),
            },
        }
    }

    fn measures(&self, question: &Question<'_>, done: &[Stage]) -> BTreeMap<String, f64> {
        let stages = Stages::new(&self.spec, question);
        if self.spec.is_likelihood() {
            return stages.likelihood(done).unwrap_or_default();
        }
        if let Some(score) = self.spec.score() {
            return stages.score(score, done).unwrap_or_default();
        }
        if self.spec.measures.is_empty() {
            return BTreeMap::new();
        }
        match (stages.next(done), stages.scores(done)) {
            (Ok(None), Ok(scores)) => {
                let of = |name: &String| Some((name.clone(), scores.measure(name)?));
                self.spec.measures.iter().filter_map(of).collect()
            }
            _ => BTreeMap::new(),
        }
    }
}
