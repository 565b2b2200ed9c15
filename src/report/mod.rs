//! Turns records into tables, charts, one HTML page and one Markdown summary.
//!
//! [`render`] reads a run directory and writes everything anew. A report depends only on the records, so it is
//! reproducible. An unfinished run can be reported while it runs.

pub mod accuracy;
mod answers;
pub(crate) mod charts;
pub mod compare;
pub mod definitions;
mod error;
mod expectation;
pub mod export;
mod failures;
pub(crate) mod format;
mod headline;
pub mod operators;
mod page;
pub mod published;
pub mod roofline;
mod sealed;
pub mod tables;
pub mod validity;
pub(crate) mod workloads;

#[cfg(test)]
pub(crate) mod fixture;

pub use accuracy::accuracy_rows;
pub use error::ReportError;
pub use operators::operator_rows;
pub use roofline::limit_rows;
pub use tables::Table;
pub use validity::{Check, Verdict};

pub use crate::workload::load::report::load_rows;
pub use crate::workload::max_batch::report::probe_rows;
pub use crate::workload::shapes::report as performance;
pub use crate::workload::shapes::report::perf_rows;

use crate::record::{
    AccuracyRow, AnswerRow, Clock, Contents, LimitRow, OperatorRow, PerfRow, Phase, RequestRecord, RunDir,
    RunRecord, SampleRecord, write_whole,
};
use std::path::Path;

/// Summary of a run for the terminal, with the rows that [`render`] writes.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The run.
    pub run: RunRecord,
    /// The rows of `accuracy.csv`.
    pub accuracy: Vec<AccuracyRow>,
    /// The rows of `answers.csv`.
    pub answers: Vec<AnswerRow>,
    /// The rows of `perf.csv`.
    pub performance: Vec<PerfRow>,
    /// The rows of `operators.csv`.
    pub operators: Vec<OperatorRow>,
    /// The rows of `limits.csv`.
    pub limits: Vec<LimitRow>,
    /// The validity conditions.
    pub checks: Vec<Check>,
    /// The findings, one sentence each.
    pub headline: Vec<String>,
    /// The tables to print.
    pub tables: Vec<Table>,
}

impl Summary {
    /// Summarises a run's records without touching the disk.
    pub fn of(run: RunRecord, samples: &[SampleRecord], requests: &[RequestRecord]) -> Self {
        let accuracy = accuracy_rows(&run, samples);
        let performance = perf_rows(&run, requests);
        let operators = operator_rows(&run, requests);
        let limits = limit_rows(&run, &performance, requests);
        let checks = validity::checks(&run, samples, requests);
        let headline = headline::sentences(&run, (&accuracy, samples), (&performance, requests));
        let of_tasks = answers::of_tasks(&run, samples);
        let answers = answers::rows(&run, &of_tasks);
        let mut tables = Vec::new();
        if !accuracy.is_empty() {
            tables.push(tables::accuracy(&accuracy));
        }
        if !of_tasks.is_empty() {
            tables.push(answers::table(&of_tasks));
        }
        if !performance.is_empty() {
            tables.push(tables::performance(&performance, performance_clock(&run)));
        }
        if !limits.is_empty() {
            tables.push(roofline::table(&run, &limits));
            tables.push(roofline::phases(&run, &performance));
        }
        if !operators.is_empty() {
            tables.push(operators::table(&run, &operators));
        }
        Self { run, accuracy, answers, performance, operators, limits, checks, headline, tables }
    }

    /// Model, device, type, clock, suite and run, in one line.
    pub fn title(&self) -> String {
        headline::title(&self.run)
    }

    /// Whether the figures may be used.
    pub fn verdict(&self) -> Verdict {
        validity::verdict(&self.run, &self.checks)
    }

    /// The verdict in a word or two.
    pub fn short_verdict(&self) -> &'static str {
        validity::short(&self.run, &self.checks)
    }

    /// The verdict with the conditions that do not hold.
    pub fn verdict_sentence(&self) -> String {
        validity::sentence(&self.run, &self.checks)
    }
}

/// Reads the records in `run_dir` and writes the report beside them.
///
/// Always writes `accuracy.csv`, `perf.csv`, `summary.md` and `report.html`. Writes `answers.csv`, `max_batch.csv` and
/// `load.csv` if the plan has such cases, and `limits.csv` if it has targets. Writes `operators.csv` if operators were
/// timed, and `charts/` if there is anything to draw.
pub fn render(run_dir: &Path) -> Result<Summary, ReportError> {
    let dir = RunDir::open(run_dir)?;
    let contents = Contents::read(&dir)?;
    let workloads = workloads::Workloads::of(&contents);
    let Contents { run, samples, requests, audit, .. } = contents;
    let mut summary = Summary::of(run, &samples, &requests);
    workloads.add_to(&mut summary);
    sealed::add_to(&mut summary, &audit);
    dir.write_accuracy_csv(&summary.accuracy)?;
    if !summary.run.plan.accuracy.is_empty() {
        dir.write_answers_csv(&summary.answers)?;
    }
    dir.write_perf_csv(&summary.performance)?;
    if !summary.operators.is_empty() {
        dir.write_operators_csv(&summary.operators)?;
    }
    if !summary.limits.is_empty() {
        dir.write_limits_csv(&summary.limits)?;
    }
    workloads.write(&summary.run, &dir)?;
    let mut pictures = charts::draw_all(run_dir, &summary.run, &summary.accuracy, &summary.performance)?;
    pictures.extend(workloads.draw(&summary.run, run_dir)?);
    let mut details = detail_tables(&summary, &requests);
    details.extend(workloads.details(&summary.run));
    write_whole(&dir.file("summary.md"), page::markdown(&summary)?.as_bytes())?;
    let html = page::html(&summary, &details, &pictures)?;
    write_whole(&dir.file("report.html"), html.as_bytes())?;
    Ok(summary)
}

/// The clock of all times of a run.
fn performance_clock(run: &RunRecord) -> Clock {
    run.provenance.clock
}

/// The tables shown only on the page.
fn detail_tables(summary: &Summary, requests: &[RequestRecord]) -> Vec<Table> {
    let (accuracy, performance) = (&summary.accuracy, &summary.performance);
    let clock = performance_clock(&summary.run);
    let tasks = summary.run.plan.accuracy.iter();
    let subjects = tasks.map(|case| tables::subjects(&case.task, accuracy));
    let phases =
        [Phase::Prefill, Phase::Decode, Phase::E2e].map(|phase| tables::phase(performance, phase, clock));
    let tokens = tables::token_latency(performance, requests, clock);
    let reference = published::reference(&summary.run, performance);
    let roofline = summary.run.provenance.roofline.as_ref();
    let machine = roofline.and_then(|roofline| roofline.measured.as_ref()).map(roofline::machine);
    subjects
        .chain(phases)
        .chain([tokens])
        .chain(reference)
        .chain(machine)
        .filter(|table| !table.rows.is_empty())
        .collect()
}

#[cfg(test)]
mod tests;
