//! Errors of run directories.

use std::io;
use std::path::{Path, PathBuf};

/// A run directory could not be written or read. Every message names the path.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file system error: read-only folder, full disk, missing file.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// The attempted action: `create`, `append to`, `read`…
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's error. Not named `source`, because the message includes it and a printed error chain would
        /// repeat it.
        cause: io::Error,
    },
    /// A whole line or file does not match its schema.
    #[error("{}:{line}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What was found and what was expected.
        message: String,
    },
    /// An item or repetition is already in the journal.
    #[error("{}: {key} is recorded already; one line each was expected", path.display())]
    Duplicate {
        /// The journal.
        path: PathBuf,
        /// The repeated key.
        key: String,
    },
    /// Another process is appending to the same run.
    #[error("{} is being written by another process; one writer per run was expected", .0.display())]
    Locked(PathBuf),
    /// A process on this or another machine writes the run, as its `writer.json` says.
    #[error(
        "{} is being written by {writer}; one writer per shard was expected; stop that process, or remove the file if it is gone",
        file.display()
    )]
    Busy {
        /// The file that says so.
        file: PathBuf,
        /// The process, in words.
        writer: String,
    },
    /// Another process took the run over.
    #[error("{} is of another process now, which goes on with the run; this one ends", .0.display())]
    TakenOver(PathBuf),
}

impl RecordError {
    /// Whether a file could not be written because its disk, or the user's share of it, is full.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { cause, .. } if no_space(cause))
    }

    /// For `map_err`: combines the system's error with the action and the path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Io { action, path: path.to_owned(), cause }
    }
}

/// Whether the system says that a disk, or the user's share of it, is full.
pub(crate) fn no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
