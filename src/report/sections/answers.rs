//! The distribution of answers. `answers.csv`.

use super::{Csv, Definition, Material, Section, Table};
use crate::record::{AnswerRow, RunRecord};
use crate::report::answers;

pub(super) struct Answers;

impl Section for Answers {
    fn tables(&self, of: Material<'_>) -> Vec<Table> {
        vec![answers::table(&answers::of_tasks(of.run(), of.samples))]
    }

    fn csv(&self, of: Material<'_>) -> Result<Option<Csv>, csv::Error> {
        if of.run().plan.accuracy.is_empty() {
            return Ok(None);
        }
        Csv::of("answers.csv", AnswerRow::HEADER, &of.summary.answers).map(Some)
    }

    fn definitions(&self, run: &RunRecord) -> Vec<Definition> {
        if run.plan.accuracy.is_empty() { Vec::new() } else { vec![answers::DEFINITION] }
    }
}
