//! Which block of the paged KV cache belongs to which sequence.

use crate::device::KV_BLOCK_TOKENS;

/// Hands out blocks of [`KV_BLOCK_TOKENS`] tokens.
#[derive(Debug)]
pub struct BlockAllocator {
    free: Vec<u32>,
}

/// Blocks that hold `tokens` tokens.
pub fn blocks_for(tokens: usize) -> usize {
    tokens.div_ceil(KV_BLOCK_TOKENS)
}

impl BlockAllocator {
    /// All of `blocks` free.
    pub fn new(blocks: usize) -> Self {
        Self { free: (0..blocks as u32).rev().collect() }
    }

    /// Blocks for `tokens` tokens, or `None` while too few are free.
    pub fn take(&mut self, tokens: usize) -> Option<Vec<u32>> {
        let wanted = blocks_for(tokens);
        (wanted <= self.free.len()).then(|| self.free.split_off(self.free.len() - wanted))
    }

    /// Gives a sequence's blocks back.
    pub fn give(&mut self, blocks: Vec<u32>) {
        self.free.extend(blocks);
    }
}
