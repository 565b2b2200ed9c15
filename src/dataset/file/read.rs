//! Reads the data rows of a task file into items.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use minijinja::Expression;
use minijinja::value::{Value, ValueKind};

use super::AnswerKind;
use super::data::{Data, Format, OPTIONS};
use super::rows::{Row, documents, json_rows, value_of};
use crate::dataset::error::{DatasetError, Problems};
use crate::dataset::{
    Answer, Benchmark, Content, DataFile, Dataset, Fields, Item, Number, Subject, csv, jsonl, shorten, text,
};

impl Data {
    /// Reads one split, or those of its `subjects`; all if empty.
    pub(super) fn read(
        &self,
        benchmark: &'static Benchmark,
        root: &Path,
        split: &str,
        subjects: &[String],
    ) -> Result<Dataset, DatasetError> {
        let there = self.files_of(root, split)?;
        if there.is_empty() {
            let patterns = self.files.get(split).map(|all| all.join("` or `")).unwrap_or_default();
            let expected = format!("`{patterns}`, the {split} split of {}", benchmark.title);
            return Err(DatasetError::layout(root, "no such file", expected));
        }
        let mut reading = Reading {
            data: self,
            compiled: Compiled::new(self),
            benchmark,
            split,
            problems: Problems::default(),
        };
        let mut dataset = Dataset {
            benchmark,
            split: split.to_owned(),
            subjects: BTreeMap::new(),
            items: Vec::new(),
            files: Vec::new(),
        };
        for (path, subject) in &there {
            if subject.as_ref().is_none_or(|subject| subjects.is_empty() || subjects.contains(subject)) {
                reading.file(root, path, subject.as_deref(), subjects, &mut dataset)?;
            }
        }
        reading.problems.into_result()?;
        let found: BTreeSet<&str> = dataset.items.iter().map(|item| item.subject.as_str()).collect();
        if let Some(unknown) = subjects.iter().find(|subject| !found.contains(subject.as_str())) {
            let expected = format!("a subject of the {split} split of {}", benchmark.title);
            return Err(DatasetError::layout(root, format!("subject `{unknown}` asked for"), expected));
        }
        for key in found {
            dataset.subjects.insert(key.to_owned(), self.subject_of(benchmark, key));
        }
        dataset.items.sort_by(|a, b| a.subject.cmp(&b.subject));
        Ok(dataset)
    }

    fn subject_of(&self, benchmark: &Benchmark, key: &str) -> Subject {
        let category =
            self.categories.iter().find(|(_, subjects)| subjects.iter().any(|subject| subject == key));
        Subject {
            key: key.to_owned(),
            chinese_name: self.chinese.get(key).cloned(),
            category: category.and_then(|(name, _)| benchmark.category(name)).map(str::to_owned),
            hard: self
                .part
                .as_ref()
                .is_some_and(|(_, subjects)| subjects.iter().any(|subject| subject == key)),
        }
    }
}

/// The expressions of a task file, compiled for one reading.
struct Compiled<'a> {
    fields: Vec<(&'a str, Field<'a>)>,
    answer: Field<'a>,
    subject: Option<Field<'a>>,
    /// Whether an expression names the whole row.
    names_row: bool,
}

/// An expression, with the columns that it names.
struct Field<'a> {
    source: &'a str,
    expression: Expression<'a, 'a>,
    columns: Vec<String>,
    /// Whether it names the whole row.
    names_row: bool,
}

impl<'a> Field<'a> {
    fn new(data: &'a Data, source: &'a str) -> Self {
        let expression = data
            .templates
            .expression(source)
            .expect("invariant: expressions are checked when the file is read");
        let mut columns: Vec<String> = expression.undeclared_variables(false).into_iter().collect();
        let names_row = columns.iter().any(|name| name == ROW);
        let given = [ROW, ROW_INDEX, SUBJECT];
        columns.retain(|name| !data.templates.is_function(name) && !given.contains(&name.as_str()));
        Self { source, expression, columns, names_row }
    }

    /// Evaluates the expression over a row.
    fn of(&self, row: &Row, context: &Value) -> Result<Value, String> {
        if let Some(missing) = self.columns.iter().find(|column| !row.contains_key(*column)) {
            let there: Vec<&str> = row.keys().map(String::as_str).collect();
            return Err(format!("found no column `{missing}`; the row has {}", shorten(&there.join(", "))));
        }
        let value =
            self.expression.eval(context.clone()).map_err(|error| super::template::message(&error))?;
        if value.is_undefined() {
            return Err(format!("found nothing for `{}`; expected a value", self.source));
        }
        Ok(value)
    }
}

