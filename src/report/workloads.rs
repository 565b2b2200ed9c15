//! What workloads add to reports and comparisons: made from the list of workloads ([`crate::workload`]), whose types
//! differ.

use super::charts::Picture;
use super::charts::cases::draw_lines;
use super::charts::lines::LineChart;
use super::compare::{Comparison, ComparisonRow, Pair, Side};
use super::format::significant;
use super::history;
use super::modelled::{self, Figure, Known};
use super::validity::Check;
use super::{ReportError, Summary, Table};
use crate::language::{Language, Text, ToText, joined, text};
use crate::record::course::Course;
use crate::record::{Contents, RunDir, RunRecord, csv_table, write_whole};
use serde::Serialize;
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
    fn history(&self, _run: &RunRecord) -> Vec<history::Figure> {
        Vec::new()
    }
    /// The charts, by file name without extension.
    fn charts(&self, _run: &RunRecord, _language: Language) -> Vec<(String, LineChart)> {
        Vec::new()
    }
}

/// A part that can be made and compared.
pub(crate) trait Reported: Part + Sized + 'static {
    /// The case in records.
    type Case: Course;
    /// Definitions at the foot of a report with such cases: name and text.
    const DEFINITIONS: &'static [(Text, Text)] = &[];
    /// What one case, and what several are called.
    const NAMES: [&'static str; 2];

    /// Makes the part from a run's lines.
    fn of(run: &RunRecord, lines: &[<Self::Case as Course>::Line]) -> Self;

    /// Compares two runs. `notes` gets a sentence for each case that only one run has. `None` if such cases are not compared
    /// here.
    fn compare(_a: &Side, _b: &Side, _notes: &mut Vec<Text>) -> Option<Box<dyn Compared>> {
        None
    }
}

/// The cases of one workload that two runs have in common.
pub(crate) trait Compared: Debug {
    /// Whether there are none.
    fn is_empty(&self) -> bool;
    /// The table for terminal and page.
    fn table(&self, comparison: &Comparison, pair: &Pair) -> Table;
    /// The rows of `comparison.csv`.
    fn rows(&self, comparison: &Comparison, pair: &Pair) -> Vec<ComparisonRow>;
    /// The parts of the headline sentence.
    fn headline(&self, comparison: &Comparison, pair: &Pair) -> Vec<Text>;
}

/// A table as a file.
#[derive(Debug, Clone)]
pub(crate) struct Csv {
    /// File name.
    pub(crate) name: &'static str,
    /// The content.
    pub(crate) bytes: Vec<u8>,
    /// Whether it has no rows.
    pub(crate) is_empty: bool,
}

impl Csv {
    /// Formats rows below a header.
    ///
    /// # Errors
    /// A row cannot be written as CSV.
    pub(crate) fn of<R: Serialize>(name: &'static str, header: &str, rows: &[R]) -> Result<Self, csv::Error> {
        Ok(Self { name, bytes: csv_table(header, rows)?, is_empty: rows.is_empty() })
    }
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

        /// Compares the cases of two runs, workload by workload.
        pub(super) fn compare(a: &Side, b: &Side, notes: &mut Vec<Text>) -> Vec<Box<dyn Compared>> {
            let mut all = Vec::new();
            $($(#[$only])* all.extend(<crate::workload::$folder::Report as Reported>::compare(a, b, notes));)*
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
    pub(super) fn history(&self, run: &RunRecord) -> Vec<history::Figure> {
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

/// Adds notes on the cases of one kind that only one run has.
pub(crate) fn alone<C>(
    ours: &[C],
    theirs: &[C],
    same: impl Fn(&C, &C) -> bool,
    name: impl Fn(&C) -> &String,
    (a, b): (&Side, &Side),
    notes: &mut Vec<Text>,
) {
    let mut tell = |of: &[C], than: &[C], side: &Side, other: &Side| {
        for case in of.iter().filter(|case| !than.iter().any(|other| same(case, other))) {
            let asked_otherwise = than.iter().any(|other| name(other) == name(case));
            let (name, here, there) = (name(case), side.letter, other.letter);
            notes.push(if asked_otherwise {
                text!("{name} is asked otherwise in {here} than in {there}, left out.", name, here, there)
            } else {
                text!("Only {here} has {name}.", here, name)
            });
        }
    };
    tell(ours, theirs, a, b);
    tell(theirs, ours, b, a);
}

/// Formats a time in ms with three significant digits.
pub(crate) fn short_ms(ns: u64) -> String {
    significant(ns as f64 / 1e6, 3)
}

/// `B (name) against A (name)`.
pub(crate) fn against(comparison: &Comparison, pair: &Pair) -> Text {
    text!("{b} against {a}", b = comparison.other(pair).label(), a = comparison.base().label())
}

/// Returns the time errors of a figure in both runs: `modelled: A ± 20 %, B ± 10 %`. `None` with measured clocks, and if no
/// error is known.
pub(crate) fn model_errors<I>(
    comparison: &Comparison,
    pair: &Pair,
    of: impl Fn(usize, &RunRecord) -> I,
) -> Option<Text>
where
    I: IntoIterator<Item = Option<Known>>,
{
    let sides = [comparison.base(), comparison.other(pair)];
    let words = sides.iter().enumerate().filter_map(|(index, side)| {
        let span = modelled::span_of(of(index, side.run()).into_iter());
        (!span.is_empty()).then(|| side.letter.to_text() + span)
    });
    let words: Vec<Text> = words.collect();
    (!words.is_empty()).then(|| text!("modelled: {errors}", errors = joined(&words, ", ")))
}

/// Returns a row of `comparison.csv` with the case and the clocks alone.
pub(crate) fn blank(
    (comparison, pair): (&Comparison, &Pair),
    kind: &'static str,
    case: &str,
    tp: u32,
) -> ComparisonRow {
    ComparisonRow {
        subject: case.to_owned(),
        clock_a: Some(comparison.base().clock()),
        clock_b: Some(comparison.other(pair).clock()),
        tp_a: Some(tp),
        tp_b: Some(tp),
        ..ComparisonRow::blank(comparison, pair, kind)
    }
}

#[cfg(test)]
pub(in crate::report) mod tests;
