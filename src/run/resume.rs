//! Finding a run to go on with.

use std::path::{Path, PathBuf};

use crate::record::{RunDir, RunRecord, Status};

/// An unfinished run.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its directory.
    pub path: PathBuf,
    /// Its record.
    pub record: RunRecord,
}

/// The newest unfinished run under `root` with this record's identity, device, kernels and threads: going on with it on
/// anything else would mix two measurements in one. A run is finished when its report is there as well, the last thing
/// that is written. Directories that are no runs are passed over.
pub fn find(root: &Path, record: &RunRecord) -> Option<Found> {
    let entries = std::fs::read_dir(root).ok()?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
    // Names begin with the time.
    paths.sort();
    paths.into_iter().rev().find_map(|path| {
        let found = RunDir::open(&path).ok()?.read_run().ok()?;
        let same = found.identity == record.identity
            && found.provenance.device == record.provenance.device
            && found.provenance.kernel == record.provenance.kernel
            && found.provenance.threads == record.provenance.threads
            && found.provenance.cpu_model == record.provenance.cpu_model
            && found.provenance.engine == record.provenance.engine;
        let finished = found.status == Status::Complete && path.join("report.html").exists();
        (!finished && same).then_some(Found { path, record: found })
    })
}
