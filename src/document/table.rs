//! Reads tables key by key, checks the values, and writes the error messages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use strsim::levenshtein;

use super::DocumentError;
use crate::document::tree::{Entry, Node, Origin, Value};

/// Maximum of any count in a document. Far above any use and far below overflow.
const MAX_COUNT: u64 = 1 << 32;

/// A table being read. Readers take out the known keys; the keys that remain are unknown.
pub(crate) struct Table {
    pub(crate) origin: Origin,
    entries: BTreeMap<String, Entry>,
    known: Vec<&'static str>,
}

impl Table {
    pub(crate) fn new(node: Node) -> Result<Self, DocumentError> {
        match node.value {
            Value::Table(entries) => Ok(Self { origin: node.origin, entries, known: Vec::new() }),
            other => Err(DocumentError::found(&node.origin, other.kind(), "a table")),
        }
    }

    pub(crate) fn take(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        self.entries.remove(key).map(|entry| entry.node)
    }

    pub(crate) fn require(&mut self, key: &'static str, expected: &str) -> Result<Node, DocumentError> {
        let missing = self.missing(key, expected);
        self.take(key).ok_or(missing)
    }

    /// Returns the error for a missing `key`.
    pub(crate) fn missing(&self, key: &str, expected: &str) -> DocumentError {
        DocumentError::at(&self.origin, format!("found no `{key}`; expected {expected}"))
    }

    /// Reports an unknown key (one that was not taken), with the nearest known key.
    pub(crate) fn finish(self) -> Result<(), DocumentError> {
        let Some((key, entry)) = self.entries.first_key_value() else { return Ok(()) };
        let hint = match nearest(key, &self.known) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("expected one of {}", self.known.join(", ")),
        };
        Err(DocumentError::at(&entry.key_origin, format!("found the unknown key `{key}`; {hint}")))
    }
}

/// Returns the known word with the smallest edit distance, if it is small enough for a typing error.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let close = |k: &&'a str| (levenshtein(word, k), *k);
    known.iter().map(close).min().filter(|(d, k)| *d <= 1 + k.len() / 4).map(|(_, k)| k)
}

/// Returns the error for an unexpected value.
pub(crate) fn found(node: &Node, found: &str, expected: &str) -> DocumentError {
    DocumentError::found(&node.origin, found, expected)
}

pub(crate) fn string(node: &Node) -> Result<String, DocumentError> {
    match &node.value {
        Value::String(text) if !text.trim().is_empty() => Ok(text.clone()),
        Value::String(_) => Err(DocumentError::found(&node.origin, "an empty string", "some text")),
        other => Err(DocumentError::found(&node.origin, other.kind(), "a string")),
    }
}

/// Converts one of the `known` words by `choose`.
pub(crate) fn word<T>(
    node: &Node,
    known: &[&str],
    choose: impl Fn(&str) -> Option<T>,
) -> Result<T, DocumentError> {
    let text = string(node)?;
    choose(&text).ok_or_else(|| {
        let hint = nearest(&text, known).map(|k| format!("; did you mean `{k}`?")).unwrap_or_default();
        DocumentError::at(
            &node.origin,
            format!("found \"{text}\"; expected one of {}{hint}", known.join(", ")),
        )
    })
}

pub(crate) fn count(node: &Node, least: u64) -> Result<u64, DocumentError> {
    let expected = || format!("a whole number from {least} to {MAX_COUNT}");
    match node.value {
        Value::Integer(n) => u64::try_from(n)
            .ok()
            .filter(|n| (least..=MAX_COUNT).contains(n))
            .ok_or_else(|| DocumentError::found(&node.origin, &n.to_string(), &expected())),
        ref other => Err(DocumentError::found(&node.origin, other.kind(), &expected())),
    }
}

