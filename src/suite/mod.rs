//! Suite files: TOML → typed [`Suite`], checked, with a content hash.
//!
//! ```toml
//! schema = 1
//! name = "quickstart"
//! about = "What the suite answers, in a sentence or two."
//!
//! [model]                      # all optional; --model, --dtype, --kv and --rope go before it
//! path = "demo"                # demo, dummy:…, or a folder; the demo model where it is left out
//! required = true              # instead of path: the suite is for a model that must be named with --model
//! dtype = "fp16"               # fp16, fp32, bf16, w8a8-dynamic
//! kv = "auto"                  # auto (as dtype has it), int8
//! rope = "model"               # model, exact
//!
//! [[accuracy]]
//! task = "ceval"               # ceval, boolq
//! dataset = "../datasets/ceval-sample"   # relative to this file; else datasets/<task>
//! protocol = "two-stage"       # `glmbench list protocols`
//! split = "val"                # else the split that scores are published on
//! subjects = ["law", "logic"]  # else all
//! shots = 5                    # else the protocol's own number
//! max_new_tokens = 512         # else the protocol's own limit
//! limit = 100                  # items, taken in turn from each subject; else all
//! batch = 8                    # sequences at once; changes no answer
//! tp = 1                       # tensor-parallel size
//! max_failed = 0.01            # share of the items that may fail, else none: more make the run invalid
//! [[accuracy.expected]]        # published results, which ours is held against
//! model = "chatglm2-6b"        # for a model of this shape; else for any
//! dtype = "fp16"               # else for any
//! correct = 719
//! items = 1346
//! source = "who published it"
//!
//! [[performance]]
//! batch = [1, 2, 4]
//! lengths = [[128, 32], [256, 64]]       # input and output tokens
//! tp = [1]                     # tensor-parallel sizes
//! repetitions = 5              # timed
//! max_warmups = 8              # fewer once timings are stable
//! seed = 1                     # of the input tokens
//! dataset = "boolq"            # its questions instead of random tokens: boolq, ceval; or jsonl = "FILE" with a
//!                              # `question` in each line
//! folder = "../datasets/boolq" # of the data set; else datasets/<dataset>, else the sample of it
//! truncate = true              # cut prompts to the input length
//! padding = false              # repeat a shorter prompt's tokens up to the input length
//! groups = 1                   # batches to be timed, or "all"
//! budget_s = 60                # left out where the machine's measured limits say that it takes longer
//!
//! [[max_batch]]                # the largest batch that keeps the limits
//! lengths = [[256, 64]]
//! batch_range = [1, 64]        # both included
//! limit_tpot_ms = 50           # per token after the first, median of the repetitions
//! limit_ttft_ms = 2000         # else none
//! repetitions = 3              # of each probe
//! tp = [1]
//! seed = 1
//!
//! [[load]]                     # requests that arrive whether or not the engine keeps up
//! arrival = "poisson"          # poisson, fixed
//! rates = [1, 2.5, 4]          # requests a second; or saturation = true to find the highest sustained one
//! requests = 200               # at each rate; or duration_s = 30
//! lengths = [[128, 32]]        # requests take the pairs in turn
//! dataset = "boolq"            # real prompts, as in [[performance]]
//! max_batch = 16               # most sequences at once
//! slo = { ttft_ms = 500, tpot_ms = 50, e2e_ms = 4000 }   # what counts as served well; any of the three
//! tp = [1]
//! seed = 1
//!
//! [[target]]                   # what is expected of the machine's limits: a table in the report
//! figure = "decode-bandwidth"  # decode-speedup, attention-bandwidth, prefill-peak, prefill-rate, load-time, load-memory
//! case = "b1-i512-o17"
//! over = "b1-i16-o17"          # the other case of decode-speedup and prefill-rate
//! unit = "amx-bf16"            # of prefill-peak; else the fastest for the type: `glmbench doctor --limits`
//! dtype = "bf16"               # else of every type
//! at_least = 0.92              # a share or ratio; of loading at_most, seconds or GB
//!
//! [[configuration]]            # optional: what runs the cases; each makes a run of its own, compared at the end
//! name = "duo"
//! device = "300i-duo"          # the words of the command line: device, emulate, profile, model, dtype, kv, rope, tp,
//!                              # threads
//! emulate = true
//! model = "dummy:chatglm2-6b"
//! ```
//!
//! `profile_operators = true` at the top times every operator of the forward pass.
//! A case with `configurations = ["duo"]` is for these alone. `interleave = true` at the top times the cases of two
//! configurations in turn, in blocks of a process each, as `--interleave` does.
//!
//! `--set key=value` lays a value over a dotted key (`accuracy.0.limit=10`); `--set ceval=FOLDER` gives
//! every case of that task another data set. Paths on the command line are relative to the current folder.

