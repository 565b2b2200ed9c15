//! Files that appear whole or not at all, and never in another's place.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use super::torch_zip::open_regular;

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was written.
    Written,
    /// It was there already, with the same bytes.
    Same,
    /// It was there already with other bytes, and was left as it is.
    Differs,
}

/// Fills the file `path` by `fill`; if it exists already, only compares it with what `fill` would write.
///
/// The bytes go to a hidden file beside it, which takes its name when they are all on the disk. Whoever
/// calls this makes sure that no other program writes to the folder.
pub(super) fn put<E: From<io::Error>>(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<Outcome, E> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => compare(path, fill),
        Err(error) if error.kind() == io::ErrorKind::NotFound => write(path, fill),
        Err(error) => Err(error.into()),
    }
}

fn write<E: From<io::Error>>(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<Outcome, E> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.part"));
    let result = write_part(&part, fill).and_then(|()| Ok(std::fs::rename(&part, path)?));
    if result.is_err() {
        // The first error is the one to report.
        drop(std::fs::remove_file(&part));
    }
    result.map(|()| Outcome::Written)
}

fn write_part<E: From<io::Error>>(
    part: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    let mut out = BufWriter::new(File::create(part)?);
    fill(&mut out)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(file.sync_all()?)
}

fn compare<E: From<io::Error>>(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<Outcome, E> {
    let mut comparer = Comparer { file: BufReader::new(open_regular(path)?), differs: false };
    let filled = fill(&mut comparer);
    if comparer.differs {
        return Ok(Outcome::Differs);
    }
    filled?;
    let is_at_end = comparer.file.read(&mut [0])? == 0;
    Ok(if is_at_end { Outcome::Same } else { Outcome::Differs })
}

/// A writer that fails at the first byte which the file has not.
struct Comparer {
    file: BufReader<File>,
    differs: bool,
}

impl Write for Comparer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut found = vec![0; bytes.len()];
        match self.file.read_exact(&mut found) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
            Ok(()) if found == bytes => return Ok(bytes.len()),
            _ => {}
        }
        self.differs = true;
        Err(io::Error::other("the file differs"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_bytes(path: &Path, bytes: &[u8]) -> io::Result<Outcome> {
        put(path, |out| out.write_all(bytes))
    }

    #[test]
    fn a_file_that_is_there_is_compared_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        assert_eq!(put_bytes(&path, b"abc").unwrap(), Outcome::Written);
        assert_eq!(put_bytes(&path, b"abc").unwrap(), Outcome::Same);
        for other in [&b"abd"[..], b"ab", b"abcd", b""] {
            assert_eq!(put_bytes(&path, other).unwrap(), Outcome::Differs);
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
    }

    #[test]
    fn a_failure_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let half = |out: &mut dyn Write| {
            out.write_all(&vec![0; 100_000])?;
            Err(io::Error::other("the disk is full"))
        };
        assert!(put(&path, half).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
