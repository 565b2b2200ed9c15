//! Allocation of paged KV-cache blocks to sequences, and blocks that sequences share.
//!
//! Sequences that begin alike share the blocks of their beginning. A block that a sequence leaves behind stays in place
//! until its memory is needed, so later sequences find it. Shared blocks are never written: where a sequence parts from
//! another within a block, it gets a copy.

mod prefixes;

use std::collections::BTreeSet;

use glmbench_device::KV_BLOCK_TOKENS;

use self::prefixes::Prefixes;

/// Shared tokens come in multiples of this. Fewer are not worth a copied block.
const SHARED_TOKENS: usize = 8;

/// Stands for a token of the P-tuning prefix, which is the same in all sequences.
const PREFIX_TOKEN: u32 = u32::MAX;

/// Allocates blocks of [`KV_BLOCK_TOKENS`] tokens, lowest free number first.
/// Without shared blocks, a sequence's place in the cache depends only on the sequences running beside it, not on earlier
/// ones.
#[derive(Debug)]
pub struct BlockAllocator {
    free: BTreeSet<u32>,
    /// Number of sequences that use each block.
    users: Vec<u32>,
    /// Number of blocks that no sequence uses, and that are kept for what they hold.
    cached: usize,
    prefixes: Prefixes,
}

/// The beginning of a sequence that is in the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shared {
    /// Its whole blocks.
    pub blocks: Vec<u32>,
    /// Block that is shared in part.
    pub part: Option<u32>,
    /// Its tokens, P-tuning prefix included.
    pub tokens: usize,
}

/// Returns the number of blocks that hold `tokens` tokens.
pub fn blocks_for(tokens: usize) -> usize {
    tokens.div_ceil(KV_BLOCK_TOKENS)
}

/// Returns what the blocks of a sequence hold: the P-tuning prefix, and its tokens.
pub fn content(prefix: usize, tokens: &[u32]) -> Vec<u32> {
    let mut content = vec![PREFIX_TOKEN; prefix];
    content.extend_from_slice(tokens);
    content
}

/// Returns how much of `common` tokens a sequence of `length` tokens can share, P-tuning prefix included. At least two
/// rows are left to compute. The last one has the logits. One row alone would be decoding, which a card may do with
/// another operator.
pub fn shareable(common: usize, length: usize) -> usize {
    common.min(length.saturating_sub(2)) / SHARED_TOKENS * SHARED_TOKENS
}

impl BlockAllocator {
    /// Creates an allocator with all `blocks` blocks free.
    pub fn new(blocks: usize) -> Self {
        Self {
            free: (0..blocks as u32).collect(),
            users: vec![0; blocks],
            cached: 0,
            prefixes: Prefixes::default(),
        }
    }

    /// Returns the number of blocks that no sequence uses.
    pub fn free(&self) -> usize {
        self.free.len() + self.cached
    }

    /// Returns the number of blocks that no sequence uses, and that are kept for what they hold.
    pub fn cached(&self) -> usize {
        self.cached
    }

    /// Takes blocks for `tokens` tokens, or returns `None` if too few are free.
    pub fn take(&mut self, tokens: usize) -> Option<Vec<u32>> {
        self.take_after(&Shared::default(), tokens)
    }

    /// Takes blocks for `tokens` tokens that begin with `shared`, or returns `None` if too few are free. The copy of
    /// [`Shared::part`] has to be made before more blocks are taken.
    pub fn take_after(&mut self, shared: &Shared, tokens: usize) -> Option<Vec<u32>> {
        let kept = || shared.blocks.iter().chain(&shared.part).copied();
        kept().for_each(|block| self.hold(block));
        let wanted = blocks_for(tokens) - shared.blocks.len();
        let mut blocks = None;
        if wanted <= self.free() {
            kept().for_each(|block| self.prefixes.touch(block));
            let fresh = self.fresh(wanted);
            fresh.iter().for_each(|&block| self.users[block as usize] = 1);
            blocks = Some([&shared.blocks[..], &fresh].concat());
        } else {
            shared.blocks.iter().for_each(|&block| self.release(block));
        }
        shared.part.iter().for_each(|&block| self.release(block));
        blocks
    }

    /// Counts a user of a block that is kept for what it holds.
    fn hold(&mut self, block: u32) {
        let users = &mut self.users[block as usize];
        self.cached -= usize::from(*users == 0);
        *users += 1;
    }

    /// Counts a user less. A block without users is free, or is kept for what it holds.
    fn release(&mut self, block: u32) {
        let users = &mut self.users[block as usize];
        *users -= 1;
        if *users > 0 {
            return;
        }
        if self.prefixes.holds(block) {
            self.cached += 1;
        } else {
            self.free.insert(block);
        }
    }

    /// Takes `wanted` blocks from those that are free, after making room for them. The last one has the lowest number.
    fn fresh(&mut self, wanted: usize) -> Vec<u32> {
        while self.free.len() < wanted {
            assert!(self.evict(), "invariant: enough blocks are free or unused");
        }
        let mut fresh: Vec<u32> = (0..wanted).filter_map(|_| self.free.pop_first()).collect();
        fresh.reverse();
        fresh
    }

