//! A journal of the result: lines are appended as they are, and its seal is computed meanwhile.

use super::super::RecordError;
use super::super::identity::hex;
use super::super::run::JournalSeal;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// A journal that is being written.
pub(super) struct Output {
    path: PathBuf,
    file: BufWriter<File>,
    digest: Sha256,
    lines: u64,
}

impl Output {
    /// Creates the file.
    pub(super) fn create(path: &Path) -> Result<Self, RecordError> {
        let file = File::create_new(path).map_err(RecordError::io("create", path))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        Ok(Self { path: path.to_owned(), file, digest: Sha256::new(), lines: 0 })
    }

    /// Appends whole lines.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), RecordError> {
        self.digest.update(lines);
        self.lines += lines.split_inclusive(|&byte| byte == b'\n').count() as u64;
        self.file.write_all(lines).map_err(RecordError::io("append to", &self.path))
    }

    /// Waits until all is on disk and returns the seal.
    pub(super) fn finish(mut self) -> Result<JournalSeal, RecordError> {
        let flush = |file: &mut BufWriter<File>| {
            file.flush()?;
            file.get_ref().sync_all()
        };
        flush(&mut self.file).map_err(RecordError::io("flush", &self.path))?;
        Ok(JournalSeal { lines: self.lines, sha256: hex(&self.digest.finalize()) })
    }
}
