//! The plan of a run. Its timed cases are made from the list of workloads ([`crate::workload`]), whose types differ.

use super::accuracy::AccuracyCase;
use super::course::Course;
use super::identity::hex;
use super::target::Target;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Whether to leave cases out of `run.json`.
#[expect(clippy::ptr_arg, reason = "serde hands over a reference to the field")]
fn are_left_out<C: Course>(cases: &Vec<C>) -> bool {
    cases.is_empty() && !C::IN_EVERY_RUN
}

/// The field of a plan that has the timed cases of one kind.
pub(super) struct Field<C> {
    /// Returns the cases.
    pub(super) of: fn(&Plan) -> &Vec<C>,
    /// Returns the cases, to change them.
    pub(super) of_mut: fn(&mut Plan) -> &mut Vec<C>,
}

/// What is done for each kind of timed cases.
pub(super) trait ForEachKind {
    /// The error that ends it.
    type Error;

    /// Does it for one kind.
    fn kind<C: Course + Clone>(&mut self, field: &Field<C>) -> Result<(), Self::Error>;
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

            /// Removes all timed cases.
            pub fn clear_timed(&mut self) {
                $($(#[$only])* self.$plan.clear();)*
            }

            /// Does something for each kind of timed cases.
            pub(super) fn for_each_kind<F: ForEachKind>(each: &mut F) -> Result<(), F::Error> {
                $(
                    $(#[$only])*
                    each.kind(&Field::<crate::workload::$folder::Case> {
                        of: |plan| &plan.$plan,
                        of_mut: |plan| &mut plan.$plan,
                    })?;
                )*
                Ok(())
            }
        }

        /// The files that grow during a run. The seal of a complete run covers them.
        pub const JOURNALS: &[&str] = &[
            "samples.jsonl",
            "prompts.jsonl",
            $($(#[$only])* <crate::workload::$folder::Case as Course>::JOURNAL,)*
            "telemetry.csv",
        ];
    };
}
crate::workload::each!(cases);

impl Plan {
    /// Returns the SHA-256 (hex) of everything that a plan asks for. Reasons to leave cases out, and largest batches, do
    /// not count: they depend on the memory and the speed of a machine.
    pub fn hash(&self) -> String {
        let mut plan = serde_json::to_value(self).unwrap_or_default();
        let lists = plan.as_object_mut().into_iter().flat_map(|plan| plan.values_mut());
        for case in lists.filter_map(serde_json::Value::as_array_mut).flatten() {
            if let Some(case) = case.as_object_mut() {
                case.remove("unfit");
                case.remove("largest_batch");
                case.remove("alone_bytes");
            }
        }
        hex(&Sha256::digest(plan.to_string()))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_hash_of_a_plan_does_not_depend_on_what_a_machine_leaves_out() {
        let plan = crate::record::golden::run().plan;
        let mut other = plan.clone();
        other.performance[0].unfit = Some("over budget".into());
        other.performance[0].largest_batch = Some(3);
        other.performance[0].alone_bytes = Some(1 << 33);
        assert_eq!(plan.hash(), other.hash());
        other.performance[0].repetitions += 1;
        assert_ne!(plan.hash(), other.hash());
    }
}
