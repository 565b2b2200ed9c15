//! Converts tables to types: the accepted keys, their values, and the error messages.

use std::path::{Path, PathBuf};

use super::configuration::{Configuration, configuration};
use super::table::{
    Table, array, boolean, case_configurations, count, found, model_path, number, optional_count, path,
    share, string, tables, word,
};
use super::{AccuracyCase, DEFAULT_BATCH, Expected, ModelChoice, Suite, SuiteError, target, types};
use crate::compute::ComputeSpec;
use crate::dataset::Benchmark;
use crate::document::tree::Node;
use crate::task::{self, Draws, Protocol};

/// Schema version of the suite files that this program reads.
const SCHEMA: u64 = 1;

/// Maximum length of a suite name, since names of run folders contain it.
const MAX_NAME: usize = 100;
/// Maximum number of cases in a suite. Each combination of batch, lengths and ranks counts: each has a name and a row
/// of tables.
const MAX_CASES: usize = 10_000;

/// Reads the whole suite. `file` is its location.
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
    // The name becomes part of a folder name.
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        let found = format!("the name {name:?}");
        return Err(SuiteError::found(&name_node.origin, &found, "letters, digits, `-` and `_`"));
    }
    if name.len() > MAX_NAME {
        let found = format!("a name of {} letters", name.len());
        return Err(SuiteError::found(&name_node.origin, &found, &format!("{MAX_NAME} at most")));
    }
    let about = root.take("about").map(|node| string(&node)).transpose()?.unwrap_or_default();
    let model = root.take("model").map(|node| model(node, dir)).transpose()?.unwrap_or_default();
    let accuracy = tables(&mut root, "accuracy")?
        .into_iter()
        .map(|t| accuracy(t, dir))
        .collect::<Result<Vec<_>, _>>()?;
    let mut suite = Suite::empty(file.to_path_buf(), name, about, model);
    suite.read_timed(&mut root, dir)?;
    let own = suite.model.clone();
    suite.timed_mut().into_iter().for_each(|table| table.of_model(&own));
    let targets =
        tables(&mut root, "target")?.into_iter().map(target::target).collect::<Result<Vec<_>, _>>()?;
    let profile_operators = root.take("profile_operators").map(|n| boolean(&n)).transpose()?;
    suite.model.compute.profile_operators = profile_operators;
    let configurations = configurations(&mut root, dir)?;
    let interleave = root.take("interleave").map(|n| boolean(&n)).transpose()?.unwrap_or(false);
    let baseline = root.take("baseline").map(|n| string(&n)).transpose()?.map(PathBuf::from);
    let named =
        |names: &[String]| names.iter().find(|n| configurations.iter().all(|c| c.name != **n)).cloned();
    let timed = suite.timed();
    let tables = || timed.iter().flat_map(|(_, tables)| tables);
    let mut cases = accuracy
        .iter()
        .map(|case| case.configurations.as_slice())
        .chain(tables().map(|table| table.configurations()));
    if let Some(unknown) = cases.find_map(named) {
        let known: Vec<&str> = configurations.iter().map(|c| c.name.as_str()).collect();
        let expected = format!("the name of a [[configuration]]: {}", known.join(", "));
        return Err(SuiteError::found(
            &origin,
            &format!("a case for the configuration {unknown:?}"),
            &expected,
        ));
    }
    root.finish()?;
    let cases = tables().map(|table| table.cases()).fold(accuracy.len(), usize::saturating_add);
    if cases > MAX_CASES {
        return Err(SuiteError::found(&origin, &format!("{cases} cases"), &format!("{MAX_CASES} at most")));
    }
    if accuracy.is_empty() && tables().next().is_none() {
        let mut keys: Vec<String> = timed.iter().map(|(key, _)| format!("[[{key}]]")).collect();
        let last = keys.pop().unwrap_or_default();
        let expected = format!("at least one [[accuracy]], {} or {last}", keys.join(", "));
        return Err(SuiteError::found(&origin, "no case", &expected));
    }
    Ok(Suite { configurations, interleave, baseline, accuracy, targets, ..suite })
}

/// Reads all `[[configuration]]` tables. Their names must be unique.
fn configurations(root: &mut Table, dir: &Path) -> Result<Vec<Configuration>, SuiteError> {
    let mut all: Vec<Configuration> = Vec::new();
    for table in tables(root, "configuration")? {
        let origin = table.origin.clone();
        let one = configuration(table, dir)?;
        if all.iter().any(|other| other.name == one.name) {
            return Err(SuiteError::found(
                &origin,
                &format!("a second configuration {:?}", one.name),
                "a name for each configuration",
            ));
        }
        all.push(one);
    }
    Ok(all)
}

/// Models, by shape, that a published result can be for.
const PUBLISHED_MODELS: [&str; 1] = ["chatglm2-6b"];

fn model(node: Node, dir: &Path) -> Result<ModelChoice, SuiteError> {
    let mut table = Table::new(node)?;
    let path = match table.take("path") {
        None => None,
        Some(node) => Some(model_path(&node, dir)?),
    };
    let required_node = table.take("required");
    let required = required_node.as_ref().map(boolean).transpose()?.unwrap_or(false);
    if let (Some(node), true, true) = (&required_node, required, path.is_some()) {
        return Err(found(node, "`required = true` beside `path`", "one of the two"));
    }
    let compute = ComputeSpec {
        dtype: types::dtype(&mut table, "dtype")?,
        kv: types::kv(&mut table)?,
        rope: types::rope(&mut table)?,
        ..ComputeSpec::default()
    };
    table.finish()?;
    Ok(ModelChoice { path, compute, required })
}

