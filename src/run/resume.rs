//! Search for a run, or a group of runs, to resume.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::dataset::sha256_hex;
use crate::record::{Contents, Group, Provenance, RunDir, RunRecord, Shards, Status, compact_utc};

/// An existing run.
#[derive(Debug, Clone)]
pub struct Found {
    /// Directory of the run.
    pub path: PathBuf,
    /// Record of the run.
    pub record: RunRecord,
}

/// The parts of a run that are to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Missing lines, and parts of its journals that contradict the plan.
    Missing,
    /// The same, and what failed.
    MissingOrFailed,
}

impl Found {
    /// Whether the record says complete and the report, which is written last, exists.
    fn says_finished(&self) -> bool {
        self.record.status == Status::Complete && self.path.join("report.html").exists()
    }

    /// Whether nothing is left to do: the run says that it is finished and its journals confirm that. Reads the
    /// journals.
    fn has_nothing(&self, wanted: Wanted) -> bool {
        let read = || RunDir::open(&self.path).and_then(|dir| Contents::read(&dir)).ok();
        let sound = |contents: &Contents| {
            contents.audit.is_sound() && !(wanted == Wanted::MissingOrFailed && contents.has_failures())
        };
        self.says_finished() && read().as_ref().is_some_and(sound)
    }
}

/// Finds the newest unfinished run under `root` with the same identity, model settings, group, device, kernels,
/// threads, CPU, engine version and clock profile. Resuming any other would mix two measurements.
///
/// Reads the newest matching run's journals, because work may be `wanted` although the run calls itself complete.
/// Trusts the status of older runs.
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
            && is_same_server(there, ours)
            && is_same_shard(&found.record, record)
    });
    let newest = same.next()?;
    let is_done = wanted.map_or_else(|| newest.says_finished(), |wanted| newest.has_nothing(wanted));
    if !is_done {
        return Some(newest);
    }
    same.find(|found| !found.says_finished())
}

/// Finds a finished run of the same shard by the same program, device and clock, on whatever machine it ran. `None` for a record that is
/// of no shard.
pub fn finished_shard(root: &Path, record: &RunRecord) -> Option<Found> {
    record.shards.as_ref()?;
    runs(root).find(|found| {
        found.record.identity.hash() == record.identity.hash()
            && is_same_shard(&found.record, record)
            && maker(&found.record.provenance) == maker(&record.provenance)
            && is_same_server(&found.record.provenance, &record.provenance)
            && found.has_nothing(Wanted::Missing)
    })
}

/// Whether two records are of the same shard of the same plan, or of no shard. A merged run is none of them: it is not
/// gone on with.
fn is_same_shard(there: &RunRecord, ours: &RunRecord) -> bool {
    match (&there.shards, &ours.shards) {
        (None, None) => true,
        (Some(there), Some(ours)) => {
            let index = |shards: &Shards| shards.single().map(|part| part.index);
            (there.count, &there.plan_hash) == (ours.count, &ours.plan_hash)
                && index(there).is_some()
                && index(there) == index(ours)
        }
        _ => false,
    }
}

/// Whether two records are of the same server, or of no server. A server does not tell its weights, so its address, name
/// and model stand for them.
fn is_same_server(there: &Provenance, ours: &Provenance) -> bool {
    let address = |of: &Provenance| of.device_details.get("url").cloned();
    let theirs = server(there);
    theirs.is_empty() || (theirs == server(ours) && address(there) == address(ours))
}

/// Returns the facts that tell a server from others, but for its address; none for a run without one.
fn server(of: &Provenance) -> Vec<String> {
    const FACTS: [&str; 5] = ["api", "route", "server", "server version", "served model"];
    if !of.device_details.contains_key("served model") {
        return Vec::new();
    }
    let facts = FACTS.iter().map(|fact| of.device_details.get(*fact).cloned().unwrap_or_default());
    std::iter::once(of.model.clone()).chain(facts).collect()
}

