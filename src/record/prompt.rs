//! What the model was asked for one item, so that an item can be opened again without its data set.

use super::journal::Keyed;
use super::sample::{SampleKey, SampleRecord};
use serde::{Deserialize, Serialize};

/// A line of `prompts.jsonl`: the model calls made for one item, in order. An item that was never put to the model has
/// no line.
///
/// Prompts stand apart from [`SampleRecord`] because they are most of a run's bytes and none of its scores: whoever
/// counts or compares never reads this file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptRecord {
    /// The task's name in the suite.
    pub task: String,
    /// The item's name within the task; task and doc_id are the line's key.
    pub doc_id: String,
    /// The calls.
    pub calls: Vec<CallRecord>,
}

/// What one model call was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRecord {
    /// The prompt's text; the first call's has the sample's `prompt_hash`.
    pub prompt: String,
    /// The prompt's token ids, prefix ids included.
    pub input_tokens: Vec<u32>,
}

impl PromptRecord {
    /// Whether these are the prompts of that sample.
    pub fn is_of(&self, sample: &SampleRecord) -> bool {
        self.task == sample.task && self.doc_id == sample.doc_id
    }
}

impl Keyed for PromptRecord {
    type Key = SampleKey;

    fn key(&self) -> SampleKey {
        SampleKey { task: self.task.clone(), doc_id: self.doc_id.clone() }
    }
}
