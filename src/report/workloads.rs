//! What workloads add to reports: made from the list of workloads ([`crate::workload`]), whose types
//! differ.

use super::charts::Picture;
use super::charts::cases::draw_lines;
use super::charts::lines::LineChart;
use super::check::Check;
use super::csv_file::Csv;
use super::followed;
use super::modelled::Figure;
use super::table::Table;
use super::{ReportError, Summary};
use crate::language::{Language, Text};
use crate::record::course::Course;
use crate::record::{Contents, RunDir, RunRecord, write_whole};
use std::fmt::Debug;
use std::path::Path;

/// The lines of one workload in a run, ready to be shown. A part is only asked about runs that have such cases.
pub(crate) trait Part: Debug {
    /// The tables for terminal and page.
    fn tables(&self, _run: &RunRecord) -> Vec<Table> {
        Vec::new()
    }
    /// The tables shown only on the page.
    fn details(&self, _run: &RunRecord) -> Vec<Table> {
        Vec::new()
    }
    /// The validity conditions.
    fn checks(&self, _run: &RunRecord) -> Vec<Check> {
        Vec::new()
    }
    /// The findings, one sentence each.
    fn sentences(&self, _run: &RunRecord) -> Vec<Text> {
        Vec::new()
    }
    /// The rows as a file.
    ///
    /// # Errors
    /// A row cannot be written as CSV.
    fn csv(&self) -> Result<Option<Csv>, csv::Error> {
        Ok(None)
    }
    /// The figures of the file that are from the run's clock.
    fn figures(&self) -> Vec<Figure> {
        Vec::new()
    }
    /// The values that a history follows over runs.
    fn history(&self, _run: &RunRecord) -> Vec<followed::Figure> {
        Vec::new()
    }
    /// The charts, by file name without extension.
    fn charts(&self, _run: &RunRecord, _language: Language) -> Vec<(String, LineChart)> {
        Vec::new()
    }
}

/// A part that can be made.
pub(crate) trait Reported: Part + Sized + 'static {
    /// The case in records.
    type Case: Course;
    /// Definitions at the foot of a report with such cases: name and text.
    const DEFINITIONS: &'static [(Text, Text)] = &[];
    /// What one case, and what several are called.
    const NAMES: [&'static str; 2];

    /// Makes the part from a run's lines.
    fn of(run: &RunRecord, lines: &[<Self::Case as Course>::Line]) -> Self;
}

macro_rules! workloads {
    ($($(#[$only:meta])* $folder:ident: $table:ident, $plan:ident, $lines:ident;)*) => {
        /// The timed lines of a run, by workload.
        #[derive(Debug)]
        pub(crate) struct Workloads {
            $($(#[$only])* pub(crate) $plan: crate::workload::$folder::Report,)*
        }

        impl Workloads {
            /// Makes the parts from a run's records.
            pub(crate) fn of(contents: &Contents) -> Self {
                let run = &contents.run;
                Self { $($(#[$only])* $plan: Reported::of(run, &contents.$lines),)* }
            }

            /// Returns the parts of the workloads that the run has.
            fn parts(&self, run: &RunRecord) -> Vec<&dyn Part> {
                let mut parts: Vec<&dyn Part> = Vec::new();
                $($(#[$only])* {
                    if !run.plan.$plan.is_empty() {
                        parts.push(&self.$plan);
                    }
                })*
                parts
            }
        }

        /// Definitions for the workloads that the run has.
        pub(super) fn definitions(run: &RunRecord) -> Vec<(Text, Text)> {
            let mut all = Vec::new();
            $($(#[$only])* {
                if !run.plan.$plan.is_empty() {
                    all.extend(<crate::workload::$folder::Report as Reported>::DEFINITIONS.iter().cloned());
                }
            })*
            all
        }

        /// Returns the number of cases of each workload in the plan of a run, with the words for one and for several.
        pub(super) fn counts(run: &RunRecord) -> Vec<(usize, [&'static str; 2])> {
            Vec::from([$($(#[$only])* (
                run.plan.$plan.len(),
                <crate::workload::$folder::Report as Reported>::NAMES,
            ),)*])
        }
    };
}
crate::workload::each!(workloads);

impl Workloads {
    /// Adds tables, conditions and sentences to the summary.
    pub(super) fn add_to(&self, summary: &mut Summary) {
        let run = &summary.run;
        let mut said = Vec::new();
        for part in self.parts(run) {
            summary.tables.extend(part.tables(run).into_iter().filter(|table| !table.rows.is_empty()));
            summary.checks.extend(part.checks(run));
            said.extend(part.sentences(run));
        }
        if !said.is_empty() {
            summary.headline.retain(|sentence| *sentence != super::headline::NOTHING);
            summary.headline.extend(said);
        }
    }

    /// Returns the tables of rows that the run has.
    ///
    /// # Errors
    /// A row cannot be written as CSV.
    pub(super) fn csv(&self, run: &RunRecord) -> Result<Vec<Csv>, csv::Error> {
        self.parts(run).into_iter().filter_map(|part| part.csv().transpose()).collect()
    }

    /// Returns the figures of these tables that are from the run's clock.
    pub(super) fn figures(&self, run: &RunRecord) -> Vec<Figure> {
        self.parts(run).into_iter().flat_map(|part| part.figures()).collect()
    }

    /// Returns the values that a history follows over runs.
    pub(super) fn history(&self, run: &RunRecord) -> Vec<followed::Figure> {
        self.parts(run).into_iter().flat_map(|part| part.history(run)).collect()
    }

    /// Writes the tables of rows, such as `max_batch.csv`, into the run directory.
    pub(super) fn write(&self, run: &RunRecord, dir: &RunDir) -> Result<(), ReportError> {
        let encode =
            |e: csv::Error| crate::record::RecordError::io("encode a table in", dir.path())(e.into());
        for table in self.csv(run).map_err(encode)? {
            write_whole(&dir.file(table.name), &table.bytes)?;
        }
        Ok(())
    }

    /// The tables shown only on the page.
    pub(super) fn details(&self, run: &RunRecord) -> Vec<Table> {
        let all = self.parts(run).into_iter().flat_map(|part| part.details(run));
        all.filter(|table| !table.rows.is_empty()).collect()
    }

    /// Draws the charts into the run directory.
    pub(super) fn draw(
        &self,
        run: &RunRecord,
        run_dir: &Path,
        language: Language,
    ) -> Result<Vec<Picture>, ReportError> {
        let charts = self.parts(run).into_iter().flat_map(|part| part.charts(run, language));
        draw_lines(run_dir, charts.collect())
    }
}

#[cfg(test)]
pub(in crate::report) mod tests;
