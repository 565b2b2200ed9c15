//! Showing a load: its levels, and the requests that failed.

use crate::language::{Language, Text, text};
use serde_json::{Value, json};

use crate::cli::tables::titled;
use crate::record::{Clock, LoadCase, LoadLevelRecord};
use crate::report::modelled;
use crate::text::one_line;
use crate::workload::load::rows::load_rows;
use crate::workload::load::tables::tables_of;

use super::{Shown, value};

/// Most failed requests of a level that are listed.
const LISTED: usize = 3;

/// Formats the load's tables for each run.
pub(super) fn words(runs: &[&Shown], case: &LoadCase, language: Language) -> String {
    let say_line = |text: &Text| one_line(&text.in_language(language)).into_owned();
    let mut words = String::new();
    for run in runs {
        let (levels, from) = (levels(run, case), &run.records.run.provenance);
        let head = text!(
            "{load}: {arrival} arrivals; {prompts}; {dtype} on {device}, run {run}",
            load = case.load_id,
            arrival = case.arrival,
            prompts = case.prompts,
            dtype = from.dtype,
            device = from.device,
            run = run.id()
        );
        words += &format!("{}\n", say_line(&head));
        if levels.is_empty() {
            words += &format!("{}\n\n", say_line(&text!("this run has no level of the load")));
            continue;
        }
        for table in tables_of(case, &run.records.run, &levels) {
            words += &format!("{}\n\n", titled(&table, language));
        }
        levels.iter().flat_map(failures).for_each(|line| words += &format!("{}\n", say_line(&line)));
    }
    words
}

/// Lists the first failed requests of a level.
fn failures(level: &LoadLevelRecord) -> Vec<Text> {
    let failed: Vec<(usize, &str)> = failed(level).collect();
    let offers = level.offers();
    let line = |(index, error): &(usize, &str)| {
        text!("{offers}: request {number} failed: {error}", offers, number = index + 1, error)
    };
    let mut lines: Vec<Text> = failed.iter().take(LISTED).map(line).collect();
    if failed.len() > LISTED {
        let more = failed.len() - LISTED;
        lines.push(text!("{offers}: {more} more failed; load.jsonl has them", offers, more));
    }
    lines
}

/// Returns the failed requests of a level, each with its index.
fn failed(level: &LoadLevelRecord) -> impl Iterator<Item = (usize, &str)> {
    level.requests.iter().enumerate().filter_map(|(index, request)| Some((index, request.error.as_deref()?)))
}

fn levels(run: &Shown, case: &LoadCase) -> Vec<LoadLevelRecord> {
    run.records.levels.iter().filter(|level| level.load_id == case.load_id).cloned().collect()
}

/// Returns the rows of `load.csv` and the failed requests for JSON.
pub(super) fn data(runs: &[&Shown], case: &LoadCase) -> Value {
    let of_run = |run: &&Shown| {
        let levels = levels(run, case);
        let rows: Vec<Value> = load_rows(&run.records.run, &levels).iter().map(value).collect();
        let failed: Vec<Value> = levels
            .iter()
            .flat_map(|level| failed(level).map(|(index, error)| (level.level, index, error)))
            .map(|(level, index, error)| json!({"level": level, "request": index, "error": error}))
            .collect();
        let mut data = json!({"run_id": run.id(), "levels": rows, "failed": failed});
        let run = &run.records.run;
        if run.provenance.clock == Clock::Modelled {
            let error = |row| modelled::error_of_load(run, row)?.ok().map(|of| of.error);
            let errors: Vec<Option<f64>> = load_rows(run, &levels).iter().map(error).collect();
            data["model_errors"] = json!(errors);
        }
        data
    };
    json!({"load_id": case.load_id, "runs": runs.iter().map(of_run).collect::<Vec<_>>()})
}
