//! The tables of scores and times.

use super::accuracy::ALL;
use super::format::{bytes, decimals, fixed, interval, or_none, percent};
use super::modelled::{self, Basis};
use super::performance::{p99, per_token_ns, ttft_ns};
use super::table::{Table, Titled};
use crate::language::{Text, ToText, cells, text, texts};
use crate::record::{AccuracyRow, Clock, PerfRow, Phase, RepetitionKind, RequestRecord};
use crate::stats::quantile;

/// Accuracy of every task: the whole, its categories and its hard part. Only the first row names the task.
pub fn accuracy(rows: &[AccuracyRow]) -> Table {
    let numbers =
        texts!["Items", "Correct", "Accuracy %", "95 % interval", "Macro %", "Unscorable", "Failed"];
    let mut table = Table::new(text!("Accuracy"), &texts!["Task", "Protocol", "Group"], &numbers);
    for row in rows.iter().filter(|row| row.subject == ALL) {
        let whole = row.category == ALL;
        let once = |text: &String| if whole { text.clone() } else { String::new() };
        let mut cells = cells![once(&row.task), once(&row.protocol), group(&row.category)];
        cells.extend(score_cells(row));
        table.push(whole, cells);
    }
    table
}

/// The subjects of one task.
pub fn subjects(task: &str, rows: &[AccuracyRow]) -> Table {
    let numbers = texts!["Items", "Correct", "Accuracy %", "95 % interval", "Unscorable", "Failed"];
    let mut table = Table::new(text!("{task} by subject", task), &texts!["Category", "Subject"], &numbers);
    let mut category = "";
    for row in rows.iter().filter(|row| row.task == task && row.subject != ALL) {
        let shown = if row.category == category { String::new() } else { row.category.clone() };
        category = &row.category;
        let mut cells = cells![group(&shown), row.subject];
        let mut score = score_cells(row);
        score.remove(4);
        cells.extend(score);
        table.push(false, cells);
    }
    table
}

/// A category or a subject. The word for all of them is translated, and a category that the catalogue knows.
pub(super) fn group(category: &str) -> Text {
    if category == ALL { text!("all") } else { Text::term(category) }
}

fn score_cells(row: &AccuracyRow) -> Vec<Text> {
    cells![
        row.n,
        row.correct,
        or_none(row.acc, percent),
        interval(row.interval(), percent),
        or_none(row.macro_acc, percent),
        row.unscorable,
        row.failed,
    ]
}

/// One row per case: the medians of all phases.
/// `basis` is that of a modelled clock. Its times have a column with their error.
pub fn performance(rows: &[PerfRow], clock: Clock, basis: Option<Basis<'_>>) -> Table {
    let of = |phase| rows.iter().filter(move |row| row.phase == phase);
    let e2e: Vec<&PerfRow> = of(Phase::E2e).collect();
    let mut columns = shapes(&e2e);
    columns.extend([
        (text!("Prefill ms"), numbers(of(Phase::Prefill).map(|row| ms(row.median_ns)))),
        (text!("Prefill tokens/s"), numbers(of(Phase::Prefill).map(rate))),
        (text!("TPOT ms"), numbers(of(Phase::Decode).map(|row| per_token_ns(row).map(|ns| ns / 1e6)))),
        (text!("Decode tokens/s"), numbers(of(Phase::Decode).map(rate))),
        (text!("E2E ms"), numbers(of(Phase::E2e).map(|row| ms(row.median_ns)))),
        (text!("E2E tokens/s"), numbers(of(Phase::E2e).map(rate))),
        (
            text!("Peak memory"),
            e2e.iter().map(|row| or_none(row.peak_memory_bytes(), bytes).into()).collect(),
        ),
        (text!("Valid"), e2e.iter().map(|row| validity(row)).collect()),
    ]);
    for (name, phase) in [(PREFILL_ERROR, Phase::Prefill), (TPOT_ERROR, Phase::Decode)] {
        columns.extend(basis.map(|basis| (name.clone(), errors(basis, &e2e, phase))));
    }
    // A merged run has rows of several machines.
    if e2e.windows(2).any(|pair| pair[0].host != pair[1].host) {
        columns.push((text!("Host"), e2e.iter().map(|row| row.host.to_text()).collect()));
    }
    let device = rows.first().map_or(Text::EMPTY, |row| text!(" on {device}", device = row.device));
    Table::of_columns(
        text!(
            "Performance{device}, {clock} (times: medians; rates: over total time{marked})",
            device,
            clock,
            marked = marked(&columns)
        ),
        &columns,
    )
}