mod configuration;
pub mod gates;
mod schema;
mod schema_workload;
mod table;
mod target;
mod tree;
mod types;
mod workload;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::bounded;
use crate::dataset::{Benchmark, sha256_hex};
use crate::task;

pub use configuration::Configuration;
pub use target::{Figure, Target};
pub use types::{Dtype, Kv, Rope};
pub use workload::{
    Arrival, DEFAULT_LOAD_BATCH, DEFAULT_PROBE_REPETITIONS, Extent, LoadCase, MaxBatchCase, Objectives,
    PromptSet, PromptSource, Rates,
};

/// Most bytes of a suite or gate file: those of this repository have a few thousand.
const MAX_BYTES: u64 = 1 << 20;
/// Sequences at once where a suite does not say.
pub const DEFAULT_BATCH: usize = 8;
/// Timed repetitions where a suite does not say.
pub const DEFAULT_REPETITIONS: usize = 5;
/// Most warm-up runs where a suite does not say.
pub const DEFAULT_WARMUPS: usize = 8;
/// Seed of input tokens where a suite does not say.
pub const DEFAULT_SEED: u64 = 1;

/// Why a suite cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// The suite file cannot be read.
    #[error("{}: {source}; expected a suite file (TOML)", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Something in it is not as it should be.
    #[error("{place}: {message}")]
    Invalid {
        /// `file:line:column`, or the `--set` it comes from.
        place: String,
        /// What was found, what was expected, what to do.
        message: String,
    },
}

impl SuiteError {
    fn at(place: &tree::Origin, message: impl Into<String>) -> Self {
        Self::Invalid { place: place.to_string(), message: message.into() }
    }

    fn found(place: &tree::Origin, found: &str, expected: &str) -> Self {
        Self::at(place, format!("found {found}; expected {expected}"))
    }
}

/// The `[model]` table; the command line goes before it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelChoice {
    /// `demo`, `dummy:…`, or a folder resolved against the suite file.
    pub path: Option<OsString>,
    /// Number format.
    pub dtype: Dtype,
    /// Number format of the KV cache.
    pub kv: Kv,
    /// Rotary table mode.
    pub rope: Rope,
    /// There is no model of its own, and none is taken by default: one must be named.
    pub required: bool,
}

/// A published result to hold ours against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The model it was published for, `chatglm2-6b`; any when `None`.
    pub model: Option<String>,
    /// The number format it was published for; any when `None`.
    pub dtype: Option<Dtype>,
    /// Right answers.
    pub correct: usize,
    /// Items scored.
    pub items: usize,
    /// Who published it.
    pub source: String,
}

/// One `[[accuracy]]` table.
#[derive(Debug, Clone, PartialEq)]
pub struct AccuracyCase {
    /// Which benchmark.
    pub task: Benchmark,
    /// The data set's folder, resolved.
    pub dataset: PathBuf,
    /// Name of the protocol; [`task::find`] has it.
    pub protocol: &'static str,
    /// Which split.
    pub split: String,
    /// Only these subjects; all when empty.
    pub subjects: Vec<String>,
    /// Demonstrations, where the suite says.
    pub shots: Option<usize>,
    /// Generation limit, where the suite says.
    pub max_new_tokens: Option<usize>,
    /// Most items, taken in turn from each subject.
    pub limit: Option<usize>,
    /// Sequences at once.
    pub batch: usize,
    /// Tensor-parallel ranks.
    pub tp: usize,
    /// Share of the items that may fail without making the run invalid.
    pub max_failed: Option<f64>,
    /// Published results.
    pub expected: Vec<Expected>,
    /// The configurations it is for; all when empty.
    pub configurations: Vec<String>,
}

impl AccuracyCase {
    /// What of the case decides prompts and scores.
    pub fn settings(&self) -> task::Settings {
        task::Settings {
            split: self.split.clone(),
            subjects: self.subjects.clone(),
            shots: self.shots,
            max_new_tokens: self.max_new_tokens,
            limit: self.limit,
        }
    }

    /// The published result that fits a run in `dtype`.
    pub fn expected_for(&self, dtype: Dtype) -> Option<&Expected> {
        let exact = self.expected.iter().find(|e| e.dtype == Some(dtype));
        exact.or_else(|| self.expected.iter().find(|e| e.dtype.is_none()))
    }
}

