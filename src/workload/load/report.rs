//! Loads: turns levels into the rows of `load.csv`, tables, sentences and conditions.

use crate::record::{
    LoadCase, LoadLevelRecord, LoadRequest, LoadRow, Objective, Objectives, RunRecord, SCHEMA, rate_text,
};
use crate::report::charts::lines::LineChart;
use crate::report::compare::Side;
use crate::report::format::{NONE, counted, decimals, fixed, or_none, percent, significant};
use crate::report::performance::p99;
use crate::report::tables::{Column, Row, Table};
use crate::report::validity::{Check, Outcome, found_in, yes_if};
use crate::report::workloads::{Compared, Csv, Part, Reported};
use crate::stats::{LEAST_EVENTS_PER_TOKEN, LEAST_FOR_GROWTH, quantile};

/// Definitions at the foot of a report with loads.
const DEFINITIONS: &[(&str, &str)] = &[
    (
        "Load",
        "requests arrive by a schedule made from the seed, whether or not the engine keeps up (an open loop). All times of a \
         request count from its arrival by that schedule, not from when the engine was free to hear of it. The scheduler \
         prefills new prompts before it goes on decoding, so an arrival shows as a long gap (ITL) of those running. In a \
         closed loop a fixed number of requests is under way, and a request arrives when one before it ends.",
    ),
    (
        "TTFT, TPOT, ITL, E2E under load",
        "TTFT: arrival to first token, the queue included. TPOT: (last token − first) ÷ (tokens − 1), one value a request. ITL: \
         each gap between two tokens of a request, the first token's own time in none of them. E2E: arrival to last token. \
         Queue: arrival to the begin of its first step.",
    ),
    (
        "Offered, served",
        "rate: of the schedule. Offered: (requests − 1) ÷ (last arrival − first). Served: requests ÷ time from the schedule's \
         begin to the last request's end, so a short run shows less than its rate.",
    ),
    (
        "Over a wire",
        "TTFT, TPOT and E2E count events that carry text or tokens, as they arrive at this program; role, usage and end \
         events count for nothing. TTFT and E2E from sent begin with the last byte of the request. Late: from the scheduled arrival \
         until this program began to connect, its own delay. Connect: address, TCP and TLS; 0 for a reused connection. Events \
         a token count those that arrive together once: below 0.95, gaps between events are not gaps between tokens, ITL and TPOT are empty, and E2E ends with the answer.",
    ),
    (
        "Goodput",
        "share of all requests that keep every stated objective; a failed one keeps none. Empty if an objective is for TPOT and \
         tokens of a request arrived together.",
    ),
    (
        "Saturated",
        "E2E grows by more than 5 % of the time that passes (fewer than 95 % of the requests offered are served), and surely: \
         least squares over the means of ten blocks, the first quarter left out, one-sided 95 % bound above 0. Needs 100 \
         requests that do not all arrive at once.",
    ),
];

/// The levels of a run's loads.
#[derive(Debug, Clone, Default)]
pub(crate) struct LoadReport {
    rows: Vec<LoadRow>,
    /// Loads with failed requests, and the error of the first one.
    failures: Vec<(String, String)>,
    /// Loads with requests that were sent again, and how many times.
    resends: Vec<(String, u64)>,
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
            let own = self.resends.iter().find(|(load, _)| *load == case.load_id);
            let wire = wire(case, run, &self.rows, own.map_or(0, |(_, count)| *count));
            [requests(case, run, &self.rows), quantiles(case, run, &self.rows)].into_iter().chain(wire)
        };
        run.plan.loads.iter().flat_map(of_case).collect()
    }

    fn checks(&self, run: &RunRecord) -> Vec<Check> {
        checks(run, &self.rows, &self.failures)
    }

    fn sentences(&self, run: &RunRecord) -> Vec<String> {
        sentences(run, &self.rows, &self.failures)
    }

    fn csv(&self) -> Result<Option<Csv>, csv::Error> {
        Csv::of("load.csv", LoadRow::HEADER, &self.rows).map(Some)
    }

    fn charts(&self, run: &RunRecord) -> Vec<(String, LineChart)> {
        super::charts::describe(run, &self.rows)
    }
}

