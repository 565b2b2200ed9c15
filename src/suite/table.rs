//! Reads tables key by key, checks the values, and writes the error messages.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Serialize;
use strsim::levenshtein;

use super::tree::{Entry, Node, Origin, Value};
use super::{DEFAULT_SEED, SuiteError};

/// Maximum of any count in a suite. Far above any use and far below overflow.
const MAX_COUNT: u64 = 1 << 32;

/// A table being read. Readers take out the known keys; the keys that remain are unknown.
pub(crate) struct Table {
    pub(crate) origin: Origin,
    entries: BTreeMap<String, Entry>,
    known: Vec<&'static str>,
}

impl Table {
    pub(crate) fn new(node: Node) -> Result<Self, SuiteError> {
        match node.value {
            Value::Table(entries) => Ok(Self { origin: node.origin, entries, known: Vec::new() }),
            other => Err(SuiteError::found(&node.origin, other.kind(), "a table")),
        }
    }

    pub(crate) fn take(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        self.entries.remove(key).map(|entry| entry.node)
    }

    pub(crate) fn require(&mut self, key: &'static str, expected: &str) -> Result<Node, SuiteError> {
        let missing = self.missing(key, expected);
        self.take(key).ok_or(missing)
    }

    /// Returns the error for a missing `key`.
    pub(crate) fn missing(&self, key: &str, expected: &str) -> SuiteError {
        SuiteError::at(&self.origin, format!("found no `{key}`; expected {expected}"))
    }

    /// Reports an unknown key (one that was not taken), with the nearest known key.
    pub(crate) fn finish(self) -> Result<(), SuiteError> {
        let Some((key, entry)) = self.entries.first_key_value() else { return Ok(()) };
        let hint = match nearest(key, &self.known) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("expected one of {}", self.known.join(", ")),
        };
        Err(SuiteError::at(&entry.key_origin, format!("found the unknown key `{key}`; {hint}")))
    }
}

/// Returns the known word with the smallest edit distance, if it is small enough for a typing error.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let close = |k: &&'a str| (levenshtein(word, k), *k);
    known.iter().map(close).min().filter(|(d, k)| *d <= 1 + k.len() / 4).map(|(_, k)| k)
}

/// Returns the error for an unexpected value.
pub(crate) fn found(node: &Node, found: &str, expected: &str) -> SuiteError {
    SuiteError::found(&node.origin, found, expected)
}

pub(crate) fn string(node: &Node) -> Result<String, SuiteError> {
    match &node.value {
        Value::String(text) if !text.trim().is_empty() => Ok(text.clone()),
        Value::String(_) => Err(SuiteError::found(&node.origin, "an empty string", "some text")),
        other => Err(SuiteError::found(&node.origin, other.kind(), "a string")),
    }
}

/// Converts one of the `known` words by `choose`.
pub(crate) fn word<T>(
    node: &Node,
    known: &[&str],
    choose: impl Fn(&str) -> Option<T>,
) -> Result<T, SuiteError> {
    let text = string(node)?;
    choose(&text).ok_or_else(|| {
        let hint = nearest(&text, known).map(|k| format!("; did you mean `{k}`?")).unwrap_or_default();
        SuiteError::at(&node.origin, format!("found \"{text}\"; expected one of {}{hint}", known.join(", ")))
    })
}

pub(crate) fn count(node: &Node, least: u64) -> Result<u64, SuiteError> {
    let expected = || format!("a whole number from {least} to {MAX_COUNT}");
    match node.value {
        Value::Integer(n) => u64::try_from(n)
            .ok()
            .filter(|n| (least..=MAX_COUNT).contains(n))
            .ok_or_else(|| SuiteError::found(&node.origin, &n.to_string(), &expected())),
        ref other => Err(SuiteError::found(&node.origin, other.kind(), &expected())),
    }
}

/// A share of at least 0 and less than 1.
pub(crate) fn share(node: &Node) -> Result<f64, SuiteError> {
    let expected = "a share of at least 0 and less than 1, such as 0.01";
    let value = match node.value {
        Value::Integer(n) => n as f64,
        Value::Float(value) => value,
        ref other => return Err(SuiteError::found(&node.origin, other.kind(), expected)),
    };
    if (0.0..1.0).contains(&value) {
        return Ok(value);
    }
    Err(SuiteError::found(&node.origin, &value.to_string(), expected))
}

pub(crate) fn optional_count(
    table: &mut Table,
    key: &'static str,
    least: u64,
) -> Result<Option<usize>, SuiteError> {
    table.take(key).map(|node| count(&node, least).map(|n| n as usize)).transpose()
}

pub(crate) fn array(node: Node, of: &str) -> Result<(Origin, Vec<Node>), SuiteError> {
    match node.value {
        Value::Array(items) if !items.is_empty() => Ok((node.origin, items)),
        Value::Array(_) => {
            Err(SuiteError::found(&node.origin, "an empty array", &format!("{of} with at least one entry")))
        }
        other => Err(SuiteError::found(&node.origin, other.kind(), of)),
    }
}

pub(crate) fn counts(node: Node, of: &str) -> Result<Vec<usize>, SuiteError> {
    array(node, of)?.1.iter().map(|item| count(item, 1).map(|n| n as usize)).collect()
}