fn accuracy(mut table: Table, dir: &Path) -> Result<AccuracyCase, SuiteError> {
    let benchmarks = Benchmark::names();
    let tasks = format!("one of {}, or a task file (*.toml)", benchmarks.join(", "));
    let task = table.require("task", &tasks)?;
    let task = match string(&task)? {
        file if is_task_file(&file) => task::file::load(&path(&task, dir)?)?,
        _ => word(&task, &benchmarks, Benchmark::from_name)?,
    };
    let dataset = match table.take("dataset") {
        Some(node) => path(&node, dir)?,
        None => super::usual_place(task, dir),
    };
    let protocols: Vec<&str> = task::protocols_of(task).map(|p| p.definition().name).collect();
    let protocol_node = table.require("protocol", &format!("one of {}", protocols.join(", ")))?;
    let protocol = word(&protocol_node, &protocols, |name| task::find(task, name))?;
    let split = match table.take("split") {
        Some(node) => word(&node, task.splits, |s| task.splits.contains(&s).then(|| s.to_owned()))?,
        None => task.default_split.to_owned(),
    };
    let subjects = match table.take("subjects") {
        Some(node) => array(node, "subject names")?.1.iter().map(string).collect::<Result<Vec<_>, _>>()?,
        None => Vec::new(),
    };
    let shots = match table.take("shots") {
        None => None,
        Some(node) => {
            let shots = count(&node, 0)? as usize;
            if !protocol.takes_shots() && shots != 0 {
                let expected = format!("0: the protocol {} shows no examples", protocol.definition().name);
                return Err(SuiteError::found(&node.origin, &format!("{shots} shots"), &expected));
            }
            Some(shots)
        }
    };
    let max_new_tokens = match table.take("max_new_tokens") {
        None => None,
        Some(node) if protocol.definition().max_new_tokens == 0 => {
            let expected = format!("none: the protocol {} generates nothing", protocol.definition().name);
            return Err(SuiteError::found(&node.origin, "max_new_tokens", &expected));
        }
        Some(node) => Some(count(&node, 1)? as usize),
    };
    let draws = draws(&mut table, protocol)?;
    let protocol = protocol.definition();
    let limit = optional_count(&mut table, "limit", 1)?;
    let batch = optional_count(&mut table, "batch", 1)?.unwrap_or(DEFAULT_BATCH);
    let expected = tables(&mut table, "expected")?.into_iter().map(expected).collect::<Result<_, _>>()?;
    let tp = optional_count(&mut table, "tp", 1)?.unwrap_or(1);
    let max_failed = table.take("max_failed").map(|node| share(&node)).transpose()?;
    let configurations = case_configurations(&mut table)?;
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
        draws,
        batch,
        tp,
        max_failed,
        expected,
        configurations,
    })
}

/// Most answers to an item.
const MAX_SAMPLES: u64 = 1000;

/// Reads how answers are drawn.
fn draws(table: &mut Table, protocol: &dyn Protocol) -> Result<Option<Draws>, SuiteError> {
    let others = ["temperature", "top_p", "seed"].map(|key| table.take(key));
    let Some(node) = table.take("samples") else {
        return match others.iter().flatten().next() {
            Some(node) => {
                Err(found(node, "it without `samples`", "the number of answers to draw, beside it"))
            }
            None => Ok(None),
        };
    };
    let samples = count(&node, 1)?;
    if !protocol.runs_programs() {
        let expected = format!("none: {} reads one answer, the likeliest", protocol.definition().name);
        return Err(found(&node, "`samples`", &expected));
    }
    if samples > MAX_SAMPLES {
        return Err(found(&node, &samples.to_string(), &format!("{MAX_SAMPLES} at most")));
    }
    let [temperature, top_p, seed] = others;
    let Some(temperature) = temperature else {
        return Err(found(
            &node,
            "`samples` without `temperature`",
            "both: the likeliest answer is always the same",
        ));
    };
    let top_p = match top_p {
        None => 1.0,
        Some(node) => match number(&node)? {
            share if share <= 1.0 => share as f32,
            more => return Err(found(&node, &more.to_string(), "above 0, at most 1")),
        },
    };
    let seed = seed.map(|node| count(&node, 0)).transpose()?.unwrap_or(1);
    let temperature = number(&temperature)? as f32;
    Ok(Some(Draws { samples: samples as usize, temperature, top_p, seed }))
}

/// Whether the value of `task` names a file.
fn is_task_file(task: &str) -> bool {
    Path::new(task).extension().is_some_and(|extension| extension == "toml")
}

fn expected(mut table: Table) -> Result<Expected, SuiteError> {
    let known = |name: &str| PUBLISHED_MODELS.contains(&name).then(|| name.to_owned());
    let model = table.take("model").map(|node| word(&node, &PUBLISHED_MODELS, known)).transpose()?;
    let dtype = types::dtype(&mut table, "dtype")?;
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
    Ok(Expected { model, dtype, correct, items, source })
}
