//! Finding a run, or a group of runs, to go on with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::dataset::sha256_hex;
use crate::record::{Contents, Group, ProbeOutcome, RunDir, RunRecord, SampleState, Status, compact_utc};

/// A run that is there already.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its directory.
    pub path: PathBuf,
    /// Its record.
    pub record: RunRecord,
}

/// What of a run there is still to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// What it does not have yet, or what of its journals is not as the plan says.
    Missing,
    /// That, and what failed.
    MissingOrFailed,
}

impl Found {
    /// It says that it is complete, and its report, the last thing that is written, is there as well.
    fn says_finished(&self) -> bool {
        self.record.status == Status::Complete && self.path.join("report.html").exists()
    }

    /// A run is finished when it says so and its journals bear that out; reads them.
    fn has_nothing(&self, wanted: Wanted) -> bool {
        let read = || RunDir::open(&self.path).and_then(|dir| Contents::read(&dir)).ok();
        let sound = |contents: &Contents| {
            contents.audit.is_sound() && !(wanted == Wanted::MissingOrFailed && has_failures(contents))
        };
        self.says_finished() && read().as_ref().is_some_and(sound)
    }
}

/// Something of the run failed: an item, a timed case, a search, a request under load.
fn has_failures(contents: &Contents) -> bool {
    contents.samples.iter().any(|sample| sample.state == SampleState::Failed)
        || contents.requests.iter().any(|request| request.error.is_some())
        || contents.probes.iter().any(|probe| probe.outcome == ProbeOutcome::Failed)
        || contents.loads.iter().flat_map(|level| &level.requests).any(|request| request.error.is_some())
}

/// The newest unfinished run under `root` that is of the same thing: identity, what was read of the model's folder, device, kernels,
/// threads and group. Going on with another would mix two measurements in one. Of the newest such run the journals are read, and
/// something may be `wanted` of it though it calls itself complete; older ones are taken at their word.
pub fn find(root: &Path, record: &RunRecord, wanted: Option<Wanted>) -> Option<Found> {
    let (ours, identity) = (&record.provenance, &record.identity);
    let mut same = runs(root).filter(|found| {
        let there = &found.record.provenance;
        found.record.identity.differences(identity).is_empty()
            && there.group == ours.group
            && there.device == ours.device
            && there.kernel == ours.kernel
            && there.threads == ours.threads
            && there.cpu_model == ours.cpu_model
            && there.model_details == ours.model_details
            && there.engine == ours.engine
            && there.clock_profile == ours.clock_profile
    });
    let newest = same.next()?;
    let is_done = wanted.map_or_else(|| newest.says_finished(), |wanted| newest.has_nothing(wanted));
    if !is_done {
        return Some(newest);
    }
    same.find(|found| !found.says_finished())
}

/// A name that no other group has: when it begins, the suite, and something of this process.
pub fn group_id(now: SystemTime, suite: &str) -> String {
    let nanoseconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let own = sha256_hex(format!("{nanoseconds} {}", std::process::id()).as_bytes());
    format!("{}-{suite}-{}", compact_utc(now), &own[..6])
}

/// The newest group under `root` of the suite with this hash, these configurations and this many blocks, if there is something to do
/// for it: a run is unfinished, or a comparison missing. Configurations in blocks are timed in turns and always compared.
pub fn find_group(
    root: &Path,
    suite: &str,
    configurations: &[String],
    (blocks, wanted): (Option<u32>, Wanted),
) -> Option<Group> {
    let is_ours = |g: &Group| g.suite == suite && g.configurations == configurations && g.blocks == blocks;
    let group = runs(root).find_map(|found| found.record.provenance.group.filter(is_ours))?;
    let runs: Option<Vec<Found>> =
        configurations.iter().map(|name| finished(root, &group, name, wanted)).collect();
    let compared = |runs: Vec<Found>| {
        let comparisons = if blocks.is_some() { 1 } else { of_same_identity(&runs) };
        (0..comparisons).all(|index| is_compared(&comparison_folder(root, &group.id, index)))
    };
    (!runs.is_some_and(compared)).then_some(group)
}

/// How many identities two runs or more have.
fn of_same_identity(runs: &[Found]) -> usize {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for run in runs {
        *counts.entry(run.record.identity.hash()).or_default() += 1;
    }
    counts.values().filter(|&&count| count > 1).count()
}

/// Where a group's comparisons go, so that it is seen whether they were made.
pub fn comparison_folder(root: &Path, group: &str, index: usize) -> PathBuf {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = group.chars().map(plain).collect();
    root.join(if index == 0 { format!("{name}-compare") } else { format!("{name}-compare-{}", index + 1) })
}

/// The page is the last that is written of a comparison; the note stands where runs cannot be compared.
fn is_compared(folder: &Path) -> bool {
    folder.join("report.html").exists() || folder.join(NOT_COMPARED).exists()
}

/// Why a group's runs cannot be compared, in the comparison's folder.
pub const NOT_COMPARED: &str = "not-compared.txt";

/// The finished run of one configuration of a group, of which nothing is wanted any more.
pub fn finished(root: &Path, group: &Group, configuration: &str, wanted: Wanted) -> Option<Found> {
    let of_group = |g: &Group| g.id == group.id && g.configuration == configuration;
    runs(root).find(|found| {
        found.record.provenance.group.as_ref().is_some_and(of_group) && found.has_nothing(wanted)
    })
}

/// Run directories under a folder whose `run.json` cannot be read, with what is wrong: nothing can go on with them.
pub fn unreadable(root: &Path) -> Vec<(PathBuf, String)> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut found: Vec<(PathBuf, String)> = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .filter_map(|path| {
            let error = RunDir::open(&path).ok()?.read_run().err()?;
            Some((path, error.to_string()))
        })
        .collect();
    found.sort();
    found
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