impl Reported for LoadReport {
    type Case = LoadCase;
    const DEFINITIONS: &'static [(&'static str, &'static str)] = DEFINITIONS;
    const NAMES: [&'static str; 2] = ["load", "loads"];

    fn of(run: &RunRecord, levels: &[LoadLevelRecord]) -> Self {
        let failed = |case: &LoadCase| Some((case.load_id.clone(), first_failure(case, levels)?));
        let failures = run.plan.loads.iter().filter_map(failed).collect();
        let resends = run.plan.loads.iter().map(|case| (case.load_id.clone(), resends(case, levels)));
        let resends = resends.filter(|(_, count)| *count > 0).collect();
        Self { rows: load_rows(run, levels), failures, resends }
    }

    fn compare(a: &Side, b: &Side, notes: &mut Vec<String>) -> Option<Box<dyn Compared>> {
        Some(super::compare::compare(a, b, notes))
    }
}

/// Returns all tables of one load.
pub(crate) fn tables_of(case: &LoadCase, run: &RunRecord, levels: &[LoadLevelRecord]) -> Vec<Table> {
    let rows = load_rows(run, levels);
    let tables = [summary(case, run, &rows), requests(case, run, &rows), quantiles(case, run, &rows)];
    tables.into_iter().chain(wire(case, run, &rows, resends(case, levels))).collect()
}

/// Returns how many requests of a load were sent again, because the server had closed a kept connection.
fn resends(case: &LoadCase, levels: &[LoadLevelRecord]) -> u64 {
    levels.iter().filter(|level| level.load_id == case.load_id).map(resent).sum()
}

/// Returns how many requests of a level were sent again.
fn resent(level: &LoadLevelRecord) -> u64 {
    let wires = level.requests.iter().filter_map(|request| request.wire.as_ref());
    wires.filter(|wire| wire.attempts > 1).count() as u64
}

fn over_wire(level: &LoadLevelRecord) -> bool {
    level.requests.iter().any(|request| request.wire.is_some())
}

/// Returns a row for each level, load by load in plan order.
pub fn load_rows(run: &RunRecord, levels: &[LoadLevelRecord]) -> Vec<LoadRow> {
    let of_case = |case: &LoadCase| {
        let own = levels.iter().filter(|level| level.load_id == case.load_id);
        own.map(|level| row(run, case, level)).collect::<Vec<_>>()
    };
    run.plan.loads.iter().flat_map(of_case).collect()
}

/// Times of one kind, with quantiles in integer nanoseconds.
struct Times(Vec<f64>);

impl Times {
    fn of(requests: &[&LoadRequest], time: impl Fn(&LoadRequest) -> Option<f64>) -> Self {
        Self(requests.iter().filter_map(|r| time(r)).collect())
    }

    fn at(&self, q: f64) -> Option<u64> {
        quantile(&self.0, q).map(|ns| ns.round() as u64)
    }

