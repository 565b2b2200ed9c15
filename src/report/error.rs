//! What can go wrong while a report is made.

use crate::record::RecordError;
use std::path::PathBuf;

/// A report that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The run's records could not be read, or a file of the report not be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A chart could not be drawn or written.
    #[error("cannot draw {}: {message}", path.display())]
    Chart {
        /// The picture.
        path: PathBuf,
        /// What the drawing library or the system said.
        message: String,
    },
    /// Runs that cannot be compared, or a comparison that cannot be written.
    #[error("{0}")]
    Compare(String),
    /// A template could not be filled.
    #[error("cannot fill the report's template: {0}")]
    Template(#[from] minijinja::Error),
}
