//! Creates the directory of a run, or opens the one to resume.

use std::path::Path;

use crate::record::{Mending, RecordError, RunDir, RunRecord, WRITER};

use super::error::RunError;
use super::plan::Plan;
use super::resume::Found;

/// A run to resume.
pub struct Resume<'a> {
    /// The run.
    pub found: &'a Found,
    /// The plan of the run.
    pub plan: &'a Plan<'a>,
    /// Whether to repeat what failed.
    pub retry_failed: bool,
    /// Receives one sentence per repair of the journals.
    pub told: &'a mut Vec<String>,
}

/// Creates the run's directory with its first `run.json`, or opens the one to resume, repairs its journals and counts
/// it as resumed. In both cases the directory is locked, so that a second process is rejected before it writes
/// anything.
pub fn open_dir(
    root: &Path,
    resume: Option<Resume<'_>>,
    mut record: RunRecord,
) -> Result<(RunDir, RunRecord), RunError> {
    let mut dir = if let Some(Resume { found, plan, retry_failed, told }) = resume {
        record.run_id.clone_from(&found.record.run_id);
        record.provenance.started.clone_from(&found.record.provenance.started);
        record.provenance.work.clone_from(&found.record.provenance.work);
        record.provenance.resumed = found.record.provenance.resumed + 1;
        let mut dir = RunDir::open(&found.path)?;
        let stale = claim(&mut dir, &record)?;
        dir.lock()?;
        let items = plan.items();
        let mending = Mending { found: &found.record, plan: &record.plan, items: &items, retry_failed };
        *told = dir.mend(&mending)?;
        told.splice(0..0, stale);
        dir
    } else {
        let mut dir = RunDir::create(root, &record.run_id)?;
        claim(&mut dir, &record)?;
        // The name may differ, because a run of that name may exist.
        record.run_id = dir.name();
        dir
    };
    dir.hold()?;
    dir.write_run(&record)?;
    Ok((dir, record))
}

/// Claims the directory of a shard, which several machines may see. Other runs keep their directory by a lock. Returns a
/// sentence about a stale writer before.
fn claim(dir: &mut RunDir, record: &RunRecord) -> Result<Option<String>, RecordError> {
    if record.shards.is_none() {
        return Ok(None);
    }
    dir.claim(&record.provenance.host)?
        .map_err(|found| RecordError::Busy { file: dir.file(WRITER), writer: found.words() })
}