    fn p99(&self) -> Option<u64> {
        p99(&self.0).map(|ns| ns.round() as u64)
    }
}

fn row(run: &RunRecord, case: &LoadCase, level: &LoadLevelRecord) -> LoadRow {
    let from = &run.provenance;
    let served: Vec<&LoadRequest> = level.served().collect();
    // A server does not tell how long a request waited.
    let queue = Times::of(&served, |r| r.wire.is_none().then(|| r.queue_ns() as f64));
    let ttft = Times::of(&served, |r| Some(r.ttft_ns() as f64));
    let events = events_per_token(&served);
    let tells_tokens = events.is_none_or(|ratio| ratio >= LEAST_EVENTS_PER_TOKEN);
    let tpot = Times::of(&served, |r| r.tpot_ns().filter(|_| tells_tokens));
    let gaps = served.iter().filter(|_| tells_tokens);
    let itl = Times(gaps.flat_map(|r| &r.itl_ns).map(|&ns| ns as f64).collect());
    let ttft_sent = Times::of(&served, |r| Some(r.ttft_sent_ns()? as f64));
    let e2e_sent = Times::of(&served, |r| Some(r.e2e_sent_ns()? as f64));
    let connect = Times::of(&served, |r| Some(r.wire.as_ref()?.connect_ns as f64));
    // A request that failed was sent as well.
    let all: Vec<&LoadRequest> = level.requests.iter().collect();
    let late = Times::of(&all, |r| Some(r.late_ns()? as f64));
    let e2e = Times::of(&served, |r| Some(r.e2e_ns() as f64));
    let duration_ns = level.end_ns.saturating_sub(level.start_ns);
    let per_s = |count: f64| (duration_ns > 0).then(|| count / (duration_ns as f64 / 1e9));
    let output_tokens = served.iter().map(|r| u64::from(r.output_tokens)).sum::<u64>();
    let good = level.requests.iter().filter(|r| case.objectives.keeps(r)).count() as f64;
    let stated = !case.objectives.is_empty() && !level.requests.is_empty();
    let is_told = stated && served.iter().all(|r| case.objectives.are_told(r));
    let growth = level.growth();
    LoadRow {
        schema: SCHEMA,
        run_id: run.run_id.clone(),
        load_id: case.load_id.clone(),
        level: level.level,
        engine: from.engine.clone(),
        device: from.device.clone(),
        clock: level.clock,
        dtype: from.dtype.clone(),
        tp: case.tp,
        threads: from.threads,
        arrival: case.arrival.clone(),
        max_batch: case.max_batch,
        rate_per_s: level.rate_per_s,
        concurrency: level.concurrency,
        offered_per_s: offered_per_s(level),
        achieved_per_s: level.achieved_per_s(),
        requests: level.requests.len() as u64,
        failed: (level.requests.len() - served.len()) as u64,
        duration_ns,
        input_tokens: served.iter().map(|r| u64::from(r.input_tokens)).sum(),
        output_tokens,
        output_tokens_per_s: per_s(output_tokens as f64),
        queue_p50_ns: queue.at(0.5),
        queue_p90_ns: queue.at(0.9),
        queue_max_ns: queue.at(1.0),
        ttft_p50_ns: ttft.at(0.5),
        ttft_p90_ns: ttft.at(0.9),
        ttft_p99_ns: ttft.p99(),
        ttft_max_ns: ttft.at(1.0),
        tpot_p50_ns: tpot.at(0.5),
        tpot_p90_ns: tpot.at(0.9),
        tpot_p99_ns: tpot.p99(),
        tpot_max_ns: tpot.at(1.0),
        itl_p50_ns: itl.at(0.5),
        itl_p90_ns: itl.at(0.9),
        itl_p99_ns: itl.p99(),
        itl_max_ns: itl.at(1.0),
        e2e_p50_ns: e2e.at(0.5),
        e2e_p90_ns: e2e.at(0.9),
        e2e_p99_ns: e2e.p99(),
        e2e_max_ns: e2e.at(1.0),
        slo_ttft_ns: case.objectives.ttft.map(Objective::ns),
        slo_tpot_ns: case.objectives.tpot.map(Objective::ns),
        slo_e2e_ns: case.objectives.e2e.map(Objective::ns),
        goodput_share: is_told.then(|| good / level.requests.len() as f64),
        goodput_per_s: per_s(good).filter(|_| is_told),
        growth_slope: growth.map(|g| g.slope),
        growth_low: growth.map(|g| g.low),
        saturated: level.is_saturated(),
        ttft_sent_p50_ns: ttft_sent.at(0.5),
        ttft_sent_p99_ns: ttft_sent.p99(),
        connect_p50_ns: connect.at(0.5),
        late_p99_ns: late.p99().or_else(|| late.at(1.0)),
        events_per_token: events,
        e2e_sent_p50_ns: e2e_sent.at(0.5),
        e2e_sent_p99_ns: e2e_sent.p99(),
        host: run.host_of(&case.load_id).to_owned(),
        resent: over_wire(level).then(|| resent(level)),
    }
}

/// Returns the events that carried text or tokens over a wire, for each generated token. `None` for an engine in this
/// process.
fn events_per_token(served: &[&LoadRequest]) -> Option<f64> {
    let events: u64 = served.iter().filter_map(|r| Some(r.wire.as_ref()?.events)).sum();
    let over_wire = served.iter().filter(|r| r.wire.is_some());
    let tokens: u64 = over_wire.map(|r| u64::from(r.output_tokens)).sum();
    (tokens > 0).then(|| events as f64 / tokens as f64)
}

/// Arrival rate per second as it occurred. `None` for a single request, if all arrive at once, and in a closed loop.
fn offered_per_s(level: &LoadLevelRecord) -> Option<f64> {
    if level.concurrency.is_some() {
        return None;
    }
    let (first, last) = (level.requests.first()?.arrival_ns, level.requests.last()?.arrival_ns);
    let seconds = last.checked_sub(first).filter(|ns| *ns > 0)? as f64 / 1e9;
    Some((level.requests.len() - 1) as f64 / seconds)
}

impl LoadRow {
    /// The rate or concurrency, formatted.
    pub(crate) fn rate_words(&self) -> String {
        match (self.concurrency, self.rate_per_s) {
            (Some(requests), _) => requests.to_string(),
            (None, Some(rate)) => rate_text(rate),
            (None, None) => "all at once".to_owned(),
        }
    }

