//! Modelled times: their error, the published speeds behind it, the profile's figures, a card's memory.

use super::{Chart, Material, Section, Table};
use crate::report::{card_memory, evidence};

pub(super) struct Modelled;

impl Section for Modelled {
    fn tables(&self, of: Material<'_>) -> Vec<Table> {
        let calibration = evidence::is_calibration(of.run());
        evidence::timed(of.run(), &of.summary.performance).filter(|_| calibration).into_iter().collect()
    }

    fn details(&self, of: Material<'_>) -> Vec<Table> {
        let (run, rows) = (of.run(), &of.summary.performance);
        let timed = evidence::timed(run, rows).filter(|_| !evidence::is_calibration(run));
        card_memory::table(run, rows).into_iter().chain(timed).chain(evidence::tables(run)).collect()
    }

    fn charts(&self, of: Material<'_>) -> Vec<(String, Chart)> {
        let run = of.run();
        let published =
            evidence::chart(run, of.language).map(|chart| (evidence::CHART.to_owned(), Chart::Ratios(chart)));
        card_memory::charts(run, of.language).into_iter().chain(published).collect()
    }
}
