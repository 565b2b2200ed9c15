//! Converts `[[max_batch]]`, `[[load]]` and the prompt keys of `[[performance]]` to types.

use std::path::Path;

use super::schema::{case_configurations, lengths};
use super::table::{Table, array, boolean, count, counts, found, optional_count, path, word};
use super::tree::{Node, Value};
use super::workload::{
    Arrival, DEFAULT_LOAD_BATCH, DEFAULT_PROBE_REPETITIONS, Extent, LoadCase, MaxBatchCase, Objectives,
    PromptSet, PromptSource, Rates,
};
use super::{DEFAULT_SEED, SuiteError};
use crate::dataset::Benchmark;

/// Minimum number of requests to judge a rate (equal to `stats::LEAST_FOR_GROWTH`). A search for saturation judges
/// every rate.
const LEAST_FOR_SATURATION: usize = 100;
/// Maximum rate, time and limit in a suite, far above any use.
const MAX_NUMBER: f64 = 1e9;
/// Maximum number of requests at one rate. Each request keeps the time of each of its tokens.
const MAX_REQUESTS: usize = 1_000_000;

/// A number above 0, at most [`MAX_NUMBER`].
fn number(node: &Node) -> Result<f64, SuiteError> {
    let expected = "a number above 0";
    let value = match node.value {
        Value::Float(value) => value,
        Value::Integer(value) => value as f64,
        ref other => return Err(found(node, other.kind(), expected)),
    };
    let fits = value > 0.0 && value <= MAX_NUMBER;
    if fits { Ok(value) } else { Err(found(node, &value.to_string(), "a number above 0, at most 1e9")) }
}

pub(super) fn optional_number(table: &mut Table, key: &'static str) -> Result<Option<f64>, SuiteError> {
    table.take(key).map(|node| number(&node)).transpose()
}

fn tp_ranks(table: &mut Table) -> Result<Vec<usize>, SuiteError> {
    table.take("tp").map_or(Ok(vec![1]), |node| counts(node, "an array of tensor-parallel sizes"))
}

fn seed(table: &mut Table) -> Result<u64, SuiteError> {
    Ok(table.take("seed").map(|node| count(&node, 0)).transpose()?.unwrap_or(DEFAULT_SEED))
}

/// Reads a `[[max_batch]]` table.
pub(super) fn max_batch(mut table: Table) -> Result<MaxBatchCase, SuiteError> {
    let lengths = lengths(&mut table)?;
    let range_node = table.require("batch_range", "the smallest and largest batch, such as [1, 64]")?;
    let batch_range = match counts(range_node.clone(), "[smallest, largest] batch")?.as_slice() {
        &[low, high] if low <= high => (low, high),
        &[low, high] => {
            return Err(found(&range_node, &format!("[{low}, {high}]"), "the smaller batch first"));
        }
        other => {
            return Err(found(&range_node, &format!("{} numbers", other.len()), "[smallest, largest] batch"));
        }
    };
    let limit_node = table.require("limit_tpot_ms", "most milliseconds per token after the first")?;
    let limit_tpot_ms = number(&limit_node)?;
    if let Some((input, output)) = lengths.iter().find(|(_, output)| *output < 2) {
        let pair = format!("a limit for the lengths [{input}, {output}]");
        return Err(found(&limit_node, &pair, "at least 2 output tokens: the first is not counted"));
    }
    let case = MaxBatchCase {
        lengths,
        batch_range,
        limit_tpot_ms,
        limit_ttft_ms: optional_number(&mut table, "limit_ttft_ms")?,
        repetitions: optional_count(&mut table, "repetitions", 1)?.unwrap_or(DEFAULT_PROBE_REPETITIONS),
        tp_ranks: tp_ranks(&mut table)?,
        seed: seed(&mut table)?,
        configurations: case_configurations(&mut table)?,
    };
    table.finish()?;
    Ok(case)
}

/// Reads a `[[load]]` table.
pub(super) fn load(mut table: Table, dir: &Path) -> Result<LoadCase, SuiteError> {
    let (arrival, rates) = arrivals(&mut table, dir)?;
    let extent = extent(&mut table, &rates)?;
    let lengths = if let Arrival::Trace(_) = arrival { Vec::new() } else { lengths(&mut table)? };
    let prompts = if let Arrival::Trace(_) = arrival { None } else { prompts(&mut table, dir, false)? };
    let objectives = table.take("slo").map(objectives).transpose()?.unwrap_or_default();
    let case = LoadCase {
        arrival,
        rates,
        extent,
        lengths,
        prompts,
        max_batch: optional_count(&mut table, "max_batch", 1)?.unwrap_or(DEFAULT_LOAD_BATCH),
        objectives,
        tp_ranks: tp_ranks(&mut table)?,
        seed: seed(&mut table)?,
        configurations: case_configurations(&mut table)?,
    };
    table.finish()?;
    Ok(case)
}

