//! Reads an answer from a text by a ladder of named rules. The first rule that finds something decides.

use glmbench_metrics::modeltest_number;
use regex::{Regex, RegexBuilder};

use crate::dataset::file::{AnswerKind, number, strings};
use crate::dataset::{Answer, Number, shorten};
use crate::document::DocumentError;
use crate::document::table::{Table, count, found, string, word};
use crate::task::extract;

use super::code;

/// Largest compiled size of a regular expression, in bytes. Matching takes time linear in the text, whatever the pattern.
const MOST_REGEX_BYTES: usize = 1 << 20;

/// A rule of the ladder.
#[derive(Debug)]
pub(super) struct Rule {
    /// Name in records.
    pub(super) name: String,
    how: How,
    /// The only subjects whose texts it reads; `None` for all.
    subjects: Option<Vec<String>>,
}

#[derive(Debug)]
enum How {
    /// The group of a match.
    Regex { pattern: Regex, group: usize, last: bool },
    /// The last number, by ModelTest's definition for GSM8K.
    LastNumber,
    /// The first character that is no white space.
    FirstCharacter,
    /// The first line.
    FirstLine,
    /// The content of the first block between lines of three backquotes.
    CodeBlock,
    /// The whole text.
    Whole,
    /// ModelTest's ladder for options.
    Options,
    /// The same, repaired.
    OptionsFixed,
    /// ModelTest's clean-up of HumanEval.
    Body,
    /// HumanEval-X's clean-up of Java.
    JavaBody,
    /// HumanEval-X's ends of a function in Go.
    GoEnds,
    /// The same, and no further than the last brace.
    GoBody,
    /// The text up to its last brace.
    LastBrace,
}

const KINDS: [&str; 13] = [
    "regex",
    "last-number",
    "first-character",
    "first-line",
    "code-block",
    "whole",
    "modeltest-options",
    "modeltest-options-fixed",
    "modeltest-body",
    "java-body",
    "go-ends",
    "go-body",
    "last-brace",
];

impl Rule {
    pub(super) fn parse(mut table: Table) -> Result<Self, DocumentError> {
        let name_node = table.require("rule", "the rule's name, as records show it")?;
        let name = string(&name_node)?;
        let kind = word(&table.require("kind", &format!("one of {}", KINDS.join(", ")))?, &KINDS, |kind| {
            KINDS.iter().copied().find(|known| *known == kind)
        })?;
        let how = match kind {
            "regex" => regex(&mut table)?,
            "last-number" => How::LastNumber,
            "first-character" => How::FirstCharacter,
            "first-line" => How::FirstLine,
            "code-block" => How::CodeBlock,
            "modeltest-options" => How::Options,
            "modeltest-options-fixed" => How::OptionsFixed,
            "modeltest-body" => How::Body,
            "java-body" => How::JavaBody,
            "go-ends" => How::GoEnds,
            "go-body" => How::GoBody,
            "last-brace" => How::LastBrace,
            _ => How::Whole,
        };
        let subjects = table.take("subjects").map(|node| strings(node, "names of subjects")).transpose()?;
        table.finish()?;
        Ok(Self { name, how, subjects })
    }

    /// Whether the rule finds something in every text.
    pub(super) fn always_finds(&self) -> bool {
        matches!(self.how, How::Whole) && self.subjects.is_none()
    }

    /// Whether the rule reads the texts of some subjects only.
    pub(super) fn is_of_subjects(&self) -> bool {
        self.subjects.is_some()
    }

    /// Whether the rule reads the texts of a subject.
    fn reads(&self, subject: &str) -> bool {
        self.subjects.as_ref().is_none_or(|subjects| subjects.iter().any(|own| own == subject))
    }

