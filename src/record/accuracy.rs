//! The accuracy cases of a plan.

use super::identity::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

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
    pub(super) fn complete(&mut self) {
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
