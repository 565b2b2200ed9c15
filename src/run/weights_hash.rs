//! The weight hash of a model, kept beside the weights.
//!
//! Every shard of a plan needs the hash for its identity, and hashing 12 GB takes minutes on a shared disk. The kept hash
//! counts only while every weight file has the size, the inode and both times that it had then. The time of the last write can be
//! set back by tools. The time of the last change of the inode cannot.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::bounded;
use crate::record::{own_ending, write_whole};

/// Name of the file in the model folder.
pub(super) const KEPT: &str = ".glmbench-weights.json";
/// Bytes of weights below which nothing is kept: they are hashed in a moment.
const LEAST_BYTES: u64 = 1 << 28;
/// Largest file that is read.
const MAX_BYTES: u64 = 1 << 20;
/// Age from which a file's time tells whether it was changed. File systems round times, some to two seconds.
const SETTLED: Duration = Duration::from_secs(5);
/// The way of hashing. Another number makes older files worthless.
const SCHEMA: u32 = 2;

/// The file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    schema: u32,
    files: Vec<State>,
    sha256: String,
}

/// A weight file at the time of hashing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct State {
    name: String,
    bytes: u64,
    modified_ns: u64,
    changed_ns: u64,
    inode: u64,
}

/// The weight files of a folder.
pub(super) struct Files {
    folder: PathBuf,
    states: Vec<State>,
    /// The last of their times, since 1970.
    newest: Duration,
}

impl Files {
    /// Reads the state of the weight files in a folder; `None` where that does not tell whether weights change.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        let (mut states, mut newest) = (Vec::new(), Duration::ZERO);
        for entry in fs::read_dir(folder).ok()? {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            if !(name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json")) {
                continue;
            }
            // Follows links, as the reader of weights does.
            let metadata = fs::metadata(entry.path()).ok()?;
            let modified = metadata.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            let (inode, changed) = inode(&metadata)?;
            newest = newest.max(modified).max(changed);
            let [modified_ns, changed_ns] = [modified, changed].map(|since| since.as_nanos() as u64);
            states.push(State { name, bytes: metadata.len(), modified_ns, changed_ns, inode });
        }
        states.sort();
        Some(Self { folder: folder.to_owned(), states, newest })
    }

    fn is_large(&self, least: u64) -> bool {
        self.states.iter().map(|state| state.bytes).sum::<u64>() >= least
    }

    fn path(&self) -> PathBuf {
        self.folder.join(KEPT)
    }

    /// Returns the kept hash of these very files.
    pub(super) fn kept(&self) -> Option<String> {
        let bytes = bounded::file(&self.path(), MAX_BYTES).ok()?;
        let kept: Kept = serde_json::from_slice(&bytes).ok()?;
        let is_hash = kept.sha256.len() == 64 && kept.sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        (kept.schema == SCHEMA && is_hash && kept.files == self.states).then_some(kept.sha256)
    }

    /// Keeps a hash that was computed since these states were read. Does nothing for small weights, for files that changed
    /// meanwhile or a moment before, and in a folder that cannot be written.
    pub(super) fn keep(&self, sha256: &str) {
        self.keep_from(sha256, LEAST_BYTES, SETTLED);
    }

    fn keep_from(&self, sha256: &str, least: u64, settled: Duration) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let settled = now.checked_sub(self.newest).is_some_and(|age| age >= settled);
        let unchanged = || Self::read(&self.folder).is_some_and(|now| now.states == self.states);
        if !settled || !self.is_large(least) || !unchanged() {
            return;
        }
        let kept = Kept { schema: SCHEMA, files: self.states.clone(), sha256: sha256.to_owned() };
        let Ok(bytes) = serde_json::to_vec_pretty(&kept) else { return };
        // Several shards may write at once, so each has a temporary file of its own.
        let own = self.folder.join(format!("{KEPT}-{}", own_ending()));
        if write_whole(&own, &bytes).is_ok() && fs::rename(&own, self.path()).is_err() {
            let _ = fs::remove_file(&own);
        }
    }
}

/// Returns the inode and the time of its last change, since 1970.
#[cfg(unix)]
fn inode(metadata: &fs::Metadata) -> Option<(u64, Duration)> {
    use std::os::unix::fs::MetadataExt as _;
    let [seconds, nanos] = [metadata.ctime(), metadata.ctime_nsec()];
    Some((metadata.ino(), Duration::new(seconds.try_into().ok()?, nanos.try_into().ok()?)))
}

/// Without inodes, a replaced file of the same size and time would not be noticed.
#[cfg(not(unix))]
fn inode(_: &fs::Metadata) -> Option<(u64, Duration)> {
    None
}

#[cfg(all(test, unix))]
#[expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
mod tests {
    use super::*;

    const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn old(path: &Path, bytes: &[u8]) {
        fs::write(path, bytes).unwrap();
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_hours(1)).unwrap();
    }

    #[test]
    fn a_hash_counts_while_the_files_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let weights = dir.path().join("model.safetensors");
        old(&weights, b"weights");
        let files = || Files::read(dir.path()).unwrap();
        assert_eq!(files().kept(), None);
        files().keep(HASH);
        assert_eq!(files().kept(), None, "small weights were kept");
        files().keep_from(HASH, 1, Duration::ZERO);
        assert_eq!(files().kept().as_deref(), Some(HASH));
        // Another file of the same name, size and time is another inode.
        let modified = fs::metadata(&weights).unwrap().modified().unwrap();
        let other = dir.path().join("other");
        fs::write(&other, b"WEIGHTS").unwrap();
        fs::File::options().write(true).open(&other).unwrap().set_modified(modified).unwrap();
        fs::rename(&other, &weights).unwrap();
        assert_eq!(files().kept(), None);
        files().keep_from(HASH, 1, Duration::ZERO);
        // Changed in place.
        old(&weights, b"Weights");
        assert_eq!(files().kept(), None);
        files().keep_from(HASH, 1, Duration::ZERO);
        assert_eq!(files().kept().as_deref(), Some(HASH));
        // Changed in place, and the time of the write set back.
        let modified = fs::metadata(&weights).unwrap().modified().unwrap();
        fs::write(&weights, b"weightS").unwrap();
        fs::File::options().write(true).open(&weights).unwrap().set_modified(modified).unwrap();
        assert_eq!(files().kept(), None);
        files().keep_from(HASH, 1, Duration::ZERO);
        // One more file.
        old(&dir.path().join("model-00002-of-00002.safetensors"), b"x");
        assert_eq!(files().kept(), None);
    }

    #[test]
    fn young_changed_and_broken_files_are_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let weights = dir.path().join("model.safetensors");
        // Its time of writing is old, but the inode changed just now.
        old(&weights, b"weights");
        Files::read(dir.path()).unwrap().keep_from(HASH, 1, SETTLED);
        assert!(!dir.path().join(KEPT).exists(), "a file of this second was trusted");
        let before = Files::read(dir.path()).unwrap();
        old(&weights, b"weightz!");
        before.keep_from(HASH, 1, Duration::ZERO);
        assert!(!dir.path().join(KEPT).exists(), "a file that changed while it was hashed was trusted");
        let files = Files::read(dir.path()).unwrap();
        files.keep_from(HASH, 1, Duration::ZERO);
        let good = fs::read_to_string(dir.path().join(KEPT)).unwrap();
        for bad in [
            good.replace("\"schema\": 2", "\"schema\": 3"),
            good.replace(HASH, "../x"),
            good[..40].to_owned(),
        ] {
            fs::write(dir.path().join(KEPT), bad).unwrap();
            assert_eq!(files.kept(), None);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "temporary files are left");
    }
}