/// One row per case: duration of a phase, its interval, and its share of the machine limits.
pub fn phase(rows: &[PerfRow], phase: Phase, clock: Clock, basis: Option<Basis<'_>>) -> Table {
    let name = match phase {
        Phase::Prefill => text!("Prefill"),
        Phase::Decode => text!("Decode"),
        Phase::E2e => text!("End to end"),
    };
    let rows: Vec<&PerfRow> = rows.iter().filter(|row| row.phase == phase).collect();
    // All times in the table use the decimals of the median.
    let places = decimals(rows.iter().filter_map(|row| ms(row.median_ns)));
    let time = |value: fn(&PerfRow) -> Option<u64>| -> Vec<Text> {
        rows.iter().map(|row| fixed(ms(value(row)), places).into()).collect()
    };
    let bounds = |row: &&PerfRow| Text::from(interval(row.interval_ns(), |ns| fixed(Some(ns / 1e6), places)));
    let mut columns = shapes(&rows);
    columns.extend([
        (text!("Repetitions"), rows.iter().map(|row| row.reps.to_text()).collect()),
        (text!("Median ms"), time(|row| row.median_ns)),
        (text!("95 % interval"), rows.iter().map(bounds).collect()),
        (text!("MAD"), rows.iter().map(|row| fixed(ms(row.mad_ns), places + 1).into()).collect()),
        (text!("Min"), time(|row| row.min_ns)),
        (text!("p90"), time(|row| row.p90_ns)),
        (text!("Max"), time(|row| row.max_ns)),
        (text!("tokens/s"), numbers(rows.iter().map(|row| rate(row)))),
        (text!("GB/s"), rows.iter().map(|row| fixed(row.achieved_gb_s, 2).into()).collect()),
        (text!("Roofline %"), rows.iter().map(|row| fixed(row.roofline_pct, 1).into()).collect()),
    ]);
    columns.extend(basis.map(|basis| (ERROR, errors(basis, &rows, phase))));
    Table::of_columns(text!("{name}, {clock}{marked}", name, clock, marked = marked(&columns)), &columns)
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
        (text!("TTFT p50 ms"), quantiles(&firsts, 0.5)),
        (text!("TTFT max ms"), quantiles(&firsts, 1.0)),
        (text!("Steps"), gaps.iter().map(|times| times.len().to_text()).collect()),
        (text!("ITL p50 ms"), quantiles(&gaps, 0.5)),
        (text!("ITL p90 ms"), quantiles(&gaps, 0.9)),
        (text!("ITL p99 ms"), numbers(gaps.iter().map(|times| p99(times)))),
        (text!("ITL max ms"), quantiles(&gaps, 1.0)),
    ]);
    columns.extend(basis.map(|basis| (ERROR, errors(basis, &rows, Phase::E2e))));
    Table::of_columns(
        text!("First and next token (TTFT, ITL), {clock}{marked}", clock, marked = marked(&columns)),
        &columns,
    )
}

/// Column of the error of modelled times. An asterisk marks an extrapolation.
const ERROR: Text = text!("Model error");
const PREFILL_ERROR: Text = text!("Prefill error");
const TPOT_ERROR: Text = text!("TPOT error");

fn errors(basis: Basis<'_>, rows: &[&PerfRow], phase: Phase) -> Vec<Text> {
    rows.iter().map(|row| modelled::cell(basis, row, phase).into()).collect()
}

/// Returns what the asterisk of an error says. Empty if no error has one.
fn marked(columns: &[Titled]) -> Text {
    let errors = columns.iter().filter(|(name, _)| [ERROR, PREFILL_ERROR, TPOT_ERROR].contains(name));
    let is_marked = errors.flat_map(|(_, cells)| cells).any(|cell| cell.to_string().ends_with('*'));
    if is_marked { text!("; * extrapolated: outside the published speeds") } else { Text::EMPTY }
}

/// The columns that identify a row's case.
fn shapes(rows: &[&PerfRow]) -> Vec<Titled> {
    let column = |value: fn(&PerfRow) -> u32| rows.iter().map(|row| value(row).to_text()).collect();
    let mut columns = vec![
        (text!("Batch"), column(|row| row.batch)),
        (text!("In"), column(|row| row.input_tokens)),
        (text!("Out"), column(|row| row.output_tokens)),
    ];
    if rows.iter().any(|row| row.tp != 1) {
        columns.push((text!("TP"), column(|row| row.tp)));
    }
    columns
}

/// Text of the last column. A skipped case is neither valid nor invalid; the headline has the reason.
fn validity(row: &PerfRow) -> Text {
    match row.valid {
        Some(true) => text!("yes"),
        Some(false) => text!("NO"),
        None => text!("left out"),
    }
}

/// A column of numbers with aligned decimal points.
fn numbers(values: impl Iterator<Item = Option<f64>>) -> Vec<Text> {
    let values: Vec<Option<f64>> = values.collect();
    let places = decimals(values.iter().flatten().copied());
    values.into_iter().map(|value| fixed(value, places).into()).collect()
}

/// Formats bytes in the largest binary unit in which the number is at least 1: `14.0 GiB`.
pub fn bytes_text(count: u64) -> String {
    bytes(count)
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
        let fixture::Records { run, samples, requests } = fixture::realistic();
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
        let fixture::Records { run, mut requests, .. } = fixture::realistic();
        requests.last_mut().unwrap().output_hash = "other".into();
        let table = performance(&perf_rows(&run, &requests), Clock::Measured, None);
        let cells = &table.rows.last().unwrap().cells;
        assert_eq!([&cells[4], cells.last().unwrap()], [NONE, "NO"]);
    }
}