    /// Returns what the rule finds.
    fn find(&self, text: &str) -> Option<String> {
        match &self.how {
            How::Regex { pattern, group, last } => {
                let mut all = pattern.captures_iter(text);
                let captures = if *last { all.last() } else { all.next() }?;
                // Of several groups, the first that took part.
                let whole = || captures.iter().skip(1).flatten().next();
                captures.get(*group).or_else(whole).map(|found| found.as_str().to_owned())
            }
            How::LastNumber => modeltest_number(text).ok().flatten(),
            How::FirstCharacter => text.trim_start().chars().next().map(String::from),
            How::FirstLine => text.trim_start_matches('\n').lines().next().map(str::to_owned),
            How::CodeBlock => code::block(text).map(str::to_owned),
            How::Whole => Some(text.to_owned()),
            How::Body => Some(code::python_body(text).to_owned()),
            How::JavaBody => Some(code::java_body(text)),
            How::GoEnds => Some(code::go_ends(text).to_owned()),
            How::GoBody => Some(code::to_last_brace(code::go_ends(text)).to_owned()),
            How::LastBrace => Some(code::to_last_brace(text).to_owned()),
            How::Options => extract::first_option(text).map(letter_of),
            How::OptionsFixed => extract::first_option_fixed(text).map(letter_of),
        }
    }

    /// Describes the rule.
    pub(super) fn words(&self) -> String {
        let how = match &self.how {
            How::Regex { pattern, group, last } => {
                let which = if *last { "last" } else { "first" };
                format!("group {group} of the {which} match of `{pattern}`")
            }
            How::LastNumber => "the last number, by ModelTest's expression, without `,` and `+`".to_owned(),
            How::FirstCharacter => "the first character that is no white space".to_owned(),
            How::FirstLine => "the first line".to_owned(),
            How::CodeBlock => "the first block of code".to_owned(),
            How::Whole => "the whole text".to_owned(),
            How::Options => extract::LADDER_ABOUT.to_owned(),
            How::OptionsFixed => extract::FIXED_ABOUT.to_owned(),
            How::Body => "the text before the first line that is neither blank nor indented; if there is none, before the last \
                          of each end of a function"
                .to_owned(),
            How::JavaBody => "the text before a `main` of its own, up to its last brace".to_owned(),
            How::GoEnds => "the text before its last comment at a line's beginning and a `main` of its own".to_owned(),
            How::GoBody => "the text before its last comment at a line's beginning and a `main` of its own, up to its last brace".to_owned(),
            How::LastBrace => "the text up to its last brace".to_owned(),
        };
        match &self.subjects {
            Some(subjects) => format!("{} ({}): {how}", self.name, subjects.join(", ")),
            None => format!("{}: {how}", self.name),
        }
    }
}

fn letter_of(found: extract::Extraction) -> String {
    extract::LETTERS[found.letter].to_owned()
}

fn regex(table: &mut Table) -> Result<How, DocumentError> {
    let node = table.require("pattern", "a regular expression")?;
    let source = string(&node)?;
    let compiled =
        RegexBuilder::new(&source).size_limit(MOST_REGEX_BYTES).dfa_size_limit(MOST_REGEX_BYTES).build();
    let pattern = compiled.map_err(|error| {
        let what = match error {
            regex::Error::CompiledTooBig(limit) => {
                format!("found a pattern that needs more than {limit} bytes; expected smaller repetitions")
            }
            error => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                let source = shorten(&source);
                format!("found the pattern {source:?}: {last}; expected one of Rust's regex syntax (no look-around, no back-references)")
            }
        };
        DocumentError::at(&node.origin, what)
    })?;
    let group_node = table.take("group");
    let group = group_node.as_ref().map(|node| count(node, 0)).transpose()?.unwrap_or(0) as usize;
    if let Some(node) = group_node.filter(|_| group >= pattern.captures_len()) {
        let expected = format!("at most {}, the groups of the pattern", pattern.captures_len() - 1);
        return Err(found(&node, &format!("group {group}"), &expected));
    }
    let last = match table.take("take") {
        Some(node) => word(&node, &["first", "last"], |word| match word {
            "first" => Some(false),
            "last" => Some(true),
            _ => None,
        })?,
        None => false,
    };
    Ok(How::Regex { pattern, group, last })
}

/// A change of texts before they are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Normaliser {
    Strip,
    Lower,
    Punctuation,
    Articles,
    Spaces,
    Commas,
    Dollars,
    FinalDot,
}