/// One `[[performance]]` table: every batch with every pair of lengths and every tensor-parallel size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerformanceCase {
    /// Sequences at once.
    pub batches: Vec<usize>,
    /// Input and output lengths in tokens.
    pub lengths: Vec<(usize, usize)>,
    /// Real prompts; random tokens when `None`. Input lengths are then their most.
    pub prompts: Option<PromptSource>,
    /// Tensor-parallel sizes.
    pub tp_ranks: Vec<usize>,
    /// Timed repetitions.
    pub repetitions: usize,
    /// Most warm-up runs.
    pub max_warmups: usize,
    /// Seed of the input tokens.
    pub seed: u64,
    /// Seconds that a shape may take at least, by the machine's measured limits; else it is left out.
    pub budget_s: Option<u64>,
    /// The configurations it is for; all when empty.
    pub configurations: Vec<String>,
}

/// A suite file, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Suite {
    /// The file.
    pub path: PathBuf,
    /// Its name: part of run folders' names.
    pub name: String,
    /// What it answers.
    pub about: String,
    /// Which model it is meant for.
    pub model: ModelChoice,
    /// What runs the cases, where the suite says; each makes a run of its own.
    pub configurations: Vec<Configuration>,
    /// Time the cases of two configurations in turn (A B B A), in blocks of a process each.
    pub interleave: bool,
    /// Accuracy cases, in file order.
    pub accuracy: Vec<AccuracyCase>,
    /// Performance cases, in file order.
    pub performance: Vec<PerformanceCase>,
    /// Searches for the largest batch, in file order.
    pub max_batch: Vec<MaxBatchCase>,
    /// Loads, in file order.
    pub load: Vec<LoadCase>,
    /// What is expected of the machine's limits.
    pub targets: Vec<Target>,
    /// Every operator is timed.
    pub profile_operators: bool,
}

impl Suite {
    /// Reads the suite at `path` with `overrides` (`key`, `value`) laid over it in order.
    ///
    /// # Errors
    /// The first thing that is not as it should be, with its place in the file or the `--set` it comes from.
    pub fn load(path: &Path, overrides: &[(String, OsString)]) -> Result<Self, SuiteError> {
        let text = text_of(path)?;
        Self::parse(path, &text, overrides)
    }

    /// [`Suite::load`] for a text already read; `path` says where it lies.
    pub fn parse(path: &Path, text: &str, overrides: &[(String, OsString)]) -> Result<Self, SuiteError> {
        let mut root = tree::parse(path, text)?;
        for (key, value) in overrides {
            let node = tree::parse_override("--set", key, value)?;
            match Benchmark::from_name(key) {
                Some(task) => set_dataset(&mut root, task, &node)?,
                None => tree::set(&mut root, key, node)?,
            }
        }
        schema::suite(root, path)
    }

    /// The suite as one of its configurations runs it: that configuration's cases, model and types.
    pub fn of(&self, configuration: &Configuration) -> Self {
        let is_for = |names: &[String]| names.is_empty() || names.contains(&configuration.name);
        let accuracy = self.accuracy.iter().filter(|c| is_for(&c.configurations)).cloned();
        let performance = self.performance.iter().filter(|c| is_for(&c.configurations)).cloned();
        let model = ModelChoice {
            path: configuration.model.clone().or_else(|| self.model.path.clone()),
            dtype: configuration.dtype.unwrap_or(self.model.dtype),
            kv: configuration.kv.unwrap_or(self.model.kv),
            rope: configuration.rope.unwrap_or(self.model.rope),
            required: self.model.required,
        };
        let max_batch = self.max_batch.iter().filter(|c| is_for(&c.configurations)).cloned();
        let load = self.load.iter().filter(|c| is_for(&c.configurations)).cloned();
        let mut suite = Self {
            model,
            accuracy: accuracy.collect(),
            performance: performance.collect(),
            max_batch: max_batch.collect(),
            load: load.collect(),
            ..self.clone()
        };
        if let Some(tp) = configuration.tp {
            suite.set_tp(tp);
        }
        suite
    }

    /// Gives every case this many tensor-parallel ranks.
    pub fn set_tp(&mut self, tp: usize) {
        self.accuracy.iter_mut().for_each(|case| case.tp = tp);
        self.performance.iter_mut().for_each(|case| case.tp_ranks = vec![tp]);
        self.max_batch.iter_mut().for_each(|case| case.tp_ranks = vec![tp]);
        self.load.iter_mut().for_each(|case| case.tp_ranks = vec![tp]);
    }

