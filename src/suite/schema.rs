//! From the tree to the types: which keys there are, what each takes, and what to say when it is not so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::tree::{Entry, Node, Origin, Value};
use super::{
    AccuracyCase, DEFAULT_BATCH, DEFAULT_REPETITIONS, DEFAULT_SEED, DEFAULT_WARMUPS, Dtype, Expected,
    ModelChoice, PerformanceCase, Rope, Suite, SuiteError,
};
use crate::dataset::Benchmark;
use crate::task;

/// Schema number of the suite files this program reads.
const SCHEMA: u64 = 1;

/// Largest number that a suite may give for anything counted; far above any use, far below overflow.
const MAX_COUNT: u64 = 1 << 32;

/// A table being read: keys are taken out one by one, and what is left at the end is unknown.
struct Table {
    origin: Origin,
    entries: BTreeMap<String, Entry>,
    known: Vec<&'static str>,
}

impl Table {
    fn new(node: Node) -> Result<Self, SuiteError> {
        match node.value {
            Value::Table(entries) => Ok(Self { origin: node.origin, entries, known: Vec::new() }),
            other => Err(SuiteError::found(&node.origin, other.kind(), "a table")),
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        self.entries.remove(key).map(|entry| entry.node)
    }

    fn require(&mut self, key: &'static str, expected: &str) -> Result<Node, SuiteError> {
        let missing =
            || SuiteError::at(&self.origin.clone(), format!("found no `{key}`; expected {expected}"));
        let missing = missing();
        self.take(key).ok_or(missing)
    }

    /// Refuses keys that nobody took, with the nearest known one.
    fn finish(self) -> Result<(), SuiteError> {
        let Some((key, entry)) = self.entries.first_key_value() else { return Ok(()) };
        let hint = match nearest(key, &self.known) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("expected one of {}", self.known.join(", ")),
        };
        Err(SuiteError::at(&entry.key_origin, format!("found the unknown key `{key}`; {hint}")))
    }
}

/// The known word at the least edit distance, if that is small enough to be a slip.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let close = |k: &&'a str| (distance(word, k), *k);
    known.iter().map(close).min().filter(|(d, k)| *d <= 1 + k.len() / 4).map(|(_, k)| k)
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn string(node: &Node) -> Result<String, SuiteError> {
    match &node.value {
        Value::String(text) if !text.trim().is_empty() => Ok(text.clone()),
        Value::String(_) => Err(SuiteError::found(&node.origin, "an empty string", "some text")),
        other => Err(SuiteError::found(&node.origin, other.kind(), "a string")),
    }
}

/// One of the words of `known`, as `choose` maps them.
fn word<T>(node: &Node, known: &[&str], choose: impl Fn(&str) -> Option<T>) -> Result<T, SuiteError> {
    let text = string(node)?;
    choose(&text).ok_or_else(|| {
        let hint = nearest(&text, known).map(|k| format!("; did you mean `{k}`?")).unwrap_or_default();
        SuiteError::at(&node.origin, format!("found \"{text}\"; expected one of {}{hint}", known.join(", ")))
    })
}

fn count(node: &Node, least: u64) -> Result<u64, SuiteError> {
    let expected = || format!("a whole number from {least} to {MAX_COUNT}");
    match node.value {
        Value::Integer(n) => u64::try_from(n)
            .ok()
            .filter(|n| (least..=MAX_COUNT).contains(n))
            .ok_or_else(|| SuiteError::found(&node.origin, &n.to_string(), &expected())),
        ref other => Err(SuiteError::found(&node.origin, other.kind(), &expected())),
    }
}

fn optional_count(table: &mut Table, key: &'static str, least: u64) -> Result<Option<usize>, SuiteError> {
    table.take(key).map(|node| count(&node, least).map(|n| n as usize)).transpose()
}

fn array(node: Node, of: &str) -> Result<(Origin, Vec<Node>), SuiteError> {
    match node.value {
        Value::Array(items) if !items.is_empty() => Ok((node.origin, items)),
        Value::Array(_) => Err(SuiteError::found(&node.origin, "an empty array", of)),
        other => Err(SuiteError::found(&node.origin, other.kind(), of)),
    }
}

fn counts(node: Node, of: &str) -> Result<Vec<usize>, SuiteError> {
    array(node, of)?.1.iter().map(|item| count(item, 1).map(|n| n as usize)).collect()
}

