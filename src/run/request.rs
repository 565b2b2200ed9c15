//! What to run, and how its runs ended.

use crate::language::Language;
use std::path::PathBuf;

use crate::report::Verdict;
use crate::suite::Suite;

use super::endpoint::EndpointChoice;
use super::error::RunError;
use super::plan::Plan;
use super::resume::Wanted;
use super::setup::{Setup, SetupChoice};
use super::shard::Shard;

/// What to run, and where to record it.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// The suite.
    pub suite: Suite,
    /// Which model, and what computes.
    pub choice: SetupChoice,
    /// A server that answers instead of this program's engine. It gets the cases of the first configuration in the
    /// suite. Only the model in [`RunRequest::choice`] counts, for its tokenizer.
    pub endpoint: Option<EndpointChoice>,
    /// Folder of run directories. It is created.
    pub out: PathBuf,
    /// Whether to go on with an unfinished run, and what counts as unfinished; `None` for a new run.
    pub resume: Option<Wanted>,
    /// Whether to run also the cases that take longer on this machine than the suite's budget.
    pub over_budget: bool,
    /// Whether to time two configurations alternately, even if the suite does not ask for it.
    pub interleave: bool,
    /// Number of blocks for that; `None` for the fewest that can decide every phase.
    pub blocks: Option<u32>,
    /// The shard of the plan to run; `None` for the whole plan.
    pub shard: Option<Shard>,
    /// The command line, for the record.
    pub command_line: Vec<String>,
    /// The language of pages and charts.
    pub language: Language,
}

impl RunRequest {
    /// Returns the request for a new run of a suite as it is, recorded under `out`.
    pub fn new(suite: Suite, out: impl Into<PathBuf>) -> Self {
        Self {
            suite,
            choice: SetupChoice::default(),
            endpoint: None,
            out: out.into(),
            resume: None,
            over_budget: false,
            interleave: false,
            blocks: None,
            shard: None,
            command_line: Vec::new(),
            language: Language::default(),
        }
    }

    /// Keeps the request's shard of the plan, if it has one.
    ///
    /// # Errors
    /// Several configurations, or blocks, cannot be cut into shards.
    pub fn keep_shard(&self, setups: &[Setup], plans: &mut [Plan<'_>]) -> Result<(), RunError> {
        let Some(shard) = self.shard else { return Ok(()) };
        let names: Vec<&str> = setups.iter().filter_map(|setup| setup.name.as_deref()).collect();
        refuse_shard(shard, setups.len(), &names, self.interleave)?;
        match (setups, plans) {
            ([setup], [plan]) => setup.keep_shard(plan, shard),
            _ => Ok(()),
        }
    }

    /// Checks that the request can be cut into shards, without reading models.
    ///
    /// # Errors
    /// Those of [`RunRequest::keep_shard`] about configurations and blocks, and those of the configurations in the
    /// suite.
    pub fn check_shard(
        suite: &Suite,
        choice: &SetupChoice,
        interleave: bool,
        shard: Shard,
    ) -> Result<(), RunError> {
        let configured = choice.configurations(suite)?;
        let names: Vec<&str> = configured.iter().filter_map(|one| one.name.as_deref()).collect();
        refuse_shard(shard, configured.len(), &names, interleave)
    }
}

/// Refuses a shard of several configurations, or of blocks.
fn refuse_shard(shard: Shard, count: usize, names: &[&str], interleave: bool) -> Result<(), RunError> {
    if count != 1 {
        return Err(RunError::Request(format!(
            "--shard {shard}: the suite has {count} configurations ({}), and a shard is of one; give --only NAME, or --shard none",
            names.join(", ")
        )));
    }
    if interleave {
        return Err(RunError::Request(format!(
            "--shard {shard}: --interleave times on one machine; give one of them, or --shard none"
        )));
    }
    Ok(())
}

/// How the runs of a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunsEnd {
    /// Directories of the runs that were begun or found finished, in the order of the configurations.
    pub runs: Vec<PathBuf>,
    /// The first verdict that is not [`Verdict::Valid`], in that order. Stopped runs are [`Verdict::Incomplete`].
    pub verdict: Verdict,
}

impl RunsEnd {
    pub(super) fn new() -> Self {
        Self { runs: Vec::new(), verdict: Verdict::Valid }
    }

    pub(super) fn add(&mut self, run: PathBuf, verdict: Verdict) {
        self.runs.push(run);
        self.note(verdict);
    }

    pub(super) fn note(&mut self, verdict: Verdict) {
        if self.verdict == Verdict::Valid {
            self.verdict = verdict;
        }
    }
}
