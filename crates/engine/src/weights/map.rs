//! The weight map: a checkpoint file as a memory slice. The only unsafe code in this module tree.

#![allow(unsafe_code, reason = "a mapped file is a slice, and its pages take advice")]

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::WeightError;

/// Runs of pages that one thread populates begin at multiples of this.
#[cfg(target_os = "linux")]
const POPULATED: usize = 2 << 20;

/// A file mapped read-only.
///
/// The file must not change while it is mapped: if another program truncates it, the system ends this process with
/// SIGBUS. Replacing it by rename is safe, because the map keeps the old file.
#[derive(Debug)]
pub(crate) struct WeightMap {
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

    /// Asks the system to map all pages now, in runs on all cores, instead of one by one when they are first read.
    pub(crate) fn populate(&self) {
        #[cfg(target_os = "linux")]
        {
            let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
            let run = self.map.len().div_ceil(threads).max(1).next_multiple_of(POPULATED);
            std::thread::scope(|scope| {
                for start in (0..self.map.len()).step_by(run) {
                    let length = run.min(self.map.len() - start);
                    // Advice only: older kernels refuse it, and pages are then mapped when they are read.
                    scope.spawn(move || {
                        drop(self.map.advise_range(memmap2::Advice::PopulateRead, start, length));
                    });
                }
            });
        }
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

impl AsRef<[u8]> for WeightMap {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}