/// A share of at least 0 and less than 1.
pub(crate) fn share(node: &Node) -> Result<f64, DocumentError> {
    let expected = "a share of at least 0 and less than 1, such as 0.01";
    let value = match node.value {
        Value::Integer(n) => n as f64,
        Value::Float(value) => value,
        ref other => return Err(DocumentError::found(&node.origin, other.kind(), expected)),
    };
    if (0.0..1.0).contains(&value) {
        return Ok(value);
    }
    Err(DocumentError::found(&node.origin, &value.to_string(), expected))
}

pub(crate) fn optional_count(
    table: &mut Table,
    key: &'static str,
    least: u64,
) -> Result<Option<usize>, DocumentError> {
    table.take(key).map(|node| count(&node, least).map(|n| n as usize)).transpose()
}

pub(crate) fn array(node: Node, of: &str) -> Result<(Origin, Vec<Node>), DocumentError> {
    match node.value {
        Value::Array(items) if !items.is_empty() => Ok((node.origin, items)),
        Value::Array(_) => Err(DocumentError::found(
            &node.origin,
            "an empty array",
            &format!("{of} with at least one entry"),
        )),
        other => Err(DocumentError::found(&node.origin, other.kind(), of)),
    }
}

pub(crate) fn counts(node: Node, of: &str) -> Result<Vec<usize>, DocumentError> {
    array(node, of)?.1.iter().map(|item| count(item, 1).map(|n| n as usize)).collect()
}

/// Reads an array of tables (`[[key]]`). Empty if the key is missing.
pub(crate) fn tables(root: &mut Table, key: &'static str) -> Result<Vec<Table>, DocumentError> {
    match root.take(key) {
        None => Ok(Vec::new()),
        Some(Node { origin, value: Value::Table(_) }) => Err(DocumentError::found(
            &origin,
            &format!("one table `{key}`"),
            &format!("[[{key}]] in double brackets, because there may be several"),
        )),
        Some(node) => array(node, &format!("[[{key}]] tables"))?.1.into_iter().map(Table::new).collect(),
    }
}

/// Resolves a path. In the file, it is relative to the file's folder; on the command line, to the current folder.
pub(crate) fn path(node: &Node, dir: &Path) -> Result<PathBuf, DocumentError> {
    let written = match &node.value {
        Value::Path(path) => path.clone(),
        _ => PathBuf::from(string(node)?),
    };
    Ok(match node.origin {
        Origin::File { .. } => dir.join(written),
        // No shell expands the tilde in `--set ceval=~/data`.
        Origin::Typed(_) => match (written.strip_prefix("~"), std::env::home_dir()) {
            (Ok(below), Some(home)) => home.join(below),
            _ => written,
        },
    })
}

/// Accepts `true` or `false`.
pub(crate) fn boolean(node: &Node) -> Result<bool, DocumentError> {
    match node.value {
        Value::Boolean(value) => Ok(value),
        ref other => Err(DocumentError::found(&node.origin, other.kind(), "true or false")),
    }
}

/// Maximum rate, time and limit in a document, far above any use.
const MAX_NUMBER: f64 = 1e9;

/// A number above 0, at most [`MAX_NUMBER`].
pub(crate) fn number(node: &Node) -> Result<f64, DocumentError> {
    let expected = "a number above 0";
    let value = match node.value {
        Value::Float(value) => value,
        Value::Integer(value) => value as f64,
        ref other => return Err(found(node, other.kind(), expected)),
    };
    let fits = value > 0.0 && value <= MAX_NUMBER;
    if fits { Ok(value) } else { Err(found(node, &value.to_string(), "a number above 0, at most 1e9")) }
}

/// Takes an optional number above 0.
pub(crate) fn optional_number(table: &mut Table, key: &'static str) -> Result<Option<f64>, DocumentError> {
    table.take(key).map(|node| number(&node)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_a_slip_away_or_none() {
        let known = ["limit", "lengths", "batch"];
        assert_eq!(nearest("limits", &known), Some("limit"));
        assert_eq!(nearest("bacth", &known), Some("batch"));
        assert_eq!(nearest("temperature", &known), None);
    }
}
