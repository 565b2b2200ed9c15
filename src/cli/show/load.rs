//! Showing a load: its levels, and the requests that failed.

use serde_json::{Value, json};

use crate::cli::tables::drawn;
use crate::record::{Clock, LoadCase, LoadLevelRecord};
use crate::report::modelled;
use crate::text::one_line;
use crate::workload::load::rows::load_rows;
use crate::workload::load::tables::tables_of;

use super::{Shown, value};

/// Most failed requests of a level that are listed.
const LISTED: usize = 3;

/// Formats the load's tables for each run.
pub(super) fn words(runs: &[&Shown], case: &LoadCase) -> String {
    let mut text = String::new();
    for run in runs {
        let (levels, from) = (levels(run, case), &run.records.run.provenance);
        text += &format!(
            "{}: {} arrivals; {}; {} on {}, run {}\n",
            one_line(&case.load_id),
            one_line(&case.arrival),
            one_line(&case.prompts),
            one_line(&from.dtype),
            one_line(&from.device),
            one_line(run.id())
        );
        if levels.is_empty() {
            text += "this run has no level of the load\n\n";
            continue;
        }
        for table in tables_of(case, &run.records.run, &levels) {
            text += &format!("{}\n{}\n\n", one_line(&table.title), drawn(&table));
        }
        levels.iter().for_each(|level| text += &failures(level));
    }
    text
}

/// Lists the first failed requests of a level.
fn failures(level: &LoadLevelRecord) -> String {
    let failed: Vec<(usize, &str)> = failed(level).collect();
    let listed = failed.iter().take(LISTED);
    let mut text: String = listed
        .map(|(index, error)| {
            format!("{}: request {} failed: {}\n", level.offers(), index + 1, one_line(error))
        })
        .collect();
    if failed.len() > LISTED {
        text += &format!("{}: {} more failed; load.jsonl has them\n", level.offers(), failed.len() - LISTED);
    }
    text
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
