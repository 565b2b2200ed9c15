//! `run.json`: what was run, on what, and how far it came.

use super::identity::{Identity, hex};
use super::limits::Roofline;
use super::load::LoadCase;
use super::probe::SearchCase;
use super::request::{Clock, RepetitionKind, RequestRecord};
use super::target::{LoadFacts, Target};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// How far a run came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Under way, or killed without a chance to say so.
    Running,
    /// Stopped by Ctrl-C or an error; can be resumed.
    Interrupted,
    /// Every case of the plan had its lines when this was written; whether it has them is for [`super::Contents`] to say.
    Complete,
}

/// The content of `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The directory's name.
    pub run_id: String,
    /// How far it came.
    pub status: Status,
    /// What decides comparability.
    pub identity: Identity,
    /// What is recorded and may differ between runs that are compared.
    pub provenance: Provenance,
    /// The cases.
    pub plan: Plan,
    /// The choice tokens of each task, in order, as the tokenizer gave them.
    pub choice_tokens: BTreeMap<String, Vec<ChoiceToken>>,
    /// The first full prompt, so that a wrong template is seen at once.
    pub first_prompt: Option<FirstPrompt>,
    /// Each journal as it was when the run was complete, by file name; `None` before, and in records from before schema 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<BTreeMap<String, JournalSeal>>,
}

impl RunRecord {
    /// Its cases are timed in turn with those of another run, block by block.
    pub fn is_in_turns(&self) -> bool {
        self.provenance.group.as_ref().is_some_and(|group| group.blocks.is_some())
    }
}

/// A journal that nothing is added to any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalSeal {
    /// Its lines; of `telemetry.csv` the header is one.
    pub lines: u64,
    /// SHA-256 (hex) of its bytes.
    pub sha256: String,
}

/// Where, when and how a run was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The suite's name.
    pub suite: String,
    /// The model as it was asked for (`demo`, `dummy:chatglm2-6b`, a folder's name).
    pub model: String,
    /// What was read of the model, and what decided where its folder does not say, by name: shape, weight files, rotary scaling,
    /// ids before a prompt and at the end of a sequence, words of its configuration that are not known. Empty in records from
    /// before it was kept.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub model_details: BTreeMap<String, String>,
    /// Program and version: `glmbench 0.1.0`.
    pub engine: String,
    /// `cpu`, `300i-duo`, `800i-a2`, with `(emulated)` where it was.
    pub device: String,
    /// The kernels chosen at run time (`avx2`, `avx512`, `portable`…).
    pub kernel: String,
    /// The clock of all times.
    pub clock: Clock,
    /// Name and hash of the chip profile behind a modelled clock.
    pub clock_profile: Option<String>,
    /// The computing type: `fp16`, `fp32`, `bf16`.
    pub dtype: String,
    /// Tensor-parallel ranks of the precision cases; performance cases have their own.
    pub tp: u32,
    /// What the device chose and found, by name: chip, library versions, the operators behind attention, KV write….
    #[serde(default)]
    pub device_details: BTreeMap<String, String>,
    /// How each column of `telemetry.csv` comes about, with its unit; `absent: reason` where it stays empty.
    #[serde(default)]
    pub telemetry: BTreeMap<String, String>,
    /// Threads of the engine.
    pub threads: u32,
    /// Sequences at once in accuracy tasks.
    pub batch: u32,
    /// Versions of what was used: program, compiler, driver, firmware…
    pub versions: BTreeMap<String, String>,
    /// The commit of the program, if known at build.
    pub git_commit: Option<String>,
    /// The environment variables that change what the program or the device runtime does.
    pub environment: BTreeMap<String, String>,
    /// Host name.
    pub host: String,
    /// Operating system and kernel.
    pub os: String,
    /// CPU model, as the system names it.
    pub cpu_model: String,
    /// Frequency governor, if the system tells.
    pub governor: Option<String>,
    /// What the machine can do at most, as measured on it before the cases ([`super::Spots`] is what it could do around one
    /// repetition); of an emulated card what its profile says of one
    /// chip, so that a case of several ranks has as many times that.
    pub roofline: Option<Roofline>,
    /// What loading the model took; `None` in records from before it was kept, and where no model ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadFacts>,
    /// Weights that are NaN, or infinite in the run's type, in words; what was computed with them cannot be believed. `None`
    /// where none was read, and in records from before they were looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_faults: Option<Vec<String>>,
    /// The command line that made the run.
    pub command_line: Vec<String>,
    /// The run whose stored answers were scored again; set where no model ran.
    #[serde(default)]
    pub scored_from: Option<String>,
    /// RFC 3339, UTC: when the run began first.
    pub started: String,
    /// RFC 3339, UTC: when it ended last.
    pub finished: Option<String>,
    /// How often it was taken up again.
    pub resumed: u32,
    /// The command's other runs, where a suite has several configurations.
    #[serde(default)]
    pub group: Option<Group>,
}

