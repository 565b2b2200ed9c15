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
    /// Counts the tokens of the first prompts of these items, one item after the other, in a KV cache of
    /// `kv_blocks` blocks. `prefix` is the length of the P-tuning prefix. Later prompts of an item depend on its answers.
    pub fn prompt_tokens(&self, items: &[usize], kv_blocks: usize, prefix: usize) -> PromptTokens {
        let mut allocator = BlockAllocator::new(kv_blocks);
        let mut tokens = PromptTokens::default();
        for (_, ids) in items.iter().filter_map(|&index| self.evaluation.first_prompt(index)) {
            tokens.all += ids.len() as u64;
            tokens.computed += computed(&mut allocator, &content(prefix, &ids), prefix) as u64;
        }
        tokens
    }

    /// Returns the work of all items, estimated by that of some of them: progress must not keep the first item waiting.
    pub(super) fn estimated(&self, work: impl FnOnce(&[usize]) -> u64) -> u64 {
        let some = some_of(&self.own);
        let share = self.own.len() as f64 / some.len().max(1) as f64;
        (work(&some) as f64 * share) as u64
    }
}

/// Returns some of many items, at most [`MOST`]: rows at even distances. Neighbours stay together, because they share the most.
fn some_of(items: &[usize]) -> Vec<usize> {
    if items.len() <= MOST {
        return items.to_vec();
    }
    let rows = MOST / ROW;
    let start = |row: usize| row * (items.len() - ROW) / (rows - 1);
    (0..rows).flat_map(|row| &items[start(row)..start(row) + ROW]).copied().collect()
}

/// Most items that stand for all.
const MOST: usize = 512;
/// Items of a row.
const ROW: usize = 32;

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
    fn some_of_many_items_are_rows_at_even_distances() {
        let all: Vec<usize> = (7..7 + MOST).collect();
        assert_eq!(some_of(&all), all);
        for count in [MOST + 1, 14_042, 100_000] {
            let some = some_of(&(0..count).collect::<Vec<_>>());
            assert_eq!((some.len(), some[0], some[MOST - 1]), (MOST, 0, count - 1));
            assert!(some.windows(2).all(|pair| pair[0] < pair[1]), "{count}");
        }
    }

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