/// An array of tables (`[[key]]`); none when the key is missing.
fn tables(root: &mut Table, key: &'static str) -> Result<Vec<Table>, SuiteError> {
    match root.take(key) {
        None => Ok(Vec::new()),
        Some(node) => array(node, &format!("[[{key}]] tables"))?.1.into_iter().map(Table::new).collect(),
    }
}

/// A path as written: in the file it is relative to the file's folder, on the command line to the current one.
fn path(node: &Node, suite_dir: &Path) -> Result<PathBuf, SuiteError> {
    let written = PathBuf::from(string(node)?);
    Ok(match node.origin {
        Origin::File { .. } => suite_dir.join(written),
        // No shell expands the tilde of `--set ceval=~/data`.
        Origin::Set(_) => match (written.strip_prefix("~"), std::env::home_dir()) {
            (Ok(below), Some(home)) => home.join(below),
            _ => written,
        },
    })
}

/// Reads the whole suite; `file` is where it lies.
pub(super) fn suite(root: Node, file: &Path) -> Result<Suite, SuiteError> {
    let dir = file.parent().unwrap_or(Path::new(""));
    let origin = root.origin.clone();
    let mut root = Table::new(root)?;
    let schema = root.require("schema", &format!("schema = {SCHEMA}"))?;
    if count(&schema, 0)? != SCHEMA {
        let found = format!("schema {}", count(&schema, 0)?);
        return Err(SuiteError::found(
            &schema.origin,
            &found,
            &format!("{SCHEMA}, the one this program reads"),
        ));
    }
    let name_node = root.require("name", "the suite's name")?;
    let name = string(&name_node)?;
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        // It becomes part of a folder's name.
        let found = format!("the name {name:?}");
        return Err(SuiteError::found(&name_node.origin, &found, "letters, digits, `-` and `_`"));
    }
    let about = root.take("about").map(|node| string(&node)).transpose()?.unwrap_or_default();
    let model = root.take("model").map(|node| model(node, dir)).transpose()?.unwrap_or_default();
    let accuracy = tables(&mut root, "accuracy")?
        .into_iter()
        .map(|t| accuracy(t, dir))
        .collect::<Result<Vec<_>, _>>()?;
    let performance =
        tables(&mut root, "performance")?.into_iter().map(performance).collect::<Result<Vec<_>, _>>()?;
    root.finish()?;
    if accuracy.is_empty() && performance.is_empty() {
        return Err(SuiteError::found(&origin, "no case", "at least one [[accuracy]] or [[performance]]"));
    }
    Ok(Suite { path: file.to_path_buf(), name, about, model, accuracy, performance })
}

fn model(node: Node, dir: &Path) -> Result<ModelChoice, SuiteError> {
    let mut table = Table::new(node)?;
    let path = match table.take("path") {
        None => None,
        Some(node) => Some(model_path(&node, dir)?),
    };
    let dtype = table.take("dtype").map(|n| word(&n, &Dtype::NAMES, Dtype::from_name)).transpose()?;
    let rope = table.take("rope").map(|n| word(&n, &Rope::NAMES, Rope::from_name)).transpose()?;
    table.finish()?;
    Ok(ModelChoice { path, dtype: dtype.unwrap_or_default(), rope: rope.unwrap_or_default() })
}

/// `demo` and `dummy:chatglm2-6b` are names; anything else is a folder.
fn model_path(node: &Node, dir: &Path) -> Result<String, SuiteError> {
    let written = string(node)?;
    if written == "demo" || written.starts_with("dummy:") {
        return Ok(written);
    }
    Ok(path(node, dir)?.to_string_lossy().into_owned())
}

