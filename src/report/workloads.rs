//! Report parts for max-batch searches and loads.

use super::charts::{self, Picture};
use super::{ReportError, Summary, Table, load, search};
use crate::record::{LoadCase, LoadLevelRecord, LoadRow, ProbeRecord, ProbeRow, RunDir, RunRecord};
use std::path::Path;

/// The probes and load levels of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Workloads {
    probes: Vec<ProbeRecord>,
    probe_rows: Vec<ProbeRow>,
    load_rows: Vec<LoadRow>,
    /// Loads with failed requests, and the error of the first one.
    failures: Vec<(String, String)>,
}

impl Workloads {
    /// Builds the rows from a run's records.
    pub(super) fn of(run: &RunRecord, probes: Vec<ProbeRecord>, levels: &[LoadLevelRecord]) -> Self {
        let probe_rows = search::probe_rows(run, &probes);
        let failed = |case: &LoadCase| Some((case.load_id.clone(), load::first_failure(case, levels)?));
        let failures = run.plan.loads.iter().filter_map(failed).collect();
        Self { probe_rows, load_rows: load::load_rows(run, levels), probes, failures }
    }

    /// The probes of all searches.
    pub(super) fn probes(&self) -> &[ProbeRecord] {
        &self.probes
    }

    /// The rows of all load levels.
    pub(super) fn load_rows(&self) -> &[LoadRow] {
        &self.load_rows
    }

    /// Adds tables, conditions and sentences to the summary.
    pub(super) fn add_to(&self, summary: &mut Summary) {
        let run = &summary.run;
        if !run.plan.searches.is_empty() {
            summary.tables.push(search::answers(run, &self.probes));
        }
        let loads = run.plan.loads.iter().map(|case| load::summary(case, run, &self.load_rows));
        summary.tables.extend(loads.filter(|table| !table.rows.is_empty()));
        summary.checks.extend(search::checks(run, &self.probes));
        summary.checks.extend(load::checks(run, &self.load_rows, &self.failures));
        let mut said = search::sentences(run, &self.probes);
        said.extend(load::sentences(run, &self.load_rows, &self.failures));
        if !said.is_empty() {
            summary.headline.retain(|sentence| sentence != super::headline::NOTHING);
            summary.headline.extend(said);
        }
    }

    /// Writes `max_batch.csv` and `load.csv` if the plan has such cases.
    pub(super) fn write(&self, run: &RunRecord, dir: &RunDir) -> Result<(), ReportError> {
        if !run.plan.searches.is_empty() {
            dir.write_max_batch_csv(&self.probe_rows)?;
        }
        if !run.plan.loads.is_empty() {
            dir.write_load_csv(&self.load_rows)?;
        }
        Ok(())
    }

    /// The tables shown only on the page.
    pub(super) fn details(&self, run: &RunRecord) -> Vec<Table> {
        let probes = run.plan.searches.iter().map(|case| search::probes_of(case, run, &self.probes));
        let loads = run.plan.loads.iter().flat_map(|case| {
            let wire = load::wire(case, run, &self.load_rows);
            [load::requests(case, run, &self.load_rows), load::quantiles(case, run, &self.load_rows)]
                .into_iter()
                .chain(wire)
        });
        probes.chain(loads).filter(|table| !table.rows.is_empty()).collect()
    }

    /// Draws the charts into the run directory.
    pub(super) fn draw(&self, run: &RunRecord, run_dir: &Path) -> Result<Vec<Picture>, ReportError> {
        charts::draw_workloads(run_dir, run, &self.probe_rows, &self.load_rows)
    }
}

/// Definitions for the workloads that the run has.
pub(super) fn definitions(run: &RunRecord) -> Vec<(&'static str, &'static str)> {
    let searches = if run.plan.searches.is_empty() { &[][..] } else { &search::DEFINITIONS };
    let loads = if run.plan.loads.is_empty() { &[][..] } else { &load::DEFINITIONS };
    searches.iter().chain(loads).copied().collect()
}

#[cfg(test)]
mod tests;
