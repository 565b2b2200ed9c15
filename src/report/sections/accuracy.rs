//! Scores: tasks, their groups and subjects. `accuracy.csv`.

use super::{Chart, Csv, Material, Section, Table};
use crate::record::AccuracyRow;
use crate::report::{charts, measures, tables};

pub(super) struct Accuracy;

impl Section for Accuracy {
    fn tables(&self, of: Material<'_>) -> Vec<Table> {
        let scores = tables::accuracy(&of.summary.accuracy);
        std::iter::once(scores).chain(measures::table(of.run(), of.samples)).collect()
    }

    fn details(&self, of: Material<'_>) -> Vec<Table> {
        let tasks = of.run().plan.accuracy.iter();
        let scores = tasks.map(|case| tables::subjects(&case.task, &of.summary.accuracy));
        scores.chain(measures::subjects(of.run(), of.samples)).collect()
    }

    /// Every run has the file, even without scores.
    fn csv(&self, of: Material<'_>) -> Result<Option<Csv>, csv::Error> {
        Csv::of("accuracy.csv", AccuracyRow::HEADER, &of.summary.accuracy).map(Some)
    }

    fn charts(&self, of: Material<'_>) -> Vec<(String, Chart)> {
        let mut all = charts::of_scores(of.run(), &of.summary.accuracy, of.language);
        all.extend(charts::of_grids(of.run(), of.samples, of.language));
        all
    }
}
