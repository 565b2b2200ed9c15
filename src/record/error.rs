//! What can go wrong with a run directory.

use std::io;
use std::path::{Path, PathBuf};

/// A run directory that could not be written or read; every message names the path.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file system refused: read-only folder, full disk, missing file.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was attempted: `create`, `append to`, `read`…
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer. Not called `source`: the message has it already, and a printed chain would repeat it.
        cause: io::Error,
    },
    /// A whole line or file that is not what its schema says.
    #[error("{}:{line}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What was found and what was expected.
        message: String,
    },
    /// An item or repetition that is in the journal already.
    #[error("{}: {key} is recorded already; one line each was expected", path.display())]
    Duplicate {
        /// The journal.
        path: PathBuf,
        /// What came twice.
        key: String,
    },
    /// Another process appends to the same run.
    #[error("{} is being written by another process; one writer per run was expected", .0.display())]
    Locked(PathBuf),
}

impl RecordError {
    /// For `map_err`: the system's answer together with what was attempted on which path.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Io { action, path: path.to_owned(), cause }
    }
}
