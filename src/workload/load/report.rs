//! Loads in a report: their definitions, and where their tables, sentences, conditions and charts come from.

use crate::language::{Language, Text, text};
use std::collections::BTreeMap;

use crate::record::{LoadCase, LoadLevelRecord, LoadRow, Phase, RunRecord};
use crate::report::charts::lines::LineChart;
use crate::report::check::Check;
use crate::report::csv_file::Csv;
use crate::report::followed;
use crate::report::modelled::{Figure, shape_of_load};
use crate::report::table::Table;
use crate::report::workloads::{Part, Reported};

use super::checks::checks;
use super::rows::load_rows;
use super::sentences::sentences;
use super::tables::{quantiles, requests, resends, summary, wire};

/// Definitions at the foot of a report with loads.
const DEFINITIONS: &[(Text, Text)] = &[
    (
        text!("Load"),
        text!(
            "requests arrive by a schedule made from the seed, whether or not the engine keeps up (an open loop). All times of a \
         request count from its arrival by that schedule, not from when the engine was free to hear of it. The scheduler \
         prefills new prompts before it goes on decoding, so an arrival shows as a long gap (ITL) of those running. With \
         `prefill_chunk`, a step has a token of each running request and that many prompt tokens beside them. In a \
         closed loop a fixed number of requests is under way, and a request arrives when one before it ends."
        ),
    ),
    (
        text!("TTFT, TPOT, ITL, E2E under load"),
        text!(
            "TTFT: arrival to first token, the queue included. TPOT: (last token − first) ÷ (tokens − 1), one value a request. ITL: \
         each gap between two tokens of a request, the first token's own time in none of them. E2E: arrival to last token. \
         Queue: arrival to the begin of its first step."
        ),
    ),
    (
        text!("Offered, served"),
        text!(
            "rate: of the schedule. Offered: (requests − 1) ÷ (last arrival − first). Served: requests ÷ time from the schedule's \
         begin to the last request's end, so a short run shows less than its rate."
        ),
    ),
    (
        text!("Over a wire"),
        text!(
            "TTFT, TPOT and E2E count events that carry text or tokens, as they arrive at this program; role, usage and end \
         events count for nothing. TTFT and E2E from sent begin with the last byte of the request. Late: from the scheduled arrival \
         until this program began to connect, its own delay. The run is invalid if it moved a stated quantile of TTFT by more than \
         1 ms and by more than 1 % of it. Connect: address, TCP and TLS; 0 for a reused connection. Events a \
         token counts those that arrive together once. Below 0.95, gaps between events are not gaps between tokens. ITL and TPOT \
         are then empty, and E2E ends with the answer."
        ),
    ),
    (
        text!("Goodput"),
        text!(
            "share of all requests that keep every stated objective; a failed one keeps none. Empty if an objective is for TPOT and \
         tokens of a request arrived together."
        ),
    ),
    (
        text!("Saturated"),
        text!(
            "E2E surely grows by more than 5 % of the time that passes, so that fewer than 95 % of the requests offered are served. \
         Surely: by least squares over the means of ten blocks, the first quarter left out, with a one-sided 95 % bound above 0. \
         Needs 100 requests that do not all arrive at once."
        ),
    ),
];

/// The error of the first failed request of a load.
#[derive(Debug, Clone)]
pub(crate) struct FirstFailure {
    pub(super) load_id: String,
    pub(super) reason: String,
}

/// The levels of the loads in a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct LoadReport {
    rows: Vec<LoadRow>,
    failures: Vec<FirstFailure>,
    /// How many requests of each load were sent again, by the load's name. Loads without any are absent.
    resends: BTreeMap<String, u64>,
}

impl LoadReport {
    /// The rows of all levels.
    pub(super) fn rows(&self) -> &[LoadRow] {
        &self.rows
    }
}

impl Part for LoadReport {
    fn tables(&self, run: &RunRecord) -> Vec<Table> {
        run.plan.loads.iter().map(|case| summary(case, run, &self.rows)).collect()
    }

    fn details(&self, run: &RunRecord) -> Vec<Table> {
        let of_case = |case: &LoadCase| {
            let resends = self.resends.get(&case.load_id).copied().unwrap_or(0);
            let wire = wire(case, run, &self.rows, resends);
            [requests(case, run, &self.rows), quantiles(case, run, &self.rows)].into_iter().chain(wire)
        };
        run.plan.loads.iter().flat_map(of_case).collect()
    }

    fn checks(&self, run: &RunRecord) -> Vec<Check> {
        checks(run, &self.rows, &self.failures)
    }

    fn sentences(&self, run: &RunRecord) -> Vec<Text> {
        sentences(run, &self.rows, &self.failures)
    }

    fn csv(&self) -> Result<Option<Csv>, csv::Error> {
        Csv::of("load.csv", LoadRow::HEADER, &self.rows).map(Some)
    }

    /// One for each row, in the order of the file.
    fn figures(&self) -> Vec<Figure> {
        let of = |row: &LoadRow| Figure {
            case_id: row.load_id.clone(),
            phase: Phase::E2e,
            tp: row.tp,
            lengths: shape_of_load(row),
        };
        self.rows.iter().map(of).collect()
    }

    fn history(&self, run: &RunRecord) -> Vec<followed::Figure> {
        super::history::figures(run, &self.rows)
    }

    fn charts(&self, run: &RunRecord, language: Language) -> Vec<(String, LineChart)> {
        super::charts::describe(run, &self.rows, language)
    }
}

impl Reported for LoadReport {
    type Case = LoadCase;
    const DEFINITIONS: &'static [(Text, Text)] = DEFINITIONS;
    const NAMES: [&'static str; 2] = ["load", "loads"];

    fn of(run: &RunRecord, levels: &[LoadLevelRecord]) -> Self {
        let failed = |case: &LoadCase| {
            Some(FirstFailure { load_id: case.load_id.clone(), reason: first_failure(case, levels)? })
        };
        let failures = run.plan.loads.iter().filter_map(failed).collect();
        let resends = run.plan.loads.iter().map(|case| (case.load_id.clone(), resends(case, levels)));
        let resends = resends.filter(|(_, count)| *count > 0).collect();
        Self { rows: load_rows(run, levels), failures, resends }
    }
}

/// Error of the first failed request of a load.
fn first_failure(case: &LoadCase, levels: &[LoadLevelRecord]) -> Option<String> {
    let own = levels.iter().filter(|level| level.load_id == case.load_id);
    own.flat_map(|level| &level.requests).find_map(|request| request.error.clone())
}
