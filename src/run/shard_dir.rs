//! The run directory of a shard on a shared file system, which another machine may still be writing.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::record::{BEAT, FoundWriter, RecordError, STALE, WRITER};

use super::error::RunError;
use super::observer::Observer;

/// Time between two looks at another machine's beats.
const LOOK: Duration = Duration::from_secs(1);

/// Waits until the writer of an unfinished run is gone. A process on another machine counts as gone when its beats
/// stop. A requeued task may start elsewhere before that.
///
/// # Errors
/// [`RecordError::Busy`] if the writer is alive. A new run of the same shard does not wait.
pub(super) fn await_writer(dir: &Path, resumes: bool, observer: &mut dyn Observer) -> Result<(), RunError> {
    let Some(first) = FoundWriter::read(dir)?.filter(|found| !found.stale) else { return Ok(()) };
    let busy = |found: &FoundWriter| RecordError::Busy { file: dir.join(WRITER), writer: found.words() };
    if first.seen || !resumes {
        return Err(busy(&first).into());
    }
    let begun = Instant::now();
    observer.say(&format!(
        "{} is of {}; waiting up to {} s for whether it is gone",
        dir.display(),
        first.words(),
        (STALE + BEAT).as_secs()
    ));
    let beat =
        |found: &FoundWriter| found.writer.as_ref().map(|writer| (writer.started.clone(), writer.beat));
    while begun.elapsed() < STALE + BEAT {
        std::thread::sleep(LOOK);
        match FoundWriter::read(dir)? {
            Some(found) if beat(&found) != beat(&first) => return Err(busy(&found).into()),
            Some(found) if !found.stale => {}
            _ => return Ok(()),
        }
    }
    Ok(())
}