    /// What orders the rows of a load.
    pub(super) fn place(&self) -> f64 {
        self.concurrency.map(f64::from).or(self.rate_per_s).unwrap_or(0.0)
    }

    /// Whether the row is of a server.
    pub(super) fn is_over_wire(&self) -> bool {
        self.events_per_token.is_some() || self.late_p99_ns.is_some()
    }

    /// `yes`, `no`, or why it is unknown.
    pub(crate) fn saturated_words(&self) -> String {
        match self.saturated {
            Some(true) => "yes",
            Some(false) => "no",
            None if (self.requests as usize) < LEAST_FOR_GROWTH && self.rate_per_s.is_some() => {
                "too few to say"
            }
            None => NONE,
        }
        .to_owned()
    }
}

/// The sustained rate of a load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sustained {
    /// The highest unsaturated rate below the lowest saturated one.
    pub good: Option<f64>,
    /// The lowest saturated rate.
    pub bad: Option<f64>,
}

impl Sustained {
    /// `12.5, not 14`.
    pub(crate) fn words(&self) -> String {
        match (self.good, self.bad) {
            (Some(good), Some(bad)) => format!("{}, not {}", rate_text(good), rate_text(bad)),
            (Some(good), None) => format!("{} and more", rate_text(good)),
            (None, Some(bad)) => format!("less than {}", rate_text(bad)),
            (None, None) => "too few to say".to_owned(),
        }
    }
}

/// Finds the sustained rate from the rows of one load.
pub(super) fn sustained<'a>(rows: impl Iterator<Item = &'a LoadRow>) -> Sustained {
    let rows: Vec<&LoadRow> = rows.collect();
    let rated = |saturated: bool| {
        let rows = rows.iter();
        rows.filter(move |row| row.saturated == Some(saturated)).filter_map(|row| row.rate_per_s)
    };
    let bad = rated(true).min_by(f64::total_cmp);
    let good = rated(false).filter(|rate| bad.is_none_or(|bad| *rate < bad)).max_by(f64::total_cmp);
    Sustained { good, bad }
}

/// Numeric columns from rows, each with aligned decimal points.
struct Columns<'a> {
    rows: &'a [&'a LoadRow],
    columns: Vec<(&'static str, Vec<String>)>,
}

impl Columns<'_> {
    fn add(&mut self, name: &'static str, value: impl Fn(&LoadRow) -> Option<f64>) {
        let values: Vec<Option<f64>> = self.rows.iter().map(|row| value(row)).collect();
        let places = decimals(values.iter().flatten().copied());
        self.columns.push((name, values.into_iter().map(|value| fixed(value, places)).collect()));
    }

    fn add_ms(&mut self, name: &'static str, value: impl Fn(&LoadRow) -> Option<u64>) {
        self.add(name, |row| value(row).map(|ns| ns as f64 / 1e6));
    }

    fn add_text(&mut self, name: &'static str, text: impl Fn(&LoadRow) -> String) {
        self.columns.push((name, self.rows.iter().map(|row| text(row)).collect()));
    }

    fn table(self, title: String) -> Table {
        let row = |i: usize| Row {
            cells: self.columns.iter().map(|(_, cells)| cells[i].clone()).collect(),
            strong: false,
        };
        Table {
            title,
            rows: (0..self.rows.len()).map(row).collect(),
            columns: self
                .columns
                .iter()
                .map(|(name, _)| Column { name: (*name).to_owned(), numeric: true })
                .collect(),
        }
    }
}

