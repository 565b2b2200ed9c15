//! Timed operators. `operators.csv`.

use super::{Csv, Material, Section, Table};
use crate::record::OperatorRow;
use crate::report::operators;

pub(super) struct Operators;

impl Section for Operators {
    fn tables(&self, of: Material<'_>) -> Vec<Table> {
        vec![operators::table(of.run(), &of.summary.operators)]
    }

    fn csv(&self, of: Material<'_>) -> Result<Option<Csv>, csv::Error> {
        if of.summary.operators.is_empty() {
            return Ok(None);
        }
        Csv::of("operators.csv", OperatorRow::HEADER, &of.summary.operators).map(Some)
    }
}
