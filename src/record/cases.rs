//! The timed cases in the record: made from the list of workloads ([`crate::workload`]), whose types differ.

use super::audit::{Audit, Auditor};
use super::clock::Clock;
use super::course::{Course, Timed};
use super::dir::RunDir;
use super::error::RecordError;
use super::mend::Mending;
use super::merge::{MergeError, Merging, Source, compare_lines};
use super::progress::Progress;
use super::run::{AccuracyCase, JournalSeal, RunRecord};
use super::sample::{SampleRecord, SampleState};
use super::target::Target;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Whether to leave cases out of `run.json`.
#[expect(clippy::ptr_arg, reason = "serde hands over a reference to the field")]
fn are_left_out<C: Course>(cases: &Vec<C>) -> bool {
    cases.is_empty() && !C::IN_EVERY_RUN
}

macro_rules! cases {
    ($($(#[$only:meta])* $folder:ident: $table:ident, $plan:ident, $lines:ident;)*) => {
        /// The cases to run.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        pub struct Plan {
            /// Tasks with items to score.
            pub accuracy: Vec<AccuracyCase>,
            $(
                $(#[$only])*
                #[doc = concat!("Cases of the workload [`", stringify!($folder), "`](crate::workload::", stringify!($folder), ").")]
                #[serde(default, skip_serializing_if = "are_left_out")]
                pub $plan: Vec<crate::workload::$folder::Case>,
            )*
            /// Expected values for the machine's limits.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            pub targets: Vec<Target>,
            /// Whether every repetition has operator times.
            #[serde(default, skip_serializing_if = "std::ops::Not::not")]
            pub operators: bool,
        }

        impl Plan {
            /// Returns the numbers of tensor-parallel ranks that the cases need, in run order. An engine is loaded once for
            /// each. Accuracy cases come first.
            pub fn tp_sizes(&self) -> Vec<u32> {
                let mut all: Vec<u32> = self.accuracy.iter().map(|case| case.tp).collect();
                $($(#[$only])* all.extend(self.$plan.iter().filter(|case| case.is_run()).map(Course::tp));)*
                let mut seen = BTreeSet::new();
                all.retain(|tp| seen.insert(*tp));
                all
            }

            /// Returns the names of all timed cases, in the order in which they run on the same number of ranks.
            pub fn timed_ids(&self) -> Vec<&str> {
                let mut all = Vec::new();
                $($(#[$only])* all.extend(self.$plan.iter().map(Course::id));)*
                all
            }

            /// Replaces the timed cases by those of the shards that ran them.
            pub(super) fn adopt_timed(&mut self, merging: &mut Merging<'_>) -> Result<(), MergeError> {
                $($(#[$only])* merging.adopt(&mut self.$plan, |plan| &plan.$plan)?;)*
                Ok(())
            }

            /// Writes the journals of the timed cases of a merged run.
            pub(super) fn write_timed(
                &self,
                merging: &Merging<'_>,
                dir: &RunDir,
                seal: &mut BTreeMap<String, JournalSeal>,
            ) -> Result<(), MergeError> {
                $($(#[$only])* merging.write(self, self.$plan.as_slice(), dir, seal)?;)*
                Ok(())
            }

            /// Adds how far the timed cases are.
            pub(super) fn add_timed_progress(&self, dir: &RunDir, to: &mut Progress) -> Result<(), RecordError> {
                $($(#[$only])* dir.add_progress(&self.$plan, to)?;)*
                Ok(())
            }

            /// Compares the timed lines that two runs of a shard have in common. Returns the journals with lines that have no
            /// output to compare.
            pub(super) fn compare_timed(a: &Source, b: &Source) -> Result<Vec<&'static str>, MergeError> {
                let mut bare = Vec::new();
                $(
                    $(#[$only])*
                    if compare_lines::<crate::workload::$folder::Case>(a, b)? {
                        bare.push(<crate::workload::$folder::Case as Course>::JOURNAL);
                    }
                )*
                Ok(bare)
            }

            /// Removes all timed cases.
            pub fn clear_timed(&mut self) {
                $($(#[$only])* self.$plan.clear();)*
            }
        }

        /// The files that grow during a run. The seal of a complete run covers them.
        pub const JOURNALS: &[&str] = &[
            "samples.jsonl",
            "prompts.jsonl",
            $($(#[$only])* <crate::workload::$folder::Case as Course>::JOURNAL,)*
            "telemetry.csv",
        ];

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
            pub(super) fn new(run: RunRecord, samples: Vec<SampleRecord>, timed: TimedLines, audit: Audit) -> Self {
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
        pub(super) struct TimedLines {
            $($(#[$only])* $lines: Vec<crate::workload::$folder::Line>,)*
        }

        impl TimedLines {
            /// Reads all journals of timed cases. Those written last are read first.
            pub(super) fn read(dir: &RunDir, audit: &mut Auditor<'_>) -> Result<Self, RecordError> {
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

        impl RunDir {
            /// Opens the journals that every run has.
            pub(super) fn open_timed(&mut self) -> Result<(), RecordError> {
                $($(#[$only])* {
                    if <crate::workload::$folder::Case as Course>::IN_EVERY_RUN {
                        self.journal::<crate::workload::$folder::Case>()?;
                    }
                })*
                Ok(())
            }

            /// Repairs the journals of timed cases. Returns a sentence for each change.
            pub(super) fn mend_cases(
                &self,
                mending: &Mending<'_>,
                sealed: &BTreeSet<String>,
            ) -> Result<Vec<String>, RecordError> {
                let mut said = Vec::new();
                $($(#[$only])* said.extend(self.mend_timed(&mending.plan.$plan, mending, sealed)?);)*
                Ok(said)
            }

            /// Returns the latest time in the journals, also of kept lines, on the run's clock; 0 in a new run.
            pub fn recorded_until_ns(&self) -> Result<u64, RecordError> {
                let mut latest = self.sampled_until_ns()?;
                $($(#[$only])* { latest = latest.max(self.timed_until_ns::<crate::workload::$folder::Case>()?); })*
                Ok(latest)
            }
        }
    };
}
crate::workload::each!(cases);
