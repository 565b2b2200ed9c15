//! `run.json`: what was run, on what, and how far the run got.

use super::cases::Plan;
use super::clock::Clock;
use super::identity::{Identity, hex};
use super::modelled::ModelledBy;
use super::roofline::Roofline;
use super::shard::Shards;
use super::target::LoadFacts;
use super::word::Word;
use super::work::TaskWork;
use glmbench_device::{DeviceName, Precision};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// How far a run got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// In progress, or killed before it could record another status.
    Running,
    /// Stopped by Ctrl-C or an error; can be resumed.
    Interrupted,
    /// Every case of the plan had its lines when this was written. [`super::Contents`] checks whether they still exist.
    Complete,
}

/// The content of `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The directory's name.
    pub run_id: String,
    /// How far the run got.
    pub status: Status,
    /// The facts that make runs comparable.
    pub identity: Identity,
    /// Recorded facts that may differ between compared runs.
    pub provenance: Provenance,
    /// The cases of the run.
    pub plan: Plan,
    /// The choice tokens of each task, in order, as the tokenizer encodes them.
    pub choice_tokens: BTreeMap<String, Vec<ChoiceToken>>,
    /// The first full prompt, so that a wrong template is noticed at once.
    pub first_prompt: Option<FirstPrompt>,
    /// Each journal at completion, by file name. `None` before completion and in records older than schema 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<BTreeMap<String, JournalSeal>>,
    /// The shards of the plan that the run has. `None` for a run of the whole plan on one machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<Box<Shards>>,
}

impl RunRecord {
    /// Fills in what records of older schemas do not say.
    pub(super) fn complete(&mut self) {
        self.plan.accuracy.iter_mut().for_each(AccuracyCase::complete);
    }

    /// Whether the run's cases are timed alternately with those of another run, block by block.
    pub fn is_in_turns(&self) -> bool {
        self.provenance.group.as_ref().is_some_and(|group| group.blocks.is_some())
    }
}

/// The final state of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalSeal {
    /// Number of lines. The header of `telemetry.csv` counts as one.
    pub lines: u64,
    /// SHA-256 (hex) of the file.
    pub sha256: String,
}

/// Where, when and how a run was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The suite's name.
    pub suite: String,
    /// The model as requested (`demo`, `dummy:chatglm2-6b`, a folder's name).
    pub model: String,
    /// What was read from the model, by name: shape, weight files, rotary scaling, unknown words of its configuration.
    /// Also the ids before a prompt and at the end of a sequence, and what was assumed where the folder does not say. Empty in
    /// records older than this field.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub model_details: BTreeMap<String, String>,
    /// Program and version: `glmbench 0.1.0`.
    pub engine: String,
    /// The device. A name of its own where a server or a script answered.
    pub device: Word<DeviceName>,
    /// The kernels selected at run time (`avx2`, `avx512`, `portable`…).
    pub kernel: String,
    /// The clock of all times.
    pub clock: Clock,
    /// Name and hash of the chip profile of a modelled clock.
    pub clock_profile: Option<String>,
    /// Its figures and fits. `None` with a measured clock, and in records older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modelled_by: Option<Box<ModelledBy>>,
    /// The types of weights, activations and KV cache.
    pub dtype: Word<Precision>,
    /// Tensor-parallel ranks of the precision cases. Performance cases have their own.
    pub tp: u32,
    /// What the device selected and found, by name: chip, library versions, the operators used for attention, KV
    /// write….
    #[serde(default)]
    pub device_details: BTreeMap<String, String>,
    /// The source and unit of each column of `telemetry.csv`; `absent: reason` for columns that stay empty.
    #[serde(default)]
    pub telemetry: BTreeMap<String, String>,
    /// Number of engine threads.
    pub threads: u32,
    /// Concurrent sequences in accuracy tasks.
    pub batch: u32,
    /// Versions of program, compiler, driver, firmware…
    pub versions: BTreeMap<String, String>,
    /// The commit of the program, if known at build time.
    pub git_commit: Option<String>,
    /// The environment variables that affect the program or the device runtime.
    pub environment: BTreeMap<String, String>,
    /// Host name.
    pub host: String,
    /// Operating system and kernel.
    pub os: String,
    /// CPU model, as reported by the system.
    pub cpu_model: String,
    /// Frequency governor, if the system reports one.
    pub governor: Option<String>,
    /// The machine's limits, measured before the cases. [`super::RooflineSamples`] has the limits around a single repetition. For
    /// an emulated card, these are the limits of one chip from its profile, so a case of `n` ranks has `n` times as
    /// much.
    pub roofline: Option<Roofline>,
    /// Time and memory that loading the model took. `None` in records older than this field, and where no model ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadFacts>,
    /// Weights that are NaN, or infinite in the run's type, in words. Results computed with them are not reliable.
    /// `None` where no weights were read, and in records older than this check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_faults: Option<Vec<String>>,
    /// What the engine computed for each accuracy task, by the task's name. Empty in records older than this field, and
    /// where no engine of this program ran.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub work: BTreeMap<String, TaskWork>,
    /// The command line that made the run.
    pub command_line: Vec<String>,
    /// The run with the stored answers that were scored again. Set only where no model ran.
    #[serde(default)]
    pub scored_from: Option<String>,
    /// When the run first started: RFC 3339, UTC.
    pub started: String,
    /// When the run last ended: RFC 3339, UTC.
    pub finished: Option<String>,
    /// How often the run was resumed.
    pub resumed: u32,
    /// The command's other runs, if the suite has several configurations.
    #[serde(default)]
    pub group: Option<Group>,
}

