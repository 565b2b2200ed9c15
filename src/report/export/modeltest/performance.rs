//! ModelTest's performance files: one of each kind per batch size and world size, one row per pair of lengths.

use super::super::python::{ljust, rounded};
use super::super::{File, Records};
use super::{folder, mark, table};
use crate::record::Phase;
use crate::record::{Clock, PerformanceCase, RequestRecord};
use crate::report::performance::{Repetitions, phase_ns};
use crate::stats::{mean, median};

/// Headings of the plain file.
pub(super) const HEADINGS: [&str; 12] = [
    "Model",
    "Batchsize",
    "In_seq",
    "Out_seq",
    "Total time(s)",
    "Prefill all time(ms)",
    "Prefill average time(ms)",
    "Non-first token time(ms)",
    "Non-first token Throughput(Tokens/s)",
    "Throughput(Tokens/s)",
    "Non-first token Throughput Average(Tokens/s)",
    "E2E Throughput Average(Tokens/s)",
];
/// The tenth heading in the formatted file.
const FORMATTED_TENTH: &str = "E2E Throughput(Tokens/s)";
/// Column widths, in both files.
const WIDTHS: [usize; 12] = [15, 15, 15, 15, 15, 25, 25, 25, 36, 25, 45, 35];
/// Width of an error, which replaces the figures.
const ERROR_WIDTH: usize = 141;

/// A case's figures by ModelTest's definitions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figures {
    total_s: f64,
    prefill_ms: f64,
    prefill_average_ms: f64,
    non_first_ms: f64,
    non_first_tokens_per_s: f64,
    tokens_per_s: f64,
}

/// A case with its figures, or why there are none.
pub(super) struct Outcome<'a> {
    pub(super) case: &'a PerformanceCase,
    pub(super) clock: Clock,
    pub(super) figures: Result<Figures, String>,
}

impl Figures {
    /// Computes the figures of a batch with `output_tokens` each. `decode_ms` is the total time of the steps after
    /// the first token.
    pub(super) fn of(batch: u32, output_tokens: u32, total_s: f64, prefill_ms: f64, decode_ms: f64) -> Self {
        let (batch, output) = (f64::from(batch), f64::from(output_tokens));
        let non_first_ms = if output_tokens > 1 { decode_ms / (output - 1.0) } else { 0.0 };
        let rate = |tokens: f64, seconds: f64| if seconds > 0.0 { tokens / seconds } else { 0.0 };
        Self {
            total_s,
            prefill_ms,
            prefill_average_ms: prefill_ms / batch,
            non_first_ms,
            non_first_tokens_per_s: rate(batch, non_first_ms / 1e3),
            tokens_per_s: rate(batch * output, total_s),
        }
    }
}

pub(super) fn files(records: &Records, notes: &mut Vec<String>) -> Result<Vec<File>, csv::Error> {
    let outcomes: Vec<Outcome<'_>> =
        records.run.plan.performance.iter().filter_map(|case| outcome(records, case, notes)).collect();
    let folder = folder(records, "results", "performance", "performance");
    let mut files = Vec::new();
    for (batch, tp, clock) in groups(&outcomes) {
        let of_group: Vec<&Outcome<'_>> =
            outcomes.iter().filter(|o| (o.case.batch, o.case.tp, o.clock) == (batch, tp, clock)).collect();
        let rows = rows(&model(records, clock), &of_group);
        let name = format!("{folder}/performance_pa_batch{batch}_tp{tp}{}", mark(clock));
        files.push(File { path: format!("{name}_result.csv"), bytes: table(b',', &plain_rows(&rows))? });
        files.push(File {
            path: format!("{name}_formatted_result.csv"),
            bytes: table(b'|', &formatted_rows(&rows))?,
        });
    }
    Ok(files)
}

