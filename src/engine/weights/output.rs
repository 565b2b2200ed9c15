//! A folder that appears whole or not at all, and never in another's place.
//!
//! It is made under a hidden name beside its own, and takes its own by one rename when all its files are on the disk. A process
//! that is killed leaves the hidden folder; the next one for the same name sweeps it away.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A folder under its hidden name, removed unless it is published.
#[derive(Debug)]
pub(super) struct Staging {
    path: PathBuf,
    out: PathBuf,
    /// Held so that no one else takes the folder for a dead process's; `None` where a folder cannot be locked.
    _lock: Option<File>,
}

impl Staging {
    /// Begins the folder `out`, which must be absent or empty. Folders above it are made.
    ///
    /// # Errors
    /// [`io::ErrorKind::DirectoryNotEmpty`] where something is there already; what the system says.
    pub(super) fn new(out: &Path) -> io::Result<Self> {
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

    /// Fills a file of the folder by `fill`, onto the disk.
    pub(super) fn write<E: From<io::Error>>(
        &self,
        name: &str,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut out = BufWriter::new(File::create_new(self.path.join(name))?);
        fill(&mut out)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(file.sync_all()?)
    }

    /// Gives the folder its own name.
    ///
    /// # Errors
    /// What is there by now, which stays; what the system says.
    pub(super) fn publish(self) -> io::Result<()> {
        sync_folder(&self.path);
        // Onto an empty folder, too; onto any other the system refuses.
        fs::rename(&self.path, &self.out)?;
        sync_folder(parent_of(&self.out));
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After it is published there is nothing at the hidden path any more, which is as good.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn parent_of(out: &Path) -> &Path {
    out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether nothing is there, or an empty folder.
fn is_free(out: &Path) -> io::Result<bool> {
    match fs::read_dir(out) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A link that leads nowhere is something, too.
            Ok(fs::symlink_metadata(out).is_err())
        }
        Err(error) => Err(error),
    }
}

/// Removes what processes that are gone left: hidden folders that no one holds.
fn sweep(parent: &Path, hidden: &str) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(hidden));
        let is_ours = number.is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()));
        if is_ours && entry.file_type()?.is_dir() && !is_held(&entry.path()) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Whether a process has the folder; where that cannot be told it is left alone.
fn is_held(dir: &Path) -> bool {
    File::open(dir).is_ok_and(|dir| dir.try_lock().is_err())
}

/// Puts a folder's names onto the disk, where the system can.
fn sync_folder(dir: &Path) {
    if let Ok(dir) = File::open(dir) {
        // Some systems cannot sync a folder; then the rename is as safe as they make it.
        let _ = dir.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        // Two at once: the first to be done is it.
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
