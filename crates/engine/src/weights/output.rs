//! Atomic creation of an output folder, which never replaces anything.
//!
//! The folder is built under a hidden name beside its target, and renamed once all its files are on disk. A killed
//! process leaves the hidden folder behind; the next one for the same target removes it.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A folder under its hidden name, removed unless published.
#[derive(Debug)]
pub(crate) struct Staging {
    path: PathBuf,
    out: PathBuf,
    /// Lock that keeps other processes from treating the folder as abandoned; `None` if folders cannot be locked.
    _lock: Option<File>,
}

impl Staging {
    /// Starts the folder `out`, which must be absent or empty. Creates its parent folders.
    ///
    /// # Errors
    /// [`io::ErrorKind::DirectoryNotEmpty`] if something exists at `out`, or an I/O error.
    pub(crate) fn new(out: &Path) -> io::Result<Self> {
        if !is_free(out)? {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        // A link to an empty folder stands for that folder.
        let out = fs::canonicalize(out).unwrap_or_else(|_| out.to_path_buf());
        let Some(name) = out.file_name() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "expected the name of a new folder"));
        };
        let parent = parent_of(&out);
        fs::create_dir_all(parent)?;
        let hidden = format!(".{}.part-", name.to_string_lossy());
        sweep(parent, &hidden)?;
        let path = parent.join(format!("{hidden}{}", std::process::id()));
        fs::create_dir(&path)?;
        let lock = File::open(&path).ok().filter(|dir| dir.try_lock().is_ok());
        Ok(Self { path, out, _lock: lock })
    }

    /// Writes a file of the folder with `fill` and syncs it to disk.
    pub(crate) fn write<E: From<io::Error>>(
        &self,
        name: &str,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut out = BufWriter::new(File::create_new(self.path.join(name))?);
        fill(&mut out)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(file.sync_all()?)
    }

    /// Creates a file of the folder, to be written out of order. The caller syncs it to disk.
    pub(crate) fn create(&self, name: &str) -> io::Result<File> {
        File::create_new(self.path.join(name))
    }

    /// Renames the folder to its target.
    ///
    /// # Errors
    /// Something exists at the target by now (it is kept), or an I/O error.
    pub(crate) fn publish(self) -> io::Result<()> {
        sync_folder(&self.path);
        // The rename may replace an empty folder; the system refuses any other.
        fs::rename(&self.path, &self.out)?;
        sync_folder(parent_of(&self.out));
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After publishing, nothing is left at the hidden path, so a failure is harmless.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn parent_of(out: &Path) -> &Path {
    out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether `out` is absent or an empty folder.
fn is_free(out: &Path) -> io::Result<bool> {
    match fs::read_dir(out) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A dangling link counts as existing.
            Ok(fs::symlink_metadata(out).is_err())
        }
        Err(error) => Err(error),
    }
}

/// Removes the hidden folders and files of ended processes: those that no process holds.
pub(super) fn sweep(parent: &Path, hidden: &str) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(hidden));
        let is_ours = number.is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()));
        let kind = entry.file_type()?;
        if is_ours && (kind.is_dir() || kind.is_file()) && !is_held(&entry.path()) {
            let remove: fn(_) -> _ = if kind.is_dir() { fs::remove_dir_all } else { fs::remove_file };
            remove(entry.path())?;
        }
    }
    Ok(())
}

/// Whether a process holds the folder or file. One that cannot be opened or locked counts as held.
fn is_held(dir: &Path) -> bool {
    File::open(dir).map_or(true, |dir| dir.try_lock().is_err())
}

/// Syncs a folder's entries to disk, if the system supports it.
pub(super) fn sync_folder(dir: &Path) {
    if let Ok(dir) = File::open(dir) {
        // On systems that cannot sync a folder, the rename is as safe as they make it.
        let _ = dir.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that cannot be looked at may be another process's: it stays.
    #[test]
    fn what_cannot_be_opened_counts_as_held() {
        let parent = tempfile::tempdir().unwrap();
        assert!(is_held(&parent.path().join("absent")));
        assert!(!is_held(parent.path()));
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn fill(staging: &Staging, name: &str, bytes: &[u8]) -> io::Result<()> {
        staging.write(name, |out| out.write_all(bytes))
    }

    #[test]
    fn a_folder_is_there_with_all_its_files_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("deep/out");
        for is_there in [false, true] {
            if is_there {
                fs::create_dir(&out).unwrap();
            }
            let staging = Staging::new(&out).unwrap();
            fill(&staging, "a", b"abc").unwrap();
            assert_eq!(names(out.parent().unwrap()).len(), 1 + usize::from(is_there));
            staging.publish().unwrap();
            assert_eq!((names(&out), names(out.parent().unwrap())), (vec!["a".into()], vec!["out".into()]));
            fs::remove_dir_all(&out).unwrap();
        }
        let staging = Staging::new(&out).unwrap();
        fill(&staging, "a", b"abc").unwrap();
        drop(staging);
        assert_eq!(names(out.parent().unwrap()), [""; 0]);
    }

    #[test]
    fn what_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        fs::write(out.join("kept"), b"kept").unwrap();
        assert_eq!(Staging::new(&out).unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);
        assert_eq!(names(dir.path()), ["out"]);
        // Two at once: the first to finish wins.
        let other = dir.path().join("other");
        let slow = Staging::new(&other).unwrap();
        fill(&slow, "a", b"slow").unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("a"), b"quick").unwrap();
        assert!(slow.publish().is_err());
        assert_eq!(fs::read(other.join("a")).unwrap(), b"quick");
        assert_eq!(names(dir.path()), ["other", "out"]);
        let file = dir.path().join("file");
        fs::write(&file, b"kept").unwrap();
        assert!(Staging::new(&file).is_err());
        assert!(Staging::new(Path::new("/")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_an_empty_folder_stands_for_it_and_one_to_nothing_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (link, folder) = (dir.path().join("link"), dir.path().join("folder"));
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        let staging = Staging::new(&link).unwrap();
        fill(&staging, "a", b"abc").unwrap();
        staging.publish().unwrap();
        assert_eq!((names(&folder), names(&link)), (vec!["a".to_owned()], vec!["a".to_owned()]));
        let nowhere = dir.path().join("nowhere");
        std::os::unix::fs::symlink(dir.path().join("none"), &nowhere).unwrap();
        assert!(Staging::new(&nowhere).is_err());
    }

    #[test]
    fn what_a_dead_process_left_is_swept_away_and_what_a_living_one_holds_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        for left in [".out.part-1", ".out.part-22", ".out.part-x", ".other.part-3"] {
            fs::create_dir(dir.path().join(left)).unwrap();
            fs::write(dir.path().join(left).join("a"), b"a").unwrap();
        }
        let held = File::open(dir.path().join(".out.part-22")).unwrap();
        held.try_lock().unwrap();
        Staging::new(&out).unwrap().publish().unwrap();
        assert_eq!(names(dir.path()), [".other.part-3", ".out.part-22", ".out.part-x", "out"]);
    }

    #[test]
    fn a_failure_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::new(&dir.path().join("out")).unwrap();
        let half = |out: &mut dyn Write| {
            out.write_all(&vec![0; 100_000])?;
            Err(io::Error::other("the disk is full"))
        };
        assert!(staging.write("a", half).is_err());
        drop(staging);
        assert_eq!(names(dir.path()), [""; 0]);
    }
}
