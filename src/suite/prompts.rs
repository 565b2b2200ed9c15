//! The prompts of real data sets, for timing: the keys `dataset`, `folder`, `jsonl`, `truncate`, `padding` and `groups`.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::SuiteError;
use super::table::{Table, boolean, count, found, path, word};
use crate::dataset::Benchmark;
use crate::document::tree::{Node, Value};

/// The data behind real prompts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PromptSet {
    /// The default split of a data set in its own layout, in this folder.
    Dataset(&'static Benchmark, PathBuf),
    /// A file with one JSON object per line, each with a `question`.
    Jsonl(PathBuf),
}

/// Prompts from a data set instead of random tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptSource {
    /// The data.
    pub set: PromptSet,
    /// Whether to cut prompts to the input length. Otherwise a longer prompt is an error if it does not fit the model.
    pub truncate: bool,
    /// Whether to repeat a shorter prompt's tokens until the input length is reached, then cut.
    pub padding: bool,
    /// Number of batches to time; all if `None`. Load has no batches and sets this to 1.
    pub groups: Option<usize>,
}

impl PromptSource {
    /// Returns the settings that determine the prompts, except the data. The run's identity covers the data by the hash
    /// of all token ids.
    pub(crate) fn content(&self) -> serde_json::Value {
        let set = match &self.set {
            PromptSet::Dataset(task, _) => task.name,
            PromptSet::Jsonl(_) => "jsonl",
        };
        json!([set, self.truncate, self.padding, self.groups])
    }
}

/// Reads the source of real prompts. Returns `None` without `dataset` and `jsonl`. Only timed batches have `groups`.
pub(crate) fn prompts(
    table: &mut Table,
    dir: &Path,
    in_groups: bool,
) -> Result<Option<PromptSource>, SuiteError> {
    let benchmarks = Benchmark::names();
    let dataset = table.take("dataset");
    let folder = table.take("folder");
    let jsonl = table.take("jsonl");
    let truncate = table.take("truncate");
    let padding = table.take("padding");
    let groups = if in_groups { table.take("groups") } else { None };
    let set = match (dataset, jsonl) {
        (Some(_), Some(node)) => return Err(found(&node, "`jsonl` beside `dataset`", "one of the two")),
        (Some(node), None) => {
            let task = word(&node, &benchmarks, Benchmark::from_name)?;
            let folder = match folder {
                Some(node) => path(&node, dir)?,
                None => super::usual_place_or_sample(task, dir),
            };
            PromptSet::Dataset(task, folder)
        }
        (None, jsonl) => {
            if let Some(node) = folder {
                return Err(found(&node, "`folder` without `dataset`", "the data set whose folder it is"));
            }
            match jsonl {
                Some(node) => PromptSet::Jsonl(path(&node, dir)?),
                None => {
                    return match truncate.or(padding).or(groups) {
                        Some(node) => {
                            let message =
                                "`dataset` or `jsonl` beside it: random tokens have the length asked for";
                            Err(found(&node, "a key of real prompts", message))
                        }
                        None => Ok(None),
                    };
                }
            }
        }
    };
    let truncate_set = truncate.as_ref().map(boolean).transpose()?;
    let padding = padding.as_ref().map(boolean).transpose()?.unwrap_or(false);
    if let (Some(node), Some(false), true) = (&truncate, truncate_set, padding) {
        return Err(found(
            node,
            "false beside `padding = true`",
            "true: what is padded is cut to the length",
        ));
    }
    let groups = match groups {
        None => Some(1),
        Some(node) => match &node.value {
            Value::String(text) if text == "all" => None,
            Value::Integer(_) => Some(count(&node, 1)? as usize),
            other => return Err(found(&node, other.kind(), "how many batches are timed, or \"all\"")),
        },
    };
    Ok(Some(PromptSource { set, truncate: truncate_set.unwrap_or(true), padding, groups }))
}

/// Returns whether `--set <task>=FOLDER` applies to the table, i.e. its `dataset` is that task.
pub(super) fn is_of_dataset(case: &Node, task: &Benchmark) -> bool {
    let Value::Table(table) = &case.value else { return false };
    matches!(table.get("dataset").map(|e| &e.node.value), Some(Value::String(name)) if name == task.name)
}
