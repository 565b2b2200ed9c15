//! Errors of making a report.

use crate::record::RecordError;
use std::path::PathBuf;

/// A report that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The run's records could not be read, or a report file could not be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A chart could not be drawn or written.
    #[error("cannot draw {}: {message}", path.display())]
    Chart {
        /// The image file.
        path: PathBuf,
        /// Message of the drawing library or the system.
        message: String,
    },
    /// The runs cannot be compared, or the comparison cannot be written.
    #[error("{0}")]
    Compare(String),
    /// A template could not be filled.
    #[error("cannot fill the report's template: {0}")]
    Template(#[from] minijinja::Error),
}