    /// SHA-256 of what decides the results, after overrides. Left out are what is hashed elsewhere in a run's
    /// identity (where model and data lie: their contents are) and what changes no answer: `about`, `expected`, `max_failed`, targets,
    /// budgets, batch size of accuracy cases, tensor-parallel sizes.
    pub fn content_hash(&self) -> String {
        let accuracy = self.accuracy.iter().map(|case| {
            json!([
                case.task.as_str(),
                case.protocol,
                case.split,
                case.subjects,
                case.shots,
                case.max_new_tokens,
                case.limit
            ])
        });
        let accuracy: Vec<_> = accuracy.into_iter().collect();
        let performance: Vec<_> = self
            .performance
            .iter()
            .map(|case| {
                let numbers =
                    json!([case.batches, case.lengths, case.repetitions, case.max_warmups, case.seed]);
                case.prompts.as_ref().map_or(numbers.clone(), |prompts| json!([numbers, prompts.content()]))
            })
            .collect();
        let mut content =
            vec![json!("suite"), json!(1), json!(self.name), json!(accuracy), json!(performance)];
        // Suites without them keep the hash they had before there were such cases.
        if !self.max_batch.is_empty() || !self.load.is_empty() {
            content.push(self.max_batch.iter().map(MaxBatchCase::content).collect());
            content.push(self.load.iter().map(LoadCase::content).collect());
        }
        sha256_hex(json!(content).to_string().as_bytes())
    }
}

/// The text of a definition file.
fn text_of(path: &Path) -> Result<String, SuiteError> {
    let wrong = |place: String, message| SuiteError::Invalid { place, message };
    let bytes = bounded::file(path, MAX_BYTES).map_err(|source| match source.kind() {
        std::io::ErrorKind::FileTooLarge => wrong(path.display().to_string(), source.to_string()),
        _ => SuiteError::Io { path: path.to_path_buf(), source },
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].split(|&b| b == b'\n').count();
        let found = format!("found a byte that is no UTF-8 at offset {good}; expected UTF-8 text");
        wrong(format!("{}:{line}:1", path.display()), found)
    })
}

/// Lays a data set folder over every case of a task, precision or speed.
fn set_dataset(root: &mut tree::Node, task: Benchmark, folder: &tree::Node) -> Result<(), SuiteError> {
    type IsOf = fn(&tree::Node, Benchmark) -> bool;
    let places: [(&str, &str, IsOf); 3] = [
        ("accuracy", "dataset", is_of_task),
        ("performance", "folder", schema_workload::is_of_dataset),
        ("load", "folder", schema_workload::is_of_dataset),
    ];
    let mut keys = Vec::new();
    for (tables, key, is_of) in places {
        if let tree::Value::Table(table) = &root.value
            && let Some(tree::Entry { node: tree::Node { value: tree::Value::Array(items), .. }, .. }) =
                table.get(tables)
        {
            let cases = items.iter().enumerate().filter(|(_, item)| is_of(item, task));
            keys.extend(cases.map(|(index, _)| format!("{tables}.{index}.{key}")));
        }
    }
    if keys.is_empty() {
        return Err(SuiteError::at(
            &folder.origin,
            format!(
                "the suite has no accuracy case of the task `{task}`, and no other case with its prompts"
            ),
        ));
    }
    keys.into_iter().try_for_each(|key| tree::set(root, &key, folder.clone()))
}

fn is_of_task(case: &tree::Node, task: Benchmark) -> bool {
    let tree::Value::Table(table) = &case.value else { return false };
    matches!(table.get("task").map(|e| &e.node.value), Some(tree::Value::String(name)) if name == task.as_str())
}

/// Where a set lies that the suite gives no path for: `datasets/<task>` beside the suite file, beside the
/// suite's folder, or in the current folder; the first that is there, else the last, which is where `dataset prepare`
/// puts it.
fn usual_place(task: Benchmark, suite_dir: &Path) -> PathBuf {
    place_of(task.as_str(), suite_dir)
}

/// [`usual_place`], or that of the sample set of this repository where the data set itself is not there: prompts for timing
/// need no answers.
fn usual_place_or_sample(task: Benchmark, suite_dir: &Path) -> PathBuf {
    let full = usual_place(task, suite_dir);
    let sample = place_of(&format!("{task}-sample"), suite_dir);
    if !full.is_dir() && sample.is_dir() { sample } else { full }
}

fn place_of(name: &str, suite_dir: &Path) -> PathBuf {
    let name = Path::new("datasets").join(name);
    let places = [suite_dir.join(&name), suite_dir.join("..").join(&name), name];
    places.iter().find(|place| place.is_dir()).unwrap_or(&places[2]).clone()
}
