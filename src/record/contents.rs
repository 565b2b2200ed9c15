//! Reading a run's records. The lines of timed cases are made from the list of workloads ([`crate::workload`]), whose types
//! differ.

use super::audit::{Audit, Auditor, SealState, answers};
use super::clock::Clock;
use super::course::Timed;
use super::dir::{FoundRun, RunDir};
use super::error::RecordError;
use super::journal::Line;
use super::run::{RunRecord, Status};
use super::sample::{SampleRecord, SampleState};
use super::sum::Sum;
use super::wire::WITH_SUMS;
use std::collections::BTreeMap;

/// The first schema that records prompts.
const WITH_PROMPTS: u32 = 2;

macro_rules! contents {
    ($($(#[$only:meta])* $folder:ident: $table:ident, $plan:ident, $lines:ident;)*) => {
        /// All measurements of a run, with the faults found.
        #[derive(Debug, Clone)]
        pub struct Contents {
            /// `run.json`.
            pub run: RunRecord,
            /// `samples.jsonl`, each item once. [`correct`](SampleRecord::correct) is recomputed from answer and key.
            pub samples: Vec<SampleRecord>,
            $(
                $(#[$only])*
                #[doc = concat!("The lines of the workload [`", stringify!($folder), "`](crate::workload::", stringify!($folder), ").")]
                pub $lines: Vec<crate::workload::$folder::Line>,
            )*
            /// The faults found.
            pub audit: Audit,
        }

        impl Contents {
            fn new(run: RunRecord, samples: Vec<SampleRecord>, timed: TimedLines, audit: Audit) -> Self {
                Self { run, samples, $($(#[$only])* $lines: timed.$lines,)* audit }
            }

            /// Whether something failed: an item or a line of a timed case.
            pub fn has_failures(&self) -> bool {
                let mut failed = self.samples.iter().any(|sample| sample.state == SampleState::Failed);
                $($(#[$only])* { failed |= self.$lines.iter().any(Timed::has_failed); })*
                failed
            }

            /// Whether any time is of a virtual clock.
            pub fn has_modelled_times(&self) -> bool {
                let mut modelled = false;
                $($(#[$only])* { modelled |= self.$lines.iter().any(|line| line.clock() == Clock::Modelled); })*
                modelled
            }
        }

        /// The lines of all timed cases.
        #[derive(Default)]
        struct TimedLines {
            $($(#[$only])* $lines: Vec<crate::workload::$folder::Line>,)*
        }

        impl TimedLines {
            /// Reads all journals of timed cases. Those written last are read first.
            fn read(dir: &RunDir, audit: &mut Auditor<'_>) -> Result<Self, RecordError> {
                type Read = fn(&mut TimedLines, &RunDir, &mut Auditor<'_>) -> Result<(), RecordError>;
                let all: &[Read] = &[$($(#[$only])* |to, dir, audit| {
                    let run = audit.run;
                    to.$lines = audit.journal(dir, &run.plan.$plan)?;
                    Ok(())
                },)*];
                let mut found = Self::default();
                all.iter().rev().try_for_each(|read| read(&mut found, dir, audit))?;
                Ok(found)
            }
        }
    };
}
crate::workload::each!(contents);

impl Contents {
    /// Reads a run.
    ///
    /// # Errors
    /// Fails if a file cannot be read, or if `run.json` is invalid or from a newer program. Faults of a journal are
    /// reported in [`Contents::audit`] instead.
    pub fn read(dir: &RunDir) -> Result<Self, RecordError> {
        let FoundRun { record: run, schema, sum } = dir.read_run_with_sum()?;
        let finished = run.status == Status::Complete;
        let now = if finished && run.seal.is_some() { dir.seal()? } else { BTreeMap::new() };
        let mut audit = Auditor { run: &run, finished, now, faults: Vec::new() };
        if sum == Sum::Wrong {
            audit.say("run.json is not as it was written: its sum is not that of its bytes".to_owned());
        }
        audit.identity();
        // Journals written last are read first, so that a run in progress always looks like a prefix.
        let timed = TimedLines::read(dir, &mut audit)?;
        let examined = dir.examine_samples()?;
        let of_schema_1 = |line: &&Line<SampleRecord>| line.schema > 0 && line.schema < WITH_PROMPTS;
        let promptless = examined.lines.iter().filter(of_schema_1).count();
        let mut samples = audit.lines("samples.jsonl", examined, !run.plan.accuracy.is_empty());
        audit.samples(&samples);
        let contradiction = answers(&mut samples);
        audit.prompts(dir, &samples, if schema < WITH_PROMPTS { samples.len() } else { promptless })?;
        if schema >= WITH_SUMS && finished && run.seal.is_none() {
            audit.say("run.json calls the run complete and has no seal".to_owned());
        }
        audit.seal();
        let seal = match (&run.seal, audit.finished) {
            (_, false) => SealState::Open,
            (Some(_), true) => SealState::Sealed,
            (None, true) => SealState::NotSealed,
        };
        let audit = Audit { faults: audit.faults, contradiction, seal };
        Ok(Self::new(run, samples, timed, audit))
    }
}
