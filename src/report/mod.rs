//! Turns records into tables, charts, one HTML page and one Markdown summary.
//!
//! [`render`] reads a run directory and writes everything anew. A report depends only on the records, so it is
//! reproducible. An unfinished run can be reported while it runs.

pub mod accuracy;
mod answers;
mod card_memory;
pub(crate) mod charts;
pub(crate) mod check;
pub mod compare;
mod comparison;
pub(crate) mod csv_file;
pub mod definitions;
mod error;
mod evidence;
mod expectation;
pub mod export;
mod failures;
pub(crate) mod followed;
pub(crate) mod format;
mod formats;
mod headline;
pub mod history;
mod machines;
mod measures;
pub(crate) mod modelled;
pub mod operators;
mod page;
pub mod published;
mod reading;
pub mod roofline;
mod sealed;
mod sections;
pub mod table;
mod table_files;
pub mod tables;
pub mod validity;
pub(crate) mod workloads;

#[cfg(test)]
pub(crate) mod fixture;

use crate::language::{Language, Text};
pub use accuracy::accuracy_rows;
pub use check::{Check, Outcome, Verdict};
pub use comparison::{ComparisonSummary, folder_name, render_comparison, write_comparison};
pub use error::ReportError;
pub use operators::operator_rows;
pub use roofline::limit_rows;
pub use table::Table;

pub use crate::workload::load::rows::load_rows;
pub use crate::workload::max_batch::report::probe_rows;
pub use crate::workload::shapes::report as performance;
pub use crate::workload::shapes::report::perf_rows;

use crate::record::{
    AccuracyRow, AnswerRow, LimitRow, OperatorRow, PerfRow, RecordError, RequestRecord, RunDir, RunRecord,
    SampleRecord, write_whole,
};
use csv_file::Csv;
use formats::{FORMATS, RunPage};
use reading::Reading;
use sections::Material;
use std::path::Path;
use workloads::Workloads;

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
    pub headline: Vec<Text>,
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
        let headline = headline::sentences(&run, &accuracy, samples, &performance, requests);
        let answers = answers::rows(&run, &answers::of_tasks(&run, samples));
        let tables = Vec::new();
        let mut summary =
            Self { run, accuracy, answers, performance, operators, limits, checks, headline, tables };
        let language = Language::default();
        summary.tables = sections::tables(Material { summary: &summary, samples, requests, language });
        summary
    }

    /// Returns `model_error.csv`. `None` for measured times.
    fn errors(&self, workloads: &Workloads) -> Result<Option<Csv>, csv::Error> {
        let mut figures = modelled::figures::of(&self.run, &self.performance, &self.accuracy);
        figures.extend(workloads.figures(&self.run));
        modelled::figures::csv(&self.run, &figures)
    }

    /// Model, device, type, clock, suite and run, in one line.
    pub fn title(&self) -> Text {
        headline::title(&self.run)
    }

    /// Whether the figures may be used.
    pub fn verdict(&self) -> Verdict {
        validity::verdict(&self.run, &self.checks)
    }

    /// The verdict in a word or two.
    pub fn short_verdict(&self) -> Text {
        validity::short(&self.run, &self.checks)
    }

    /// The verdict with the conditions that do not hold.
    pub fn verdict_sentence(&self) -> Text {
        validity::sentence(&self.run, &self.checks)
    }
}

fn encode(dir: &RunDir) -> impl Fn(csv::Error) -> RecordError {
    |e| RecordError::io("encode a table in", dir.path())(e.into())
}

/// Reads the records in `run_dir` and writes the report beside them.
///
/// Always writes `accuracy.csv`, `perf.csv`, `summary.md` and `report.html`. Writes `answers.csv`, `max_batch.csv` and
/// `load.csv` if the plan has such cases, and `limits.csv` if it has targets. Writes `operators.csv` if operators were
/// timed, `model_error.csv` if times are modelled, and `charts/` if there is anything to draw. Writes `history.json` for
/// [`history::index`]. `tables/` has every table of the page as CSV. The page and the charts are in `language`; the CSV files are
/// English.
pub fn render(run_dir: &Path, language: Language) -> Result<Summary, ReportError> {
    let dir = RunDir::open(run_dir)?;
    let Reading { summary, samples, requests, workloads } = Reading::of(&dir)?;
    history::keep(&dir, &summary, &samples, workloads.history(&summary.run))?;
    let material = Material { summary: &summary, samples: &samples, requests: &requests, language };
    sections::write(material, &dir)?;
    workloads.write(&summary.run, &dir)?;
    if let Some(errors) = summary.errors(&workloads).map_err(encode(&dir))? {
        write_whole(&dir.file(errors.name), &errors.bytes)?;
    }
    let mut pictures = charts::draw(run_dir, &sections::charts(material))?;
    pictures.extend(workloads.draw(&summary.run, run_dir, language)?);
    let mut details = sections::details(material);
    details.extend(workloads.details(&summary.run));
    table_files::write(dir.path(), &[summary.tables.as_slice(), &details].concat())?;
    let page = RunPage { summary: &summary, details: &details, pictures: &pictures, language };
    formats::write(FORMATS, dir.path(), |format| format.run(page))?;
    Ok(summary)
}

#[cfg(test)]
mod languages;
#[cfg(test)]
mod tests;