const NORMALISERS: [(&str, Normaliser); 8] = [
    ("strip", Normaliser::Strip),
    ("lower", Normaliser::Lower),
    ("punctuation", Normaliser::Punctuation),
    ("articles", Normaliser::Articles),
    ("spaces", Normaliser::Spaces),
    ("commas", Normaliser::Commas),
    ("dollars", Normaliser::Dollars),
    ("final-dot", Normaliser::FinalDot),
];

impl Normaliser {
    /// Reads the list under `normalise`.
    pub(super) fn parse_all(table: &mut Table) -> Result<Vec<Self>, DocumentError> {
        let Some(node) = table.take("normalise") else { return Ok(Vec::new()) };
        let origin = node.clone();
        let names = NORMALISERS.map(|(name, _)| name);
        strings(node, "names of normalisers")?
            .iter()
            .map(|name| {
                let known = NORMALISERS.iter().find(|(known, _)| known == name);
                known.map(|(_, normaliser)| *normaliser).ok_or_else(|| {
                    found(
                        &origin,
                        &format!("the normaliser {name:?}"),
                        &format!("one of {}", names.join(", ")),
                    )
                })
            })
            .collect()
    }

    pub(super) fn name(self) -> &'static str {
        NORMALISERS.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| *name)
    }

    fn apply(self, text: &str) -> String {
        match self {
            Self::Strip => text.trim().to_owned(),
            Self::Lower => text.to_lowercase(),
            Self::Punctuation => text.chars().filter(|c| !c.is_ascii_punctuation()).collect(),
            Self::Articles => {
                let kept = |word: &&str| !["a", "an", "the"].contains(&word.to_lowercase().as_str());
                text.split_whitespace().filter(kept).collect::<Vec<_>>().join(" ")
            }
            Self::Spaces => text.split_whitespace().collect::<Vec<_>>().join(" "),
            Self::Commas => text.replace(',', ""),
            Self::Dollars => text.replace('$', ""),
            Self::FinalDot => text.strip_suffix('.').unwrap_or(text).to_owned(),
        }
    }
}

/// Applies all normalisers in order.
pub(super) fn normalise(text: &str, all: &[Normaliser]) -> String {
    all.iter().fold(text.to_owned(), |text, normaliser| normaliser.apply(&text))
}

/// Returns the first answer of the kind that the ladder finds, with the rule's name. `subject` is the item's; `None` leaves out
/// the rules of some subjects.
pub(super) fn read(
    text: &str,
    subject: Option<&str>,
    rules: &[Rule],
    kind: AnswerKind,
    normalisers: &[Normaliser],
) -> Option<(Answer, String)> {
    let reads = |rule: &&Rule| subject.map_or(!rule.is_of_subjects(), |subject| rule.reads(subject));
    rules.iter().filter(reads).find_map(|rule| {
        let answer = answer_of(&rule.find(text)?, kind, normalisers)?;
        Some((answer, rule.name.clone()))
    })
}

