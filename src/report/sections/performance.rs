//! Times of shapes: cases, phases, tokens. `perf.csv`.

use super::{Chart, Csv, Material, Section, Table};
use crate::record::{PerfRow, Phase};
use crate::report::{charts, machines, modelled, published, tables};

pub(super) struct Performance;

impl Section for Performance {
    fn tables(&self, of: Material<'_>) -> Vec<Table> {
        let (run, rows) = (of.run(), &of.summary.performance);
        vec![tables::performance(rows, run.provenance.clock, modelled::basis_of(run))]
    }

    fn details(&self, of: Material<'_>) -> Vec<Table> {
        let (run, rows) = (of.run(), &of.summary.performance);
        let (clock, basis) = (run.provenance.clock, modelled::basis_of(run));
        let phases =
            [Phase::Prefill, Phase::Decode, Phase::E2e].map(|phase| tables::phase(rows, phase, clock, basis));
        let tokens = tables::token_latency(rows, of.requests, clock, basis);
        let known = machines::table(run).into_iter().chain(published::reference(run, rows));
        phases.into_iter().chain([tokens]).chain(known).collect()
    }

    /// Every run has the file, even without times.
    fn csv(&self, of: Material<'_>) -> Result<Option<Csv>, csv::Error> {
        Csv::of("perf.csv", PerfRow::HEADER, &of.summary.performance).map(Some)
    }

    fn charts(&self, of: Material<'_>) -> Vec<(String, Chart)> {
        charts::of_times(of.run(), &of.summary.performance, of.language)
    }
}
