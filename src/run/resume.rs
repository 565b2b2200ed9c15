//! Finding a run, or a group of runs, to go on with.

use std::path::{Path, PathBuf};

use crate::record::{Group, RunDir, RunRecord, Status};

/// A run that is there already.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its directory.
    pub path: PathBuf,
    /// Its record.
    pub record: RunRecord,
}

impl Found {
    /// A run is finished when its report is there as well, the last thing that is written.
    pub fn is_finished(&self) -> bool {
        self.record.status == Status::Complete && self.path.join("report.html").exists()
    }
}

/// The newest unfinished run under `root` with this record's identity, device, kernels and threads, and of the same group:
/// going on with it on anything else would mix two measurements in one.
pub fn find(root: &Path, record: &RunRecord) -> Option<Found> {
    let (wanted, wants) = (&record.provenance, &record.identity);
    runs(root).find(|found| {
        let there = &found.record.provenance;
        let same = found.record.identity.differences(wants).is_empty()
            && there.group == wanted.group
            && there.device == wanted.device
            && there.kernel == wanted.kernel
            && there.threads == wanted.threads
            && there.cpu_model == wanted.cpu_model
            && there.engine == wanted.engine
            && there.clock_profile == wanted.clock_profile;
        same && !found.is_finished()
    })
}

/// The newest group under `root` of the suite with this hash, these configurations and this many blocks of which not all runs are
/// finished.
pub fn find_group(root: &Path, suite: &str, configurations: &[String], blocks: Option<u32>) -> Option<Group> {
    let is_ours = |g: &Group| g.suite == suite && g.configurations == configurations && g.blocks == blocks;
    let group = runs(root).find_map(|found| found.record.provenance.group.filter(is_ours))?;
    let unfinished = |name: &String| finished(root, &group, name).is_none();
    configurations.iter().any(unfinished).then_some(group)
}

/// The finished run of one configuration of a group.
pub fn finished(root: &Path, group: &Group, configuration: &str) -> Option<Found> {
    let of_group = |g: &Group| g.id == group.id && g.configuration == configuration;
    runs(root)
        .find(|found| found.record.provenance.group.as_ref().is_some_and(of_group) && found.is_finished())
}

/// The runs under a folder, newest first. Directories that are no runs are passed over, and runs
/// that were scored from another: no model ran there.
pub(super) fn runs(root: &Path) -> impl Iterator<Item = Found> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| p.is_dir()).collect();
    // Names begin with the time.
    paths.sort();
    paths.into_iter().rev().filter_map(|path| {
        let record = RunDir::open(&path).ok()?.read_run().ok()?;
        record.provenance.scored_from.is_none().then_some(Found { path, record })
    })
}
