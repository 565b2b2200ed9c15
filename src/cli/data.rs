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
    set: &[(Benchmark, PathBuf)],
    only: Option<&PathBuf>,
    case: &AccuracyCase,
) -> anyhow::Result<PathBuf> {
    let benchmark = case.task.split('-').next().unwrap_or_default();
    let given = set.iter().find(|(task, _)| Some(*task) == Benchmark::from_name(benchmark));
    if let Some(folder) = given.map(|(_, folder)| folder).or(only) {
        return Ok(folder.clone());
    }
    let name = case.dataset.rsplit_once(' ').map_or(case.dataset.as_str(), |(name, _)| name);
    let usual = [name, benchmark].map(|name| Path::new("datasets").join(name));
    match usual.iter().find(|folder| folder.is_dir()) {
        Some(folder) => Ok(folder.clone()),
        None => bail!("found no data set in {} or {}", usual[0].display(), usual[1].display()),
    }
}