fn columns<'a>(rows: &'a [&'a LoadRow]) -> Columns<'a> {
    let mut columns = Columns { rows, columns: Vec::new() };
    let closed = rows.iter().any(|row| row.concurrency.is_some());
    columns.add_text(if closed { "Concurrency" } else { "Rate /s" }, LoadRow::rate_words);
    columns
}

/// The rows of one load by rate. All requests at once come first.
fn of_load<'a>(case: &LoadCase, rows: &'a [LoadRow]) -> Vec<&'a LoadRow> {
    let mut own: Vec<&LoadRow> = rows.iter().filter(|row| row.load_id == case.load_id).collect();
    own.sort_by(|a, b| a.place().total_cmp(&b.place()));
    own
}

/// One row per rate of one load: throughput, latency and goodput.
fn summary(case: &LoadCase, run: &RunRecord, rows: &[LoadRow]) -> Table {
    let own = of_load(case, rows);
    let mut table = columns(&own);
    table.add("Served /s", |row| row.achieved_per_s);
    table.add_ms("TTFT p50 ms", |row| row.ttft_p50_ns);
    table.add_ms("TTFT p90 ms", |row| row.ttft_p90_ns);
    table.add_ms("TPOT p50 ms", |row| row.tpot_p50_ns);
    table.add_ms("TPOT p90 ms", |row| row.tpot_p90_ns);
    table.add_ms("E2E p50 ms", |row| row.e2e_p50_ns);
    table.add_ms("E2E p90 ms", |row| row.e2e_p90_ns);
    if !case.objectives.is_empty() {
        table.add_text("Goodput %", |row| or_none(row.goodput_share, percent));
    }
    if case.concurrency.is_empty() {
        table.add_text("Saturated", LoadRow::saturated_words);
    }
    let slo =
        objectives(&case.objectives).map_or_else(String::new, |words| format!(", served well: {words}"));
    table.table(format!("Load {}, {}{slo}", case.load_id, run.provenance.clock))
}

/// One row per rate of one load: requests, queueing and output tokens.
fn requests(case: &LoadCase, run: &RunRecord, rows: &[LoadRow]) -> Table {
    let own = of_load(case, rows);
    let mut table = columns(&own);
    if case.concurrency.is_empty() {
        table.add("Offered /s", |row| row.offered_per_s);
    }
    table.add("Served /s", |row| row.achieved_per_s);
    table.add_text("Requests", |row| row.requests.to_string());
    table.add_text("Failed", |row| row.failed.to_string());
    table.add("Output tokens/s", |row| row.output_tokens_per_s);
    // A server does not tell how long a request waited.
    if !own.iter().any(|row| row.is_over_wire()) {
        table.add_ms("Queue p50 ms", |row| row.queue_p50_ns);
        table.add_ms("p90", |row| row.queue_p90_ns);
        table.add_ms("max", |row| row.queue_max_ns);
    }
    if case.concurrency.is_empty() {
        table.add("E2E growth %", |row| row.growth_slope.map(|slope| 100.0 * slope));
    }
    table.table(format!("Requests of {}, {}: {}", case.load_id, run.provenance.clock, case.prompts))
}

/// One row per level of one load over a wire: what this program and the network add, and what was counted. `None` for an
/// engine in this process.
fn wire(case: &LoadCase, run: &RunRecord, rows: &[LoadRow], resends: u64) -> Option<Table> {
    let own = of_load(case, rows);
    if !own.iter().any(|row| row.is_over_wire()) {
        return None;
    }
    let mut table = columns(&own);
    table.add_ms("TTFT from sent p50 ms", |row| row.ttft_sent_p50_ns);
    table.add_ms("p99", |row| row.ttft_sent_p99_ns);
    table.add_ms("E2E from sent p50 ms", |row| row.e2e_sent_p50_ns);
    table.add_ms("p99", |row| row.e2e_sent_p99_ns);
    table.add_ms("Connect p50 ms", |row| row.connect_p50_ns);
    table.add_ms("Late p99 ms", |row| row.late_p99_ns);
    table.add("Events a token", |row| row.events_per_token);
    let again = match resends {
        0 => String::new(),
        count => format!(
            "; {count} sent again, because the server had closed their connection, and counted as failed"
        ),
    };
    Some(table.table(format!("Over the wire: {}, {}{again}", case.load_id, run.provenance.clock)))
}

