//! The weight map: a checkpoint file as a memory slice. The only unsafe code in this module tree.

#![allow(unsafe_code, reason = "a mapped file is a slice, and its pages take advice")]

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::WeightError;

/// A file mapped read-only.
///
/// The file must not change while it is mapped: if another program truncates it, the system ends this process with
/// SIGBUS. Replacing it by rename is safe, because the map keeps the old file.
#[derive(Debug)]
pub(super) struct WeightMap {
    path: PathBuf,
    map: Mmap,
}

impl WeightMap {
    pub(super) fn open(path: &Path) -> Result<Self, WeightError> {
        let failed = |source| WeightError::Read { path: path.to_path_buf(), source };
        // Checked before opening, because opening a named pipe would block.
        if !std::fs::metadata(path).map_err(failed)?.is_file() {
            return Err(failed(std::io::Error::other("not a regular file")));
        }
        let file = File::open(path).map_err(failed)?;
        // SAFETY: the map is read-only and private to this struct. Its bytes are only ever read as `u8`, for which
        // every pattern is valid. By the documented contract, nobody writes to a checkpoint in use.
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        Ok(Self { path: path.to_path_buf(), map })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Drops the pages of `range` from this process. They are read from the file again when touched.
    pub(super) fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if range.start < range.end && range.end <= self.map.len() {
            // SAFETY: the mapping is of a file and never written to. A dropped page is therefore read from the file
            // again, with the same bytes. Slices borrowed from the map stay valid and unchanged.
            let advised = unsafe {
                self.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    range.start,
                    range.end - range.start,
                )
            };
            // This is advice only: if it is refused, the pages stay until the system reclaims them.
            drop(advised);
        }
        #[cfg(not(unix))]
        drop(range);
    }
}
