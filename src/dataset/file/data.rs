//! The table `[data]` of a task file: files, columns, fields, answers.

use std::collections::BTreeMap;
use std::path::Path;

use regex::Regex;

use super::files::{beside, files, matching};
use super::needles::Haystacks;
use super::{AnswerKind, Templates, strings};
use crate::dataset::DatasetError;
use crate::document::DocumentError;
use crate::document::table::{Table, boolean, found, string, word};
use crate::document::tree::{Node, Value};

/// The forms of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Comma-separated values; the first line names the columns unless the task file does.
    Csv,
    /// One JSON object a line.
    JsonLines,
    /// One JSON array of objects.
    Json,
    /// Plain text, cut into documents.
    Text,
    /// Sentences to be hidden in long texts ([`needles`](super::needles)).
    Needles,
}

const FORMATS: [(&str, Format); 5] = [
    ("csv", Format::Csv),
    ("jsonl", Format::JsonLines),
    ("json", Format::Json),
    ("text", Format::Text),
    ("needles", Format::Needles),
];

/// The data of a task file.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) format: Format,
    pub(super) splits: Vec<String>,
    pub(super) default: String,
    pub(super) demonstrations: String,
    /// File patterns of each split: alternatives, with `{subject}` for the name of a subject.
    pub(super) files: BTreeMap<String, Vec<String>>,
    /// Column names of a csv file without a header.
    pub(super) columns: Option<Vec<String>>,
    /// Key of the array of rows, if a json file has an object around it.
    pub(super) rows: Option<String>,
    /// Subjects whose files count; all if empty.
    pub(super) subjects: Vec<String>,
    /// Further text files of a subject, by the name of the column that each becomes. Their names have `{subject}`.
    pub(super) beside: BTreeMap<String, String>,
    /// Where needles are hidden; `None` unless the format is `needles`.
    pub(super) haystacks: Option<Haystacks>,
    /// Pattern of the lines that begin a document of a text.
    pub(super) begins: Option<Regex>,
    /// Expressions over a row's columns, by the name that templates use.
    pub(super) fields: BTreeMap<String, String>,
    /// Field whose text is the question, for timing and for duplicates.
    pub(super) question: String,
    /// Expression of the subject, if it is in the row.
    pub(super) subject: Option<String>,
    pub(super) answer: AnswerSpec,
    /// Whether subjects are `<text>_<length>_<depth>`.
    pub(super) is_grid: bool,
    /// Name and subjects of a category across the others.
    pub(super) part: Option<Category>,
    /// Subjects by category, in the order of the file.
    pub(super) categories: Vec<(String, Vec<String>)>,
    pub(super) chinese: BTreeMap<String, String>,
    pub(super) templates: Templates,
}

/// How a row gives its answer.
#[derive(Debug)]
pub(super) struct AnswerSpec {
    pub(super) kind: AnswerKind,
    /// Expression of the answer.
    pub(super) value: String,
    /// Words of the options in their order, if the answer is a word.
    pub(super) words: Option<Vec<String>>,
    /// Splits whose rows may have no answer.
    pub(super) optional_in: Vec<String>,
}

/// Reads the table of haystacks, which the format of needles needs.
fn haystacks(
    table: &mut Table,
    format: Format,
    splits: &[String],
) -> Result<Option<Haystacks>, DocumentError> {
    Ok(match table.take("haystacks") {
        Some(node) if format != Format::Needles => {
            return Err(found(&node, "`haystacks`", "it with format = \"needles\" only"));
        }
        None if format == Format::Needles => {
            return Err(table.missing("haystacks", "the table [data.haystacks]"));
        }
        node => node.map(|node| Haystacks::parse(Table::new(node)?, splits)).transpose()?,
    })
}

/// Reads the expression of the lines that begin a document.
fn begins(table: &mut Table, format: Format) -> Result<Option<Regex>, DocumentError> {
    Ok(match table.take("begins") {
        Some(node) if format != Format::Text => {
            return Err(found(
                &node,
                "`begins`",
                "it with format = \"text\" only: the lines that begin a document",
            ));
        }
        Some(node) => Some(Regex::new(&string(&node)?).map_err(|error| {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().to_owned();
            DocumentError::at(&node.origin, format!("{last}; expected a regular expression"))
        })?),
        None => None,
    })
}

