//! The comparison at the end of a request with several configurations.

use crate::language::Language;
use std::path::{Path, PathBuf};

use crate::record::{RecordError, RunDir, write_whole};
use crate::report::compare::Options;
use crate::report::{ReportError, render_comparison};

use super::error::RunError;
use super::observer::Observer;
use super::resume::{NOT_COMPARED, comparison_folder};

/// Compares the runs of one request: those of equal identity with each other, the others shown beside them. If all identities
/// differ, every run is compared with the first: several models or types in one suite ask for that.
pub(super) fn compare_group(
    runs: &[PathBuf],
    language: Language,
    observer: &mut dyn Observer,
) -> Result<(), RunError> {
    let identity = |path: &PathBuf| Ok(RunDir::open(path)?.read_run()?.identity.hash().to_owned());
    let identities = runs.iter().map(identity).collect::<Result<Vec<String>, RecordError>>()?;
    let mut compared: Vec<&String> = Vec::new();
    for hash in &identities {
        if compared.contains(&hash) || identities.iter().filter(|other| *other == hash).count() < 2 {
            continue;
        }
        compared.push(hash);
        let (same, other): (Vec<_>, Vec<_>) = runs.iter().zip(&identities).partition(|(_, of)| *of == hash);
        let paths = |runs: Vec<(&PathBuf, &String)>| {
            runs.into_iter().map(|(path, _)| path.clone()).collect::<Vec<_>>()
        };
        let out = folder_of_group(runs, compared.len() - 1)?;
        let options = Options { beside: paths(other), out, language, ..Options::default() };
        compare_beside(&paths(same), &options, observer)?;
    }
    if compared.is_empty() && runs.len() > 1 { compare_all(runs, language, observer) } else { Ok(()) }
}

/// Returns the folder of comparison number `index` between the runs of a request. The name is derived from the runs, so
/// that a resumed request sees whether the comparison exists.
fn folder_of_group(runs: &[PathBuf], index: usize) -> Result<Option<PathBuf>, RecordError> {
    let Some(first) = runs.first() else { return Ok(None) };
    let root = first.parent().unwrap_or(Path::new(""));
    let group = RunDir::open(first)?.read_run()?.provenance.group;
    Ok(group.map(|group| comparison_folder(root, &group.id, index)))
}

/// Compares runs with the first of them, whatever their differences: configurations that were timed in turn, or several types.
pub(super) fn compare_all(
    runs: &[PathBuf],
    language: Language,
    observer: &mut dyn Observer,
) -> Result<(), RunError> {
    let out = folder_of_group(runs, 0)?;
    compare_beside(runs, &Options { allow_mismatch: true, out, language, ..Options::default() }, observer)
}

/// Compares runs and writes the result to a folder beside them.
fn compare_beside(runs: &[PathBuf], options: &Options, observer: &mut dyn Observer) -> Result<(), RunError> {
    match render_comparison(runs, options) {
        Ok(summary) => Ok(observer.compared(&summary)?),
        // The runs are complete without a comparison.
        Err(error @ ReportError::Compare(_)) => {
            observer.say(&format!("the runs are not compared: {error}"));
            if let Some(folder) = &options.out {
                std::fs::create_dir_all(folder)
                    .map_err(|cause| RunError::Folder { path: folder.clone(), cause })?;
                write_whole(&folder.join(NOT_COMPARED), format!("{error}\n").as_bytes())?;
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
