//! Reads `[[protocol]]` of a task file.

use super::judged::Judged;
use super::judged::Run;
use super::measure;
use super::rules::{self, Normaliser, Rule, normalise};
use super::score::Score;
use super::stage::{Continuations, Scored, StageKind, StageSpec, Tokens, stages};
use crate::dataset::Answer;
use crate::dataset::file::{AnswerKind, Draft, Templates};
use crate::document::DocumentError;
use crate::document::table::{Table, count, found, nearest, string, tables, word};
use crate::document::tree::Node;
use crate::task::{Demonstrations, Pick};

/// A protocol as its file describes it.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a key or a template of its own, in any combination"
)]
pub(super) struct Spec {
    pub(super) name: String,
    pub(super) about: String,
    pub(super) source: String,
    pub(super) metric: String,
    pub(super) shots: usize,
    pub(super) chat: bool,
    /// Whether the demonstrations have an answer of their own, as turns of a chat have.
    pub(super) turns: bool,
    pub(super) has_header: bool,
    pub(super) has_demonstration: bool,
    pub(super) demonstrations: Demonstrations,
    pub(super) stages: Vec<StageSpec>,
    pub(super) rules: Vec<Rule>,
    pub(super) normalisers: Vec<Normaliser>,
    /// Number of options that an answer may name.
    pub(super) letters: Option<usize>,
    /// Kind of answers in the data.
    pub(super) kind: AnswerKind,
    /// Kind in which answers are compared, if it is another.
    pub(super) answer: Option<AnswerKind>,
    pub(super) measures: Vec<String>,
    pub(super) judged: Judged,
    pub(super) templates: Templates,
    /// Templates verbatim, by what they are for.
    pub(super) verbatim: Vec<(String, String)>,
}

/// Names of templates.
pub(super) const HEADER: &str = "header";
pub(super) const DEMONSTRATION: &str = "demonstration";
pub(super) const DEMONSTRATION_ANSWER: &str = "demonstration_answer";
pub(super) const UNCONDITIONAL: &str = "unconditional";

impl Spec {
    /// Reads all protocols of a task file.
    pub(super) fn parse_all(draft: &mut Draft) -> Result<Vec<Self>, DocumentError> {
        let mut all: Vec<Self> = Vec::new();
        for table in std::mem::take(&mut draft.protocols) {
            let origin = table.origin.clone();
            let one = Self::parse(table, draft)?;
            if all.iter().any(|other| other.name == one.name) {
                return Err(DocumentError::found(
                    &origin,
                    &format!("a second protocol {:?}", one.name),
                    "a name for each",
                ));
            }
            all.push(one);
        }
        Ok(all)
    }