/// Returns what the shards of a run have in common beside identity and plan, whatever their machines: program, device,
/// clock, chip profile and server. The server's address is left out: each machine may have a server of its own.
pub(super) fn maker(of: &Provenance) -> Vec<String> {
    let mut facts = vec![of.engine.clone(), of.device.to_string(), of.clock.to_string()];
    facts.push(of.clock_profile.clone().unwrap_or_default());
    facts.extend(server(of));
    facts
}

/// Returns a unique group name: start time, suite, and a hash of time and process id.
pub fn group_id(now: SystemTime, suite: &str) -> String {
    let nanoseconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let own = sha256_hex(format!("{nanoseconds} {}", std::process::id()).as_bytes());
    format!("{}-{suite}-{}", compact_utc(now), &own[..6])
}

/// Finds the newest group under `root` of the suite with this hash, these configurations and this many blocks. Returns
/// it if work is left: a run is unfinished, or a comparison missing. Configurations in blocks are timed in turns and
/// always compared.
pub fn find_group(
    root: &Path,
    suite: &str,
    configurations: &[String],
    blocks: Option<u32>,
    wanted: Wanted,
) -> Option<Group> {
    let is_ours = |g: &Group| g.suite == suite && g.configurations == configurations && g.blocks == blocks;
    let group = runs(root).find_map(|found| found.record.provenance.group.filter(is_ours))?;
    let runs: Option<Vec<Found>> =
        configurations.iter().map(|name| finished(root, &group, name, wanted)).collect();
    let compared = |runs: Vec<Found>| {
        let comparisons = if blocks.is_some() { 1 } else { comparisons(&runs) };
        (0..comparisons).all(|index| is_compared(&comparison_folder(root, &group.id, index)))
    };
    (!runs.is_some_and(compared)).then_some(group)
}

/// Returns the number of comparisons of a group: one for each identity that several runs share, or one of all runs if no
/// identity is shared.
fn comparisons(runs: &[Found]) -> usize {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for run in runs {
        *counts.entry(run.record.identity.hash()).or_default() += 1;
    }
    let shared = counts.values().filter(|&&count| count > 1).count();
    if shared == 0 { usize::from(runs.len() > 1) } else { shared }
}

/// Returns the comparison folder of a group. A fixed place shows whether it was made.
pub fn comparison_folder(root: &Path, group: &str, index: usize) -> PathBuf {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = group.chars().map(plain).collect();
    root.join(if index == 0 { format!("{name}-compare") } else { format!("{name}-compare-{}", index + 1) })
}

/// Whether a comparison is finished. The report is written last; the note replaces it if the runs cannot be compared.
fn is_compared(folder: &Path) -> bool {
    folder.join("report.html").exists() || folder.join(NOT_COMPARED).exists()
}

/// File in the comparison's folder that says why a group's runs cannot be compared.
pub const NOT_COMPARED: &str = "not-compared.txt";

/// Finds the finished run of one configuration of a group, with nothing of `wanted` left.
pub fn finished(root: &Path, group: &Group, configuration: &str, wanted: Wanted) -> Option<Found> {
    let of_group = |g: &Group| g.id == group.id && g.configuration == configuration;
    runs(root).find(|found| {
        found.record.provenance.group.as_ref().is_some_and(of_group) && found.has_nothing(wanted)
    })
}

/// A run directory that cannot be resumed, because its `run.json` cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unreadable {
    /// The directory.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

/// Lists the run directories under a folder that cannot be resumed, by path.
pub fn unreadable(root: &Path) -> Vec<Unreadable> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut found: Vec<Unreadable> = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .filter_map(|path| {
            let error = RunDir::open(&path).ok()?.read_run().err()?;
            Some(Unreadable { path, why: error.to_string() })
        })
        .collect();
    found.sort();
    found
}

/// Returns the runs under a folder, newest first. Skips directories that are not runs, and runs rescored from another,
/// in which no model ran.
pub(super) fn runs(root: &Path) -> impl Iterator<Item = Found> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| p.is_dir()).collect();
    // Names start with the time.
    paths.sort();
    paths.into_iter().rev().filter_map(|path| {
        let record = RunDir::open(&path).ok()?.read_run().ok()?;
        record.provenance.scored_from.is_none().then_some(Found { path, record })
    })
}
