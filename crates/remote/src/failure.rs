//! What can go wrong: before a request, and with one.

use std::fmt;
use std::time::Duration;

use crate::kind::FailureKind;
use crate::response::{Attempt, EventTime, Times};

/// Errors that are not a server's: options, files, a probe that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// An option or file that cannot be used.
    #[error("{0}")]
    Option(String),
    /// A request that the probe or the model lookup needs has failed.
    #[error("{what}: {failure}")]
    Request {
        /// What was asked.
        what: String,
        /// What came of it.
        failure: Box<Failure>,
    },
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// What happened.
    pub kind: FailureKind,
    /// The server's text or the cause: at most 2 KiB, untrusted, without the key.
    pub text: String,
    /// When it happened. Boxed: a failure is returned through many hands.
    pub times: Box<Times>,
    /// Events with tokens that had arrived.
    pub events: Vec<EventTime>,
    /// The wait that the server asked for.
    pub retry_after: Option<Duration>,
    /// Attempts before this one.
    pub attempts: Vec<Attempt>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if !self.text.is_empty() {
            write!(f, ": {}", self.text)?;
        }
        match self.attempts.len() {
            0 => Ok(()),
            1 => write!(f, " (after 1 more attempt)"),
            n => write!(f, " (after {n} more attempts)"),
        }
    }
}

impl std::error::Error for Failure {}