    fn parse(mut table: Table, draft: &Draft) -> Result<Self, DocumentError> {
        let name_node = table.require("name", "the protocol's name")?;
        let name = string(&name_node)?;
        if !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c)) {
            let expected = "lower-case letters, digits, `-` and `_`";
            return Err(found(&name_node, &format!("the name {name:?}"), expected));
        }
        let about = string(&table.require("about", "the protocol in a sentence")?)?;
        let source = string(&table.require("source", "where the protocol comes from")?)?;
        let mut templates =
            Reader { templates: Templates::new(), names: draft.names(), verbatim: Vec::new() };
        let shots_node = table.take("shots");
        let shots = shots_node.as_ref().map(|node| count(node, 0)).transpose()?.unwrap_or(0) as usize;
        let style = table.take("style").map(|node| {
            word(&node, &["text", "chat"], |word| match word {
                "text" => Some(false),
                "chat" => Some(true),
                _ => None,
            })
        });
        let chat = style.transpose()?.unwrap_or(false);
        let has_header = templates.optional(&mut table, HEADER, HEADER, &[])?;
        let has_demonstration = templates.optional(&mut table, DEMONSTRATION, "each demonstration", &[])?;
        let answer_node = table.take(DEMONSTRATION_ANSWER);
        let turns = answer_node.is_some();
        if let Some(node) = answer_node {
            if !chat {
                return Err(found(
                    &node,
                    "`demonstration_answer`",
                    "it with style = \"chat\" only, where demonstrations are turns",
                ));
            }
            templates.add(&node, DEMONSTRATION_ANSWER, "its answer", &[])?;
        }
        if let (Some(node), false) = (&shots_node, has_demonstration || shots == 0) {
            return Err(found(node, &format!("{shots} shots"), "the template `demonstration` beside them"));
        }
        let demonstrations = demonstrations(&mut table, draft)?;
        let kind = draft.kind();
        let judged = Judged::parse(&mut table, draft, &mut templates)?;
        let stages = stages(&mut table, &mut templates, kind, &judged)?;
        let rules_node = table.origin.clone();
        let rules: Vec<Rule> =
            tables(&mut table, "read")?.into_iter().map(Rule::parse).collect::<Result<_, _>>()?;
        let is_generated = matches!(stages.last().map(|stage| &stage.kind), Some(StageKind::Generate { .. }));
        if is_generated && rules.is_empty() && !matches!(judged, Judged::Score(_)) {
            return Err(DocumentError::at(
                &rules_node,
                "found no [[protocol.read]]; expected the rules by which the last stage's text is read",
            ));
        }
        if !is_generated && !rules.is_empty() {
            return Err(DocumentError::at(
                &rules_node,
                "found [[protocol.read]]; expected none, because the last stage compares log-probabilities",
            ));
        }
        if matches!(judged, Judged::Score(_)) && rules.last().is_some_and(|rule| !rule.always_finds()) {
            return Err(DocumentError::at(
                &rules_node,
                "found a last [[protocol.read]] that may find nothing; expected kind = \"whole\", because `score` needs a text",
            ));
        }
        if rules.iter().any(Rule::is_of_subjects) && !matches!(judged, Judged::Run(_)) {
            return Err(DocumentError::at(
                &rules_node,
                "found a [[protocol.read]] with `subjects`; expected it beside [protocol.run] only",
            ));
        }
        let normalisers = Normaliser::parse_all(&mut table)?;
        let answer = answer_kind(&mut table, kind)?;
        let measures = measure::parse(&mut table, &stages)?;
        let metric = table.take("metric").map(|node| string(&node)).transpose()?;
        let metric = metric.unwrap_or_else(|| metric_words(&judged, stages.last().map(|stage| &stage.kind)));
        table.finish()?;
        let Reader { templates, verbatim, .. } = templates;
        Ok(Self {
            name,
            about,
            source,
            metric,
            shots,
            chat,
            turns,
            has_header,
            has_demonstration,
            demonstrations,
            stages,
            rules,
            normalisers,
            letters: draft.letters(),
            kind,
            answer,
            measures,
            judged,
            templates,
            verbatim,
        })
    }

    /// Returns the kind in which answers are read.
    pub(super) fn kind(&self) -> AnswerKind {
        match self.judged {
            Judged::Key => self.answer.unwrap_or(self.kind),
            Judged::Score(_) | Judged::Run(_) => AnswerKind::Text,
        }
    }

    /// Returns how programs are run.
    pub(super) fn run(&self) -> Option<&Run> {
        if let Judged::Run(run) = &self.judged { Some(run) } else { None }
    }

    /// Returns how texts are scored.
    pub(super) fn score(&self) -> Option<&Score> {
        if let Judged::Score(score) = &self.judged { Some(score) } else { None }
    }

    /// Returns the tokens that the last stage compares.
    pub(super) fn tokens(&self) -> Option<&Tokens> {
        self.stages.last().and_then(|stage| match &stage.kind {
            StageKind::Tokens(tokens) => Some(tokens),
            _ => None,
        })
    }

    /// Returns the continuations that the last stage compares.
    pub(super) fn continuations(&self) -> Option<&Continuations> {
        self.stages.last().and_then(|stage| match &stage.kind {
            StageKind::Continuations(continuations) => Some(continuations),
            _ => None,
        })
    }

    /// Whether the last stage scores the text itself.
    pub(super) fn is_likelihood(&self) -> bool {
        matches!(self.stages.last().map(|stage| &stage.kind), Some(StageKind::Likelihood(_)))
    }

    /// Whether the last stage scores every token of the text.
    pub(super) fn scores_all_tokens(&self) -> bool {
        matches!(self.stages.last().map(|stage| &stage.kind), Some(StageKind::Likelihood(of)) if of.scored == Scored::All)
    }

    /// Whether log-probabilities decide.
    pub(super) fn is_scored(&self) -> bool {
        self.tokens().is_some() || self.continuations().is_some()
    }

    /// Whether an answer names one of the options, as far as their number is known.
    pub(super) fn is_among(&self, answer: &Answer) -> bool {
        !matches!((answer, self.letters), (Answer::Choice(index), Some(letters)) if *index >= letters)
    }

    /// Returns the answer as it is compared.
    pub(super) fn normalised(&self, answer: Answer) -> Answer {
        match answer {
            Answer::Text(text) => Answer::Text(normalise(&text, &self.normalisers)),
            other => other,
        }
    }

    /// Cuts the last stage's text at its first stop text, which the engine may have left in it.
    pub(super) fn cut<'t>(&self, text: &'t str) -> &'t str {
        match self.stages.last().map(|stage| &stage.kind) {
            Some(StageKind::Generate { stop, .. }) => cut(text, stop),
            _ => text,
        }
    }

    /// Reads the answer in the text of the last stage, with the name of the rule. The whole text, if there are no rules.
    /// `subject` is the item's; without it, rules of some subjects do not read.
    pub(super) fn read(&self, text: &str, subject: Option<&str>) -> Option<(Answer, String)> {
        let text = self.cut(text);
        if self.rules.is_empty() {
            return Some((Answer::Text(normalise(text, &self.normalisers)), "whole text".to_owned()));
        }
        let read = rules::read(text, subject, &self.rules, self.kind(), &self.normalisers);
        read.filter(|(answer, _)| self.is_among(answer))
    }

    /// Says why a text has no answer.
    pub(super) fn unreadable(&self) -> String {
        let names: Vec<&str> = self.rules.iter().map(|rule| rule.name.as_str()).collect();
        format!("no rule finds an answer in the text; tried {}", names.join(", "))
    }

    /// Returns the limit of the first stage that generates; 0 if none does.
    pub(super) fn max_new_tokens(&self) -> usize {
        let limit = |stage: &StageSpec| match &stage.kind {
            StageKind::Generate { max_new_tokens, .. } => Some(*max_new_tokens),
            _ => None,
        };
        self.stages.iter().find_map(limit).unwrap_or(0)
    }
}

