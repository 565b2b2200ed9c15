//! The prompts of one item, recorded so that an item can be inspected without its data set.

use super::identity::hex;
use super::keyed::Keyed;
use super::sample::{SampleKey, SampleRecord};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A line of `prompts.jsonl`: the model calls made for one item, in order. An item that was never put to the model has
/// no line.
///
/// Prompts are separate from [`SampleRecord`] because they take most of the space of a run and do not affect scores.
/// Code that counts or compares never reads this file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptRecord {
    /// The task's name in the suite.
    pub task: String,
    /// The item's name within the task; task and doc_id are the line's key.
    pub doc_id: String,
    /// The model calls.
    pub calls: Vec<CallRecord>,
}

/// The input of one model call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRecord {
    /// The prompt's text. For the first call, it matches the sample's `prompt_hash`.
    pub prompt: String,
    /// The prompt's token ids, prefix ids included.
    pub input_tokens: Vec<u32>,
}

impl PromptRecord {
    /// Whether the first prompt and the number of tokens match the sample.
    pub(super) fn agrees_with(&self, sample: &SampleRecord) -> bool {
        let tokens: usize = self.calls.iter().map(|call| call.input_tokens.len()).sum();
        let hash = self.calls.first().map(|call| hex(&Sha256::digest(call.prompt.as_bytes())));
        tokens as u64 == sample.input_tokens_n && hash.as_ref() == Some(&sample.prompt_hash)
    }

    /// Whether these are the prompts of `sample`.
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
