//! Patterns of the names of a task file's data: by split and subject.

use std::collections::BTreeMap;
use std::path::Path;

use super::data::texts;
use super::strings;
use crate::dataset::{DatasetError, entries};
use crate::document::DocumentError;
use crate::document::table::{found, string};
use crate::document::tree::{Node, Value};

/// What stands for a subject's name in a file's name.
pub(super) const SUBJECT: &str = "{subject}";
/// What stands for a split's name in a file's name.
const SPLIT: &str = "{split}";

/// Returns the files that match a pattern.
pub(super) fn matching(root: &Path, pattern: &str) -> Result<Vec<(String, Option<String>)>, DatasetError> {
    let Some((before, after)) = pattern.split_once(SUBJECT) else {
        return Ok(if root.join(pattern).is_file() { vec![(pattern.to_owned(), None)] } else { Vec::new() });
    };
    let (folder, start) = before.rsplit_once('/').map_or(("", before), |(folder, start)| (folder, start));
    let dir = root.join(folder);
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for name in entries(&dir)? {
        let subject = name.strip_prefix(start).and_then(|rest| rest.strip_suffix(after));
        if let Some(subject) = subject.filter(|subject| !subject.is_empty()) {
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            found.push((path, Some(subject.to_owned())));
        }
    }
    found.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(found)
}

/// Reads `beside`: patterns of text files by the names of the columns that they become.
pub(super) fn beside(node: &Node) -> Result<BTreeMap<String, String>, DocumentError> {
    let mut all = BTreeMap::new();
    for (name, pattern, node) in texts(node, "a pattern of files")? {
        if leaves(&pattern) || pattern.matches(SUBJECT).count() != 1 {
            let expected = "a path below the data set's folder, with {subject} once";
            return Err(found(&node, &format!("the file {pattern:?}"), expected));
        }
        all.insert(name, pattern);
    }
    Ok(all)
}

/// Whether a pattern of files leads out of the data set's folder.
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
        let subject_in_folder =
            |pattern: &String| pattern.rsplit_once(SUBJECT).is_some_and(|(_, rest)| rest.contains('/'));
        match all.iter().find(|pattern| {
            leaves(pattern) || subject_in_folder(pattern) || pattern.matches(SUBJECT).count() > 1
        }) {
            Some(wrong) => Err(found(
                node,
                &format!("the file {wrong:?}"),
                "a path below the data set's folder, with {subject} at most once and in the file's name",
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
