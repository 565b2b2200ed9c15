//! The run against its machine's limits. `limits.csv`.

use super::{Csv, Material, Section, Table};
use crate::record::LimitRow;
use crate::report::roofline;

pub(super) struct Roofline;

impl Section for Roofline {
    fn tables(&self, of: Material<'_>) -> Vec<Table> {
        if of.summary.limits.is_empty() {
            return Vec::new();
        }
        vec![
            roofline::table(of.run(), &of.summary.limits),
            roofline::phases(of.run(), &of.summary.performance),
        ]
    }

    fn details(&self, of: Material<'_>) -> Vec<Table> {
        let measured = of.run().provenance.roofline.as_ref().and_then(|roofline| roofline.measured.as_ref());
        measured.map(roofline::machine).into_iter().collect()
    }

    fn csv(&self, of: Material<'_>) -> Result<Option<Csv>, csv::Error> {
        if of.summary.limits.is_empty() {
            return Ok(None);
        }
        Csv::of("limits.csv", LimitRow::HEADER, &of.summary.limits).map(Some)
    }
}
