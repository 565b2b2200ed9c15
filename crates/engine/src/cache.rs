//! Allocation of paged KV-cache blocks to sequences.

use glmbench_device::KV_BLOCK_TOKENS;

/// Allocates blocks of [`KV_BLOCK_TOKENS`] tokens, lowest free number first.
/// A sequence's blocks, and so its place in the cache, depend only on the sequences running beside it, not on earlier
/// ones.
#[derive(Debug)]
pub struct BlockAllocator {
    /// Free blocks, in descending order.
    free: Vec<u32>,
}

/// Returns the number of blocks that hold `tokens` tokens.
pub fn blocks_for(tokens: usize) -> usize {
    tokens.div_ceil(KV_BLOCK_TOKENS)
}

impl BlockAllocator {
    /// Creates an allocator with all `blocks` blocks free.
    pub fn new(blocks: usize) -> Self {
        Self { free: (0..blocks as u32).rev().collect() }
    }

    /// Returns the number of free blocks.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Takes blocks for `tokens` tokens, or returns `None` if too few are free.
    pub fn take(&mut self, tokens: usize) -> Option<Vec<u32>> {
        let wanted = blocks_for(tokens);
        (wanted <= self.free.len()).then(|| self.free.split_off(self.free.len() - wanted))
    }

    /// Returns a sequence's blocks to the free list.
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
