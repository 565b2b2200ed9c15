//! BoolQ: `<split>.jsonl`, one object a line with `question`, `title`, `answer` (true or false) and
//! `passage`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::error::{DatasetError, Problems};
use super::{Benchmark, Content, DataFile, Dataset, Item, Layout, Subject, YesNo, jsonl, text};

/// Key of BoolQ's only subject.
const SUBJECT: &str = "boolq";

/// A line of the file (wire type).
#[derive(Deserialize)]
struct Row {
    question: String,
    title: String,
    passage: String,
    #[serde(default)]
    answer: Option<bool>,
}

/// [`Layout::BoolQJsonl`] when `root` has a jsonl file of one of the official splits.
pub(super) fn recognise(root: &Path) -> Result<Layout, DatasetError> {
    let names = Benchmark::BoolQ.splits().iter().map(|split| format!("{split}.jsonl")).collect::<Vec<_>>();
    if names.iter().any(|name| root.join(name).is_file()) {
        Ok(Layout::BoolQJsonl)
    } else {
        let expected = format!("BoolQ's layout: one of {}", names.join(", "));
        Err(DatasetError::layout(root, "no BoolQ file", expected))
    }
}

/// Reads `root/<split>.jsonl`.
pub(super) fn read(root: &Path, split: &str, subjects: &[String]) -> Result<Dataset, DatasetError> {
    if let Some(unknown) = subjects.iter().find(|s| *s != SUBJECT) {
        let found = format!("subject `{unknown}` asked for");
        return Err(DatasetError::layout(root, found, format!("`{SUBJECT}`, BoolQ's only subject")));
    }
    let name = format!("{split}.jsonl");
    let path = root.join(&name);
    if !path.is_file() {
        return Err(DatasetError::layout(&path, "nothing there", format!("the {split} split of BoolQ")));
    }
    let mut problems = Problems::default();
    let Some(file) = text::read(&path, &mut problems)? else {
        return Err(DatasetError::Rows(problems));
    };
    let mut items = Vec::new();
    for (line, row) in jsonl::rows::<Row>(&file.text, &path, &mut problems) {
        if let Some(fault) = fault(&row, split) {
            problems.push(&path, line, fault);
            continue;
        }
        let Row { question, title, passage, answer } = row;
        let content = Content::YesNo(YesNo { title, passage, question, answer });
        items.push(Item::new(format!("boolq/{split}/{}", line - 1), SUBJECT, content));
    }
    if items.is_empty() && problems.0.is_empty() {
        problems.push(&path, 1, "found an empty file; expected one question a line");
    }
    problems.into_result()?;
    let subject = Subject { key: SUBJECT.into(), chinese_name: None, category: None };
    Ok(Dataset {
        benchmark: Benchmark::BoolQ,
        split: split.into(),
        subjects: BTreeMap::from([(SUBJECT.into(), subject)]),
        files: vec![DataFile { path: name, sha256: file.sha256, items: items.len() }],
        items,
    })
}

fn fault(row: &Row, split: &str) -> Option<String> {
    for (name, value) in [("question", &row.question), ("passage", &row.passage)] {
        if value.trim().is_empty() {
            return Some(format!("found an empty `{name}`; expected text"));
        }
    }
    // The official test split is published without answers; every other split has them.
    (row.answer.is_none() && split != "test").then(|| "found no `answer`; expected true or false".to_owned())
}
