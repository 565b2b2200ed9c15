//! Times of shapes: cases, phases, tokens. `perf.csv`.

use super::{Chart, Csv, Material, Section, Table};
use crate::record::{PerfRow, Phase};
use crate::report::{charts, published, tables};

pub(super) struct Performance;

impl Section for Performance {
    fn tables(&self, of: Material<'_>) -> Vec<Table> {
        vec![tables::performance(&of.summary.performance, of.run().provenance.clock)]
    }

    fn details(&self, of: Material<'_>) -> Vec<Table> {
        let (rows, clock) = (&of.summary.performance, of.run().provenance.clock);
        let phases =
            [Phase::Prefill, Phase::Decode, Phase::E2e].map(|phase| tables::phase(rows, phase, clock));
        let tokens = tables::token_latency(rows, of.requests, clock);
        phases.into_iter().chain([tokens]).chain(published::reference(of.run(), rows)).collect()
    }

    /// Every run has the file, even without times.
    fn csv(&self, of: Material<'_>) -> Result<Option<Csv>, csv::Error> {
        Csv::of("perf.csv", PerfRow::HEADER, &of.summary.performance).map(Some)
    }

    fn charts(&self, of: Material<'_>) -> Vec<(String, Chart)> {
        charts::of_times(of.run(), &of.summary.performance)
    }
}
