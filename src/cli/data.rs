//! Locating the data set of a recorded task.

use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::dataset::Benchmark;
use crate::record::AccuracyCase;

/// Returns the folder given for the task, or the default folder of its set.
///
/// # Errors
/// Fails if no folder was given and `datasets/` has none.
pub(super) fn dataset_folder(
    set: &[(&'static Benchmark, PathBuf)],
    only: Option<&PathBuf>,
    case: &AccuracyCase,
) -> anyhow::Result<PathBuf> {
    let benchmark = case.benchmark.as_str();
    let given = set.iter().find(|(task, _)| task.name == benchmark);
    if let Some(folder) = given.map(|(_, folder)| folder).or(only) {
        return Ok(folder.clone());
    }
    let name = case.dataset.rsplit_once(' ').map_or(case.dataset.as_str(), |(name, _)| name);
    let usual = [name, benchmark].map(|name| Path::new("datasets").join(name));
    if let Some(folder) = usual.iter().find(|folder| folder.is_dir()) {
        return Ok(folder.clone());
    }
    let mut places: Vec<String> = usual.iter().map(|folder| folder.display().to_string()).collect();
    places.dedup();
    bail!("found no data set in {}", places.join(" or "))
}
