//! BoolQ: `<split>.jsonl`, one JSON object a line, in either of its two releases.
//!
//! The original release has `question`, `title`, `answer` (true or false) and `passage`. SuperGLUE's release calls the
//! dev split `val` and the answer `label`, and numbers the lines in `idx`. It has no title: its passage is
//! `TITLE -- PASSAGE`, the form that protocols use. The reader splits that passage at the first ` -- `, so a question
//! gives the same item from either release.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::error::{DatasetError, Problems};
use super::{
    Benchmark, Content, DataFile, Dataset, Item, Layout, ModelTestFiles, ModelTestRows, Subject,
    TimingPrompt, YesNo, jsonl, text,
};

/// BoolQ: English yes/no questions about a passage.
pub static BOOLQ: Benchmark = Benchmark {
    name: "boolq",
    title: "BoolQ",
    splits: &["train", "dev", "test"],
    default_split: "dev",
    demonstration_split: "train",
    layouts: &[&Jsonl],
    chance: Some(0.5),
    categories: &[],
    part: "",
    is_grid: false,
    timing_prompt: TimingPrompt::Function(timing_prompt),
    modeltest: Some(ModelTestFiles {
        set: "BoolQ",
        rows: ModelTestRows::Files,
        answers: &[("yes", "True"), ("no", "False")],
        right: "True",
        wrong: "False",
    }),
    file: None,
};

/// `<split>.jsonl`, one object a line (BoolQ's original release, and SuperGLUE's with `val` for `dev`).
struct Jsonl;

impl Layout for Jsonl {
    fn name(&self) -> &'static str {
        "boolq-jsonl"
    }

    fn files(&self) -> String {
        format!("one of {}", all_file_names().join(", "))
    }

    fn is_at(&self, root: &Path) -> Result<bool, DatasetError> {
        Ok(all_file_names().iter().any(|name| root.join(name).is_file()))
    }

    fn has_split(&self, root: &Path, split: &str) -> bool {
        file_names(split).iter().any(|name| root.join(name).is_file())
    }

    fn read(&self, root: &Path, split: &str, subjects: &[String]) -> Result<Dataset, DatasetError> {
        read(root, split, subjects)
    }
}

/// Returns the question alone, as ModelTest times it.
fn timing_prompt(item: &Item) -> String {
    match &item.content {
        Content::YesNo(yes_no) => yes_no.question.clone(),
        _ => String::new(),
    }
}

/// Key of BoolQ's only subject.
const SUBJECT: &str = "boolq";
/// Separator of title and passage in SuperGLUE's release.
const DASH: &str = " -- ";

/// A line of the file (wire type).
#[derive(Deserialize)]
struct Row {
    question: String,
    title: Option<String>,
    passage: String,
    answer: Option<bool>,
    label: Option<Label>,
}

/// SuperGLUE's answer: true or false. In copies exported from a table: 1, 0, or -1 for no answer.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected true or false")]
enum Label {
    Word(bool),
    Number(i8),
}

impl Label {
    fn answer(&self) -> Result<Option<bool>, String> {
        match self {
            Self::Word(answer) => Ok(Some(*answer)),
            Self::Number(0) => Ok(Some(false)),
            Self::Number(1) => Ok(Some(true)),
            Self::Number(-1) => Ok(None),
            Self::Number(other) => Err(format!("found the label {other}; expected true or false")),
        }
    }
}

/// File names of a split in the two releases.
fn file_names(split: &str) -> Vec<String> {
    let also = (split == "dev").then_some("val");
    [split].into_iter().chain(also).map(|name| format!("{name}.jsonl")).collect()
}

/// Returns the file name of the split, or `None` if there is none.
///
/// # Errors
/// When the folder holds the files of both releases.
fn file_of(root: &Path, split: &str) -> Result<Option<String>, DatasetError> {
    let there: Vec<String> = file_names(split).into_iter().filter(|name| root.join(name).is_file()).collect();
    match there.as_slice() {
        [_, _] => {
            let found = format!("{}, two files of the {split} split", there.join(" and "));
            Err(DatasetError::layout(root, found, "one of them"))
        }
        there => Ok(there.first().cloned()),
    }
}

/// Returns the names of the files of all official splits in both releases.
fn all_file_names() -> Vec<String> {
    BOOLQ.splits.iter().flat_map(|split| file_names(split)).collect()
}

/// Reads the split's file in `root`.
fn read(root: &Path, split: &str, subjects: &[String]) -> Result<Dataset, DatasetError> {
    if let Some(unknown) = subjects.iter().find(|s| *s != SUBJECT) {
        let found = format!("subject `{unknown}` asked for");
        return Err(DatasetError::layout(root, found, format!("`{SUBJECT}`, BoolQ's only subject")));
    }
    let Some(name) = file_of(root, split)? else {
        let path = root.join(format!("{split}.jsonl"));
        return Err(DatasetError::layout(&path, "nothing there", format!("the {split} split of BoolQ")));
    };
    let path = root.join(&name);
    let mut problems = Problems::default();
    let Some(file) = text::read(&path, &mut problems)? else {
        return Err(DatasetError::Rows(problems));
    };
    let mut items = Vec::new();
    for (line, row) in jsonl::rows::<Row>(&file.text, &path, &mut problems) {
        match content(row, split) {
            Ok(content) => {
                items.push(Item::new(
                    format!("boolq/{split}/{}", line - 1),
                    SUBJECT,
                    Content::YesNo(content),
                ));
            }
            Err(fault) => problems.push(&path, line, fault),
        }
    }
    if items.is_empty() && problems.0.is_empty() {
        problems.push(&path, 1, "found an empty file; expected one question a line");
    }
    problems.into_result()?;
    let subject = Subject { key: SUBJECT.into(), chinese_name: None, category: None, hard: false };
    Ok(Dataset {
        benchmark: &BOOLQ,
        split: split.into(),
        subjects: BTreeMap::from([(SUBJECT.into(), subject)]),
        files: vec![DataFile { path: name, sha256: file.sha256, items: items.len() }],
        items,
    })
}

/// Converts a line to a question. The error says what is missing or wrong.
fn content(row: Row, split: &str) -> Result<YesNo, String> {
    let label = row.label.as_ref().map(Label::answer).transpose()?.flatten();
    let Row { question, title, passage, answer, .. } = row;
    for (name, value) in [("question", &question), ("passage", &passage)] {
        if value.trim().is_empty() {
            return Err(format!("found an empty `{name}`; expected text"));
        }
    }
    if let (Some(answer), Some(label)) = (answer, label)
        && answer != label
    {
        return Err(format!("found `answer` {answer} beside `label` {label}; expected the same"));
    }
    let answer = answer.or(label);
    // The official test split is published without answers. Every other split has them.
    if answer.is_none() && split != "test" {
        return Err("found no `answer` or `label`; expected true or false".to_owned());
    }
    let (title, passage) = match title {
        Some(title) => (title, passage),
        None => match passage.split_once(DASH) {
            Some((title, passage)) => (title.to_owned(), passage.to_owned()),
            None => {
                return Err("found no `title`, nor one before ` -- ` in the passage, as SuperGLUE has it; expected either".to_owned());
            }
        },
    };
    Ok(YesNo { title, passage, question, answer })
}
