//! The tables that the terminal, the page and the Markdown summary share: rows of text, already as people read them.

use super::accuracy::ALL;
use super::format::{NONE, bytes, interval, millis, or_none, percent, significant};
use super::performance::p99;
use crate::record::{AccuracyRow, Clock, PerfRow, Phase, RepetitionKind, RequestRecord};
use crate::stats::quantile;

/// A table to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// What it shows, and by which clock where it shows times.
    pub title: String,
    /// The columns, left to right.
    pub columns: Vec<Column>,
    /// The rows, each with a cell for every column.
    pub rows: Vec<Row>,
}

/// A column's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name with unit.
    pub name: &'static str,
    /// Holds numbers, to be set flush right.
    pub numeric: bool,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// One text for each column.
    pub cells: Vec<String>,
    /// Sums up the rows below it, and is set to be seen.
    pub strong: bool,
}

impl Table {
    /// `names` of text columns, then of numeric ones.
    fn new(title: String, text: &[&'static str], numeric: &[&'static str]) -> Self {
        let column = |numeric| move |&name| Column { name, numeric };
        let columns = text.iter().map(column(false)).chain(numeric.iter().map(column(true))).collect();
        Self { title, columns, rows: Vec::new() }
    }

    fn push(&mut self, strong: bool, cells: Vec<String>) {
        self.rows.push(Row { cells, strong });
    }
}

/// Every task as a whole, by category and its hard part. The task stands in its first row only.
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
        interval(row.ci95_lo, row.ci95_hi, percent),
        or_none(row.macro_acc, percent),
        row.unscorable.to_string(),
        row.failed.to_string(),
    ]
}

/// One row a case: the medians of all phases.
pub fn performance(rows: &[PerfRow], clock: Clock) -> Table {
    let numbers = [
        "Batch",
        "In",
        "Out",
        "Prefill ms",
        "tokens/s",
        "Decode ms/token",
        "tokens/s",
        "E2E ms",
        "tokens/s",
        "Peak memory",
    ];
    let mut table = Table::new(format!("Performance, {clock} (medians)"), &[], &numbers);
    table.columns.push(Column { name: "Valid", numeric: false });
    for case in cases(rows) {
        let [prefill, decode, e2e] = case;
        let mut cells = shape_cells(e2e);
        cells.extend([ms(prefill.median_ns), rate(prefill)]);
        cells.extend([or_none(per_token_ns(decode), millis), rate(decode)]);
        cells.extend([ms(e2e.median_ns), rate(e2e)]);
        cells.push(or_none(e2e.peak_rss_bytes, bytes));
        cells.push(if e2e.valid == Some(true) { "yes" } else { "NO" }.to_owned());
        table.push(false, cells);
    }
    table
}

/// One row a case: how long a phase took, how sure that is, and how near it comes to the machine's limits.
pub fn phase(rows: &[PerfRow], phase: Phase, clock: Clock) -> Table {
    let name = match phase {
        Phase::Prefill => "Prefill",
        Phase::Decode => "Decode",
        Phase::E2e => "End to end",
    };
    let numbers = [
        "Batch",
        "In",
        "Out",
        "Repetitions",
        "Median ms",
        "95 % interval",
        "MAD",
        "Min",
        "p90",
        "Max",
        "tokens/s",
        "GB/s",
        "Roofline %",
    ];
    let mut table = Table::new(format!("{name}, {clock}"), &[], &numbers);
    for row in rows.iter().filter(|row| row.phase == phase) {
        let mut cells = shape_cells(row);
        cells.push(row.reps.to_string());
        cells.push(ms(row.median_ns));
        cells.push(interval(row.ci95_lo_ns, row.ci95_hi_ns, |ns| millis(ns as f64)));
        cells.extend([row.mad_ns, row.min_ns, row.p90_ns, row.max_ns].map(ms));
        cells.push(rate(row));
        cells.push(or_none(row.achieved_gb_s, |x| significant(x, 3)));
        cells.push(or_none(row.roofline_pct, |x| significant(x, 3)));
        table.push(false, cells);
    }
    table
}

/// One row a case: the gaps between tokens, over all decode steps of all its timed repetitions.
pub fn steps(rows: &[PerfRow], requests: &[RequestRecord], clock: Clock) -> Table {
    let numbers = ["Batch", "In", "Out", "Steps", "p50 ms", "p90 ms", "p99 ms", "Max ms"];
    let mut table = Table::new(format!("Decode steps (ITL), {clock}"), &[], &numbers);
    for [_, decode, _] in cases(rows) {
        let timed = |r: &&RequestRecord| r.kind == RepetitionKind::Timed && r.error.is_none();
        let of_case = requests.iter().filter(|r| r.case_id == decode.case_id).filter(timed);
        let steps: Vec<f64> = of_case.flat_map(|r| &r.step_ns).map(|&ns| ns as f64).collect();
        let mut cells = shape_cells(decode);
        cells.push(steps.len().to_string());
        let quantiles = [quantile(&steps, 0.5), quantile(&steps, 0.9), p99(&steps), quantile(&steps, 1.0)];
        cells.extend(quantiles.map(|ns| or_none(ns, millis)));
        table.push(false, cells);
    }
    table
}

/// The three rows of each case, in the order of [`Phase`].
fn cases(rows: &[PerfRow]) -> impl Iterator<Item = &[PerfRow; 3]> {
    rows.as_chunks::<3>().0.iter()
}

/// Median time per token after the first.
pub(super) fn per_token_ns(decode: &PerfRow) -> Option<f64> {
    decode.median_ns.map(|ns| ns as f64 / f64::from(decode.output_tokens.saturating_sub(1).max(1)))
}

fn shape_cells(row: &PerfRow) -> Vec<String> {
    [row.batch, row.input_tokens, row.output_tokens].map(|n| n.to_string()).to_vec()
}

fn ms(ns: Option<u64>) -> String {
    or_none(ns, |ns| millis(ns as f64))
}

/// Tokens a second; a dash where the row may not be used.
fn rate(row: &PerfRow) -> String {
    if row.valid == Some(false) {
        return NONE.to_owned();
    }
    or_none(row.tokens_per_s_median, |rate| significant(rate, 4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;
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
            performance(&times, clock),
            phase(&times, Phase::Prefill, clock),
            phase(&times, Phase::Decode, clock),
            steps(&times, &requests, clock),
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
        let table = performance(&perf_rows(&run, &requests), Clock::Measured);
        let cells = &table.rows.last().unwrap().cells;
        assert_eq!((cells[4].as_str(), cells.last().map(String::as_str)), (NONE, Some("NO")));
    }
}