/// One command that makes a run of each of a suite's configurations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name: when it began, as run directories begin, and the suite.
    pub id: String,
    /// Hash of the suite with all its configurations.
    pub suite: String,
    /// Which of them this run is.
    pub configuration: String,
    /// All of them, in the suite's order.
    pub configurations: Vec<String>,
    /// Blocks in which two of them are timed in turn, each in a process of its own; `None` where they run one after the other,
    /// and in records from before blocks were placed anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<u32>,
}

/// What was to be run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Tasks with items to score.
    pub accuracy: Vec<AccuracyCase>,
    /// Shapes to time.
    pub performance: Vec<PerformanceCase>,
    /// Searches for the largest batch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub searches: Vec<SearchCase>,
    /// Loads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loads: Vec<LoadCase>,
    /// What is expected of the machine's limits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Target>,
    /// Every repetition has the times of its operators.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub operators: bool,
}

impl Plan {
    /// The numbers of tensor-parallel ranks that the cases need, in the order in which they are run: an engine is loaded once
    /// for each. Precision comes first.
    pub fn worlds(&self) -> Vec<u32> {
        let timed = self.performance.iter().filter(|case| case.unfit.is_none());
        let accuracy = self.accuracy.iter().map(|case| case.tp);
        let searches = self.searches.iter().map(|case| case.tp);
        let loads = self.loads.iter().map(|case| case.tp);
        let mut worlds = Vec::new();
        for tp in accuracy.chain(timed.map(|case| case.tp)).chain(searches).chain(loads) {
            if !worlds.contains(&tp) {
                worlds.push(tp);
            }
        }
        worlds
    }
}

/// A task of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccuracyCase {
    /// The task's name in the suite, as in the samples.
    pub task: String,
    /// The dataset's name and split.
    pub dataset: String,
    /// The protocol's name, which stands beside every score.
    pub protocol: String,
    /// Worked examples before each question.
    pub shots: u32,
    /// Tensor-parallel ranks.
    #[serde(default = "super::wire::one")]
    pub tp: u32,
    /// Items to score (after any limit).
    pub items: u64,
    /// SHA-256 (hex) over names and contents of these items, in order ([`items_hash`]); `None` in records from before it was
    /// kept.
    #[serde(default)]
    pub items_hash: Option<String>,
    /// Items of the split and subjects asked for, before any limit; `None` in records from before this was kept.
    #[serde(default)]
    pub available: Option<u64>,
    /// Short content hash: two scores are comparable when it is equal.
    pub version_hash: String,
    /// Accuracy by chance, 0 to 1.
    pub chance: Option<f64>,
    /// The published or otherwise expected accuracy, 0 to 1, to print beside the result.
    pub expected: Option<f64>,
    /// The same as it was published; `None` where nothing is expected, and in records from before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<PublishedScore>,
    /// Share of the items that may fail without making the run invalid; none where `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failed: Option<f64>,
    /// The protocol has text generated; `None` in records from before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generates: Option<bool>,
    /// The rule that reads an answer where no better one does, as [`super::SampleRecord::extract_rule`] names it; `None` where
    /// the protocol has no such ladder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rule: Option<String>,
}