/// One row per rate of one load: the gaps between tokens, and the upper quantiles of the rest.
fn quantiles(case: &LoadCase, run: &RunRecord, rows: &[LoadRow]) -> Table {
    let own = of_load(case, rows);
    let mut table = columns(&own);
    table.add_ms("ITL p50 ms", |row| row.itl_p50_ns);
    table.add_ms("p90", |row| row.itl_p90_ns);
    table.add_ms("p99", |row| row.itl_p99_ns);
    table.add_ms("max", |row| row.itl_max_ns);
    table.add_ms("TTFT p99 ms", |row| row.ttft_p99_ns);
    table.add_ms("max", |row| row.ttft_max_ns);
    table.add_ms("TPOT p99 ms", |row| row.tpot_p99_ns);
    table.add_ms("max", |row| row.tpot_max_ns);
    table.add_ms("E2E p99 ms", |row| row.e2e_p99_ns);
    table.add_ms("max", |row| row.e2e_max_ns);
    table.table(format!("Quantiles of {}, {}", case.load_id, run.provenance.clock))
}

/// `TTFT ≤ 200 ms, E2E ≤ 1000 ms`. `None` without objectives.
fn objectives(of: &Objectives) -> Option<String> {
    let words = [("TTFT", of.ttft), ("TPOT", of.tpot), ("E2E", of.e2e)];
    let stated: Vec<String> = words
        .into_iter()
        .filter_map(|(name, most)| most.map(|most| format!("{name} ≤ {} ms", most.ms())))
        .collect();
    (!stated.is_empty()).then(|| stated.join(", "))
}

/// The level of a closed loop with the most output tokens per second; the lower concurrency of equals.
pub(super) fn best_closed<'a>(rows: impl Iterator<Item = &'a LoadRow>) -> Option<&'a LoadRow> {
    let rate = |row: &LoadRow| row.output_tokens_per_s.unwrap_or(0.0);
    rows.filter(|row| row.concurrency.is_some())
        .min_by(|a, b| rate(b).total_cmp(&rate(a)).then(a.concurrency.cmp(&b.concurrency)))
}

/// The throughput of a closed loop at its best concurrency.
fn closed_sentence(case: &LoadCase, own: &[&LoadRow]) -> Option<String> {
    let best = best_closed(own.iter().copied())?;
    let ms = |ns: Option<u64>| or_none(ns, |ns| significant(ns as f64 / 1e6, 3));
    Some(format!(
        "{}: {} output tokens/s at concurrency {} (there TTFT {} ms and TPOT {} ms in the median), {} on {} in {}{}.",
        case.load_id,
        or_none(best.output_tokens_per_s, |rate| significant(rate, 3)),
        best.rate_words(),
        ms(best.ttft_p50_ns),
        ms(best.tpot_p50_ns),
        best.clock,
        best.device,
        best.dtype,
        failed_words(own)
    ))
}

/// `; 3 of 200 requests failed`. Empty if none did.
fn failed_words(own: &[&LoadRow]) -> String {
    let count = |of: fn(&LoadRow) -> u64| own.iter().map(|row| of(row)).sum::<u64>();
    match count(|row| row.failed) {
        0 => String::new(),
        failed => format!("; {failed} of {} requests failed", count(|row| row.requests)),
    }
}

