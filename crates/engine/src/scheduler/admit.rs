//! Admission: waiting requests get a place in the batch and blocks of the KV cache, with what earlier prompts left there.

use glmbench_device::KV_BLOCK_TOKENS;

use super::Engine;
use crate::EngineError;
use crate::cache::{Shared, content, shareable};
use crate::sequence::Sequence;

/// A prompt waits for another that begins alike if this saves at least this number of tokens. Less is not worth a step
/// with fewer rows.
const WORTH_WAITING_TOKENS: usize = KV_BLOCK_TOKENS;

impl Engine {
    /// Admits waiting requests in order, as far as they have room. Returns the number of prompt tokens taken from the cache.
    pub(super) fn admit(&mut self) -> Result<usize, EngineError> {
        let mut reused = 0;
        while self.running.len() < self.model.capacity().max_batch {
            let Some(next) = self.waiting.front() else { break };
            let shared = self.shared(next);
            if self.awaits(next, shared.tokens) {
                break;
            }
            let length = self.prefix() + next.request.prompt.len() + next.request.max_new_tokens;
            let Some((shared, blocks)) = self.take(shared, length) else { break };
            if let Err(error) = self.fill(&shared, &blocks) {
                self.allocator.give(blocks);
                return Err(error);
            }
            if let Some(mut sequence) = self.waiting.pop_front() {
                sequence.fed = shared.tokens.saturating_sub(self.prefix());
                reused += sequence.fed;
                sequence.blocks = blocks;
                self.running.push(sequence);
            }
        }
        Ok(reused)
    }

    /// Returns the length of the P-tuning prefix.
    fn prefix(&self) -> usize {
        self.model.config().pre_seq_len.unwrap_or(0)
    }

    /// Returns what the cache has of the beginning of a prompt.
    fn shared(&self, next: &Sequence) -> Shared {
        if !next.shares() {
            return Shared::default();
        }
        let found = self.allocator.find(&content(self.prefix(), next.reusable()));
        if found.tokens > self.prefix() { found } else { Shared::default() }
    }

    /// Whether a prompt had better wait, because one that is being fed begins like it.
    fn awaits(&self, next: &Sequence, shared: usize) -> bool {
        let prompt = next.reusable();
        let mut fed = self.running.iter().filter(|other| other.leaves_prefix() && other.prompt_left() > 0);
        next.shares()
            && fed.any(|other| {
                let common = other.request.prompt.iter().zip(prompt).take_while(|(a, b)| a == b).count();
                let later = shareable(self.prefix() + common, self.prefix() + prompt.len());
                later >= shared + WORTH_WAITING_TOKENS
            })
    }

    /// Takes blocks for `length` tokens. What is shared only in part is given up if that makes room.
    fn take(&mut self, shared: Shared, length: usize) -> Option<(Shared, Vec<u32>)> {
        if let Some(blocks) = self.allocator.take_after(&shared, length) {
            return Some((shared, blocks));
        }
        let whole = shared.whole();
        self.allocator.take_after(&whole, length).map(|blocks| (whole, blocks))
    }

    /// Fills new blocks with what is not computed: a copied part, or the P-tuning prefix.
    fn fill(&mut self, shared: &Shared, blocks: &[u32]) -> Result<(), EngineError> {
        if let Some(part) = shared.part {
            let tokens = shared.tokens % KV_BLOCK_TOKENS;
            self.model.copy_block(part, blocks[shared.blocks.len()], tokens)?;
        }
        if shared.tokens <= self.prefix() { self.model.write_prefix(blocks) } else { Ok(()) }
    }
}
