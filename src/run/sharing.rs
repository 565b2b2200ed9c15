//! How many prompt tokens of a task are computed, if prompts that begin alike share what they have in common.

use glmbench_engine::cache::{BlockAllocator, blocks_for, content};

use super::accuracy::AccuracyRun;

/// Prompt tokens of the first prompts of all items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PromptTokens {
    /// All of them.
    pub all: u64,
    /// Those that are computed, because no earlier prompt begins with them.
    pub computed: u64,
}

impl AccuracyRun<'_> {
    /// Counts the tokens of the first prompts of all items, one item after the other, in a KV cache of
    /// `kv_blocks` blocks. `prefix` is the length of the P-tuning prefix. Later prompts of an item depend on its answers.
    pub fn prompt_tokens(&self, kv_blocks: usize, prefix: usize) -> PromptTokens {
        let mut allocator = BlockAllocator::new(kv_blocks);
        let mut tokens = PromptTokens::default();
        for (_, ids) in self.own.iter().filter_map(|&index| self.evaluation.first_prompt(index)) {
            tokens.all += ids.len() as u64;
            tokens.computed += computed(&mut allocator, &content(prefix, &ids), prefix) as u64;
        }
        tokens
    }
}

/// Returns the number of tokens that the prompt with this content adds to the cache.
fn computed(allocator: &mut BlockAllocator, content: &[u32], prefix: usize) -> usize {
    let shared = allocator.find(content);
    // Blocks that the prompt does not fit into hold nothing.
    let Some(blocks) = allocator.take_after(&shared, content.len()) else { return content.len() - prefix };
    debug_assert_eq!(blocks.len(), blocks_for(content.len()));
    allocator.keep(content, blocks);
    content.len() - prefix.max(shared.tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_prompt_began_with_is_counted_once() {
        let mut allocator = BlockAllocator::new(16);
        let prompt = |question: u32| {
            let mut ids: Vec<u32> = (0..300).collect();
            ids.resize(340, 1000 + question);
            ids
        };
        let count = |allocator: &mut BlockAllocator, ids: &[u32], prefix| {
            computed(allocator, &content(prefix, ids), prefix)
        };
        assert_eq!(count(&mut allocator, &prompt(0), 0), 340);
        // 300 tokens are common, and parts of 8 are shared.
        assert_eq!(count(&mut allocator, &prompt(1), 0), 340 - 296);
        let mut allocator = BlockAllocator::new(16);
        assert_eq!(count(&mut allocator, &prompt(0), 20), 340);
        assert_eq!(count(&mut allocator, &prompt(1), 20), 340 - (320 - 20));
        assert_eq!(count(&mut BlockAllocator::new(1), &prompt(0), 0), 340);
    }
}
