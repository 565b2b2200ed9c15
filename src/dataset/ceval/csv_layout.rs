//! `{dev,val,test}/<subject>_<split>.csv` with `subject_mapping.json`.
//!
//! A csv file has the header `id,question,A,B,C,D[,answer[,explanation]]`. The test split as first released has no
//! `answer`. The dev split has worked explanations, which no protocol here uses.

use std::collections::BTreeMap;
use std::path::Path;

use crate::dataset::csv::{self, Record};
use crate::dataset::error::{DatasetError, Problems};
use crate::dataset::{
    Choice, ChoiceText, Content, DataFile, Dataset, Item, Layout, Subject, SupportFile, entries, text,
    unix_lines,
};

use super::{CEVAL, Evidence, LETTERS, MAPPING_FILE, mapping_json};

/// `{dev,val,test}/<subject>_<split>.csv` and `subject_mapping.json` (C-Eval's original release).
pub(super) struct CsvLayout;

impl Layout for CsvLayout {
    fn name(&self) -> &'static str {
        "ceval-csv"
    }

    fn files(&self) -> String {
        format!("`{{dev,val,test}}/<subject>_<split>.csv` with `{MAPPING_FILE}`")
    }

    fn normalisation(&self) -> &'static str {
        super::NORMALISATION
    }

    fn is_at(&self, root: &Path) -> Result<bool, DatasetError> {
        Ok(super::evidence(root)? == Some(Evidence::Csv))
    }

    fn has_split(&self, root: &Path, split: &str) -> bool {
        root.join(split).is_dir()
    }

    fn read(&self, root: &Path, split: &str, subjects: &[String]) -> Result<Dataset, DatasetError> {
        read(root, split, subjects)
    }

    fn support_files(&self) -> &'static [SupportFile] {
        &[SupportFile { path: MAPPING_FILE, content: mapping_json }]
    }
}

/// Reads `root/<split>/`.
fn read(root: &Path, split: &str, wanted: &[String]) -> Result<Dataset, DatasetError> {
    let mut subjects = read_mapping(root)?;
    let dir = root.join(split);
    if !dir.is_dir() {
        return Err(DatasetError::layout(&dir, "nothing there", format!("the {split} split of C-Eval")));
    }
    check_files(&dir, split, &subjects)?;
    super::check_subjects(&root.join(MAPPING_FILE), wanted, subjects.keys())?;
    if !wanted.is_empty() {
        subjects.retain(|key, _| wanted.contains(key));
    }

    let mut problems = Problems::default();
    let (mut items, mut files) = (Vec::new(), Vec::new());
    for key in subjects.keys() {
        let name = format!("{key}_{split}.csv");
        let path = dir.join(&name);
        if !path.is_file() {
            let expected = format!("the {split} questions of `{key}`, a subject of {MAPPING_FILE}");
            return Err(DatasetError::layout(&path, "nothing there", expected));
        }
        let Some(file) = text::read(&path, &mut problems)? else { continue };
        let read = read_file(&file.text, &path, key, split, &mut problems);
        files.push(DataFile { path: format!("{split}/{name}"), sha256: file.sha256, items: read.len() });
        items.extend(read);
    }
    problems.into_result()?;
    Ok(Dataset { benchmark: &CEVAL, split: split.into(), subjects, items, files })
}

/// `subject_mapping.json`: key → [English name, Chinese name, category].
fn read_mapping(root: &Path) -> Result<BTreeMap<String, Subject>, DatasetError> {
    let path = root.join(MAPPING_FILE);
    if !path.is_file() {
        let expected = "an object: subject → [English name, Chinese name, category]";
        return Err(DatasetError::layout(&path, "nothing there", expected));
    }
    let mut problems = Problems::default();
    let Some(file) = text::read(&path, &mut problems)? else {
        return Err(DatasetError::Rows(problems));
    };
    let mapping: BTreeMap<String, [String; 3]> = serde_json::from_str(&file.text).map_err(|error| {
        let expected = "an object: subject → [English name, Chinese name, category]";
        DatasetError::layout(&path, error.to_string(), expected)
    })?;
    let mut subjects = BTreeMap::new();
    for (key, [_, chinese, category]) in mapping {
        let Some(known) = CEVAL.category(&category) else {
            let names = CEVAL.categories.join(", ");
            let found = format!("category {category:?} of `{key}`");
            return Err(DatasetError::layout(&path, found, format!("one of {names}")));
        };
        if !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') || key.is_empty() {
            let expected = "a subject name of letters, digits, `_` and `-`";
            return Err(DatasetError::layout(&path, format!("the subject {key:?}"), expected));
        }
        let subject = super::subject(&key, Some(chinese), known);
        subjects.insert(key, subject);
    }
    Ok(subjects)
}

