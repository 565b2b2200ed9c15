//! `run.json`: what was run, on what, and how far the run got.

use super::accuracy::AccuracyCase;
use super::clock::Clock;
use super::identity::Identity;
use super::modelled::ModelledBy;
use super::plan::Plan;
use super::roofline::Roofline;
use super::shard::{ShardOrigin, Shards};
use super::target::LoadFacts;
use super::word::Word;
use super::work::TaskWork;
use crate::language::{Text, text};
use glmbench_device::{DeviceName, Precision};
use serde::{Deserialize, Serialize};
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

    /// Describes which part of the plan the run has; `None` for a run of the whole plan.
    pub fn part_words(&self) -> Option<Text> {
        self.shards.as_ref().map(|shards| shards.words())
    }

    /// Whether the run lacks a part of the plan that its identity describes.
    pub fn is_part(&self) -> bool {
        self.shards.as_ref().is_some_and(|shards| !shards.is_whole())
    }

    /// Returns the whole plan of a merged run that lacks a part. The run's own plan has only what is there.
    pub fn lacking(&self) -> Option<&Plan> {
        self.shards.as_ref().filter(|shards| shards.single().is_none())?.whole.as_ref()
    }

    /// Returns where the run was made. `complete` says that all of it is here.
    pub(crate) fn origin(&self, complete: bool) -> ShardOrigin {
        let of = &self.provenance;
        ShardOrigin {
            run_id: self.run_id.clone(),
            complete,
            host: of.host.clone(),
            cpu_model: of.cpu_model.clone(),
            kernel: of.kernel.clone(),
            threads: of.threads,
            governor: of.governor.clone(),
            roofline: of.roofline.clone(),
            load: of.load.clone(),
            started: of.started.clone(),
            finished: of.finished.clone(),
            resumed: of.resumed,
        }
    }

    /// Returns where a timed case of a merged run was timed.
    pub fn origin_of(&self, case_id: &str) -> Option<&ShardOrigin> {
        self.shards.as_ref()?.origin_of(case_id)
    }

    /// Returns the name of the host that timed a case.
    pub fn host_of(&self, case_id: &str) -> &str {
        self.origin_of(case_id).map_or(&self.provenance.host, |origin| &origin.host)
    }

    /// Returns why the times of two cases must not be judged together: a shard timed one, and the machines are not alike.
    /// `None` if they may, if no run is merged, or on a virtual clock, which no machine changes.
    pub fn unlike_machines(&self, case_id: &str, other: &Self, other_id: &str) -> Option<Text> {
        if [self, other].iter().all(|run| run.provenance.clock == Clock::Modelled) {
            return None;
        }
        let of = |run: &Self, id: &str| {
            run.origin_of(id).cloned().unwrap_or_else(|| run.origin(run.status == Status::Complete))
        };
        if self.origin_of(case_id).is_none() && other.origin_of(other_id).is_none() {
            return None;
        }
        let (a, b) = (of(self, case_id), of(other, other_id));
        (!a.is_like(&b))
            .then(|| text!("timed on unlike machines, {differences}", differences = a.difference_words(&b)))
    }

    /// Returns the limits of the machine that timed a case, measured before its cases.
    pub fn roofline_of(&self, case_id: &str) -> Option<&Roofline> {
        match self.origin_of(case_id) {
            Some(origin) => origin.roofline.as_ref(),
            None => self.provenance.roofline.as_ref(),
        }
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
