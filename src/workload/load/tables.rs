//! Tables of a load: one row for each level.

use crate::language::{Text, ToText, text};
use crate::record::{Clock, LoadCase, LoadLevelRecord, LoadRow, Objectives, RunRecord};
use crate::report::format::{decimals, fixed, or_none, percent};
use crate::report::modelled;
use crate::report::table::{Table, Titled};

use super::rows::{load_rows, of_load, resent};

/// Returns all tables of one load.
pub(crate) fn tables_of(case: &LoadCase, run: &RunRecord, levels: &[LoadLevelRecord]) -> Vec<Table> {
    let rows = load_rows(run, levels);
    let tables = [summary(case, run, &rows), requests(case, run, &rows), quantiles(case, run, &rows)];
    tables.into_iter().chain(wire(case, run, &rows, resends(case, levels))).collect()
}

/// Returns how many requests of a load were sent again, because the server had closed a kept connection.
pub(super) fn resends(case: &LoadCase, levels: &[LoadLevelRecord]) -> u64 {
    levels.iter().filter(|level| level.load_id == case.load_id).map(resent).sum()
}

/// Numeric columns from rows, each with aligned decimal points.
struct Columns<'a> {
    rows: &'a [&'a LoadRow],
    columns: Vec<Titled>,
}

impl Columns<'_> {
    fn add(&mut self, name: Text, value: impl Fn(&LoadRow) -> Option<f64>) {
        let values: Vec<Option<f64>> = self.rows.iter().map(|row| value(row)).collect();
        let places = decimals(values.iter().flatten().copied());
        self.columns.push((name, values.into_iter().map(|value| fixed(value, places).into()).collect()));
    }

    fn add_ms(&mut self, name: Text, value: impl Fn(&LoadRow) -> Option<u64>) {
        self.add(name, |row| value(row).map(|ns| ns as f64 / 1e6));
    }

    fn add_text(&mut self, name: Text, text: impl Fn(&LoadRow) -> Text) {
        self.columns.push((name, self.rows.iter().map(|row| text(row)).collect()));
    }

    fn table(self, title: Text) -> Table {
        Table::of_columns(title, &self.columns)
    }
}

