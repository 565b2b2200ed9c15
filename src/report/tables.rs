//! Tables shared by the terminal, the page and the Markdown summary. Cells are formatted text.

use super::accuracy::ALL;
use super::format::{bytes, decimals, fixed, interval, or_none, percent};
use super::modelled::{self, Basis};
use super::performance::{p99, ttft_ns};
use crate::record::{AccuracyRow, Clock, PerfRow, Phase, RepetitionKind, RequestRecord};
use crate::stats::quantile;

/// A table to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The title, with the clock if the table shows times.
    pub title: String,
    /// The columns, left to right.
    pub columns: Vec<Column>,
    /// The rows, each with a cell for every column.
    pub rows: Vec<Row>,
}

/// A column header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name with unit.
    pub name: String,
    /// Whether the column holds numbers, which are right-aligned.
    pub numeric: bool,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// One text for each column.
    pub cells: Vec<String>,
    /// Whether the row sums up the rows below it, and is emphasised.
    pub strong: bool,
}

impl Table {
    /// Creates an empty table with `text` columns, then `numeric` ones.
    pub(crate) fn new(title: String, text: &[&str], numeric: &[&str]) -> Self {
        let column = |numeric| move |name: &&str| Column { name: (*name).to_owned(), numeric };
        let columns = text.iter().map(column(false)).chain(numeric.iter().map(column(true))).collect();
        Self { title, columns, rows: Vec::new() }
    }

    pub(crate) fn push(&mut self, strong: bool, cells: Vec<String>) {
        self.rows.push(Row { cells, strong });
    }