/// Reads an array of tables (`[[key]]`). Empty if the key is missing.
pub(crate) fn tables(root: &mut Table, key: &'static str) -> Result<Vec<Table>, SuiteError> {
    match root.take(key) {
        None => Ok(Vec::new()),
        Some(Node { origin, value: Value::Table(_) }) => Err(SuiteError::found(
            &origin,
            &format!("one table `{key}`"),
            &format!("[[{key}]] in double brackets, because there may be several"),
        )),
        Some(node) => array(node, &format!("[[{key}]] tables"))?.1.into_iter().map(Table::new).collect(),
    }
}

/// Resolves a path. In the file, it is relative to the file's folder; on the command line, to the current folder.
pub(crate) fn path(node: &Node, suite_dir: &Path) -> Result<PathBuf, SuiteError> {
    let written = match &node.value {
        Value::Path(path) => path.clone(),
        _ => PathBuf::from(string(node)?),
    };
    Ok(match node.origin {
        Origin::File { .. } => suite_dir.join(written),
        // No shell expands the tilde in `--set ceval=~/data`.
        Origin::Typed(_) => match (written.strip_prefix("~"), std::env::home_dir()) {
            (Ok(below), Some(home)) => home.join(below),
            _ => written,
        },
    })
}

/// Resolves a chip profile: a file relative to the suite's folder, or else a name.
pub(crate) fn profile_path(node: &Node, dir: &Path) -> Result<PathBuf, SuiteError> {
    let file = path(node, dir)?;
    Ok(match &node.value {
        Value::String(word) if !file.exists() => PathBuf::from(word),
        _ => file,
    })
}

/// Keeps `demo` and `dummy:…` as names and resolves anything else as a folder. The shape of a `dummy:…` may be a file of the
/// suite's folder.
pub(crate) fn model_path(node: &Node, dir: &Path) -> Result<OsString, SuiteError> {
    match &node.value {
        Value::String(word) if word == "demo" => Ok(word.into()),
        Value::String(word) if word.starts_with("dummy:") => {
            let own = word.strip_prefix("dummy:").map(|shape| dir.join(shape));
            let own = own.filter(|file| matches!(node.origin, Origin::File { .. }) && file.exists());
            Ok(own.map_or_else(
                || word.into(),
                |file| {
                    let mut word = OsString::from("dummy:");
                    word.push(file);
                    word
                },
            ))
        }
        _ => Ok(path(node, dir)?.into_os_string()),
    }
}

/// Accepts `true` or `false`.
pub(crate) fn boolean(node: &Node) -> Result<bool, SuiteError> {
    match node.value {
        Value::Boolean(value) => Ok(value),
        ref other => Err(SuiteError::found(&node.origin, other.kind(), "true or false")),
    }
}

/// Maximum rate, time and limit in a suite, far above any use.
const MAX_NUMBER: f64 = 1e9;

/// A number above 0, at most [`MAX_NUMBER`].
pub(crate) fn number(node: &Node) -> Result<f64, SuiteError> {
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
pub(crate) fn optional_number(table: &mut Table, key: &'static str) -> Result<Option<f64>, SuiteError> {
    table.take(key).map(|node| number(&node)).transpose()
}

/// Takes the tensor-parallel sizes.
pub(crate) fn tp_ranks(table: &mut Table) -> Result<Vec<usize>, SuiteError> {
    table.take("tp").map_or(Ok(vec![1]), |node| counts(node, "an array of tensor-parallel sizes"))
}

/// Takes the seed of the input tokens.
pub(crate) fn seed(table: &mut Table) -> Result<u64, SuiteError> {
    Ok(table.take("seed").map(|node| count(&node, 0)).transpose()?.unwrap_or(DEFAULT_SEED))
}

/// Input and output length of a sequence, in tokens. Suites write `[input, output]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "[usize; 2]")]
pub struct Lengths {
    /// Prompt tokens.
    pub input: usize,
    /// Generated tokens.
    pub output: usize,
}

impl From<Lengths> for [usize; 2] {
    fn from(Lengths { input, output }: Lengths) -> Self {
        [input, output]
    }
}

/// Reads the pairs of input and output lengths under `lengths`.
pub(crate) fn lengths(table: &mut Table) -> Result<Vec<Lengths>, SuiteError> {
    let expected = "an array of [input, output] token counts, such as [[128, 32]]";
    let pair = |pair: Node| {
        let origin = pair.origin.clone();
        match counts(pair, "[input, output]")?.as_slice() {
            &[input, output] => Ok(Lengths { input, output }),
            other => Err(SuiteError::found(&origin, &format!("{} numbers", other.len()), "[input, output]")),
        }
    };
    array(table.require("lengths", expected)?, expected)?.1.into_iter().map(pair).collect()
}

/// Reads the configurations that a case applies to. Empty if none are named, which means all.
pub(crate) fn case_configurations(table: &mut Table) -> Result<Vec<String>, SuiteError> {
    match table.take("configurations") {
        None => Ok(Vec::new()),
        Some(node) => array(node, "names of configurations")?.1.iter().map(string).collect(),
    }
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