/// Checks that every csv file of the folder belongs to a subject. Questions of other files would be lost.
fn check_files(dir: &Path, split: &str, subjects: &BTreeMap<String, Subject>) -> Result<(), DatasetError> {
    for name in entries(dir)? {
        let Some(stem) = name.strip_suffix(".csv") else { continue };
        let key = stem.strip_suffix(&format!("_{split}"));
        if !key.is_some_and(|key| subjects.contains_key(key)) {
            let expected = format!("`<subject>_{split}.csv` with a subject of {MAPPING_FILE}");
            return Err(DatasetError::layout(&dir.join(&name), "a file of no known subject", expected));
        }
    }
    Ok(())
}

/// Index of each column in the header.
struct Columns {
    id: usize,
    question: usize,
    options: [usize; 4],
    answer: Option<usize>,
    count: usize,
}

fn columns(header: &Record, split: &str) -> Result<Columns, String> {
    let expected = match split {
        "test" => "id,question,A,B,C,D[,answer[,explanation]]",
        _ => "id,question,A,B,C,D,answer[,explanation]",
    };
    let wrong = |what: String| format!("{what}; expected the header {expected}");
    let known = ["id", "question", "A", "B", "C", "D", "answer", "explanation"];
    for (i, name) in header.fields.iter().enumerate() {
        if !known.contains(&name.as_str()) {
            return Err(wrong(format!("found the column {name:?}")));
        }
        if header.fields[..i].contains(name) {
            return Err(wrong(format!("found the column `{name}` twice")));
        }
    }
    let optional = |name: &str| header.fields.iter().position(|field| field == name);
    let required = |name: &str| optional(name).ok_or_else(|| wrong(format!("found no column `{name}`")));
    Ok(Columns {
        id: required("id")?,
        question: required("question")?,
        options: [required("A")?, required("B")?, required("C")?, required("D")?],
        answer: if split == "test" { optional("answer") } else { Some(required("answer")?) },
        count: header.fields.len(),
    })
}

fn read_file(text: &str, path: &Path, subject: &str, split: &str, problems: &mut Problems) -> Vec<Item> {
    let (records, error) = csv::records(text);
    if let Some(error) = error {
        problems.push(path, error.line, error.message);
    } else if records.is_empty() {
        problems.push(path, 1, "found an empty file; expected a header line");
    }
    let mut items = Vec::new();
    let Some((header, rows)) = records.split_first() else {
        return items;
    };
    let columns = match columns(header, split) {
        Ok(columns) => columns,
        Err(message) => {
            problems.push(path, header.line, message);
            return items;
        }
    };
    let mut seen = BTreeMap::new();
    for row in rows {
        match item(row, &columns, subject, split) {
            Ok((id, content)) => {
                if let Some(line) = seen.insert(id.clone(), row.line) {
                    let message =
                        format!("found the id {id} again (first on line {line}); expected ids that differ");
                    problems.push(path, row.line, message);
                    continue;
                }
                items.push(Item::new(format!("ceval/{split}/{subject}/{id}"), subject, content));
            }
            Err(message) => problems.push(path, row.line, message),
        }
    }
    items
}

fn item(row: &Record, columns: &Columns, subject: &str, split: &str) -> Result<(String, Content), String> {
    if row.fields.len() != columns.count {
        return Err(format!("found {} fields; expected {}", row.fields.len(), columns.count));
    }
    let field = |i: usize| row.fields[i].as_str();
    let id = field(columns.id);
    if id.is_empty() || id.contains(|c: char| c.is_whitespace() || c == '/' || c.is_control()) {
        return Err(format!("found the id {id:?} in {split} of {subject}; expected a number"));
    }
    let question = unix_lines(field(columns.question));
    if question.trim().is_empty() {
        return Err("found an empty question; expected text".into());
    }
    let options = columns.options.map(|i| unix_lines(field(i)));
    if let Some(i) = options.iter().position(|option| option.trim().is_empty()) {
        return Err(format!("found an empty option {}; expected text", LETTERS[i]));
    }
    let answer = match columns.answer.map(field) {
        None => None,
        Some(found) => Some(LETTERS.iter().position(|letter| *letter == found).ok_or_else(|| {
            format!("found the answer {:?}; expected A, B, C or D", crate::dataset::shorten(found))
        })?),
    };
    Ok((
        id.to_owned(),
        Content::Choice(Choice { text: ChoiceText::Parts { question, options: options.to_vec() }, answer }),
    ))
}