/// Batch size, world size and clock of each pair of files, in plan order.
fn groups(outcomes: &[Outcome<'_>]) -> Vec<(u32, u32, Clock)> {
    let mut groups = Vec::new();
    for key in outcomes.iter().map(|o| (o.case.batch, o.case.tp, o.clock)) {
        if !groups.contains(&key) {
            groups.push(key);
        }
    }
    groups
}

/// The model's name. A modelled row is marked in its first cell, so that the mark survives copying.
pub(super) fn model(records: &Records, clock: Clock) -> String {
    let model = &records.run.provenance.model;
    match clock {
        Clock::Measured => model.clone(),
        Clock::Modelled => format!("{model} (modelled)"),
    }
}

/// `None` for a case that was not run: ModelTest has no row for it.
fn outcome<'a>(records: &Records, case: &'a PerformanceCase, notes: &mut Vec<String>) -> Option<Outcome<'a>> {
    let repetitions = Repetitions::of(case, &records.requests);
    if repetitions.unrun {
        notes.push(format!("case {} was not run and has no row", case.case_id));
        return None;
    }
    let modelled = |r: &RequestRecord| r.case_id == case.case_id && r.clock == Clock::Modelled;
    let clock = if records.requests.iter().any(modelled) { Clock::Modelled } else { Clock::Measured };
    let reason = repetitions.invalid.unwrap_or_default().to_string();
    let figures = figures(case, &repetitions.good);
    if figures.is_some() && !reason.is_empty() {
        notes.push(format!("case {} has figures that are not valid: {reason}", case.case_id));
    }
    Some(Outcome { case, clock, figures: figures.ok_or(reason) })
}

fn figures(case: &PerformanceCase, good: &[&RequestRecord]) -> Option<Figures> {
    let median_of =
        |ns: &dyn Fn(&RequestRecord) -> u64| median(&good.iter().map(|r| ns(r) as f64).collect::<Vec<_>>());
    let total_s = median_of(&|r| phase_ns(r, Phase::E2e).unwrap_or(0))? / 1e9;
    let prefill_ms = median_of(&|r| r.prefill_ns)? / 1e6;
    let decode_ms = median_of(&|r| r.step_ns.iter().fold(0, |sum, step| sum.saturating_add(*step)))? / 1e6;
    Some(Figures::of(case.batch, case.output_tokens, total_s, prefill_ms, decode_ms))
}

/// The padded cells of each row. The averages are two more cells of the last row, even if that row is an error.
pub(super) fn rows(model: &str, outcomes: &[&Outcome<'_>]) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = outcomes.iter().map(|outcome| cells(model, outcome)).collect();
    let passed: Vec<Figures> = outcomes.iter().filter_map(|o| o.figures.as_ref().ok().copied()).collect();
    let average = |of: fn(&Figures) -> f64| mean(&passed.iter().map(of).collect::<Vec<_>>()).unwrap_or(0.0);
    if let Some(last) = rows.last_mut() {
        last.push(ljust(&rounded(average(|f| f.non_first_tokens_per_s)), WIDTHS[10]));
        last.push(ljust(&rounded(average(|f| f.tokens_per_s)), WIDTHS[11]));
    }
    rows
}

pub(super) fn cells(model: &str, outcome: &Outcome<'_>) -> Vec<String> {
    let case = outcome.case;
    let shape = [case.batch, case.input_tokens, case.output_tokens].map(|n| n.to_string());
    let mut cells = vec![model.to_owned()];
    cells.extend(shape);
    if let Ok(f) = &outcome.figures {
        let numbers = [
            f.total_s,
            f.prefill_ms,
            f.prefill_average_ms,
            f.non_first_ms,
            f.non_first_tokens_per_s,
            f.tokens_per_s,
        ];
        cells.extend(numbers.map(rounded));
    }
    let mut cells: Vec<String> = cells.iter().zip(WIDTHS).map(|(cell, width)| ljust(cell, width)).collect();
    if let Err(reason) = &outcome.figures {
        cells.push(ljust(reason, ERROR_WIDTH));
    }
    cells
}

/// Plain headings. Short rows are filled up, as ModelTest's table writer does.
pub(super) fn plain_rows(rows: &[Vec<String>]) -> Vec<Vec<String>> {
    let filled = rows.iter().map(|row| {
        let mut row = row.clone();
        row.resize(HEADINGS.len(), String::new());
        row
    });
    std::iter::once(HEADINGS.map(str::to_owned).to_vec()).chain(filled).collect()
}

/// Padded headings, with another tenth one. Rows keep their lengths.
fn formatted_rows(rows: &[Vec<String>]) -> Vec<Vec<String>> {
    let mut headings = HEADINGS;
    headings[9] = FORMATTED_TENTH;
    let headings = headings.iter().zip(WIDTHS).map(|(name, width)| ljust(name, width)).collect();
    std::iter::once(headings).chain(rows.iter().cloned()).collect()
}