fn accuracy(mut table: Table, dir: &Path) -> Result<AccuracyCase, SuiteError> {
    let benchmarks = Benchmark::ALL.map(Benchmark::as_str);
    let task = table.require("task", &format!("one of {}", benchmarks.join(", ")))?;
    let task = word(&task, &benchmarks, Benchmark::from_name)?;
    let dataset = match table.take("dataset") {
        Some(node) => path(&node, dir)?,
        None => super::usual_place(task, dir),
    };
    let protocols: Vec<&str> = task::protocols_of(task).map(|p| p.definition().name).collect();
    let protocol_node = table.require("protocol", &format!("one of {}", protocols.join(", ")))?;
    let protocol = word(&protocol_node, &protocols, |name| task::find(task, name))?.definition();
    let split = match table.take("split") {
        Some(node) => word(&node, task.splits(), |s| task.splits().contains(&s).then(|| s.to_owned()))?,
        None => task.default_split().to_owned(),
    };
    let subjects = match table.take("subjects") {
        Some(node) => array(node, "subject names")?.1.iter().map(string).collect::<Result<Vec<_>, _>>()?,
        None => Vec::new(),
    };
    let shots = match table.take("shots") {
        None => None,
        Some(node) => {
            let shots = count(&node, 0)? as usize;
            if protocol.shots == 0 && shots != 0 {
                let expected = format!("0: the protocol {} shows no examples", protocol.name);
                return Err(SuiteError::found(&node.origin, &format!("{shots} shots"), &expected));
            }
            Some(shots)
        }
    };
    let max_new_tokens = match table.take("max_new_tokens") {
        None => None,
        Some(node) if protocol.max_new_tokens == 0 => {
            let expected = format!("none: the protocol {} generates nothing", protocol.name);
            return Err(SuiteError::found(&node.origin, "max_new_tokens", &expected));
        }
        Some(node) => Some(count(&node, 1)? as usize),
    };
    let limit = optional_count(&mut table, "limit", 1)?;
    let batch = optional_count(&mut table, "batch", 1)?.unwrap_or(DEFAULT_BATCH);
    let expected = tables(&mut table, "expected")?.into_iter().map(expected).collect::<Result<_, _>>()?;
    table.finish()?;
    let protocol = protocol.name;
    Ok(AccuracyCase {
        task,
        dataset,
        protocol,
        split,
        subjects,
        shots,
        max_new_tokens,
        limit,
        batch,
        expected,
    })
}

fn expected(mut table: Table) -> Result<Expected, SuiteError> {
    let dtype = table.take("dtype").map(|n| word(&n, &Dtype::NAMES, Dtype::from_name)).transpose()?;
    let items = count(&table.require("items", "the number of items scored")?, 1)? as usize;
    let correct_node = table.require("correct", "the number of right answers")?;
    let correct = count(&correct_node, 0)? as usize;
    if correct > items {
        return Err(SuiteError::found(
            &correct_node.origin,
            &correct.to_string(),
            &format!("at most items = {items}"),
        ));
    }
    let source = string(&table.require("source", "where the figure was published")?)?;
    table.finish()?;
    Ok(Expected { dtype, correct, items, source })
}

fn performance(mut table: Table) -> Result<PerformanceCase, SuiteError> {
    let batches = counts(table.require("batch", "an array such as [1, 2, 4]")?, "an array of batch sizes")?;
    let lengths_expected = "an array of [input, output] token counts, such as [[128, 32]]";
    let lengths_node = table.require("lengths", lengths_expected)?;
    let mut lengths = Vec::new();
    for pair in array(lengths_node, lengths_expected)?.1 {
        let origin = pair.origin.clone();
        match counts(pair, "[input, output]")?.as_slice() {
            [input, output] => lengths.push((*input, *output)),
            other => {
                return Err(SuiteError::found(
                    &origin,
                    &format!("{} numbers", other.len()),
                    "[input, output]",
                ));
            }
        }
    }
    let tp_ranks = match table.take("tp") {
        Some(node) => counts(node, "an array of tensor-parallel sizes")?,
        None => vec![1],
    };
    let repetitions = optional_count(&mut table, "repetitions", 1)?.unwrap_or(DEFAULT_REPETITIONS);
    let max_warmups = optional_count(&mut table, "max_warmups", 0)?.unwrap_or(DEFAULT_WARMUPS);
    let seed = table.take("seed").map(|node| count(&node, 0)).transpose()?.unwrap_or(DEFAULT_SEED);
    table.finish()?;
    Ok(PerformanceCase { batches, lengths, tp_ranks, repetitions, max_warmups, seed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_levenshteins() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }

    #[test]
    fn the_nearest_word_is_a_slip_away_or_none() {
        let known = ["limit", "lengths", "batch"];
        assert_eq!(nearest("limits", &known), Some("limit"));
        assert_eq!(nearest("bacth", &known), Some("batch"));
        assert_eq!(nearest("temperature", &known), None);
    }
}
