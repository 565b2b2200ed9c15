//! The sections in the report of a run, besides those of its workloads ([`super::workloads`]). A section has tables, a file
//! of rows, charts and definitions, and a source file of its own.
//!
//! A section is a file here and a line of [`SECTIONS`]. The terminal, the page, the Markdown summary and the CSV files follow
//! the list.

mod accuracy;
mod answers;
mod modelled;
mod operators;
mod performance;
mod published;
mod roofline;
#[cfg(test)]
mod toy;

use super::charts::Chart;
use super::csv_file::Csv;
use super::table::Table;
use super::{ReportError, Summary};
use crate::language::{Language, Text};
use crate::record::{RecordError, RequestRecord, RunDir, RunRecord, SampleRecord, write_whole};

/// The sections, in the order of the report.
const SECTIONS: &[&dyn Section] = &[
    &accuracy::Accuracy,
    &answers::Answers,
    &performance::Performance,
    &modelled::Modelled,
    &roofline::Roofline,
    &operators::Operators,
    &published::Published,
    #[cfg(test)]
    &toy::Toy,
];

/// What sections show: a run's records, and the rows that were made of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Material<'a> {
    pub(super) summary: &'a Summary,
    pub(super) samples: &'a [SampleRecord],
    pub(super) requests: &'a [RequestRecord],
    /// The language of the charts. Tables are put into one where they are written.
    pub(super) language: Language,
}

impl<'a> Material<'a> {
    fn run(&self) -> &'a RunRecord {
        &self.summary.run
    }
}

/// Name and text of the definition of a figure.
type Definition = (Text, Text);

/// A section. One without data returns nothing, and tables without rows are left out.
trait Section: Sync {
    /// The tables for terminal and page.
    fn tables(&self, _of: Material<'_>) -> Vec<Table> {
        Vec::new()
    }

    /// The tables shown only on the page.
    fn details(&self, _of: Material<'_>) -> Vec<Table> {
        Vec::new()
    }

    /// The rows as a file of the run directory.
    ///
    /// # Errors
    /// A row cannot be written as CSV.
    fn csv(&self, _of: Material<'_>) -> Result<Option<Csv>, csv::Error> {
        Ok(None)
    }

    /// The charts, by file name without extension.
    fn charts(&self, _of: Material<'_>) -> Vec<(String, Chart)> {
        Vec::new()
    }

    /// Definitions of figures that only reports with this section show. [`DEFINITIONS`](super::definitions::DEFINITIONS) has
    /// those of all reports.
    fn definitions(&self, _run: &RunRecord) -> Vec<Definition> {
        Vec::new()
    }
}

/// Returns the tables for terminal and page.
pub(super) fn tables(of: Material<'_>) -> Vec<Table> {
    with_rows(SECTIONS.iter().flat_map(|section| section.tables(of)))
}

/// Returns the tables shown only on the page.
pub(super) fn details(of: Material<'_>) -> Vec<Table> {
    with_rows(SECTIONS.iter().flat_map(|section| section.details(of)))
}

fn with_rows(tables: impl Iterator<Item = Table>) -> Vec<Table> {
    tables.filter(|table| !table.rows.is_empty()).collect()
}

/// Writes the rows into the run directory.
pub(super) fn write(of: Material<'_>, dir: &RunDir) -> Result<(), ReportError> {
    let encode = |e: csv::Error| RecordError::io("encode a table in", dir.path())(e.into());
    for section in SECTIONS {
        if let Some(csv) = section.csv(of).map_err(encode)? {
            write_whole(&dir.file(csv.name), &csv.bytes)?;
        }
    }
    Ok(())
}

/// Returns the charts, by file name without extension.
pub(super) fn charts(of: Material<'_>) -> Vec<(String, Chart)> {
    SECTIONS.iter().flat_map(|section| section.charts(of)).collect()
}

/// Returns the definitions of the figures that only some reports show.
pub(super) fn definitions(run: &RunRecord) -> Vec<Definition> {
    SECTIONS.iter().flat_map(|section| section.definitions(run)).collect()
}