impl Data {
    pub(super) fn parse(mut table: Table) -> Result<Self, DocumentError> {
        let origin = table.origin.clone();
        let names = FORMATS.map(|(name, _)| name);
        let format =
            word(&table.require("format", &format!("one of {}", names.join(", ")))?, &names, |name| {
                FORMATS.iter().find(|(known, _)| *known == name).map(|(_, format)| *format)
            })?;
        let node = table.require("splits", "the names of the splits")?;
        let splits = strings(node.clone(), "names of splits")?;
        if let Some((_, again)) = (1..).zip(&splits).find(|&(rest, name)| splits[rest..].contains(name)) {
            return Err(found(&node, &format!("the split {again:?} twice"), "each split once"));
        }
        let split = |node: &Node| {
            let known: Vec<&str> = splits.iter().map(String::as_str).collect();
            word(node, &known, |name| known.contains(&name).then(|| name.to_owned()))
        };
        let default = split(&table.require("default", "the split that is scored")?)?;
        let demonstrations = match table.take("demonstrations") {
            Some(node) => split(&node)?,
            None => default.clone(),
        };
        let files = files(&table.require("files", "the files of the splits")?, &splits)?;
        let columns = match table.take("columns") {
            Some(node) if format != Format::Csv => {
                return Err(found(&node, "`columns`", "them with format = \"csv\" only: JSON names its own"));
            }
            node => node.map(|node| strings(node, "names of columns")).transpose()?,
        };
        let rows = match table.take("rows") {
            Some(node) if format != Format::Json => {
                return Err(found(&node, "`rows`", "it with format = \"json\" only: the key of the array"));
            }
            node => node.map(|node| string(&node)).transpose()?,
        };
        let subjects = match table.take("subjects") {
            Some(node) => strings(node, "names of subjects")?,
            None => Vec::new(),
        };
        let beside = match table.take("beside") {
            Some(node) => beside(&node)?,
            None => BTreeMap::new(),
        };
        let haystacks = haystacks(&mut table, format, &splits)?;
        let begins = begins(&mut table, format)?;
        let templates = Templates::new();
        let fields =
            texts(&table.require("fields", "the table [data.fields]")?, "an expression over columns")?;
        check_expressions(&templates, &fields)?;
        let question_node = table.require("question", "the field that is the question")?;
        let known: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        let question = word(&question_node, &known, |name| known.contains(&name).then(|| name.to_owned()))?;
        let subject = expression(&templates, table.take("subject"))?;
        let answer = AnswerSpec::parse(
            Table::new(table.require("answer", "the table [data.answer]")?)?,
            &splits,
            &templates,
        )?;
        let is_grid = table.take("grid").map(|node| boolean(&node)).transpose()?.unwrap_or(false);
        let (categories, part) = categories(table.take("categories"))?;
        let chinese = match table.take("chinese_names") {
            Some(node) => texts(&node, "a name")?.into_iter().map(|of| (of.name, of.text)).collect(),
            None => BTreeMap::new(),
        };
        table.finish()?;
        if answer.kind == AnswerKind::Choice && !fields.iter().any(|field| field.name == OPTIONS) {
            let message = format!(
                "found no field `{OPTIONS}`; expected the list of an item's options, because kind = \"choice\""
            );
            return Err(DocumentError::at(&origin, message));
        }
        let fields = fields.into_iter().map(|field| (field.name, field.text)).collect();
        Ok(Self {
            format,
            splits,
            default,
            demonstrations,
            files,
            columns,
            rows,
            subjects,
            beside,
            haystacks,
            begins,
            fields,
            question,
            subject,
            answer,
            is_grid,
            part,
            categories,
            chinese,
            templates,
        })
    }

    /// Returns the name of the layout of the task called `task`.
    pub(super) fn layout_name(&self, task: &str) -> String {
        let word = FORMATS.iter().find(|(_, format)| *format == self.format).map_or("", |(word, _)| *word);
        format!("{task}-{word}")
    }

    pub(super) fn names(&self) -> Vec<String> {
        let own = ["answer", "subject", "chinese_name"].map(str::to_owned);
        self.fields.keys().cloned().chain(own).collect()
    }