    /// Builds a table from numeric columns, each of the same length.
    fn of_columns(title: String, columns: &[(&'static str, Vec<String>)]) -> Self {
        let names: Vec<&'static str> = columns.iter().map(|(name, _)| *name).collect();
        let mut table = Self::new(title, &[], &names);
        let height = columns.iter().map(|(_, cells)| cells.len()).min().unwrap_or(0);
        for index in 0..height {
            table.push(false, columns.iter().map(|(_, cells)| cells[index].clone()).collect());
        }
        table
    }
}

/// Accuracy of every task: the whole, its categories and its hard part. Only the first row names the task.
pub fn accuracy(rows: &[AccuracyRow]) -> Table {
    let numbers = ["Items", "Correct", "Accuracy %", "95 % interval", "Macro %", "Unscorable", "Failed"];
    let mut table = Table::new("Accuracy".to_owned(), &["Task", "Protocol", "Group"], &numbers);
    for row in rows.iter().filter(|row| row.subject == ALL) {
        let whole = row.category == ALL;
        let once = |text: &String| if whole { text.clone() } else { String::new() };
        let mut cells = vec![once(&row.task), once(&row.protocol), row.category.clone()];
        cells.extend(score_cells(row));
        table.push(whole, cells);
    }
    table
}

/// The subjects of one task.
pub fn subjects(task: &str, rows: &[AccuracyRow]) -> Table {
    let numbers = ["Items", "Correct", "Accuracy %", "95 % interval", "Unscorable", "Failed"];
    let mut table = Table::new(format!("{task} by subject"), &["Category", "Subject"], &numbers);
    let mut category = "";
    for row in rows.iter().filter(|row| row.task == task && row.subject != ALL) {
        let shown = if row.category == category { String::new() } else { row.category.clone() };
        category = &row.category;
        let mut cells = vec![shown, row.subject.clone()];
        let mut score = score_cells(row);
        score.remove(4);
        cells.extend(score);
        table.push(false, cells);
    }
    table
}

fn score_cells(row: &AccuracyRow) -> Vec<String> {
    vec![
        row.n.to_string(),
        row.correct.to_string(),
        or_none(row.acc, percent),
        interval(row.interval(), percent),
        or_none(row.macro_acc, percent),
        row.unscorable.to_string(),
        row.failed.to_string(),
    ]
}

/// One row per case: the medians of all phases.
/// `basis` is that of a modelled clock, whose times have a column with their error.
pub fn performance(rows: &[PerfRow], clock: Clock, basis: Option<Basis<'_>>) -> Table {
    let of = |phase| rows.iter().filter(move |row| row.phase == phase);
    let e2e: Vec<&PerfRow> = of(Phase::E2e).collect();
    let mut columns = shapes(&e2e);
    columns.extend([
        ("Prefill ms", numbers(of(Phase::Prefill).map(|row| ms(row.median_ns)))),
        ("Prefill tokens/s", numbers(of(Phase::Prefill).map(rate))),
        ("TPOT ms", numbers(of(Phase::Decode).map(|row| per_token_ns(row).map(|ns| ns / 1e6)))),
        ("Decode tokens/s", numbers(of(Phase::Decode).map(rate))),
        ("E2E ms", numbers(of(Phase::E2e).map(|row| ms(row.median_ns)))),
        ("E2E tokens/s", numbers(of(Phase::E2e).map(rate))),
        ("Peak memory", e2e.iter().map(|row| or_none(row.peak_memory_bytes(), bytes)).collect()),
        ("Valid", e2e.iter().map(|row| validity(row).to_owned()).collect()),
    ]);
    for (name, phase) in [("Prefill error", Phase::Prefill), ("TPOT error", Phase::Decode)] {
        columns.extend(basis.map(|basis| (name, errors(basis, &e2e, phase))));
    }
    // A merged run has rows of several machines.
    if e2e.windows(2).any(|pair| pair[0].host != pair[1].host) {
        columns.push(("Host", e2e.iter().map(|row| row.host.clone()).collect()));
    }
    let device = rows.first().map_or(String::new(), |row| format!(" on {}", row.device));
    Table::of_columns(
        format!("Performance{device}, {clock} (times: medians; rates: over total time{})", marked(&columns)),
        &columns,
    )
}

/// One row per case: duration of a phase, its interval, and its share of the machine's limits.
pub fn phase(rows: &[PerfRow], phase: Phase, clock: Clock, basis: Option<Basis<'_>>) -> Table {
    let name = match phase {
        Phase::Prefill => "Prefill",
        Phase::Decode => "Decode",
        Phase::E2e => "End to end",
    };
    let rows: Vec<&PerfRow> = rows.iter().filter(|row| row.phase == phase).collect();
    // All times of the table use the median's decimals.
    let places = decimals(rows.iter().filter_map(|row| ms(row.median_ns)));
    let time = |value: fn(&PerfRow) -> Option<u64>| -> Vec<String> {
        rows.iter().map(|row| fixed(ms(value(row)), places)).collect()
    };
    let bounds = |row: &&PerfRow| interval(row.interval_ns(), |ns| fixed(Some(ns / 1e6), places));
    let mut columns = shapes(&rows);
    columns.extend([
        ("Repetitions", rows.iter().map(|row| row.reps.to_string()).collect()),
        ("Median ms", time(|row| row.median_ns)),
        ("95 % interval", rows.iter().map(bounds).collect()),
        ("MAD", rows.iter().map(|row| fixed(ms(row.mad_ns), places + 1)).collect()),
        ("Min", time(|row| row.min_ns)),
        ("p90", time(|row| row.p90_ns)),
        ("Max", time(|row| row.max_ns)),
        ("tokens/s", numbers(rows.iter().map(|row| rate(row)))),
        ("GB/s", rows.iter().map(|row| fixed(row.achieved_gb_s, 2)).collect()),
        ("Roofline %", rows.iter().map(|row| fixed(row.roofline_pct, 1)).collect()),
    ]);
    columns.extend(basis.map(|basis| (ERROR, errors(basis, &rows, phase))));
    Table::of_columns(format!("{name}, {clock}{}", marked(&columns)), &columns)
}

/// One row per case: time to first token, and the gaps between tokens over all decode steps. Both cover all timed
/// repetitions without error.
pub fn token_latency(
    rows: &[PerfRow],
    requests: &[RequestRecord],
    clock: Clock,
    basis: Option<Basis<'_>>,
) -> Table {
    let rows: Vec<&PerfRow> = rows.iter().filter(|row| row.phase == Phase::Decode).collect();
    let timed = |row: &PerfRow| -> Vec<&RequestRecord> {
        let counts = |r: &&RequestRecord| r.kind == RepetitionKind::Timed && r.error.is_none();
        requests.iter().filter(|r| r.case_id == row.case_id).filter(counts).collect()
    };
    let millis = |ns: u64| ns as f64 / 1e6;
    let first = |row: &&PerfRow| timed(row).into_iter().filter_map(ttft_ns).map(millis).collect();
    let next =
        |row: &&PerfRow| timed(row).into_iter().flat_map(|r| &r.step_ns).map(|&ns| millis(ns)).collect();
    let firsts: Vec<Vec<f64>> = rows.iter().map(first).collect();
    let gaps: Vec<Vec<f64>> = rows.iter().map(next).collect();
    let quantiles = |all: &[Vec<f64>], q: f64| numbers(all.iter().map(|times| quantile(times, q)));
    let mut columns = shapes(&rows);
    columns.extend([
        ("TTFT p50 ms", quantiles(&firsts, 0.5)),
        ("TTFT max ms", quantiles(&firsts, 1.0)),
        ("Steps", gaps.iter().map(|times| times.len().to_string()).collect()),
        ("ITL p50 ms", quantiles(&gaps, 0.5)),
        ("ITL p90 ms", quantiles(&gaps, 0.9)),
        ("ITL p99 ms", numbers(gaps.iter().map(|times| p99(times)))),
        ("ITL max ms", quantiles(&gaps, 1.0)),
    ]);
    columns.extend(basis.map(|basis| (ERROR, errors(basis, &rows, Phase::E2e))));
    Table::of_columns(format!("First and next token (TTFT, ITL), {clock}{}", marked(&columns)), &columns)
}

/// Column of the error of modelled times. An asterisk marks an extrapolation.
const ERROR: &str = "Model error";

fn errors(basis: Basis<'_>, rows: &[&PerfRow], phase: Phase) -> Vec<String> {
    rows.iter().map(|row| modelled::cell(basis, row, phase)).collect()
}

/// Returns what the asterisk of an error says. Empty if no error has one.
fn marked(columns: &[(&'static str, Vec<String>)]) -> &'static str {
    let errors = columns.iter().filter(|(name, _)| name.ends_with("error"));
    let is_marked = errors.flat_map(|(_, cells)| cells).any(|cell| cell.ends_with('*'));
    if is_marked { "; * extrapolated: outside the published speeds" } else { "" }
}

/// The columns that identify a row's case.
fn shapes(rows: &[&PerfRow]) -> Vec<(&'static str, Vec<String>)> {
    let column = |value: fn(&PerfRow) -> u32| rows.iter().map(|row| value(row).to_string()).collect();
    let mut columns = vec![
        ("Batch", column(|row| row.batch)),
        ("In", column(|row| row.input_tokens)),
        ("Out", column(|row| row.output_tokens)),
    ];
    if rows.iter().any(|row| row.tp != 1) {
        columns.push(("TP", column(|row| row.tp)));
    }
    columns
}

/// Text of the last column. A skipped case is neither valid nor invalid; the headline has the reason.
fn validity(row: &PerfRow) -> &'static str {
    match row.valid {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "left out",
    }
}

/// A column of numbers with aligned decimal points.
fn numbers(values: impl Iterator<Item = Option<f64>>) -> Vec<String> {
    let values: Vec<Option<f64>> = values.collect();
    let places = decimals(values.iter().flatten().copied());
    values.into_iter().map(|value| fixed(value, places)).collect()
}

/// Formats bytes in the largest binary unit in which the number is at least 1: `14.0 GiB`.
pub fn bytes_text(count: u64) -> String {
    bytes(count)
}

/// Median time per token after the first.
pub(super) fn per_token_ns(decode: &PerfRow) -> Option<f64> {
    decode.median_ns.map(|ns| ns as f64 / f64::from(decode.output_tokens.saturating_sub(1).max(1)))
}

fn ms(ns: Option<u64>) -> Option<f64> {
    ns.map(|ns| ns as f64 / 1e6)
}

/// Tokens per second over all repetitions. `None` if the row may not be used.
fn rate(row: &PerfRow) -> Option<f64> {
    row.tokens_per_s.filter(|_| row.valid != Some(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;
    use crate::report::format::NONE;
    use crate::report::{accuracy::accuracy_rows, performance::perf_rows};

    #[test]
    fn every_row_has_a_cell_for_every_column() {
        let (run, samples, requests) = fixture::realistic();
        let scores = accuracy_rows(&run, &samples);
        let times = perf_rows(&run, &requests);
        let clock = Clock::Measured;
        let tables = [
            accuracy(&scores),
            subjects(&run.plan.accuracy[0].task, &scores),
            performance(&times, clock, None),
            phase(&times, Phase::Prefill, clock, None),
            phase(
                &times,
                Phase::Decode,
                clock,
                Some(Basis {
                    profile: "mine sha256:0",
                    fits: &[],
                    parameters: None,
                    graphs: None,
                    quantised: None,
                }),
            ),
            token_latency(&times, &requests, clock, None),
        ];
        for table in &tables {
            assert!(!table.rows.is_empty(), "{}", table.title);
            for row in &table.rows {
                assert_eq!(row.cells.len(), table.columns.len(), "{}", table.title);
            }
        }
        let timed = &tables[2..];
        assert!(timed.iter().all(|table| table.title.contains("measured")));
        assert_eq!(tables[2].rows.len(), run.plan.performance.len());
    }

    #[test]
    fn an_invalid_case_shows_no_rate() {
        let (run, _, mut requests) = fixture::realistic();
        requests.last_mut().unwrap().output_hash = "other".into();
        let table = performance(&perf_rows(&run, &requests), Clock::Measured, None);
        let cells = &table.rows.last().unwrap().cells;
        assert_eq!((cells[4].as_str(), cells.last().map(String::as_str)), (NONE, Some("NO")));
    }
}