/// A command that makes one run for each configuration of a suite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The group's name: its start time, in the format of run directory names, and the suite.
    pub id: String,
    /// Hash of the suite with all its configurations.
    pub suite: String,
    /// The configuration of this run.
    pub configuration: String,
    /// All configurations, in the suite's order.
    pub configurations: Vec<String>,
    /// Number of blocks in which two configurations are timed alternately, each block in its own process. `None` where
    /// they run one after the other, and in records from before blocks had their own processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<u32>,
}

/// A task of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccuracyCase {
    /// The task's name in the suite, as in the samples.
    pub task: String,
    /// The benchmark's name. Records older than schema 4 do not have it: the reader fills it in from the task's name.
    #[serde(default)]
    pub benchmark: String,
    /// The dataset's name and split.
    pub dataset: String,
    /// The protocol's name, which is printed beside every score. Of a rescored run with another protocol:
    /// `<asked under>/<read by>`.
    pub protocol: String,
    /// Worked examples before each question.
    pub shots: u32,
    /// Tensor-parallel ranks.
    #[serde(default = "super::wire::one")]
    pub tp: u32,
    /// Items to score, after any limit.
    pub items: u64,
    /// SHA-256 (hex) of the names and contents of these items, in order ([`items_hash`]). `None` in records older than
    /// this field.
    #[serde(default)]
    pub items_hash: Option<String>,
    /// Items of the requested split and subjects, before any limit. `None` in records older than this field.
    #[serde(default)]
    pub available: Option<u64>,
    /// Short content hash. Two scores are comparable if their hashes are equal.
    pub version_hash: String,
    /// Accuracy of guessing, 0 to 1.
    pub chance: Option<f64>,
    /// The published or otherwise expected accuracy, 0 to 1, printed beside the result.
    pub expected: Option<f64>,
    /// The expected accuracy as published. `None` where nothing is expected, and in records older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<PublishedScore>,
    /// Share of the items that may fail without making the run invalid. `None` means that no item may fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failed: Option<f64>,
    /// Whether the protocol generates text. `None` in records older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generates: Option<bool>,
    /// The fallback rule for extracting an answer, named as in [`super::SampleRecord::extract_rule`]. `None` if the
    /// protocol has no sequence of rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rule: Option<String>,
    /// Whether items have no right answer, so that only their measures count. Left out if they have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keyless: bool,
    /// The task file that defines the benchmark. `None` for a benchmark that is code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_file: Option<TaskFileRecord>,
}

/// A task file as a run used it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFileRecord {
    /// SHA-256 (hex) of the file.
    pub sha256: String,
    /// The whole file, so that answers can be read again without it.
    pub text: String,
}

/// A published score.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedScore {
    /// What was scored: `chatglm2-6b in fp16`.
    pub of: String,
    /// Correct answers.
    pub correct: u64,
    /// Items scored.
    pub items: u64,
    /// Who published it.
    pub source: String,
    /// Why the run's score is not comparable with this one. If set, the two are not compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlike: Option<String>,
}

/// Returns the SHA-256 (hex) of the [`doc_id`](super::SampleRecord::doc_id) and
/// [`doc_hash`](super::SampleRecord::doc_hash) of items, in order. It shows whether a journal has exactly the items of
/// the plan.
pub fn items_hash<'a>(items: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut hasher = ItemsHasher::default();
    items.for_each(|(doc_id, doc_hash)| hasher.add(doc_id, doc_hash));
    hasher.finish()
}

/// Computes [`items_hash`] item by item.
#[derive(Default)]
pub(super) struct ItemsHasher(Sha256);

impl ItemsHasher {
    pub(super) fn add(&mut self, doc_id: &str, doc_hash: &str) {
        for text in [doc_id, doc_hash] {
            self.0.update((text.len() as u64).to_le_bytes());
            self.0.update(text);
        }
    }

    pub(super) fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

/// Separator between the protocol that asked and the one that read the answers.
const READ_BY: char = '/';

impl AccuracyCase {
    /// Returns the text of [`AccuracyCase::protocol`] for answers asked under one protocol and read by another.
    pub fn protocol_name(asked: &str, read: &str) -> String {
        if asked == read { asked.to_owned() } else { format!("{asked}{READ_BY}{read}") }
    }

    /// Returns the name of the protocol under which the model was asked.
    pub fn asked_under(&self) -> &str {
        self.protocol.split_once(READ_BY).map_or(&self.protocol, |(asked, _)| asked)
    }

    /// Returns the name of the protocol that read the answers.
    pub fn read_by(&self) -> &str {
        self.protocol.split_once(READ_BY).map_or(&self.protocol, |(_, read)| read)
    }

    /// Fills in the benchmark of a record older than schema 4. The task's name began with it, up to the first `-`.
    fn complete(&mut self) {
        if self.benchmark.is_empty() {
            self.task.split('-').next().unwrap_or_default().clone_into(&mut self.benchmark);
        }
    }

    /// Whether `failed` items are more than the suite allows.
    pub fn is_spoilt_by(&self, failed: u64) -> bool {
        // A decimal share times a count may fall slightly short of a whole number.
        failed as f64 > self.max_failed.unwrap_or(0.0) * self.items as f64 + 1e-6
    }

    /// Returns the number of available items if a limit excludes some of them.
    pub fn part_of(&self) -> Option<u64> {
        self.available.filter(|all| *all > self.items)
    }
}

/// The token of one answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChoiceToken {
    /// The answer (`A`).
    pub text: String,
    /// Its token id.
    pub id: u32,
}

/// A prompt as the model saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstPrompt {
    /// The task.
    pub task: String,
    /// The item.
    pub doc_id: String,
    /// The whole text.
    pub text: String,
    /// Its token ids, prefix ids included.
    pub token_ids: Vec<u32>,
}
