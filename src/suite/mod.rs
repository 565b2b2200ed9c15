//! Suite files: reads TOML into a typed [`Suite`], checks it, and computes a content hash.
//!
//! ```toml
//! schema = 1
//! name = "quickstart"
//! about = "What the suite answers, in a sentence or two."
//!
//! [model]                      # all optional; --model, --dtype, --kv and --rope take precedence
//! path = "demo"                # demo, dummy:…, or a folder; default: the demo model
//! required = true              # instead of path: the model must be named with --model
//! dtype = "fp16"               # fp16, bf16, fp32, w8a8-dynamic
//! kv = "auto"                  # auto (as dtype has it), int8
//! rope = "model"               # model, exact
//!
//! [[accuracy]]
//! task = "ceval"               # `glmbench list tasks`, or a task file (docs/TASKFILES.md): "my-task.toml"
//! dataset = "../datasets/ceval-sample"   # relative to this file; default: datasets/<task>
//! protocol = "two-stage"       # `glmbench list protocols`
//! split = "val"                # default: the split of published scores
//! subjects = ["law", "logic"]  # default: all
//! shots = 5                    # default: the protocol's number
//! max_new_tokens = 512         # default: the protocol's limit
//! samples = 10                 # answers to each item, drawn at random; for protocols that run programs; default: 1, the likeliest
//! temperature = 0.8            # of the draws; with `samples` only
//! top_p = 0.95                 # default: 1
//! seed = 1                     # default: 1
//! limit = 100                  # items, taken in turn from each subject; default: all
//! batch = 8                    # sequences at once; does not change answers
//! tp = 1                       # tensor-parallel size
//! max_failed = 0.01            # share of items that may fail; more make the run invalid; default: none may
//! [[accuracy.expected]]        # published results to compare with
//! model = "chatglm2-6b"        # a model of this shape; default: any
//! dtype = "fp16"               # default: any
//! correct = 719
//! items = 1346
//! source = "who published it"
//!
//! [[performance]]
//! batch = [1, 2, 4]
//! lengths = [[128, 32], [256, 64]]       # input and output tokens
//! tp = [1]                     # tensor-parallel sizes
//! repetitions = 5              # timed
//! max_warmups = 8              # fewer if timings are stable earlier
//! seed = 1                     # of the input tokens
//! dataset = "boolq"            # its questions instead of random tokens: boolq, ceval; or jsonl = "FILE" with a
//!                              # `question` in each line
//! folder = "../datasets/boolq" # of the data set; default: datasets/<dataset>, or else its sample
//! truncate = true              # cut prompts to the input length
//! padding = false              # repeat a shorter prompt's tokens up to the input length
//! groups = 1                   # number of batches to time, or "all"
//! budget_s = 60                # skip shapes that need more time according to the machine's measured limits
//!
//! [[max_batch]]                # find the largest batch that meets the limits
//! lengths = [[256, 64]]
//! batch_range = [1, 64]        # both ends included
//! limit_tpot_ms = 50           # per token after the first, median of the repetitions
//! limit_ttft_ms = 2000         # default: no limit
//! repetitions = 3              # of each probe
//! tp = [1]
//! seed = 1
//!
//! [[load]]                     # requests arrive whether or not the engine keeps up
//! arrival = "poisson"          # poisson, gamma (with burstiness, its shape), fixed, trace (with trace = FILE, speeds)
//! rates = [1, 2.5, 4]          # requests/s; or saturation = true to find the highest sustained rate
//! concurrency = [1, 4, 16]     # instead of arrival and rates: a closed loop with this many requests under way
//! requests = 200               # at each rate; or duration_s = 30
//! lengths = [[128, 32]]        # requests take the pairs in turn
//! dataset = "boolq"            # real prompts, as in [[performance]]
//! max_batch = 16               # maximum sequences at once
//! prefill_chunk = 128          # most prompt tokens in a step that also decodes; default: prompts first
//! slo = { ttft_ms = 500, tpot_ms = 50, e2e_ms = 4000 }   # service-level objectives; any of the three
//! tp = [1]
//! seed = 1
//!
//! [[parity]]                   # logits against a reference, position by position
//! against = "cpu:fp16"         # device of the reference on this host, and its type; default: cpu, in the float type of [model]
//! reference = "chatglm2-6b"    # its model, as `path` of [model]; default: the suite's own, whatever a configuration runs
//! prompts = 20                 # number of prompts; of a data set, evenly spaced
//! tokens = 256                 # most tokens of a prompt
//! continuation = 32            # tokens of the reference's greedy continuation after each prompt
//! dataset = "boolq"            # real prompts, as in [[performance]]; default: random tokens
//! tp = [1]
//! seed = 1
//!
//! [[target]]                   # expected share of a machine limit; becomes a table in the report
//! figure = "decode-bandwidth"  # decode-speedup, attention-bandwidth, prefill-peak, prefill-rate, load-time, load-memory
//! case = "b1-i512-o17"
//! over = "b1-i16-o17"          # the other case, for decode-speedup and prefill-rate
//! unit = "amx-bf16"            # for prefill-peak; default: the fastest for the type (`glmbench doctor --limits`)
//! dtype = "bf16"               # default: every type
//! at_least = 0.92              # a share or ratio; for load-time and load-memory at_most, in seconds or GB
//!
//! [[configuration]]            # optional: ways to run the cases; each makes its own run, compared at the end
//! name = "duo"
//! device = "300i-duo"          # keys are named like the command line's flags: device, emulate, profile, model,
//!                              # dtype, kv, rope, tp, threads
//! emulate = true
//! model = "dummy:chatglm2-6b"
//! ```
//!
//! `profile_operators = true` at the top level times every operator of the forward pass.
//! A case with `configurations = ["duo"]` runs only in those configurations. `interleave = true` at the top level
//! alternates the cases of two configurations, in blocks of one process each, like `--interleave`. `baseline = "RUN"` at the
//! top level compares every run with an earlier one at its end, like `--baseline`.
//!
//! `--set key=value` overrides the value of a dotted key (`accuracy.0.limit=10`). `--set ceval=FOLDER` gives every case
//! of that task another data set. Paths on the command line are relative to the current folder.

