//! The timed cases of a plan: made from the list of workloads ([`crate::workload`]), whose types differ.

use std::collections::BTreeMap;
use std::fmt::Debug;

use glmbench_device::Precision;

use glmbench_engine::config::ModelConfig;
use glmbench_engine::model::Capacity;
use glmbench_engine::tokenizer::Tokenizer;

use super::accuracy::AccuracyRun;
use super::duration::{Counted, Expected, Rates};
use super::error::RunError;
use super::requests::Wanted;
use super::session::{Ending, Session};
use crate::backend::Capabilities;
use crate::bench::OrdinaryTokens;
use crate::record::{self, RunDir, course::Course};
use crate::suite::{PromptSource, Suite};

/// A timed case that is ready to run.
pub trait Case: Debug {
    /// Returns the name within a run.
    fn id(&self) -> String;

    /// Returns the number of tensor-parallel ranks.
    fn tp(&self) -> usize;

    /// Returns what the case needs room for.
    fn room(&self) -> Room;

    /// Returns the memory of this host that the case takes besides the engine, by estimate.
    fn host_bytes(&self) -> u64 {
        0
    }

    /// Whether the case takes the largest batch that fits, down to its smallest.
    fn is_elastic(&self) -> bool {
        false
    }

    /// Returns why the case does not run, e.g. because the device cannot hold it; `None` if it runs.
    fn unfit(&self) -> Option<&str> {
        None
    }

    /// Leaves the case out, if its [room](Case::room) says that it can be.
    fn leave_out(&mut self, _reason: String) {}

    /// Returns the capabilities that the case needs of a backend with the capabilities `can`.
    fn needs(&self, can: Capabilities) -> Capabilities;

    /// Returns the hash of all token ids, if the case has real prompts. Random prompts follow from the suite.
    fn input_hash(&self) -> Option<String> {
        None
    }

    /// Describes the real prompts, for `glmbench check`; `None` for random tokens.
    fn prompts(&self) -> Option<String> {
        None
    }

    /// Describes what the case does in one line or more, for `--dry-run`.
    fn words(&self) -> Vec<String>;

    /// Returns what the case costs at most on a server; `None` if no server can run it.
    fn wanted(&self) -> Option<Wanted> {
        None
    }

    /// Returns how many requests are under way at once on a server by the case's plan, however fast the server is.
    fn at_once(&self) -> usize {
        self.room().most_batch
    }

    /// Returns the least work of the case in bytes of memory traffic, by which a plan is cut into shards. Depends on the
    /// plan only.
    fn work(&self, _on: Counted<'_>) -> u64 {
        0
    }

    /// Estimates the duration from the rates of earlier runs; without them, from the case alone.
    fn expected(&self, _rates: Option<(&Rates, Counted<'_>)>) -> Expected {
        Expected::Unknown
    }
}

/// What a case needs memory for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Smallest batch.
    pub least_batch: usize,
    /// Largest batch. It differs from the smallest only in an [elastic](Case::is_elastic) case.
    pub most_batch: usize,
    /// Longest sequence in tokens.
    pub tokens: usize,
    /// Rows of logits that the case needs at once.
    pub logit_rows: usize,
    /// Whether the case is left out if it does not fit. Otherwise the run is refused.
    pub optional: bool,
}

impl Room {
    /// Returns the room of a case with one batch, which is not optional.
    pub(crate) fn of(batch: usize, tokens: usize) -> Self {
        Self { least_batch: batch, most_batch: batch, tokens, logit_rows: 1, optional: false }
    }
}

/// What cases are planned for.
#[derive(Clone, Copy)]
pub(crate) struct Planning<'a> {
    /// The model.
    pub(crate) config: &'a ModelConfig,
    /// Its tokenizer; `None` with random weights.
    pub(crate) tokenizer: Option<&'a Tokenizer>,
}

