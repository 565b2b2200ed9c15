//! Which block of the paged KV cache belongs to which sequence.

use crate::device::KV_BLOCK_TOKENS;

/// Hands out blocks of [`KV_BLOCK_TOKENS`] tokens, the lowest that are free: which ones a sequence gets, and so where its cache lies,
/// follows from what runs beside it, not from what ran before.
#[derive(Debug)]
pub struct BlockAllocator {
    /// Descending.
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
        self.free.sort_unstable_by(|a, b| b.cmp(a));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_do_not_tell_what_ran_before() {
        let mut allocator = BlockAllocator::new(6);
        let first = allocator.take(2 * KV_BLOCK_TOKENS).unwrap();
        let (a, b) = (allocator.take(1).unwrap(), allocator.take(3 * KV_BLOCK_TOKENS).unwrap());
        assert_eq!(allocator.take(1), None);
        [b, first.clone(), a].into_iter().for_each(|blocks| allocator.give(blocks));
        assert_eq!(allocator.take(2 * KV_BLOCK_TOKENS), Some(first));
    }
}
