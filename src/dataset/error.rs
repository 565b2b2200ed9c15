//! Errors of reading and preparing data sets.

use std::fmt;
use std::path::{Path, PathBuf};

/// Number of problems that an error message lists; the rest are only counted.
const SHOWN: usize = 20;

/// Why a data set could not be read or prepared.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file or folder is missing or does not match the layout.
    #[error("{}: {found}; expected {expected}", path.display())]
    Layout {
        /// The file or folder examined.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What the layout requires there.
        expected: String,
    },
    /// The operating system returned an error.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder concerned.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// Rows that do not follow their format. Every such row is listed.
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
    /// The caller cancelled the operation.
    #[error("stopped; the unfinished folder was removed")]
    Stopped,
    /// A name that is not in the catalogue.
    #[error("no data set `{name}` in the catalogue; it has: {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names in the catalogue.
        known: String,
    },
}

impl DatasetError {
    /// Returns a [`DatasetError::Io`] for `path`.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }

    /// Returns a [`DatasetError::Layout`] for `path`.
    pub fn layout(path: &Path, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Layout { path: path.to_path_buf(), found: found.into(), expected: expected.into() }
    }
}

/// One malformed row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file that contains the row.
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

/// Every malformed row of a read. [`Problems::into_result`] sorts them by file and line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Adds one malformed row.
    pub fn push(&mut self, path: &Path, line: u64, message: impl Into<String>) {
        self.0.push(Problem { path: path.to_path_buf(), line, message: message.into() });
    }

    /// Returns `Ok` if there are no problems.
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
