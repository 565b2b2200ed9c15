//! Merges the runs of shards into one run, as if one machine had run the whole plan.
//!
//! Lines are copied as they are. The journals therefore equal those of an unsharded run but for times, hosts and the
//! checksums of lines. Items are streamed, so that memory does not grow with their number. Nothing appears under the
//! result's name before it is whole.

mod gather;
mod items;
mod output;
mod provenance;
mod timed;

use super::dir::RunDir;
use super::error::RecordError;
use super::plan::Plan;
use super::run::{RunRecord, Status};
use super::shard::{ShardPart, Shards, numbers};
use super::writer::own_ending;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use self::gather::Source;
pub use self::gather::runs_in;
use self::output::Output;
use self::timed::Merging;

/// Shards cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A file cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The shards do not make one run. The sentence names the shard and says what to do.
    #[error("{0}")]
    Refused(String),
}

/// A merged run.
#[derive(Debug, Clone)]
pub struct Merged {
    /// Its directory.
    pub path: PathBuf,
    /// Its `run.json`.
    pub record: RunRecord,
    /// Number of its items.
    pub items: u64,
    /// Sentences about what differs between the shards, and about runs that were skipped.
    pub notes: Vec<String>,
}

/// Merges the runs of shards in `paths` to a new run directory `out`. A path is a run directory, or a folder of them.
///
/// With `partial`, shards may be missing or incomplete. The result then has what is there, and says so.
///
/// # Errors
/// [`MergeError::Refused`] if the runs are not of one plan and identity, if two runs of one shard differ, or if `out`
/// exists. Also if shards are missing, incomplete, or changed since they were sealed.
pub fn merge(
    out: &Path,
    paths: &[PathBuf],
    partial: bool,
    command_line: Vec<String>,
) -> Result<Merged, MergeError> {
    if out.exists() {
        return Err(MergeError::Refused(format!(
            "{} is there already; expected the name of a new run directory",
            out.display()
        )));
    }
    let mut notes = Vec::new();
    let sources = gather::gather(paths, partial, &mut notes)?;
    keep_out(out, paths, &sources)?;
    let folder = Temporary::create(out)?;
    let dir = RunDir::for_merging(folder.path());
    let (mut record, items) = put_together(&dir, &sources, partial)?;
    record.run_id = out.file_name().unwrap_or_default().to_string_lossy().into_owned();
    record.provenance.command_line = command_line;
    dir.write_run(&record)?;
    folder.rename(out)?;
    notes.extend(provenance::differences(&sources));
    Ok(Merged { path: out.to_owned(), record, items, notes })
}

/// Refuses a result inside the directory of a run that is merged.
fn keep_out(out: &Path, paths: &[PathBuf], sources: &[Source]) -> Result<(), MergeError> {
    // Folders above the result are made if they are missing.
    let here = |path: &Path| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() };
    let parent = out.ancestors().skip(1).find_map(|path| here(path).canonicalize().ok()).unwrap_or_default();
    let given = paths.iter().filter(|path| path.join("run.json").is_file());
    let runs = sources.iter().map(|source| &source.path).chain(given);
    match runs.into_iter().find(|run| run.canonicalize().is_ok_and(|run| parent.starts_with(run))) {
        Some(run) => Err(MergeError::Refused(format!(
            "{} is inside {}, which is to be merged; expected a place outside of it",
            out.display(),
            run.display()
        ))),
        None => Ok(()),
    }
}

/// Whether a plan is all of another one: the same timed cases, and as many items of each task.
fn is_all_of(plan: &Plan, whole: &Plan) -> bool {
    let items = |plan: &Plan| -> Vec<(String, u32, u64)> {
        let some = plan.accuracy.iter().filter(|case| case.items > 0);
        some.map(|case| (case.task.clone(), case.tp, case.items)).collect()
    };
    plan.timed_ids() == whole.timed_ids() && items(plan) == items(whole)
}

/// Writes the journals and returns the record.
fn put_together(dir: &RunDir, sources: &[Source], partial: bool) -> Result<(RunRecord, u64), MergeError> {
    let first = &sources[0];
    let whole = first.whole()?.clone();
    let mut plan = whole.clone();
    let mut seal = BTreeMap::new();
    let mut merging = Merging::new(sources, partial);
    merging.adopt_all(&mut plan)?;
    plan.operators = sources.iter().any(|source| source.record.plan.operators);
    let order = plan.tp_sizes();
    let read = items::merge(dir, &mut plan.accuracy, &order, sources, partial, &mut seal)?;
    merging.write_all(&plan, dir, &mut seal)?;
    let parts: Vec<ShardPart> = sources
        .iter()
        .map(|source| {
            let complete = source.is_complete() && !read.torn.contains(&source.index);
            ShardPart {
                index: source.index,
                items: BTreeMap::new(),
                cases: merging.cases_of(source),
                origin: Some(source.record.origin(complete)),
            }
        })
        .collect();
    let mut shards = Shards {
        count: first.shards().count,
        plan_hash: first.shards().plan_hash.clone(),
        whole: None,
        parts,
    };
    let is_whole = shards.is_whole();
    if is_whole && !is_all_of(&plan, &whole) {
        return Err(MergeError::Refused(
            "every shard is complete, and together they have not all of the plan; a run.json is damaged"
                .into(),
        ));
    }
    if !is_whole {
        shards.whole = Some(whole);
    }
    let record = RunRecord {
        run_id: String::new(),
        status: if is_whole { Status::Complete } else { Status::Interrupted },
        identity: first.record.identity.clone(),
        provenance: provenance::merged(sources),
        plan,
        choice_tokens: first.record.choice_tokens.clone(),
        first_prompt: first.record.first_prompt.clone(),
        seal: is_whole.then_some(seal),
        shards: Some(Box::new(shards)),
    };
    Ok((record, read.items))
}

/// A folder beside the result, which takes the result's name at the end. Until then, dropping it removes it.
struct Temporary(Option<PathBuf>);

impl Temporary {
    fn create(out: &Path) -> Result<Self, RecordError> {
        let mut name = std::ffi::OsString::from(".");
        name.push(out.file_name().unwrap_or_default());
        name.push(format!(".merging-{}", own_ending()));
        let path = out.with_file_name(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(RecordError::io("create", parent))?;
        }
        fs::create_dir(&path).map_err(RecordError::io("create", &path))?;
        Ok(Self(Some(path)))
    }

    fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    fn rename(mut self, out: &Path) -> Result<(), RecordError> {
        fs::rename(self.path(), out).map_err(RecordError::io("create", out))?;
        self.0 = None;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // What is left of a refused merge is named as such, and is in nobody's way.
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// Refuses with what to do about shards that are not whole.
fn lacking(list: &[u32], count: u32, how: &str) -> MergeError {
    let verb = if list.len() == 1 { "is" } else { "are" };
    MergeError::Refused(format!(
        "{} of {count} {verb} {how}; run what lacks with --shard K/{count} --resume, or merge what is there with --partial",
        numbers(list)
    ))
}