pub(crate) mod cases;
mod configuration;
pub mod gates;
pub(crate) mod prompts;
mod schema;
pub(crate) mod table;
mod target;
mod types;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::json;

use glmbench_device::Precision;

use crate::compute::ComputeSpec;
use crate::dataset::{Benchmark, sha256_hex};
use crate::document::{self, tree};
use crate::task;

pub use crate::document::DocumentError as SuiteError;
pub use crate::record::{Arrival, Objective, Objectives};
pub use crate::workload::load::table::{DEFAULT_LOAD_BATCH, Extent, LoadCase, Rates};
pub use crate::workload::max_batch::schema::{DEFAULT_PROBE_REPETITIONS, MaxBatchCase};
pub use crate::workload::parity::schema::ParityTable;
pub use crate::workload::shapes::schema::{DEFAULT_REPETITIONS, DEFAULT_WARMUPS, PerformanceCase};
pub use cases::{CaseScope, CaseTable, Suite};
pub use configuration::Configuration;
pub use prompts::{PromptSet, PromptSource};
pub use table::Lengths;
pub use target::Target;

/// Default number of sequences at once.
pub const DEFAULT_BATCH: usize = 8;
/// Default seed of the input tokens.
pub const DEFAULT_SEED: u64 = 1;

/// A value laid over a suite, as of `--set`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// Dotted key, such as `accuracy.0.limit`, or the name of a task for its data set.
    pub key: String,
    /// The value in TOML, or a folder. It need not be UTF-8.
    pub value: OsString,
}

/// The `[model]` table. The command line takes precedence.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelChoice {
    /// `demo`, `dummy:…`, or a folder resolved against the suite file.
    pub path: Option<OsString>,
    /// How to compute, as far as the suite says. In a suite restricted to a configuration, the configuration's settings.
    pub compute: ComputeSpec,
    /// Whether the model must be named on the command line. The suite then has no model and no default.
    pub required: bool,
}