/// A published score.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedScore {
    /// What it is of: `chatglm2-6b in fp16`.
    pub of: String,
    /// Right answers.
    pub correct: u64,
    /// Items scored.
    pub items: u64,
    /// Who published it.
    pub source: String,
    /// Why the run's own score is not one of the same thing, if so; it is then not held against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlike: Option<String>,
}

/// SHA-256 (hex) over [`doc_id`](super::SampleRecord::doc_id) and [`doc_hash`](super::SampleRecord::doc_hash) of items in
/// their order: by it a journal has the items of the plan, and no others.
pub fn items_hash<'a>(items: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut digest = Sha256::new();
    for text in items.flat_map(|(doc_id, doc_hash)| [doc_id, doc_hash]) {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    }
    hex(&digest.finalize())
}

impl AccuracyCase {
    /// Whether so many failed items are more than the suite allows.
    pub fn is_spoilt_by(&self, failed: u64) -> bool {
        // A share in decimals times a count may come out a little short of a whole number.
        failed as f64 > self.max_failed.unwrap_or(0.0) * self.items as f64 + 1e-6
    }

    /// How many items there are, where a limit leaves some of them out.
    pub fn part_of(&self) -> Option<u64> {
        self.available.filter(|all| *all > self.items)
    }
}

/// A shape of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PerformanceCase {
    /// Its name, as in the requests.
    pub case_id: String,
    /// Tensor-parallel ranks.
    #[serde(default = "super::wire::one")]
    pub tp: u32,
    /// Sequences in the batch.
    pub batch: u32,
    /// Prompt tokens of each sequence; with real prompts, which differ, their mean over all batches, rounded.
    pub input_tokens: u32,
    /// Tokens to generate for each sequence.
    pub output_tokens: u32,
    /// Real prompts; `None` for random tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<PromptsCase>,
    /// Why the device cannot hold it, if so; it was then not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfit: Option<String>,
    /// Timed repetitions wanted; with real prompts, of each batch of them.
    pub repetitions: u32,
    /// Seed of the random prompts; `None` for real ones, and in records from before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// What prefill must do at least, for the roofline.
    pub prefill_cost: Option<Cost>,
    /// What all decode steps together must do at least.
    pub decode_cost: Option<Cost>,
}

impl PerformanceCase {
    /// Timed repetitions wanted: each batch of prompts as often as the case says.
    pub fn timed(&self) -> u64 {
        u64::from(self.repetitions) * u64::from(self.prompts.as_ref().map_or(1, |prompts| prompts.groups))
    }

    /// Whether nothing of it is left to run: it was left out, every timed repetition has its line, or a repetition failed,
    /// after which no other is run.
    pub fn is_finished(&self, requests: &[RequestRecord]) -> bool {
        let own = || requests.iter().filter(|request| request.case_id == self.case_id);
        let timed = own().filter(|request| request.kind == RepetitionKind::Timed).count() as u64;
        self.unfit.is_some() || timed >= self.timed() || own().any(|request| request.error.is_some())
    }
}

/// The real prompts of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptsCase {
    /// Data set or file.
    pub source: String,
    /// Batches that are timed, each as often as the case says.
    pub groups: u32,
    /// Tokens of the shortest prompt as it is fed.
    pub shortest: u32,
    /// Tokens of the longest.
    pub longest: u32,
    /// What was done to make prompts and batches of the questions, in words.
    pub notes: Vec<String>,
}

/// Work of a phase of one repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Bytes that must cross the memory bus.
    pub bytes: u64,
    /// Floating-point operations.
    pub flops: u64,
}

/// One answer's token.
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