/// Returns the text before the first of the stop texts.
pub(super) fn cut<'t>(text: &'t str, stop: &[String]) -> &'t str {
    let end = stop.iter().filter_map(|stop| text.find(stop.as_str())).min();
    &text[..end.unwrap_or(text.len())]
}

/// Reads templates and checks their names.
pub(super) struct Reader {
    templates: Templates,
    names: Vec<String>,
    verbatim: Vec<(String, String)>,
}

impl Reader {
    /// Adds a template that may use `more` names.
    pub(super) fn add(
        &mut self,
        node: &Node,
        name: &str,
        purpose: &str,
        more: &[&str],
    ) -> Result<(), DocumentError> {
        let source = string(node)?;
        let used = self
            .templates
            .add(name, source.clone())
            .map_err(|fault| DocumentError::at(&node.origin, fault))?;
        let known: Vec<&str> = self.names.iter().map(String::as_str).chain(more.iter().copied()).collect();
        if let Some(unknown) = used.iter().find(|name| !known.contains(&name.as_str())) {
            let hint = match nearest(unknown, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("expected one of {}", known.join(", ")),
            };
            return Err(DocumentError::at(
                &node.origin,
                format!("the template uses the undefined name `{unknown}`; {hint}"),
            ));
        }
        self.verbatim.push((purpose.to_owned(), source));
        Ok(())
    }

    /// Returns the names that every template may use.
    pub(super) fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    /// Adds the template under `key`, if there is one.
    pub(super) fn optional(
        &mut self,
        table: &mut Table,
        key: &'static str,
        purpose: &str,
        more: &[&str],
    ) -> Result<bool, DocumentError> {
        let Some(node) = table.take(key) else { return Ok(false) };
        self.add(&node, key, purpose, more)?;
        Ok(true)
    }
}

fn demonstrations(table: &mut Table, draft: &Draft) -> Result<Demonstrations, DocumentError> {
    let known: Vec<&str> = draft.splits().iter().map(String::as_str).collect();
    let split = match table.take("from") {
        Some(node) => Some(word(&node, &known, |name| known.contains(&name).then(|| name.to_owned()))?),
        None => None,
    };
    let pick = match table.take("pick") {
        Some(node) => word(&node, &["first", "seeded"], |word| {
            ["first", "seeded"].contains(&word).then(|| word == "seeded")
        })?,
        None => false,
    };
    let seed_node = table.take("seed");
    let seed = seed_node.as_ref().map(|node| count(node, 0)).transpose()?;
    let pick = match (pick, seed, seed_node) {
        (false, Some(_), Some(node)) => return Err(found(&node, "`seed`", "it with pick = \"seeded\" only")),
        (true, seed, _) => Pick::Seeded(seed.unwrap_or(1)),
        _ => Pick::First,
    };
    Ok(Demonstrations { split, pick })
}

fn answer_kind(table: &mut Table, kind: AnswerKind) -> Result<Option<AnswerKind>, DocumentError> {
    let names = AnswerKind::WORDS.map(|(name, _)| name);
    let Some(node) = table.take("compare_as") else { return Ok(None) };
    let wanted = word(&node, &names, |name| {
        AnswerKind::WORDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    })?;
    let fits = wanted == kind
        || matches!((kind, wanted), (AnswerKind::Text, AnswerKind::Number) | (_, AnswerKind::Text));
    if !fits {
        return Err(found(
            &node,
            "a kind that the data's answers cannot become",
            "text, or number from text",
        ));
    }
    Ok(Some(wanted).filter(|wanted| *wanted != kind))
}

/// Returns the words of a metric that a protocol does not name.
fn metric_words(judged: &Judged, last: Option<&StageKind>) -> String {
    match judged {
        _ if let Some(StageKind::Likelihood(of)) = last => {
            let units = if of.scored == Scored::All { "words, bytes or tokens" } else { "tokens" };
            format!("perplexity: exp(-sum of log-likelihoods / sum of {units})")
        }
        Judged::Key => "accuracy: correct / (scored + unscorable)".to_owned(),
        Judged::Score(score) => score.words(),
        Judged::Run(run) => run.words(),
    }
}