fn columns<'a>(rows: &'a [&'a LoadRow]) -> Columns<'a> {
    let mut columns = Columns { rows, columns: Vec::new() };
    let closed = rows.iter().any(|row| row.concurrency.is_some());
    columns.add_text(if closed { text!("Concurrency") } else { text!("Rate /s") }, LoadRow::rate_words);
    columns
}

/// Adds the error of modelled times: that of the steps behind them.
fn add_error(table: &mut Columns<'_>, run: &RunRecord) {
    if run.provenance.clock == Clock::Modelled {
        table.add_text(text!("Model error"), |row| modelled::short(modelled::error_of_load(run, row)).into());
    }
}

/// One row per rate of one load: throughput, latency and goodput.
pub(super) fn summary(case: &LoadCase, run: &RunRecord, rows: &[LoadRow]) -> Table {
    let own = of_load(case, rows);
    let mut table = columns(&own);
    table.add(text!("Served /s"), |row| row.achieved_per_s);
    table.add_ms(text!("TTFT p50 ms"), |row| row.ttft_p50_ns);
    table.add_ms(text!("TTFT p90 ms"), |row| row.ttft_p90_ns);
    table.add_ms(text!("TPOT p50 ms"), |row| row.tpot_p50_ns);
    table.add_ms(text!("TPOT p90 ms"), |row| row.tpot_p90_ns);
    table.add_ms(text!("E2E p50 ms"), |row| row.e2e_p50_ns);
    table.add_ms(text!("E2E p90 ms"), |row| row.e2e_p90_ns);
    if !case.objectives.is_empty() {
        table.add_text(text!("Goodput %"), |row| or_none(row.goodput_share, percent).into());
    }
    if case.concurrency.is_empty() {
        table.add_text(text!("Saturated"), LoadRow::saturated_words);
    }
    add_error(&mut table, run);
    let slo =
        objectives(&case.objectives).map_or(Text::EMPTY, |words| text!(", served well: {words}", words));
    table.table(text!(
        "Load {load_id}, {clock}{slo}",
        load_id = case.load_id,
        clock = run.provenance.clock,
        slo
    ))
}

/// One row per rate of one load: requests, queueing and output tokens.
pub(super) fn requests(case: &LoadCase, run: &RunRecord, rows: &[LoadRow]) -> Table {
    let own = of_load(case, rows);
    let mut table = columns(&own);
    if case.concurrency.is_empty() {
        table.add(text!("Offered /s"), |row| row.offered_per_s);
    }
    table.add(text!("Served /s"), |row| row.achieved_per_s);
    table.add_text(text!("Requests"), |row| row.requests.to_text());
    table.add_text(text!("Failed"), |row| row.failed.to_text());
    if own.iter().any(|row| row.is_scheduled()) {
        table.add_text(text!("Scheduling"), scheduling);
    }
    table.add(text!("Output tokens/s"), |row| row.output_tokens_per_s);
    // A server does not tell how long a request waited.
    if !own.iter().any(|row| row.is_over_wire()) {
        table.add_ms(text!("Queue p50 ms"), |row| row.queue_p50_ns);
        table.add_ms(text!("p90"), |row| row.queue_p90_ns);
        table.add_ms(text!("max"), |row| row.queue_max_ns);
    }
    if case.concurrency.is_empty() {
        table.add(text!("E2E growth %"), |row| row.growth_slope.map(|slope| 100.0 * slope));
    }
    add_error(&mut table, run);
    table.table(text!(
        "Requests of {load_id}, {clock}: {prompts}",
        load_id = case.load_id,
        clock = run.provenance.clock,
        prompts = case.prompts
    ))
}

/// How the engine shared its steps.
fn scheduling(row: &LoadRow) -> Text {
    row.scheduling.as_ref().map_or(Text::EMPTY, |words| Text::data(words.clone()))
}

/// One row per level of one load over a wire: what this program and the network add, and what was counted. `None` for an
/// engine in this process.
pub(super) fn wire(case: &LoadCase, run: &RunRecord, rows: &[LoadRow], resends: u64) -> Option<Table> {
    let own = of_load(case, rows);
    if !own.iter().any(|row| row.is_over_wire()) {
        return None;
    }
    let mut table = columns(&own);
    table.add_ms(text!("TTFT from sent p50 ms"), |row| row.ttft_sent_p50_ns);
    table.add_ms(text!("p99"), |row| row.ttft_sent_p99_ns);
    table.add_ms(text!("E2E from sent p50 ms"), |row| row.e2e_sent_p50_ns);
    table.add_ms(text!("p99"), |row| row.e2e_sent_p99_ns);
    table.add_ms(text!("Connect p50 ms"), |row| row.connect_p50_ns);
    table.add_ms(text!("Late p99 ms"), |row| row.late_p99_ns);
    table.add(text!("Events a token"), |row| row.events_per_token);
    let again = match resends {
        0 => Text::EMPTY,
        count => text!(
            "; {count} sent again, because the server had closed their connection, and counted as failed",
            count
        ),
    };
    Some(table.table(text!(
        "Over the wire: {load_id}, {clock}{again}",
        load_id = case.load_id,
        clock = run.provenance.clock,
        again
    )))
}

/// One row per rate of one load: the gaps between tokens, and the upper quantiles of the rest.
pub(super) fn quantiles(case: &LoadCase, run: &RunRecord, rows: &[LoadRow]) -> Table {
    let own = of_load(case, rows);
    let mut table = columns(&own);
    table.add_ms(text!("ITL p50 ms"), |row| row.itl_p50_ns);
    table.add_ms(text!("p90"), |row| row.itl_p90_ns);
    table.add_ms(text!("p99"), |row| row.itl_p99_ns);
    table.add_ms(text!("max"), |row| row.itl_max_ns);
    table.add_ms(text!("TTFT p99 ms"), |row| row.ttft_p99_ns);
    table.add_ms(text!("max"), |row| row.ttft_max_ns);
    table.add_ms(text!("TPOT p99 ms"), |row| row.tpot_p99_ns);
    table.add_ms(text!("max"), |row| row.tpot_max_ns);
    table.add_ms(text!("E2E p99 ms"), |row| row.e2e_p99_ns);
    table.add_ms(text!("max"), |row| row.e2e_max_ns);
    add_error(&mut table, run);
    table.table(text!(
        "Quantiles of {load_id}, {clock}",
        load_id = case.load_id,
        clock = run.provenance.clock
    ))
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
