//! The runs of a folder: each read from its `history.json`, from the cache, or from its records.

use super::super::ReportError;
use super::super::reading::Reading;
use super::cache::{self, Known, What};
use super::figures::{FILE, RunFigures};
use crate::record::{JOURNALS, RecordError, RunDir, read_whole};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most bytes of a `history.json`.
const MAX_BYTES: u64 = 64 << 20;
/// Most bytes of a `run.json`, as for every other reader.
pub(super) const MAX_RUN_BYTES: u64 = 256 << 20;

/// How many runs were read, and from where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reads {
    /// Unchanged since the cache was written.
    pub cached: usize,
    /// From their `history.json`.
    pub figures: usize,
    /// From their records, because there was no `history.json` of them.
    pub records: usize,
    /// Not readable.
    pub broken: usize,
}

/// Where a run was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Figures,
    Records,
    Nowhere,
}

/// A folder of a run.
enum Entry {
    /// Unchanged: the cache has it under this name.
    Cached(String),
    Anew(Known, From),
}

/// Reads the runs of a folder, in the order of their names. `known` are those of a cache, which gives them up.
///
/// # Errors
/// The folder cannot be read. A run that cannot be read is no error: it says so in the result.
pub(super) fn read(
    root: &Path,
    mut known: HashMap<String, Known>,
) -> Result<(Vec<Known>, Reads), ReportError> {
    let entries = std::fs::read_dir(root).map_err(RecordError::io("read the folder of runs", root))?;
    let mut names: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    let found = spread(&names, |name| one(root, name, &known));
    let mut reads = Reads::default();
    let mut runs = Vec::new();
    for entry in found.into_iter().flatten() {
        let (run, count) = match entry {
            Entry::Cached(folder) => (known.remove(&folder), &mut reads.cached),
            Entry::Anew(run, From::Figures) => (Some(run), &mut reads.figures),
            Entry::Anew(run, From::Records) => (Some(run), &mut reads.records),
            Entry::Anew(run, From::Nowhere) => (Some(run), &mut reads.broken),
        };
        *count += 1;
        runs.extend(run);
    }
    Ok((runs, reads))
}

/// Reads a folder. `None` if it is no run's.
fn one(root: &Path, name: &OsString, known: &HashMap<String, Known>) -> Option<Entry> {
    let path = root.join(name);
    if !looks_like_a_run(&path) {
        return None;
    }
    let folder = name.to_string_lossy().into_owned();
    let stamp = cache::stamp(&path);
    if known.get(&folder).is_some_and(|known| known.stamp == stamp) {
        return Some(Entry::Cached(folder));
    }
    let (what, from) = match figures(&path) {
        Ok((figures, from)) => (What::Run(Box::new(figures)), from),
        Err(error) => (What::Broken(error.to_string()), From::Nowhere),
    };
    Some(Entry::Anew(Known { folder, stamp, what }, from))
}

/// Whether a folder has a `run.json`, or journals without one.
fn looks_like_a_run(path: &Path) -> bool {
    let has = |name: &str| path.join(name).symlink_metadata().is_ok();
    has("run.json") || (path.is_dir() && JOURNALS.iter().any(|name| has(name)))
}

/// Reads a run's figures: its `history.json` if that is of these records, else the records.
fn figures(path: &Path) -> Result<(RunFigures, From), ReportError> {
    let run_json = read_whole(&path.join("run.json"), MAX_RUN_BYTES)?;
    let kept = read_whole(&path.join(FILE), MAX_BYTES).ok();
    let kept = kept.and_then(|bytes| serde_json::from_slice::<RunFigures>(&bytes).ok());
    match kept.filter(|kept| kept.is_of(path, &run_json)) {
        Some(kept) => Ok((kept, From::Figures)),
        None => Ok((of_records(path, &run_json)?, From::Records)),
    }
}

/// Reads and judges all records of a run, as its report does.
pub(super) fn of_records(path: &Path, run_json: &[u8]) -> Result<RunFigures, ReportError> {
    let dir = RunDir::open(path)?;
    let Reading { summary, samples, workloads, .. } = Reading::of(&dir)?;
    let timed = workloads.history(&summary.run);
    Ok(RunFigures::of(&dir, run_json, &summary, &samples, timed))
}

/// Applies a function to all items on all processors. Results are in the order of the items.
pub(super) fn spread<T: Sync, R: Send>(items: &[T], of: impl Fn(&T) -> R + Sync) -> Vec<R> {
    /// Items that a thread takes at once.
    const CHUNK: usize = 32;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        let mut own = Vec::new();
        loop {
            let first = next.fetch_add(CHUNK, Ordering::Relaxed);
            let Some(chunk) = items.get(first..).filter(|rest| !rest.is_empty()) else { break };
            own.push((first, chunk.iter().take(CHUNK).map(&of).collect::<Vec<R>>()));
        }
        done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(own);
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(items.len().div_ceil(CHUNK)) {
            // Without another thread, this one does it all.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(first, _)| *first);
    done.into_iter().flat_map(|(_, results)| results).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_on_all_processors_keeps_its_order() {
        for count in [0_usize, 1, 31, 32, 33, 1000] {
            let items: Vec<usize> = (0..count).collect();
            assert_eq!(spread(&items, |x| x * x), items.iter().map(|x| x * x).collect::<Vec<_>>());
        }
    }
}
