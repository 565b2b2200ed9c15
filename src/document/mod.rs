//! TOML documents that people write: suites, gates and task files. Every value knows its place, so that a message can name
//! file, line and column. An unknown key is answered with the nearest known one.

pub(crate) mod table;
pub(crate) mod tree;

use std::path::{Path, PathBuf};

use crate::bounded;

/// Maximum size of a document, in bytes. The files of this repository have a few thousand.
const MAX_BYTES: u64 = 1 << 20;

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The file cannot be read.
    #[error("{}: {source}; expected {expected}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
        /// What the file was to be.
        expected: &'static str,
    },
    /// A value in the file, or on the command line, is invalid.
    #[error("{place}: {message}")]
    Invalid {
        /// `file:line:column`, or the command-line flag that the value comes from.
        place: String,
        /// What was found, what was expected, what to do.
        message: String,
    },
}

impl DocumentError {
    pub(crate) fn at(place: &tree::Origin, message: impl Into<String>) -> Self {
        Self::Invalid { place: place.to_string(), message: message.into() }
    }

    pub(crate) fn found(place: &tree::Origin, found: &str, expected: &str) -> Self {
        Self::at(place, format!("found {found}; expected {expected}"))
    }
}

/// Reads the text of a document. `expected` describes it for messages.
///
/// # Errors
/// The file cannot be read, is too large, or is not UTF-8.
pub(crate) fn text_of(path: &Path, expected: &'static str) -> Result<String, DocumentError> {
    let wrong = |place: String, message| DocumentError::Invalid { place, message };
    let bytes = bounded::file(path, MAX_BYTES).map_err(|source| match source.kind() {
        std::io::ErrorKind::FileTooLarge => wrong(path.display().to_string(), source.to_string()),
        _ => DocumentError::Io { path: path.to_path_buf(), source, expected },
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].split(|&b| b == b'\n').count();
        let found = format!("found a byte that is not UTF-8 at offset {good}; expected UTF-8 text");
        wrong(format!("{}:{line}:1", path.display()), found)
    })
}
