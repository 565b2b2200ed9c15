//! Errors of a run.

use std::io;
use std::path::PathBuf;

use glmbench_engine::EngineError;
use glmbench_remote::RemoteError;

use crate::record::RecordError;
use crate::report::ReportError;
use crate::task::TaskError;

/// Errors that prevent or end a run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The run directory cannot be read or written. Earlier lines stay intact.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A data set is unusable, or a protocol does not fit it.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The plan needs what the backend cannot do.
    #[error("backend {backend}: {problem}")]
    Backend {
        /// Its name.
        backend: String,
        /// What the plan needs, and what would do.
        problem: String,
    },
    /// A server cannot be reached or used.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// A report or a comparison cannot be made.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The folder of runs, or what stands beside them, cannot be created.
    #[error("cannot create {}: {cause}", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// The operating system's error.
        cause: io::Error,
    },
    /// The observer cannot show a result.
    #[error(transparent)]
    Output(#[from] io::Error),
    /// A block could not be timed. What timed it has told why.
    #[error("block {0} of the configurations in turns ended with an error")]
    Block(u32),
    /// The request contradicts itself or the suite.
    #[error("{0}")]
    Request(String),
    /// The suite requests what this run cannot do.
    #[error("{}: {problem}", suite.display())]
    Suite {
        /// The suite file.
        suite: PathBuf,
        /// What was requested and what is possible.
        problem: String,
    },
}