/// What a case is recorded with.
#[derive(Clone, Copy)]
pub(crate) struct Recording<'a> {
    /// The model.
    pub(crate) config: &'a ModelConfig,
    /// The types that it runs in.
    pub(crate) precision: Precision,
    /// The whole plan.
    pub(crate) plan: &'a Plan<'a>,
}

/// The cases of one workload.
pub(crate) trait Workload: Case + Sized {
    /// The table in suites.
    type Table;
    /// The case in records.
    type Recorded: Course;

    /// Makes cases from the tables of a suite.
    ///
    /// # Errors
    /// A message: the model cannot run a case, or two cases have the same name.
    fn plan(tables: &[Self::Table], on: Planning<'_>) -> Result<Vec<Self>, String>;

    /// Returns the case as kept in `run.json`.
    fn record(&self, with: Recording<'_>) -> Self::Recorded;

    /// Whether the case has all its `lines`.
    fn is_done(&self, lines: &[LineOf<Self>]) -> bool;

    /// Runs what has no line yet.
    ///
    /// # Errors
    /// Errors of the engine that are not the case's own, and of writing the lines.
    fn run(&self, tokens: &OrdinaryTokens, session: &mut Session<'_>) -> Result<Ending, RunError>;
}

/// A journal line of a workload.
pub(crate) type LineOf<W> = <<W as Workload>::Recorded as Course>::Line;

/// Whether every case on `tp` ranks has all its lines.
fn are_done<W: Workload>(cases: &[W], tp: usize, dir: &RunDir) -> Result<bool, RunError> {
    let mut own: BTreeMap<String, Vec<LineOf<W>>> = BTreeMap::new();
    for line in dir.read::<W::Recorded>()? {
        own.entry(W::Recorded::part_of(&line).to_owned()).or_default().push(line);
    }
    let is_done = |case: &W| case.is_done(own.get(&case.id()).map_or(&[], Vec::as_slice));
    Ok(cases.iter().filter(|case| case.tp() == tp && case.unfit().is_none()).all(is_done))
}

/// Runs the cases on `tp` ranks.
fn run_all<W: Workload>(
    cases: &[W],
    tp: usize,
    tokens: &OrdinaryTokens,
    session: &mut Session<'_>,
) -> Result<Ending, RunError> {
    for case in cases.iter().filter(|case| case.tp() == tp && case.unfit().is_none()) {
        session.observer.case(&case.id());
        if case.run(tokens, session)? == Ending::Interrupted {
            return Ok(Ending::Interrupted);
        }
    }
    Ok(Ending::Complete)
}

macro_rules! cases {
    ($($(#[$only:meta])* $folder:ident: $table:ident, $plan:ident, $lines:ident;)*) => {
        /// A suite with a model: everything known before the weights are loaded.
        pub struct Plan<'a> {
            /// Accuracy cases.
            pub accuracy: Vec<AccuracyRun<'a>>,
            $(
                $(#[$only])*
                #[doc = concat!("Cases of the workload [`", stringify!($folder), "`](crate::workload::", stringify!($folder), ").")]
                pub $plan: Vec<crate::workload::$folder::Run>,
            )*
            /// The tokens from which prompts for timing are drawn.
            pub tokens: OrdinaryTokens,
            /// Maximum number of tokens per step.
            pub(super) step_tokens: usize,
            /// The engine's capacity, by number of ranks.
            pub(super) capacities: BTreeMap<usize, Capacity>,
            /// The shard of the plan that this is.
            pub(super) sharded: Option<Sharded>,
        }

        impl Plan<'_> {
            /// Creates a plan without cases.
            pub(super) fn empty(tokens: OrdinaryTokens, step_tokens: usize) -> Self {
                Self {
                    accuracy: Vec::new(),
                    $($(#[$only])* $plan: Vec::new(),)*
                    tokens,
                    step_tokens,
                    capacities: BTreeMap::new(),
                    sharded: None,
                }
            }

            /// Returns the timed cases in the order in which they run on the same number of ranks.
            pub fn timed(&self) -> Vec<&dyn Case> {
                let mut all: Vec<&dyn Case> = Vec::new();
                $($(#[$only])* all.extend(self.$plan.iter().map(|case| case as &dyn Case));)*
                all
            }

            /// Like [`Plan::timed`], for changing them.
            pub(super) fn timed_mut(&mut self) -> Vec<&mut dyn Case> {
                let mut all: Vec<&mut dyn Case> = Vec::new();
                $($(#[$only])* all.extend(self.$plan.iter_mut().map(|case| case as &mut dyn Case));)*
                all
            }

            /// Removes the timed cases with names that `keep` does not accept.
            pub(super) fn retain_timed(&mut self, keep: &dyn Fn(&str) -> bool) {
                $($(#[$only])* self.$plan.retain(|case| keep(&case.id()));)*
            }

            /// Makes the timed cases of a suite.
            pub(super) fn plan_timed(&mut self, suite: &Suite, on: Planning<'_>) -> Result<(), String> {
                $($(#[$only])* { self.$plan = Workload::plan(&suite.$table, on)?; })*
                Ok(())
            }

            /// Adds the timed cases to the plan in `run.json`.
            pub(super) fn record_timed(&self, plan: &mut record::Plan, with: Recording<'_>) {
                $($(#[$only])* { plan.$plan = self.$plan.iter().map(|case| case.record(with)).collect(); })*
            }

            /// Whether every timed case on `tp` ranks has all its lines.
            pub(super) fn timed_are_done(&self, tp: usize, dir: &RunDir) -> Result<bool, RunError> {
                let mut done = true;
                $($(#[$only])* { done = done && are_done(&self.$plan, tp, dir)?; })*
                Ok(done)
            }

            /// Runs the timed cases on `tp` ranks.
            pub(super) fn run_timed(&self, tp: usize, session: &mut Session<'_>) -> Result<Ending, RunError> {
                $($(#[$only])* {
                    if run_all(&self.$plan, tp, &self.tokens, session)? == Ending::Interrupted {
                        return Ok(Ending::Interrupted);
                    }
                })*
                Ok(Ending::Complete)
            }
        }
    };
}
crate::workload::each!(cases);

/// A shard in a plan, with what the identity needs of the cases that are not here.
pub(super) struct Sharded {
    pub(super) shards: record::Shards,
    pub(super) input_hashes: Vec<InputHash>,
}

/// Hash of the real prompts of a timed case.
#[derive(Debug, Clone)]
pub(super) struct InputHash {
    /// The case's name, without its number of ranks: prompts do not depend on it.
    pub(super) case: String,
    pub(super) hash: String,
}

impl Plan<'_> {
    /// Returns the hash of all token ids for each case with real prompts.
    pub(super) fn input_hashes(&self) -> Vec<InputHash> {
        if let Some(sharded) = &self.sharded {
            return sharded.input_hashes.clone();
        }
        let name = |case: &dyn Case| case.id().trim_end_matches(&format!("-tp{}", case.tp())).to_owned();
        self.timed()
            .iter()
            .filter_map(|case| Some(InputHash { case: name(*case), hash: case.input_hash()? }))
            .collect()
    }
}

/// Checks that a case's sequences fit the model.
pub(crate) fn fits_model(name: &str, tokens: usize, config: &ModelConfig) -> Result<(), String> {
    if tokens > config.seq_length {
        let longest = config.seq_length;
        return Err(format!("{name} has sequences of {tokens} tokens, the model's seq_length is {longest}"));
    }
    Ok(())
}

/// Checks the length of padded prompts before any prompt is padded to it.
pub(crate) fn check_padding(
    source: &PromptSource,
    tokens: usize,
    config: &ModelConfig,
) -> Result<(), String> {
    if source.padding { fits_model("a case with padded prompts", tokens, config) } else { Ok(()) }
}
