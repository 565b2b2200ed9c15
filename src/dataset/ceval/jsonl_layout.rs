//! `{val,test}/{STEM,Social_Science,Humanities,Other}/<subject>.jsonl`, the layout that THUDM's evaluation script and
//! ModelTest's `CEval_0_shot` read.
//!
//! A line is `{"id", "inputs_pretokenized", "choices_pretokenized", "label", "targets_pretokenized"}`.
//! `inputs_pretokenized` is the question joined with its options; `label` is the index of the right option. The layout
//! has no dev split, so it has no demonstrations.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::dataset::error::{DatasetError, Problems};
use crate::dataset::{
    Choice, ChoiceText, Content, DataFile, Dataset, Item, Layout, Subject, entries, jsonl, text, unix_lines,
};

use super::{CEVAL, Evidence, LETTERS};

/// `{val,test}/<category>/<subject>.jsonl` (the release of THUDM's evaluation script).
pub(super) struct JsonlLayout;

impl Layout for JsonlLayout {
    fn name(&self) -> &'static str {
        "ceval-jsonl"
    }

    fn files(&self) -> String {
        "`{val,test}/{STEM,Social_Science,Humanities,Other}/<subject>.jsonl`".to_owned()
    }

    fn normalisation(&self) -> &'static str {
        super::NORMALISATION
    }

    fn is_at(&self, root: &Path) -> Result<bool, DatasetError> {
        Ok(super::evidence(root)? == Some(Evidence::Jsonl))
    }

    fn has_split(&self, root: &Path, split: &str) -> bool {
        root.join(split).is_dir()
    }

    fn read(&self, root: &Path, split: &str, subjects: &[String]) -> Result<Dataset, DatasetError> {
        read(root, split, subjects)
    }
}

/// A line of the file (wire type).
#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    id: Option<Value>,
    inputs_pretokenized: String,
    choices_pretokenized: Vec<String>,
    #[serde(default)]
    label: Option<i64>,
    #[serde(default)]
    targets_pretokenized: Option<Vec<String>>,
}

/// Reads `root/<split>/`.
fn read(root: &Path, split: &str, wanted: &[String]) -> Result<Dataset, DatasetError> {
    let dir = root.join(split);
    if !dir.is_dir() {
        let expected = format!("the {split} split of C-Eval (this layout has val and test)");
        return Err(DatasetError::layout(&dir, "nothing there", expected));
    }
    let mut subjects = find_subjects(&dir)?;
    super::check_subjects(&dir, wanted, subjects.keys())?;
    if !wanted.is_empty() {
        subjects.retain(|key, _| wanted.contains(key));
    }

    let mut problems = Problems::default();
    let (mut items, mut files) = (Vec::new(), Vec::new());
    for (key, (_, name)) in &subjects {
        let path = dir.join(name);
        let Some(file) = text::read(&path, &mut problems)? else { continue };
        let read = read_file(&file.text, &path, key, split, &mut problems);
        files.push(DataFile { path: format!("{split}/{name}"), sha256: file.sha256, items: read.len() });
        items.extend(read);
    }
    problems.into_result()?;
    let subjects = subjects.into_iter().map(|(key, (subject, _))| (key, subject)).collect();
    Ok(Dataset { benchmark: &CEVAL, split: split.into(), subjects, items, files })
}

/// Finds the subjects and their files (`<category folder>/<subject>.jsonl`) in a split's folder.
fn find_subjects(dir: &Path) -> Result<BTreeMap<String, (Subject, String)>, DatasetError> {
    let mut subjects: BTreeMap<String, (Subject, String)> = BTreeMap::new();
    for folder in entries(dir)? {
        let path = dir.join(&folder);
        if !path.is_dir() {
            continue;
        }
        let Some(category) = CEVAL.category(&folder) else {
            let names: Vec<String> = CEVAL.categories.iter().map(|name| name.replace(' ', "_")).collect();
            let expected = format!("one of {}", names.join(", "));
            return Err(DatasetError::layout(&path, "a folder of no category", expected));
        };
        for file in entries(&path)? {
            let Some(key) = file.strip_suffix(".jsonl") else { continue };
            let chinese_name = super::official(key).map(|(_, chinese, _)| (*chinese).to_owned());
            let subject = super::subject(key, chinese_name, category);
            if let Some((_, first)) = subjects.insert(key.to_owned(), (subject, format!("{folder}/{file}"))) {
                let expected = format!("each subject in one category; `{key}` is also in {first}");
                return Err(DatasetError::layout(&path.join(&file), "a subject met before", expected));
            }
        }
    }
    if subjects.is_empty() {
        return Err(DatasetError::layout(dir, "no jsonl file", "`<category>/<subject>.jsonl`"));
    }
    Ok(subjects)
}

fn read_file(text: &str, path: &Path, subject: &str, split: &str, problems: &mut Problems) -> Vec<Item> {
    let mut items = Vec::new();
    let mut seen = BTreeMap::new();
    for (line, row) in jsonl::rows::<Row>(text, path, problems) {
        match item(row, line, split) {
            Ok((id, content)) => {
                if let Some(first) = seen.insert(id.clone(), line) {
                    let message =
                        format!("found the id {id} again (first on line {first}); expected ids that differ");
                    problems.push(path, line, message);
                    continue;
                }
                items.push(Item::new(format!("ceval/{split}/{subject}/{id}"), subject, content));
            }
            Err(message) => problems.push(path, line, message),
        }
    }
    items
}

fn item(row: Row, line: u64, split: &str) -> Result<(String, Content), String> {
    let id = match row.id {
        // Rows without an id are numbered from 0, like the ids of the csv files.
        None | Some(Value::Null) => (line - 1).to_string(),
        Some(Value::Number(id)) => id.to_string(),
        Some(Value::String(id))
            if !id.is_empty() && !id.contains(|c: char| c.is_whitespace() || c == '/') =>
        {
            id
        }
        Some(other) => return Err(format!("found the id {other}; expected a number")),
    };
    if row.inputs_pretokenized.trim().is_empty() {
        return Err("found an empty `inputs_pretokenized`; expected the question and its options".into());
    }
    if !row.choices_pretokenized.iter().map(|c| c.trim()).eq(LETTERS) {
        let found = format!("{:?}", row.choices_pretokenized);
        return Err(format!("found the choices {found}; expected [\" A\", \" B\", \" C\", \" D\"]"));
    }
    let answer = match row.label {
        Some(label) => Some(
            usize::try_from(label)
                .ok()
                .filter(|label| *label < LETTERS.len())
                .ok_or_else(|| format!("found the label {label}; expected 0, 1, 2 or 3"))?,
        ),
        None if split == "test" => None,
        None => return Err("found no `label`; expected 0, 1, 2 or 3".into()),
    };
    if let (Some(answer), Some(targets)) = (answer, &row.targets_pretokenized)
        && !targets.iter().map(|t| t.trim()).eq([LETTERS[answer]])
    {
        let letter = LETTERS[answer];
        return Err(format!("found the target {targets:?} beside the label {answer}; expected [{letter:?}]"));
    }
    let text = ChoiceText::Joined(unix_lines(&row.inputs_pretokenized));
    Ok((id, Content::Choice(Choice { text, answer })))
}
