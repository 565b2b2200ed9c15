//! What can be wrong with a data set on disk.

use std::fmt;
use std::path::{Path, PathBuf};

/// How many problems an error message spells out before it only counts.
const SHOWN: usize = 20;

/// Why a data set could not be read or prepared.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file or folder that the layout needs is not there, or cannot be read.
    #[error("{}: {found}; expected {expected}", path.display())]
    Layout {
        /// The file or folder looked at.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What the layout has there.
        expected: String,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder concerned.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Rows that are not what their format says; every one of them is listed.
    #[error("{0}")]
    Rows(Problems),
    /// The archive given to `dataset prepare` cannot be used.
    #[error("archive {}: {message}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What was found, what was expected, what to do.
        message: String,
    },
    /// Whoever asked for it does no longer.
    #[error("stopped before it was done; nothing of it is left")]
    Stopped,
    /// A name that the catalogue does not have.
    #[error("no data set `{name}` in the catalogue; it has: {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
}

impl DatasetError {
    /// An [`DatasetError::Io`] for `path`.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }

    /// A [`DatasetError::Layout`] for `path`.
    pub fn layout(path: &Path, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Layout { path: path.to_path_buf(), found: found.into(), expected: expected.into() }
    }
}

/// One wrong row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file it stands in.
    pub path: PathBuf,
    /// The line the row starts on, counted from 1.
    pub line: u64,
    /// What was found and what was expected.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.message)
    }
}

/// Every wrong row of a read, in the order of files and lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Notes one wrong row.
    pub fn push(&mut self, path: &Path, line: u64, message: impl Into<String>) {
        self.0.push(Problem { path: path.to_path_buf(), line, message: message.into() });
    }

    /// `Ok` when nothing was noted.
    pub fn into_result(mut self) -> Result<(), DatasetError> {
        self.0.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
        if self.0.is_empty() { Ok(()) } else { Err(DatasetError::Rows(self)) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().take(SHOWN).enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        if self.0.len() > SHOWN {
            write!(f, "\n… and {} more wrong rows", self.0.len() - SHOWN)?;
        }
        Ok(())
    }
}