/// Converts a text that a rule found.
pub(super) fn answer_of(text: &str, kind: AnswerKind, normalisers: &[Normaliser]) -> Option<Answer> {
    let text = normalise(text, normalisers);
    match kind {
        AnswerKind::Text | AnswerKind::None => Some(Answer::Text(text)),
        AnswerKind::Number => number(&text).map(|number: Number| Answer::Number(number)),
        AnswerKind::Boolean => match text.trim().to_lowercase().as_str() {
            "yes" | "true" => Some(Answer::Boolean(true)),
            "no" | "false" => Some(Answer::Boolean(false)),
            _ => None,
        },
        AnswerKind::Choice => {
            let mut chars = text.trim().chars();
            let letter = chars.next().filter(char::is_ascii_uppercase)?;
            chars.next().is_none().then(|| Answer::Choice((letter as u8 - b'A') as usize))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::tree;
    use std::path::Path;

    fn rule(text: &str) -> Result<Rule, DocumentError> {
        Rule::parse(Table::new(tree::parse(Path::new("t.toml"), text)?)?)
    }

    #[test]
    fn rules_find_what_their_names_say() {
        for (toml, text, finds) in [
            ("rule='r'\nkind='regex'\npattern='#### (\\d+)'\ngroup=1", "#### 5 #### 7", Some("5")),
            (
                "rule='r'\nkind='regex'\npattern='#### (\\d+)'\ngroup=1\ntake='last'",
                "#### 5 #### 7",
                Some("7"),
            ),
            ("rule='r'\nkind='regex'\npattern='x'", "y", None),
            ("rule='r'\nkind='last-number'", "3 and 1,204.", Some("1204.")),
            ("rule='r'\nkind='last-number'", "it is +7, not 12,34", Some("34")),
            ("rule='r'\nkind='last-number'", "no number", None),
            ("rule='r'\nkind='first-character'", " \nB) x", Some("B")),
            ("rule='r'\nkind='first-line'", "\na\nb", Some("a")),
            ("rule='r'\nkind='code-block'", "x\n```python\ny = 1\n```\n", Some("y = 1\n")),
            ("rule='r'\nkind='whole'", " a ", Some(" a ")),
            ("rule='r'\nkind='modeltest-options'", "答案是C", Some("C")),
            ("rule='r'\nkind='modeltest-options-fixed'", "只有C是对的", Some("C")),
            ("rule='r'\nkind='modeltest-body'", "\n  a\n\n\n  b\ndef f():\n  c", Some("\n  a\n\n\n  b\n")),
            ("rule='r'\nkind='modeltest-body'", "\n  a\n\n\n  b\n\n\n  c", Some("\n  a\n\n\n  b")),
            ("rule='r'\nkind='modeltest-body'", "It is:\n  a", Some("")),
            ("rule='r'\nkind='java-body'", "a }\n} b", Some("a }\n}")),
            ("rule='r'\nkind='go-ends'", "a }\n// b", Some("a }")),
            ("rule='r'\nkind='go-body'", "a } b\n// c }", Some("a }")),
            ("rule='r'\nkind='last-brace'", "a } b", Some("a }")),
        ] {
            assert_eq!(rule(toml).unwrap().find(text).as_deref(), finds, "{toml}");
        }
    }

    #[test]
    fn a_rule_of_subjects_reads_no_others() {
        let rules = [
            rule("rule='go'\nkind='last-brace'\nsubjects=['go', 'cpp']").unwrap(),
            rule("rule='rest'\nkind='whole'").unwrap(),
        ];
        let by = |subject| read("a } b", subject, &rules, AnswerKind::Text, &[]).unwrap().1;
        assert_eq!([by(Some("cpp")), by(Some("java")), by(None)], ["go", "rest", "rest"]);
    }

    #[test]
    fn a_wrong_pattern_is_named_with_its_place() {
        for (pattern, says) in [
            ("((((a{1000}){1000}){1000}){1000})", "needs more than"),
            ("a(", "unclosed group"),
            ("(?=a)", "look-around"),
        ] {
            let message =
                rule(&format!("rule='r'\nkind='regex'\npattern='{pattern}'")).unwrap_err().to_string();
            assert!(message.starts_with("t.toml:3:9: ") && message.contains(says), "{message}");
        }
    }

    #[test]
    fn texts_become_answers_of_the_kind() {
        let of = |text, kind| answer_of(text, kind, &[]).map(|answer| answer.to_string());
        assert_eq!(of(" B ", AnswerKind::Choice).as_deref(), Some("B"));
        assert_eq!(of("b", AnswerKind::Choice), None);
        assert_eq!(of("$1,204.50", AnswerKind::Number).as_deref(), Some("1204.5"));
        assert_eq!(of("18.", AnswerKind::Number).as_deref(), Some("18"));
        assert_eq!(of("Yes", AnswerKind::Boolean).as_deref(), Some("yes"));
        let squad = [Normaliser::Lower, Normaliser::Punctuation, Normaliser::Articles];
        assert_eq!(normalise("The  Cat, a dog!", &squad), "cat dog");
    }
}
