//! The records of a run, read and judged.

use super::workloads::Workloads;
use super::{ReportError, Summary, sealed};
use crate::record::{Contents, RequestRecord, RunDir, SampleRecord};

/// What every report starts from.
pub(super) struct Reading {
    pub(super) summary: Summary,
    pub(super) samples: Vec<SampleRecord>,
    pub(super) requests: Vec<RequestRecord>,
    pub(super) workloads: Workloads,
}

impl Reading {
    /// Reads and judges all records of a run.
    ///
    /// # Errors
    /// A record cannot be read.
    pub(super) fn of(dir: &RunDir) -> Result<Self, ReportError> {
        let contents = Contents::read(dir)?;
        let workloads = Workloads::of(&contents);
        let Contents { run, samples, requests, audit, .. } = contents;
        let mut summary = Summary::of(run, &samples, &requests);
        workloads.add_to(&mut summary);
        sealed::add_to(&mut summary, &audit);
        Ok(Self { summary, samples, requests, workloads })
    }
}
