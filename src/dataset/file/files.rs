//! Patterns of the data file names of a task file: by split and subject.

use std::collections::BTreeMap;
use std::path::Path;

use super::data::{NamedText, texts};
use super::strings;
use crate::dataset::{DatasetError, entries};
use crate::document::DocumentError;
use crate::document::table::{found, string};
use crate::document::tree::{Node, Value};

/// What stands for a subject's name in a file's name.
pub(super) const SUBJECT: &str = "{subject}";
/// What stands for a split's name in a file's name.
const SPLIT: &str = "{split}";

/// Returns the files that match a pattern, with their subjects.
pub(super) fn matching(root: &Path, pattern: &str) -> Result<Vec<(String, Option<String>)>, DatasetError> {
    let Some((before, _)) = pattern.split_once(SUBJECT) else {
        return Ok(if root.join(pattern).is_file() { vec![(pattern.to_owned(), None)] } else { Vec::new() });
    };
    let folder = before.rsplit_once('/').map_or("", |(folder, _)| folder);
    let dir = root.join(folder);
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let below = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let mut found = Vec::new();
    for name in entries(&dir)? {
        if let Some(subject) = named_by(pattern, &format!("{below}{name}")) {
            let path = pattern.replace(SUBJECT, subject);
            if root.join(&path).is_file() {
                found.push((path, Some(subject.to_owned())));
            }
        }
    }
    found.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(found)
}

/// Whether a path is one that a pattern stands for.
pub(super) fn fits(pattern: &str, path: &str) -> bool {
    if !pattern.contains(SUBJECT) {
        return pattern == path;
    }
    named_by(pattern, path).is_some_and(|subject| pattern.replace(SUBJECT, subject) == path)
}

/// Returns the subject that the first part of a path with a subject has in its name. What follows that part is not looked at.
fn named_by<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let mut parts = pattern.split('/').zip(path.split('/'));
    let (of_pattern, part) = parts.find(|(of_pattern, _)| of_pattern.contains(SUBJECT))?;
    let (start, end) = of_pattern.split_once(SUBJECT)?;
    part.strip_prefix(start)?.strip_suffix(end).filter(|subject| !subject.is_empty())
}

/// Reads `beside`: patterns of text files by the names of the columns that they become.
pub(super) fn beside(node: &Node) -> Result<BTreeMap<String, String>, DocumentError> {
    let mut all = BTreeMap::new();
    for NamedText { name, text: pattern, node } in texts(node, "a pattern of files")? {
        if leaves(&pattern) || pattern.matches(SUBJECT).count() != 1 {
            let expected = "a path below the data set's folder, with {subject} once";
            return Err(found(&node, &format!("the file {pattern:?}"), expected));
        }
        all.insert(name, pattern);
    }
    Ok(all)
}

/// Whether a file pattern leads out of the data set folder.
pub(super) fn leaves(pattern: &str) -> bool {
    pattern.starts_with('/') || pattern.contains('\\') || pattern.split('/').any(|part| part == "..")
}

/// Reads `files`: a pattern for all splits, or a table with patterns for each.
pub(super) fn files(node: &Node, splits: &[String]) -> Result<BTreeMap<String, Vec<String>>, DocumentError> {
    let patterns = |node: &Node| match &node.value {
        Value::Array(_) => strings(node.clone(), "patterns of files"),
        _ => Ok(vec![string(node)?]),
    };
    let check = |node: &Node, all: Vec<String>| {
        let twice = |pattern: &String| pattern.split('/').any(|part| part.matches(SUBJECT).count() > 1);
        match all.iter().find(|pattern| leaves(pattern) || twice(pattern)) {
            Some(wrong) => Err(found(
                node,
                &format!("the file {wrong:?}"),
                "a path below the data set's folder, with {subject} at most once in each part",
            )),
            None => Ok(all),
        }
    };
    let mut of_split = BTreeMap::new();
    if let Value::Table(entries) = &node.value {
        for (split, entry) in entries {
            if !splits.contains(split) {
                let message =
                    format!("found files of the split `{split}`; expected one of {}", splits.join(", "));
                return Err(DocumentError::at(&entry.key_origin, message));
            }
            of_split.insert(split.clone(), check(&entry.node, patterns(&entry.node)?)?);
        }
    } else {
        let all = check(node, patterns(node)?)?;
        for split in splits {
            let of_one = all.iter().map(|pattern| pattern.replace(SPLIT, split)).collect();
            of_split.insert(split.clone(), check(node, of_one)?);
        }
    }
    Ok(of_split)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_may_name_folders_and_files() {
        let dir = tempfile::tempdir().unwrap();
        for path in
            ["go/data/x_go.jsonl", "cpp/data/x_cpp.jsonl", "cpp/data/x_go.jsonl", "java/other", "x_c.csv"]
        {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found = |pattern: &str| {
            let all = matching(dir.path(), pattern).unwrap();
            all.into_iter().map(|(path, subject)| (path, subject.unwrap_or_default())).collect::<Vec<_>>()
        };
        let two = [("cpp/data/x_cpp.jsonl", "cpp"), ("go/data/x_go.jsonl", "go")];
        assert_eq!(found("{subject}/data/x_{subject}.jsonl"), two.map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert_eq!(found("x_{subject}.csv"), [("x_c.csv".to_owned(), "c".to_owned())]);
        assert_eq!(found("java/other"), [("java/other".to_owned(), String::new())]);
        assert!(found("none/{subject}.csv").is_empty());
        assert!(fits("{subject}/data/x_{subject}.jsonl", "go/data/x_go.jsonl"));
        assert!(!fits("{subject}/data/x_{subject}.jsonl", "cpp/data/x_go.jsonl"));
        assert!(fits("a.csv", "a.csv") && !fits("a.csv", "b.csv") && !fits("{subject}/a.csv", "b"));
    }
}