/// Reads when requests arrive: by a process at rates, by a trace at speeds, or in a closed loop.
fn arrivals(table: &mut Table, dir: &Path) -> Result<(Arrival, Rates), SuiteError> {
    let names = Arrival::NAMES.map(|name| format!("\"{name}\"")).join(", ");
    if let Some(node) = table.take("concurrency") {
        if let Some(other) = table.take("arrival").or_else(|| table.take("rates")) {
            let found_words = "an arrival or rates beside `concurrency`";
            return Err(found(
                &other,
                found_words,
                "one of the two: in a closed loop, a request is sent when one ends",
            ));
        }
        let levels = counts(node, "an array of requests under way, such as [1, 4, 16]")?;
        let levels = levels.into_iter().map(|level| u32::try_from(level).unwrap_or(u32::MAX)).collect();
        return Ok((Arrival::Closed, Rates::Concurrency(levels)));
    }
    let node = table.require("arrival", &format!("one of {names}, or `concurrency` for a closed loop"))?;
    let arrival =
        match word(&node, &Arrival::NAMES, |name| Arrival::NAMES.iter().find(|n| **n == name).copied())? {
            "poisson" => Arrival::Poisson,
            "gamma" => {
                let expected = "the shape of the gaps' gamma distribution: 1 is Poisson, less is burstier";
                Arrival::Gamma(number(&table.require("burstiness", expected)?)?)
            }
            "fixed" => Arrival::Fixed,
            _ => {
                let expected =
                    "a file with one JSON object per line: timestamp (ms), input_length, output_length";
                let file = path(&table.require("trace", expected)?, dir)?;
                let speeds = match table.take("speeds") {
                    Some(node) => {
                        let speeds = array(node, "an array of speeds, such as [0.5, 1, 2]")?.1;
                        speeds.iter().map(number).collect::<Result<_, _>>()?
                    }
                    None => vec![1.0],
                };
                return Ok((Arrival::Trace(file), Rates::Speeds(speeds)));
            }
        };
    Ok((arrival, rates(table)?))
}

fn rates(table: &mut Table) -> Result<Rates, SuiteError> {
    let expected = "`rates`, requests a second such as [1, 2.5, 4], or `saturation = true`";
    let listed = table.take("rates");
    let saturation = table.take("saturation");
    match (listed, saturation) {
        (Some(node), None) => {
            let rates = array(node, "an array of requests a second, such as [1, 2.5, 4]")?.1;
            Ok(Rates::Listed(rates.iter().map(number).collect::<Result<_, _>>()?))
        }
        (None, Some(node)) if boolean(&node)? => Ok(Rates::Saturation),
        (Some(_), Some(node)) => Err(found(&node, "`saturation` beside `rates`", "one of the two")),
        (None, Some(node)) => Err(found(&node, "false and no `rates`", expected)),
        (None, None) => Err(table.missing("rates", expected)),
    }
}

fn extent(table: &mut Table, rates: &Rates) -> Result<Extent, SuiteError> {
    let expected = "`requests`, how many at each rate, or `duration_s`, for how long";
    let requests = table.take("requests");
    let duration_s = table.take("duration_s");
    match (requests, duration_s) {
        (Some(node), None) => {
            let requests = count(&node, 1)? as usize;
            if requests > MAX_REQUESTS {
                return Err(found(&node, &requests.to_string(), &format!("at most {MAX_REQUESTS} requests")));
            }
            if *rates == Rates::Saturation && requests < LEAST_FOR_SATURATION {
                let expected =
                    format!("at least {LEAST_FOR_SATURATION}: fewer cannot tell a queue that grows");
                return Err(found(&node, &requests.to_string(), &expected));
            }
            Ok(Extent::Requests(requests))
        }
        (None, Some(node)) if *rates == Rates::Saturation => Err(found(
            &node,
            "`duration_s`",
            "`requests`: a search for saturation offers as many at every rate",
        )),
        (None, Some(node)) if matches!(rates, Rates::Concurrency(_)) => {
            Err(found(&node, "`duration_s`", "`requests`: a closed loop sends as many at every concurrency"))
        }
        (None, Some(node)) => {
            let seconds = number(&node)?;
            let Rates::Listed(listed) = rates else { return Ok(Extent::DurationS(seconds)) };
            let most = listed.iter().copied().fold(0.0, f64::max) * seconds;
            if most > MAX_REQUESTS as f64 {
                let found_words = format!("{seconds} s, about {most:.0} requests");
                return Err(found(&node, &found_words, &format!("at most {MAX_REQUESTS} requests")));
            }
            Ok(Extent::DurationS(seconds))
        }
        (Some(_), Some(node)) => Err(found(&node, "`duration_s` beside `requests`", "one of the two")),
        // A trace has an end.
        (None, None) if matches!(rates, Rates::Speeds(_)) => Ok(Extent::Requests(MAX_REQUESTS)),
        (None, None) => Err(table.missing("requests", expected)),
    }
}

fn objectives(node: Node) -> Result<Objectives, SuiteError> {
    let empty = found(&node, "no objective", "at least one of ttft_ms, tpot_ms, e2e_ms");
    let mut table = Table::new(node)?;
    let objectives = Objectives {
        ttft_ms: optional_number(&mut table, "ttft_ms")?,
        tpot_ms: optional_number(&mut table, "tpot_ms")?,
        e2e_ms: optional_number(&mut table, "e2e_ms")?,
    };
    table.finish()?;
    if objectives == Objectives::default() { Err(empty) } else { Ok(objectives) }
}

/// Reads the source of real prompts. Returns `None` without `dataset` and `jsonl`. Only timed batches have `groups`.
pub(super) fn prompts(
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
