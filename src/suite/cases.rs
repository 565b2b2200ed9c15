//! The tables of cases in a suite: made from the list of workloads ([`crate::workload`]), whose types differ.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::table::{Table, case_configurations, tables, tp_ranks};
use super::{AccuracyCase, Configuration, ModelChoice, SuiteError, Target};

/// Where the cases of a table run: the keys that every table of timed cases has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaseScope {
    /// Tensor-parallel sizes.
    pub tp_ranks: Vec<usize>,
    /// Configurations that the cases apply to; all if empty.
    pub configurations: Vec<String>,
}

impl CaseScope {
    /// Reads `tp_ranks` and `configurations`.
    pub(crate) fn read(table: &mut Table) -> Result<Self, SuiteError> {
        Ok(Self { tp_ranks: tp_ranks(table)?, configurations: case_configurations(table)? })
    }
}

/// A table of a suite that stands for timed cases of one workload.
pub trait CaseTable: Debug {
    /// Returns where the cases run.
    fn scope(&self) -> &CaseScope;
    /// Returns the configurations that the cases apply to; all if empty.
    fn configurations(&self) -> &[String] {
        &self.scope().configurations
    }
    /// Returns where the cases run, to change it.
    fn scope_mut(&mut self) -> &mut CaseScope;
    /// Takes over what is said of the suite's own model: in its `[model]`, and then on the command line. What is not said stays.
    fn of_model(&mut self, _model: &ModelChoice) {}
    /// Returns the number of cases.
    fn cases(&self) -> usize;
    /// Describes the cases in a line, for `glmbench check`. `modelled` says of each configuration whether its times are.
    fn words(&self, modelled: &[bool]) -> String;
    /// Returns the settings that determine the results, for the suite's content hash.
    fn content(&self) -> Value;
}

/// A table that can be read.
pub(crate) trait Schema: CaseTable + Sized {
    /// Whether the table can name a data set for its prompts ([`prompts`](super::prompts::prompts)).
    const HAS_PROMPTS: bool = false;

    /// Reads a table. `dir` is the suite's folder.
    ///
    /// # Errors
    /// The first fault, with its place.
    fn read(table: Table, dir: &Path) -> Result<Self, SuiteError>;
}

macro_rules! cases {
    ($($(#[$only:meta])* $folder:ident: $table:ident, $plan:ident, $lines:ident;)*) => {
        /// A suite file, after reading and checking.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Suite {
            /// The file.
            pub path: PathBuf,
            /// Name of the suite, which is part of the names of run folders.
            pub name: String,
            /// What the suite answers, in a sentence or two.
            pub about: String,
            /// The model that the suite is for.
            pub model: ModelChoice,
            /// The ways to run the cases. Each makes its own run.
            pub configurations: Vec<Configuration>,
            /// Whether to interleave the cases of two configurations (A B B A), in blocks of one process each.
            pub interleave: bool,
            /// The run with which every run of the suite is compared at its end. A run directory, or the beginning of its name in
            /// the folder of runs.
            pub baseline: Option<PathBuf>,
            /// Accuracy cases, in file order.
            pub accuracy: Vec<AccuracyCase>,
            $(
                $(#[$only])*
                #[doc = concat!("Tables `[[", stringify!($table), "]]`, in file order.")]
                pub $table: Vec<crate::workload::$folder::Table>,
            )*
            /// Expected shares of the machine limits.
            pub targets: Vec<Target>,
        }

        /// The keys of the tables of timed cases, in the order in which cases run. The second value says whether such a table can
        /// name a data set for its prompts.
        pub(super) const TABLES: &[(&str, bool)] = &[
            $($(#[$only])* (stringify!($table), <crate::workload::$folder::Table as Schema>::HAS_PROMPTS),)*
        ];

        impl Suite {
            /// Returns the tables of timed cases, by key.
            pub fn timed(&self) -> Vec<(&'static str, Vec<&dyn CaseTable>)> {
                Vec::from([$($(#[$only])* (
                    stringify!($table),
                    self.$table.iter().map(|table| table as &dyn CaseTable).collect(),
                ),)*])
            }

            /// Returns every table of timed cases.
            pub fn timed_mut(&mut self) -> Vec<&mut dyn CaseTable> {
                let mut all: Vec<&mut dyn CaseTable> = Vec::new();
                $($(#[$only])* all.extend(self.$table.iter_mut().map(|table| table as &mut dyn CaseTable));)*
                all
            }

            /// Removes the tables of timed cases with unwanted configurations.
            pub(super) fn retain_timed(&mut self, is_wanted: impl Fn(&[String]) -> bool) {
                $($(#[$only])* self.$table.retain(|table| is_wanted(table.configurations()));)*
            }

            /// Reads the tables of timed cases.
            pub(super) fn read_timed(&mut self, root: &mut Table, dir: &Path) -> Result<(), SuiteError> {
                $($(#[$only])* {
                    let all = tables(root, stringify!($table))?.into_iter();
                    self.$table = all.map(|table| Schema::read(table, dir)).collect::<Result<_, _>>()?;
                })*
                Ok(())
            }

            /// Creates a suite without cases.
            pub(super) fn empty(path: PathBuf, name: String, about: String, model: ModelChoice) -> Self {
                Self {
                    path,
                    name,
                    about,
                    model,
                    configurations: Vec::new(),
                    interleave: false,
                    baseline: None,
                    accuracy: Vec::new(),
                    $($(#[$only])* $table: Vec::new(),)*
                    targets: Vec::new(),
                }
            }
        }
    };
}
crate::workload::each!(cases);