/// A published result to compare with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Model of the published result, such as `chatglm2-6b`; any if `None`.
    pub model: Option<String>,
    /// Number format of the published result; any if `None`.
    pub dtype: Option<Precision>,
    /// Number of right answers.
    pub correct: usize,
    /// Number of items scored.
    pub items: usize,
    /// Source of the published result.
    pub source: String,
}

/// One `[[accuracy]]` table.
#[derive(Debug, Clone, PartialEq)]
pub struct AccuracyCase {
    /// The benchmark.
    pub task: &'static Benchmark,
    /// The data set's folder, as a resolved path.
    pub dataset: PathBuf,
    /// Name of the protocol, as in [`task::find`].
    pub protocol: &'static str,
    /// The split.
    pub split: String,
    /// Restricts the case to these subjects; all if empty.
    pub subjects: Vec<String>,
    /// Number of demonstrations. `None` is the protocol's default.
    pub shots: Option<usize>,
    /// Generation limit in tokens. `None` is the protocol's default.
    pub max_new_tokens: Option<usize>,
    /// Maximum number of items, taken in turn from each subject.
    pub limit: Option<usize>,
    /// How answers are drawn; `None` for the likeliest.
    pub draws: Option<task::Draws>,
    /// Sequences at once.
    pub batch: usize,
    /// Tensor-parallel size.
    pub tp: usize,
    /// Share of the items that may fail before the run becomes invalid.
    pub max_failed: Option<f64>,
    /// Published results.
    pub expected: Vec<Expected>,
    /// Configurations that the case applies to; all if empty.
    pub configurations: Vec<String>,
}

impl AccuracyCase {
    /// Returns the settings that determine prompts and scores.
    pub fn settings(&self) -> task::Settings {
        task::Settings {
            split: self.split.clone(),
            subjects: self.subjects.clone(),
            shots: self.shots,
            max_new_tokens: self.max_new_tokens,
            limit: self.limit,
            draws: self.draws,
        }
    }

    /// Returns the published result for a run in this precision, whatever its KV cache.
    pub fn expected_for(&self, precision: Precision) -> Option<&Expected> {
        let same = |dtype: Precision| dtype.type_name() == precision.type_name();
        let exact = self.expected.iter().find(|e| e.dtype.is_some_and(same));
        exact.or_else(|| self.expected.iter().find(|e| e.dtype.is_none()))
    }
}

impl Suite {
    /// Reads the suite at `path` and applies `overrides` in order.
    ///
    /// # Errors
    /// The first fault, with its place in the file or the `--set` that it comes from.
    pub fn load(path: &Path, overrides: &[Override]) -> Result<Self, SuiteError> {
        let text = text_of(path)?;
        Self::parse(path, &text, overrides)
    }

    /// Like [`Suite::load`], for text that is already read. `path` is its location.
    pub fn parse(path: &Path, text: &str, overrides: &[Override]) -> Result<Self, SuiteError> {
        let mut root = tree::parse(path, text)?;
        for Override { key, value } in overrides {
            let node = tree::parse_override("--set", key, value)?;
            match Benchmark::from_name(key) {
                Some(task) => set_dataset(&mut root, task, &node)?,
                None => tree::set(&mut root, key, node)?,
            }
        }
        schema::suite(root, path)
    }

    /// Returns the suite as `configuration` runs it: with only its cases, and its model and types.
    #[must_use]
    pub fn of(&self, configuration: &Configuration) -> Self {
        let is_for = |names: &[String]| names.is_empty() || names.contains(&configuration.name);
        let accuracy = self.accuracy.iter().filter(|c| is_for(&c.configurations)).cloned();
        let model = ModelChoice {
            path: configuration.model.clone().or_else(|| self.model.path.clone()),
            compute: configuration.compute.clone().over(&self.model.compute),
            required: self.model.required,
        };
        let mut suite = Self { model, accuracy: accuracy.collect(), ..self.clone() };
        suite.retain_timed(is_for);
        if let Some(tp) = configuration.compute.ranks {
            suite.set_tp(tp);
        }
        suite
    }

    /// Sets the tensor-parallel size of every case.
    pub fn set_tp(&mut self, tp: usize) {
        self.accuracy.iter_mut().for_each(|case| case.tp = tp);
        self.timed_mut().into_iter().for_each(|table| table.scope_mut().tp_ranks = vec![tp]);
    }

