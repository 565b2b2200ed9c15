//! What a run tells while it goes on. The command line draws bars and prints from it.

use std::io;
use std::path::Path;

use crate::report::ComparisonSummary;
use crate::report::Summary;

/// A case to come.
#[derive(Debug, Clone, PartialEq)]
pub struct Ahead {
    /// Its name, as [`Observer::case`] gets it.
    pub case: String,
    /// Its work at most, in a unit that is the same for all cases of the request. At least 1.
    pub work: f64,
}

/// Receives the progress, the messages and the results of runs.
pub trait Observer {
    /// A request of these runs begins, each with its cases in order. A run that is finished already has none.
    fn ahead(&mut self, _runs: &[Vec<Ahead>]) {}
    /// The next of the runs begins. It has `total` cases.
    fn cases(&mut self, _total: usize) {}
    /// A case is started or resumed.
    fn case(&mut self, _name: &str) {}
    /// A phase of `total` units begins, with `done` units already present.
    fn begin(&mut self, label: &str, unit: &'static str, total: u64, done: u64);
    /// One more unit is done.
    fn advance(&mut self);
    /// The phase ends.
    fn end(&mut self);

    /// A long operation outside the cases begins, such as hashing or loading. It ends when the result is dropped.
    fn operation(&mut self, _label: &str, _unit: &'static str) -> Box<dyn Progress> {
        Box::new(Unseen)
    }
    /// Receives a message for the user: a sentence without a line end.
    fn say(&mut self, _message: &str) {}
    /// From now on there is a recording to finish, or there is none any more. Until there is one, a user's stop may end the
    /// program at once.
    fn recording(&mut self, _is_open: bool) {}
    /// A run is measured, and its report is in its directory.
    ///
    /// # Errors
    /// The results cannot be shown. This ends the runs.
    fn reported(&mut self, _summary: &Summary, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
    /// The runs of a request are compared.
    ///
    /// # Errors
    /// As for [`reported`](Self::reported).
    fn compared(&mut self, _summary: &ComparisonSummary) -> io::Result<()> {
        Ok(())
    }
}

/// The progress of one long operation, from any thread.
pub trait Progress: Send + Sync {
    /// Sets the total.
    fn set_length(&self, length: u64);
    /// Sets the number of finished units.
    fn set_position(&self, position: u64);
}

/// The unit of operations that count bytes.
pub const BYTES: &str = "bytes";

/// Progress that nobody follows.
struct Unseen;

impl Progress for Unseen {
    fn set_length(&self, _: u64) {}
    fn set_position(&self, _: u64) {}
}

/// Ignores everything.
pub struct Silent;

impl Observer for Silent {
    fn begin(&mut self, _: &str, _: &'static str, _: u64, _: u64) {}
    fn advance(&mut self) {}
    fn end(&mut self) {}
}