/// Name of the whole row in expressions, for columns with names of several words:
/// `row["Best Answer"]`.
const ROW: &str = "row";
/// Name of the row number in its file, from 0.
const ROW_INDEX: &str = "row_index";
/// Name of the subject in the file name of the row, unless a column has it.
const SUBJECT: &str = "subject";

impl<'a> Compiled<'a> {
    fn new(data: &'a Data) -> Self {
        let field = |source: &'a String| Field::new(data, source);
        let fields: Vec<(&str, Field<'a>)> =
            data.fields.iter().map(|(name, source)| (name.as_str(), field(source))).collect();
        let answer = field(&data.answer.value);
        let subject = data.subject.as_ref().map(field);
        let names_row = fields
            .iter()
            .map(|(_, field)| field)
            .chain([&answer])
            .chain(&subject)
            .any(|field| field.names_row);
        Self { fields, answer, subject, names_row }
    }
}

struct Reading<'a> {
    data: &'a Data,
    compiled: Compiled<'a>,
    benchmark: &'static Benchmark,
    split: &'a str,
    problems: Problems,
}

impl Reading<'_> {
    /// Reads one file. Wrong rows go to the problems.
    fn file(
        &mut self,
        root: &Path,
        name: &str,
        subject: Option<&str>,
        subjects: &[String],
        to: &mut Dataset,
    ) -> Result<(), DatasetError> {
        let path = root.join(name);
        let Some(file) = text::read(&path, &mut self.problems)? else { return Ok(()) };
        let mut rows = match &self.data.haystacks {
            Some(haystacks) => haystacks.rows(root, &file.text, &path, self.split, &mut self.problems)?,
            None => self.rows(&file.text, &path),
        };
        if let Some(subject) = subject {
            self.add_beside(root, subject, &mut rows)?;
        }
        if rows.is_empty() && self.problems.0.is_empty() {
            self.problems.push(&path, 1, "found an empty file; expected rows");
        }
        let mut items = 0;
        for (index, (line, row)) in rows.into_iter().enumerate() {
            match self.item(index, &row, subject) {
                Ok(item) => {
                    items += 1;
                    if self.compiled.subject.is_none()
                        || subjects.is_empty()
                        || subjects.contains(&item.subject)
                    {
                        to.items.push(item);
                    }
                }
                Err(fault) => self.problems.push(&path, line, fault),
            }
        }
        to.files.push(DataFile { path: name.to_owned(), sha256: file.sha256, items });
        Ok(())
    }

    /// Splits a file into rows with their lines.
    fn rows(&mut self, text: &str, path: &Path) -> Vec<(u64, Row)> {
        match self.data.format {
            Format::Csv => self.csv_rows(text, path),
            Format::Text => documents(text, self.data.begins.as_ref()),
            Format::JsonLines | Format::Needles => jsonl::rows::<Row>(text, path, &mut self.problems),
            Format::Json => match json_rows(text, self.data.rows.as_deref()) {
                // Entries have no lines of their own; they count from 1.
                Ok(rows) => (1..).zip(rows).collect(),
                Err((line, message)) => {
                    self.problems.push(path, line, message);
                    Vec::new()
                }
            },
        }
    }

    /// Adds the texts in further files of a subject to its rows.
    fn add_beside(
        &mut self,
        root: &Path,
        subject: &str,
        rows: &mut [(u64, Row)],
    ) -> Result<(), DatasetError> {
        for (name, pattern) in &self.data.beside {
            let path = root.join(pattern.replace("{subject}", subject));
            if !path.is_file() {
                self.problems.push(
                    &path,
                    1,
                    format!("found no such file; expected the text `{name}` of {subject}"),
                );
                continue;
            }
            let Some(file) = text::read(&path, &mut self.problems)? else { continue };
            let text = serde_json::Value::from(crate::dataset::unix_lines(&file.text));
            for (_, row) in rows.iter_mut() {
                row.insert(name.clone(), text.clone());
            }
        }
        Ok(())
    }

    fn csv_rows(&mut self, text: &str, path: &Path) -> Vec<(u64, Row)> {
        let (records, fault) = csv::records(text);
        if let Some(fault) = fault {
            self.problems.push(path, fault.line, fault.message);
        }
        let mut records = records.into_iter();
        let columns = match &self.data.columns {
            Some(columns) => columns.clone(),
            None => records.next().map(|header| header.fields).unwrap_or_default(),
        };
        let mut rows = Vec::new();
        for record in records {
            if record.fields.len() != columns.len() {
                let found = record.fields.len();
                let message = format!(
                    "found {found} fields; expected {}: {}",
                    columns.len(),
                    shorten(&columns.join(", "))
                );
                self.problems.push(path, record.line, message);
                continue;
            }
            let fields = record.fields.into_iter().map(|field| crate::dataset::unix_lines(&field).into());
            rows.push((record.line, columns.iter().cloned().zip(fields).collect()));
        }
        rows
    }

    /// Makes an item of a row.
    fn item(&self, index: usize, row: &Row, subject: Option<&str>) -> Result<Item, String> {
        let mut context: BTreeMap<&str, Value> =
            row.iter().map(|(name, value)| (name.as_str(), value_of(value))).collect();
        // A second copy of every column, which few need.
        if self.compiled.names_row {
            context.insert(ROW, Value::from(context.clone()));
        }
        context.insert(ROW_INDEX, Value::from(index));
        if let Some(subject) = subject {
            context.entry(SUBJECT).or_insert_with(|| Value::from(subject));
        }
        let context = Value::from(context);
        let mut fields = Fields { texts: BTreeMap::new(), lists: BTreeMap::new(), answer: None };
        for (name, field) in &self.compiled.fields {
            let value = field.of(row, &context)?;
            if value.kind() == ValueKind::Seq || value.kind() == ValueKind::Iterable {
                let list = value.try_iter().map_err(|error| error.to_string())?;
                let list = list.map(|one| words_of(&one, name)).collect::<Result<Vec<_>, _>>()?;
                fields.lists.insert((*name).to_owned(), list);
            } else {
                fields.texts.insert((*name).to_owned(), words_of(&value, name)?);
            }
        }
        fields.answer = self.answer(row, &context, &fields)?;
        let subject = match &self.compiled.subject {
            Some(field) => words_of(&field.of(row, &context)?, "subject")?,
            None => subject.unwrap_or(self.benchmark.name).to_owned(),
        };
        let place = match (subject == self.benchmark.name, &self.compiled.subject) {
            (false, None) => format!("{}/{}/{subject}/{index}", self.benchmark, self.split),
            _ => format!("{}/{}/{index}", self.benchmark, self.split),
        };
        Ok(Item::new(place, &subject, Content::Fields(fields)))
    }

    /// Returns the row's answer; `None` in a split that may have none.
    fn answer(&self, row: &Row, context: &Value, fields: &Fields) -> Result<Option<Answer>, String> {
        let spec = &self.data.answer;
        if spec.kind == AnswerKind::None {
            return Ok(Some(Answer::Text(String::new())));
        }
        let value = match self.compiled.answer.of(row, context) {
            Ok(value) if !value.is_none() => value,
            _ if spec.optional_in.iter().any(|split| split == self.split) => return Ok(None),
            Ok(_) => return Err("found no answer; expected one".to_owned()),
            Err(fault) => return Err(fault),
        };
        let text = words_of(&value, "answer")?;
        let of_words = |words: &[String]| {
            words.iter().position(|word| *word == text).ok_or_else(|| {
                format!("found the answer {:?}; expected one of {}", shorten(&text), words.join(", "))
            })
        };
        let answer = match spec.kind {
            AnswerKind::Choice => {
                let options = fields.lists.get(OPTIONS).map_or(0, Vec::len);
                let index = match &spec.words {
                    Some(words) => of_words(words)?,
                    None => text.parse().map_err(|_| {
                        format!(
                            "found the answer {:?}; expected the number of an option, from 0",
                            shorten(&text)
                        )
                    })?,
                };
                if index >= options {
                    return Err(format!(
                        "found the answer {:?}; the item has {options} options",
                        shorten(&text)
                    ));
                }
                Answer::Choice(index)
            }
            AnswerKind::Boolean => Answer::Boolean(match &spec.words {
                Some(words) => of_words(words)? == 1,
                None => text
                    .parse()
                    .map_err(|_| format!("found the answer {:?}; expected true or false", shorten(&text)))?,
            }),
            AnswerKind::Number => Answer::Number(
                number(&text)
                    .ok_or_else(|| format!("found the answer {:?}; expected a number", shorten(&text)))?,
            ),
            AnswerKind::Text | AnswerKind::None => Answer::Text(text),
        };
        Ok(Some(answer))
    }
}

/// Reads a number as people write it: with commas between thousands, a sign, a currency.
pub(crate) fn number(text: &str) -> Option<Number> {
    let plain: String = text.trim().chars().filter(|c| *c != ',' && *c != '$').collect();
    let plain = plain.strip_prefix('+').unwrap_or(&plain);
    plain.trim_end_matches('.').parse().ok().and_then(Number::new)
}

/// Returns a value as text.
fn words_of(value: &Value, name: &str) -> Result<String, String> {
    match value.kind() {
        ValueKind::String | ValueKind::Number | ValueKind::Bool => Ok(value.to_string()),
        kind => Err(format!("found {kind} for `{name}`; expected a text, a number, or a list of them")),
    }
}