/// One sentence per load with rows: which rates are sustained and which are not, or why nothing was served.
pub(crate) fn sentences(run: &RunRecord, rows: &[LoadRow], failures: &[(String, String)]) -> Vec<String> {
    let from = &run.provenance;
    let sentence = |case: &LoadCase| {
        let own = of_load(case, rows);
        let count = |of: fn(&LoadRow) -> u64| own.iter().map(|row| of(row)).sum::<u64>();
        let (failed, requests) = (count(|row| row.failed), count(|row| row.requests));
        if let Some((_, reason)) =
            failures.iter().find(|(load, _)| failed == requests && *load == case.load_id)
        {
            return Some(format!("{}: {failed} of {requests} requests failed ({reason}).", case.load_id));
        }
        if !case.concurrency.is_empty() {
            return closed_sentence(case, &own);
        }
        let Sustained { good, bad } = sustained(own.iter().copied());
        let words = match (good, bad) {
            (Some(good), Some(bad)) => {
                format!("sustains {} requests/s, and not {}", rate_text(good), rate_text(bad))
            }
            (Some(good), None) => {
                format!("sustains every rate offered, up to {} requests/s", rate_text(good))
            }
            (None, Some(bad)) => {
                format!("sustains no rate offered; {} requests/s is too much already", rate_text(bad))
            }
            (None, None) => {
                format!("too few requests to say what is sustained ({LEAST_FOR_GROWTH} at a rate would do)")
            }
        };
        let row = own.iter().rfind(|row| good.or(bad).is_none_or(|rate| row.rate_per_s == Some(rate)))?;
        let ms = |ns: Option<u64>| or_none(ns, |ns| significant(ns as f64 / 1e6, 3));
        let goodput = match row.goodput_share {
            Some(share) => format!(", {} % of requests served well", percent(share)),
            None if row.slo_tpot_ns.is_some() => {
                ", goodput unknown because tokens arrived together and tell no TPOT".to_owned()
            }
            None => String::new(),
        };
        Some(format!(
            "{}: {words} ({} TTFT {} ms and E2E {} ms in the median{goodput}), {} on {} in {}{}.",
            case.load_id,
            if good.or(bad).is_some() { "there".to_owned() } else { format!("at {}", row.rate_words()) },
            ms(row.ttft_p50_ns),
            ms(row.e2e_p50_ns),
            from.clock,
            from.device,
            from.dtype,
            failed_words(&own)
        ))
    };
    run.plan.loads.iter().filter_map(sentence).collect()
}

/// Error of the first failed request of a load.
fn first_failure(case: &LoadCase, levels: &[LoadLevelRecord]) -> Option<String> {
    let own = levels.iter().filter(|level| level.load_id == case.load_id);
    own.flat_map(|level| &level.requests).find_map(|request| request.error.clone())
}

/// The validity conditions of the loads. `failures` holds the first failure of each load that has any.
fn checks(run: &RunRecord, rows: &[LoadRow], failures: &[(String, String)]) -> Vec<Check> {
    if run.plan.loads.is_empty() {
        return Vec::new();
    }
    let spoilt: Vec<&str> = failures.iter().map(|(load, _)| load.as_str()).collect();
    let found = match failures {
        [] if rows.is_empty() => "no load has a level yet".to_owned(),
        [] => format!("all {}", counted(rows.iter().map(|row| row.requests).sum(), "request")),
        [(_, reason), ..] => {
            let failed: u64 = rows.iter().map(|row| row.failed).sum();
            let all = counted(rows.iter().map(|row| row.requests).sum(), "request");
            format!("{reason}; {failed} of {all} failed; {}", found_in(&spoilt, run.plan.loads.len()))
        }
    };
    let served = Check {
        name: "every request served",
        condition: "Every request under load was served to its end",
        outcome: if rows.is_empty() { Outcome::Unknown } else { yes_if(spoilt.is_empty()) },
        found,
        advice: "The requests concerned say why in load.jsonl; they stand outside all times.",
        required: true,
    };
    std::iter::once(served).chain(on_time(rows)).collect()
}

/// Largest delay of sending, in nanoseconds, that is of no account however short the times are.
const PUNCTUAL_NS: u64 = 1_000_000;

/// Whether this program sent requests over a wire when they were due. `None` for an engine in this process.
fn on_time(rows: &[LoadRow]) -> Option<Check> {
    let open = rows.iter().filter(|row| row.rate_per_s.is_some());
    let late: Vec<(&LoadRow, u64)> = open.filter_map(|row| Some((row, row.late_p99_ns?))).collect();
    let worst = late.iter().max_by_key(|(_, ns)| *ns)?;
    let tardy = |(row, ns): &(&LoadRow, u64)| *ns > PUNCTUAL_NS.max(row.ttft_p50_ns.unwrap_or(0) / 100);
    let ms = significant(worst.1 as f64 / 1e6, 3);
    Some(Check {
        name: "requests sent on time",
        condition: "99 % of the requests of each rate were sent within 1 ms of their arrival, or 1 % of the median TTFT",
        outcome: yes_if(!late.iter().any(tardy)),
        found: format!("up to {ms} ms late, at {}/s of {}", worst.0.rate_words(), worst.0.load_id),
        advice: "This program did not keep its own schedule. Offer a lower rate, or give it a machine of its own.",
        required: true,
    })
}