    pub(super) fn category_names(&self) -> Vec<String> {
        self.categories.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Returns the files of a split below `root`: path with `/`, and subject if the name has one. Sorted by subject.
    pub(super) fn files_of(
        &self,
        root: &Path,
        split: &str,
    ) -> Result<Vec<(String, Option<String>)>, DatasetError> {
        for pattern in self.files.get(split).into_iter().flatten() {
            let mut found = matching(root, pattern)?;
            if !self.subjects.is_empty() {
                found.retain(|(_, subject)| subject.as_ref().is_none_or(|name| self.subjects.contains(name)));
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }
}

/// Name of the field with the options of an item.
pub(super) const OPTIONS: &str = "options";

/// An entry of a table of texts.
pub(super) struct NamedText {
    /// The key.
    pub(super) name: String,
    /// The value.
    pub(super) text: String,
    /// Where the text stands.
    pub(super) node: Node,
}

/// Reads a table of texts, with their places.
pub(super) fn texts(node: &Node, of: &str) -> Result<Vec<NamedText>, DocumentError> {
    let Value::Table(entries) = &node.value else {
        return Err(found(node, node.value.kind(), &format!("a table: each name with {of}")));
    };
    entries
        .iter()
        .map(|(name, entry)| {
            Ok(NamedText { name: name.clone(), text: string(&entry.node)?, node: entry.node.clone() })
        })
        .collect()
}

fn check_expressions(templates: &Templates, fields: &[NamedText]) -> Result<(), DocumentError> {
    for NamedText { name, text, node } in fields {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !name.chars().all(plain) || ["answer", "subject", "chinese_name", "texts"].contains(&name.as_str())
        {
            let expected = "lower-case letters, digits and `_`; not answer, subject, chinese_name or texts";
            return Err(found(node, &format!("a field `{name}`"), expected));
        }
        templates
            .expression(text)
            .map_err(|fault| DocumentError::at(&node.origin, format!("field `{name}`: {fault}")))?;
    }
    Ok(())
}

/// Reads and checks an expression.
fn expression(templates: &Templates, node: Option<Node>) -> Result<Option<String>, DocumentError> {
    let Some(node) = node else { return Ok(None) };
    let source = string(&node)?;
    match templates.expression(&source) {
        Err(fault) => Err(DocumentError::at(&node.origin, fault)),
        Ok(_) => Ok(Some(source.clone())),
    }
}

/// A category: its name and its subjects.
type Category = (String, Vec<String>);

/// Reads the categories, and the one across the others.
fn categories(node: Option<Node>) -> Result<(Vec<Category>, Option<Category>), DocumentError> {
    let Some(node) = node else { return Ok((Vec::new(), None)) };
    let (mut all, mut part) = (Vec::new(), None);
    for mut table in match node.value {
        Value::Array(items) => items.into_iter().map(Table::new).collect::<Result<Vec<_>, _>>()?,
        _ => return Err(found(&node, node.value.kind(), "[[data.categories]] in double brackets")),
    } {
        let name = string(&table.require("name", "the category's name")?)?;
        let subjects = strings(table.require("subjects", "the category's subjects")?, "names of subjects")?;
        let across = match table.take("across") {
            Some(node) if boolean(&node)? => Some(node),
            _ => None,
        };
        table.finish()?;
        match across {
            Some(node) if part.is_some() => {
                return Err(found(&node, "a second category across the others", "at most one"));
            }
            Some(_) => part = Some((name, subjects)),
            None => all.push((name, subjects)),
        }
    }
    Ok((all, part))
}

impl AnswerSpec {
    fn parse(mut table: Table, splits: &[String], templates: &Templates) -> Result<Self, DocumentError> {
        let names = AnswerKind::WORDS.map(|(name, _)| name);
        let kind = word(&table.require("kind", &format!("one of {}", names.join(", ")))?, &names, |name| {
            AnswerKind::WORDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
        })?;
        let value = match table.take("value") {
            Some(node) if kind == AnswerKind::None => {
                return Err(found(&node, "`value`", "none: kind = \"none\" says that items have no answer"));
            }
            None if kind != AnswerKind::None => {
                return Err(table.missing("value", "an expression over columns"));
            }
            node => expression(templates, node)?.unwrap_or_else(|| "none".to_owned()),
        };
        let words = match table.take("words") {
            Some(node) if kind != AnswerKind::Choice && kind != AnswerKind::Boolean => {
                return Err(found(&node, "`words`", "them with kind = \"choice\" or \"boolean\" only"));
            }
            Some(node) => {
                let words = strings(node.clone(), "words of the answers, in order")?;
                if kind == AnswerKind::Boolean && words.len() != 2 {
                    return Err(found(&node, &format!("{} words", words.len()), "two: those of no and yes"));
                }
                Some(words)
            }
            None => None,
        };
        let optional_in = match table.take("optional_in") {
            Some(node) => {
                let named = strings(node.clone(), "names of splits")?;
                if let Some(unknown) = named.iter().find(|name| !splits.contains(name)) {
                    return Err(found(
                        &node,
                        &format!("the split `{unknown}`"),
                        &format!("one of {}", splits.join(", ")),
                    ));
                }
                named
            }
            None => Vec::new(),
        };
        table.finish()?;
        Ok(Self { kind, value, words, optional_in })
    }
}