    /// Frees the block without users that was used least recently. Returns whether there was one.
    fn evict(&mut self) -> bool {
        let users = &self.users;
        let Some(block) = self.prefixes.evict(|block| users[block as usize] == 0) else { return false };
        self.cached -= 1;
        self.free.insert(block)
    }

    /// Returns a sequence's blocks. Those that nobody uses any more are free, or are kept for what they hold.
    pub fn give(&mut self, blocks: Vec<u32>) {
        blocks.into_iter().for_each(|block| self.release(block));
    }

    /// Returns the longest part of `content`'s beginning that is in the cache and can be shared.
    pub fn find(&self, content: &[u32]) -> Shared {
        let found = self.prefixes.find(&content[..shareable(content.len(), content.len())]);
        let tokens = shareable(found.tokens, content.len());
        Shared { part: found.part.filter(|_| !tokens.is_multiple_of(KV_BLOCK_TOKENS)), tokens, ..found }
    }

    /// Offers a running sequence's blocks to others. `content` is what they hold by now.
    pub fn publish(&mut self, content: &[u32], blocks: &[u32]) {
        self.prefixes.add(content, blocks, false);
    }

    /// Keeps an ended sequence's blocks for others, and returns them as [`BlockAllocator::give`] does.
    pub fn keep(&mut self, content: &[u32], blocks: Vec<u32>) {
        self.prefixes.add(content, &blocks, true);
        self.give(blocks);
    }

    /// Frees the blocks that no sequence uses.
    pub fn drop_cached(&mut self) {
        while self.evict() {}
    }
}

impl Shared {
    /// Returns the whole blocks alone.
    #[must_use]
    pub fn whole(self) -> Self {
        Self { tokens: self.blocks.len() * KV_BLOCK_TOKENS, part: None, blocks: self.blocks }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    /// What sequences would have written to the blocks.
    struct Memory(Vec<Vec<u32>>);

    impl Memory {
        /// Checks that what is shared is there, and writes the rest of a sequence.
        fn begin(&mut self, content: &[u32], shared: &Shared, blocks: &[u32]) {
            if let Some(part) = shared.part {
                let copy = self.0[part as usize].clone();
                self.0[blocks[shared.blocks.len()] as usize] = copy;
            }
            for (at, token) in content.iter().enumerate() {
                let place = &mut self.0[blocks[at / KV_BLOCK_TOKENS] as usize][at % KV_BLOCK_TOKENS];
                if at < shared.tokens {
                    assert_eq!(*place, *token, "token {at}");
                }
                *place = *token;
            }
        }
    }

    proptest! {
        /// What is found is what the blocks hold, no block has two writers, and all are free or kept at the end.
        #[test]
        fn sequences_find_what_others_wrote(
            acts in prop::collection::vec((0..4usize, 1..400usize, 0..3u32, any::<bool>()), 1..80),
            blocks in 4..12usize,
        ) {
            let mut allocator = BlockAllocator::new(blocks);
            let mut memory = Memory(vec![vec![0; KV_BLOCK_TOKENS]; blocks]);
            let mut running: Vec<(Vec<u32>, Vec<u32>)> = Vec::new();
            for (act, length, kind, keeps) in acts {
                if act > 0 {
                    let own = length / 3;
                    let content: Vec<u32> =
                        (0..length).map(|i| if i < length - own { 7 } else { 100 + kind * 7 + i as u32 % 5 }).collect();
                    let shared = allocator.find(&content);
                    prop_assert!(shared.tokens + 2 <= length.max(2));
                    let Some(taken) = allocator.take_after(&shared, length) else { continue };
                    let fresh = &taken[shared.blocks.len()..];
                    prop_assert!(running.iter().all(|(_, others)| fresh.iter().all(|block| !others.contains(block))));
                    memory.begin(&content, &shared, &taken);
                    allocator.publish(&content, &taken);
                    running.push((content, taken));
                } else if !running.is_empty() {
                    let (content, taken) = running.remove(length % running.len());
                    if keeps { allocator.keep(&content, taken) } else { allocator.give(taken) }
                }
                let used: std::collections::BTreeSet<u32> =
                    running.iter().flat_map(|(_, taken)| taken.iter().copied()).collect();
                prop_assert_eq!(used.len() + allocator.free(), blocks);
            }
            running.into_iter().for_each(|(_, taken)| allocator.give(taken));
            prop_assert_eq!(allocator.free(), blocks);
            allocator.drop_cached();
            prop_assert_eq!((allocator.cached(), allocator.free()), (0, blocks));
            let all: Vec<u32> = (0..blocks as u32).rev().collect();
            prop_assert_eq!(allocator.take(blocks * KV_BLOCK_TOKENS), Some(all));
        }
    }
}
