//! Converts `[[load]]` to its type.

use std::path::Path;

use super::table::{DEFAULT_LOAD_BATCH, Extent, LoadCase, MAX_REQUESTS, Rates};
use crate::document::tree::Node;
use crate::record::{Arrival, Objective, Objectives};
use crate::stats::ArrivalProcess;
use crate::suite::cases::Schema;
use crate::suite::prompts::prompts;
use crate::suite::table::{
    Table, array, boolean, count, counts, found, lengths, number, optional_count, optional_number, path,
    seed, word,
};
use crate::suite::{CaseScope, SuiteError};

/// Minimum number of requests to judge a rate (equal to `stats::LEAST_FOR_GROWTH`). A search for saturation judges
/// every rate.
const LEAST_FOR_SATURATION: usize = 100;
/// The burstiness of gamma gaps. Below it, nearly all requests arrive at once.
const BURSTINESS: std::ops::RangeInclusive<f64> = 0.01..=100.0;
/// Most requests under way in a closed loop. Each has a thread, if a server answers it.
const MAX_CONCURRENCY: usize = 8_192;
/// Most prompt tokens of a step that also decodes. More than any model's longest prompt.
const MAX_CHUNK: u64 = 1 << 20;

impl Schema for LoadCase {
    const HAS_PROMPTS: bool = true;

    fn read(table: Table, dir: &Path) -> Result<Self, SuiteError> {
        load(table, dir)
    }
}

fn load(mut table: Table, dir: &Path) -> Result<LoadCase, SuiteError> {
    let (arrival, rates) = arrivals(&mut table, dir)?;
    let extent = extent(&mut table, &rates)?;
    let (lengths, prompts) = match arrival {
        Arrival::Trace => (Vec::new(), None),
        Arrival::Process(_) | Arrival::Closed => (lengths(&mut table)?, prompts(&mut table, dir, false)?),
    };
    let objectives = table.take("slo").map(objectives).transpose()?.unwrap_or_default();
    let case = LoadCase {
        arrival,
        rates,
        extent,
        lengths,
        prompts,
        max_batch: optional_count(&mut table, "max_batch", 1)?.unwrap_or(DEFAULT_LOAD_BATCH),
        prefill_chunk: table.take("prefill_chunk").map(|node| chunk(&node)).transpose()?,
        objectives,
        seed: seed(&mut table)?,
        scope: CaseScope::read(&mut table)?,
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
        let levels = counts(node.clone(), "an array of requests under way, such as [1, 4, 16]")?;
        if let Some(level) = levels.iter().find(|level| **level > MAX_CONCURRENCY) {
            return Err(found(
                &node,
                &level.to_string(),
                &format!("at most {MAX_CONCURRENCY} requests under way"),
            ));
        }
        let levels = levels.into_iter().map(|level| level as u32).collect();
        return Ok((Arrival::Closed, Rates::Concurrency(levels)));
    }
    let node = table.require("arrival", &format!("one of {names}, or `concurrency` for a closed loop"))?;
    let process =
        match word(&node, &Arrival::NAMES, |name| Arrival::NAMES.iter().find(|n| **n == name).copied())? {
            "poisson" => ArrivalProcess::Poisson,
            "gamma" => {
                let expected = "the shape of the gaps' gamma distribution: 1 is Poisson, less is burstier";
                let node = table.require("burstiness", expected)?;
                let burstiness = number(&node)?;
                if !BURSTINESS.contains(&burstiness) {
                    return Err(found(&node, &burstiness.to_string(), "a number from 0.01 to 100"));
                }
                ArrivalProcess::Gamma(burstiness)
            }
            "fixed" => ArrivalProcess::Fixed,
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
                return Ok((Arrival::Trace, Rates::Trace { file, speeds }));
            }
        };
    Ok((Arrival::Process(process), rates(table)?))
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
        (None, None) if matches!(rates, Rates::Trace { .. }) => Ok(Extent::Requests(MAX_REQUESTS)),
        (None, None) => Err(table.missing("requests", expected)),
    }
}

/// Reads the prompt tokens of a step that also decodes.
fn chunk(node: &Node) -> Result<usize, SuiteError> {
    let tokens = count(node, 1)?;
    if tokens > MAX_CHUNK {
        return Err(found(
            node,
            &tokens.to_string(),
            &format!("at most {MAX_CHUNK} prompt tokens in a step"),
        ));
    }
    Ok(tokens as usize)
}

fn objectives(node: Node) -> Result<Objectives, SuiteError> {
    let empty = found(&node, "no objective", "at least one of ttft_ms, tpot_ms, e2e_ms");
    let mut table = Table::new(node)?;
    let objectives = Objectives {
        ttft: optional_number(&mut table, "ttft_ms")?.map(Objective::of_ms),
        tpot: optional_number(&mut table, "tpot_ms")?.map(Objective::of_ms),
        e2e: optional_number(&mut table, "e2e_ms")?.map(Objective::of_ms),
    };
    table.finish()?;
    if objectives.is_empty() { Err(empty) } else { Ok(objectives) }
}