    /// Returns the SHA-256 of the settings that determine the results, after overrides. It omits what a run's identity
    /// hashes elsewhere: the locations of model and data, since their contents are hashed. It also omits what changes
    /// no answer, such as `about`, `expected`, `max_failed`, targets, budgets, the batch size of accuracy cases, and
    /// tensor-parallel sizes.
    pub fn content_hash(&self) -> String {
        let accuracy = self.accuracy.iter().map(|case| {
            let mut all = vec![
                json!(case.task.name),
                json!(case.protocol),
                json!(case.split),
                json!(case.subjects),
                json!(case.shots),
                json!(case.max_new_tokens),
                json!(case.limit),
            ];
            // Cases keep the hash that they had before answers could be drawn.
            all.extend(case.draws.map(|of| json!([of.samples, of.temperature, of.top_p, of.seed])));
            json!(all)
        });
        let accuracy: Vec<_> = accuracy.into_iter().collect();
        let mut timed = self.timed().into_iter().map(|(key, tables)| {
            let content: Vec<_> = tables.iter().map(|table| table.content()).collect();
            (key, content)
        });
        let mut next = || timed.next().unwrap_or_default();
        let (performance, max_batch, load) = (next().1, next().1, next().1);
        let mut content =
            vec![json!("suite"), json!(1), json!(self.name), json!(accuracy), json!(performance)];
        // Suites keep the hash that they had before the workloads that they do not use existed. The second and the third
        // came together.
        if !max_batch.is_empty() || !load.is_empty() {
            content.extend([json!(max_batch), json!(load)]);
        }
        content
            .extend(timed.filter(|(_, tables)| !tables.is_empty()).map(|(key, tables)| json!([key, tables])));
        sha256_hex(json!(content).to_string().as_bytes())
    }
}

/// Reads the text of a suite or gate file.
fn text_of(path: &Path) -> Result<String, SuiteError> {
    document::text_of(path, "a suite file (TOML)")
}

/// Sets the data set folder of every case with data of `task`: accuracy, and timed cases with its prompts.
fn set_dataset(root: &mut tree::Node, task: &Benchmark, folder: &tree::Node) -> Result<(), SuiteError> {
    type IsOf = fn(&tree::Node, &Benchmark) -> bool;
    let accuracy: (&str, &str, IsOf) = ("accuracy", "dataset", is_of_task);
    let timed = cases::TABLES.iter().filter(|(_, has_prompts)| *has_prompts);
    let timed = timed.map(|(tables, _)| -> (&str, &str, IsOf) { (tables, "folder", prompts::is_of_dataset) });
    let mut keys = Vec::new();
    for (tables, key, is_of) in std::iter::once(accuracy).chain(timed) {
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

fn is_of_task(case: &tree::Node, task: &Benchmark) -> bool {
    let tree::Value::Table(table) = &case.value else { return false };
    matches!(table.get("task").map(|e| &e.node.value), Some(tree::Value::String(name)) if name == task.name)
}

/// Returns the default data set folder of a task: `datasets/<set>` beside the suite file, beside the suite's folder, or in
/// the current folder. Returns the first that exists, or else the last, where `dataset prepare` puts the set.
fn usual_place(task: &Benchmark, suite_dir: &Path) -> PathBuf {
    place_of(task.set(), suite_dir)
}

/// Like [`usual_place`], but falls back to this repository's sample if the full data set does not exist. Prompts for
/// timing need no answers.
fn usual_place_or_sample(task: &Benchmark, suite_dir: &Path) -> PathBuf {
    let full = usual_place(task, suite_dir);
    let sample = place_of(&format!("{task}-sample"), suite_dir);
    if !full.is_dir() && sample.is_dir() { sample } else { full }
}

fn place_of(name: &str, suite_dir: &Path) -> PathBuf {
    let name = Path::new("datasets").join(name);
    let places = [suite_dir.join(&name), suite_dir.join("..").join(&name), name];
    places.iter().find(|place| place.is_dir()).unwrap_or(&places[2]).clone()
}
