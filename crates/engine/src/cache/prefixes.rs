//! The tree of cached blocks, by what they hold.
//!
//! A node is a block with its tokens. Its parent is the block before it, so a path from a root is the beginning of a
//! sequence. Tokens are compared one by one: there are no hashes, and so no false hits. Siblings are in the order of
//! their tokens, so the one that begins most like a sequence stands beside the sequence's own place.

use std::collections::{BTreeSet, HashMap};

use glmbench_device::KV_BLOCK_TOKENS;

use super::Shared;

/// A block and what it holds.
#[derive(Debug)]
struct Node {
    parent: Option<u32>,
    /// In the order of their tokens.
    children: Vec<u32>,
    /// Fewer than [`KV_BLOCK_TOKENS`] if the sequence ended, or goes on with tokens that nobody can share yet.
    tokens: Vec<u32>,
    last_use: u64,
}

/// Blocks by content.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    nodes: HashMap<u32, Node>,
    /// In the order of their tokens.
    roots: Vec<u32>,
    /// The nodes without children, by last use.
    leaves: BTreeSet<(u64, u32)>,
    /// Number of uses so far: the clock of [`Node::last_use`].
    uses: u64,
}

impl Prefixes {
    /// Whether the block is a node.
    pub(super) fn holds(&self, block: u32) -> bool {
        self.nodes.contains_key(&block)
    }

    /// Returns the longest beginning of `content` that the blocks hold.
    pub(super) fn find(&self, content: &[u32]) -> Shared {
        let mut found = Shared::default();
        let mut siblings = &self.roots;
        for wanted in content.chunks(KV_BLOCK_TOKENS) {
            let place = self.place(siblings, wanted);
            let beside = &siblings[place.saturating_sub(1)..siblings.len().min(place + 1)];
            let best = beside.iter().map(|&block| (common(&self.nodes[&block].tokens, wanted), block)).max();
            let Some((tokens, block)) = best.filter(|(tokens, _)| *tokens > 0) else { break };
            found.tokens += tokens;
            if tokens < KV_BLOCK_TOKENS {
                found.part = Some(block);
                break;
            }
            found.blocks.push(block);
            siblings = &self.nodes[&block].children;
        }
        found
    }

    /// Adds the blocks that hold `content`. Where another block holds the same already, it stays. The blocks behind it
    /// are added only if `whole`: then the sequence has ended, and none of its blocks has to outlive the other.
    pub(super) fn add(&mut self, content: &[u32], blocks: &[u32], whole: bool) {
        let mut parent = None;
        for (tokens, &block) in content.chunks(KV_BLOCK_TOKENS).zip(blocks) {
            let node = match (self.same(parent, tokens, block), self.holds(block)) {
                (Some(_), false) if !whole => return,
                (Some(same), false) => same,
                (_, true) => {
                    self.extend(block, tokens);
                    block
                }
                (None, false) => {
                    self.insert(block, parent, tokens);
                    block
                }
            };
            self.touch(node);
            parent = Some(node);
        }
    }

    /// Returns a child of `parent` that begins with these tokens, other than `block`.
    fn same(&self, parent: Option<u32>, tokens: &[u32], block: u32) -> Option<u32> {
        let siblings = self.children(parent);
        let from_place = siblings[self.place(siblings, tokens)..].iter().copied();
        let mut same = from_place.take_while(|sibling| self.nodes[sibling].tokens.starts_with(tokens));
        same.find(|sibling| *sibling != block)
    }

    /// Notes that a block holds these tokens, if they are more than it held.
    fn extend(&mut self, block: u32, tokens: &[u32]) {
        if self.nodes[&block].tokens.len() < tokens.len() {
            let parent = self.nodes[&block].parent;
            self.leave(block, parent);
            self.join(block, parent, tokens);
            self.nodes.entry(block).and_modify(|node| node.tokens = tokens.to_vec());
        }
    }

    fn insert(&mut self, block: u32, parent: Option<u32>, tokens: &[u32]) {
        if let Some(parent) = parent {
            self.leaves.remove(&(self.nodes[&parent].last_use, parent));
        }
        self.join(block, parent, tokens);
        let node = Node { parent, children: Vec::new(), tokens: tokens.to_vec(), last_use: self.uses };
        self.leaves.insert((node.last_use, block));
        self.nodes.insert(block, node);
    }

    /// Puts a block among its siblings, at the place of its tokens.
    fn join(&mut self, block: u32, parent: Option<u32>, tokens: &[u32]) {
        let place = self.place(self.children(parent), tokens);
        self.children_mut(parent).insert(place, block);
    }

    /// Takes a block from among its siblings.
    fn leave(&mut self, block: u32, parent: Option<u32>) {
        let siblings = self.children(parent);
        let first = self.place(siblings, &self.nodes[&block].tokens);
        if let Some(behind) = siblings[first..].iter().position(|sibling| *sibling == block) {
            self.children_mut(parent).remove(first + behind);
        }
    }

    /// Returns how many of these siblings stand before the tokens.
    fn place(&self, siblings: &[u32], tokens: &[u32]) -> usize {
        siblings.partition_point(|sibling| self.nodes[sibling].tokens[..] < *tokens)
    }

    fn children(&self, parent: Option<u32>) -> &[u32] {
        parent.map_or(&self.roots, |parent| &self.nodes[&parent].children)
    }

    fn children_mut(&mut self, parent: Option<u32>) -> &mut Vec<u32> {
        match parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            Some(parent) => &mut parent.children,
            None => &mut self.roots,
        }
    }

    /// Notes that the block is used.
    pub(super) fn touch(&mut self, block: u32) {
        self.uses += 1;
        let Some(node) = self.nodes.get_mut(&block) else { return };
        let before = std::mem::replace(&mut node.last_use, self.uses);
        if self.leaves.remove(&(before, block)) {
            self.leaves.insert((self.uses, block));
        }
    }

    /// Removes the node that was used least recently, among those that no other needs and that may go. Returns its block.
    pub(super) fn evict(&mut self, may_go: impl Fn(u32) -> bool) -> Option<u32> {
        let leaf = *self.leaves.iter().find(|(_, block)| may_go(*block))?;
        let (_, block) = leaf;
        self.leaves.remove(&leaf);
        let parent = self.nodes[&block].parent;
        self.leave(block, parent);
        self.nodes.remove(&block);
        if let Some(parent) = parent.filter(|&parent| self.children(Some(parent)).is_empty()) {
            self.leaves.insert((self.nodes[&parent].last_use, parent));
        }
        Some(block)
    }
}

/// Returns how many tokens two sequences begin with in common.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Prefixes {
        /// What [`Prefixes::find`] returns the tokens of, by a look at every node.
        fn longest(&self, parent: Option<u32>, content: &[u32]) -> usize {
            let wanted = &content[..content.len().min(KV_BLOCK_TOKENS)];
            let children = self.nodes.iter().filter(|(_, node)| node.parent == parent);
            let reached = |(&block, node): (&u32, &Node)| match common(&node.tokens, wanted) {
                KV_BLOCK_TOKENS => KV_BLOCK_TOKENS + self.longest(Some(block), &content[KV_BLOCK_TOKENS..]),
                tokens => tokens,
            };
            children.map(reached).max().unwrap_or(0)
        }
    }

    proptest! {
        /// If no two siblings hold the same, the place among ordered siblings finds as much as a look at all of them. Nodes
        /// without children are the leaves.
        #[test]
        fn the_longest_beginning_is_found(
            acts in prop::collection::vec((0..8u32, prop::collection::vec(0..3u32, 1..6), any::<bool>()), 1..60),
        ) {
            let mut prefixes = Prefixes::default();
            let mut fresh = 0..;
            for (act, runs, whole) in acts {
                // Runs of a few tokens, so that sequences part within blocks and between them.
                let content: Vec<u32> = runs.iter().flat_map(|&run| vec![run; KV_BLOCK_TOKENS * 2 / 5 + run as usize]).collect();
                prop_assert_eq!(prefixes.find(&content).tokens, prefixes.longest(None, &content));
                if act == 0 {
                    prefixes.evict(|block| block % 3 != 0);
                } else {
                    let blocks: Vec<u32> = fresh.by_ref().take(content.len().div_ceil(KV_BLOCK_TOKENS)).collect();
                    let part = content.len() / act as usize;
                    prefixes.add(&content[..part], &blocks, false);
                    prefixes.add(&content, &blocks, whole);
                }
                let childless = prefixes.nodes.iter().filter(|(_, node)| node.children.is_empty());
                let leaves: BTreeSet<_> = childless.map(|(block, node)| (node.last_use, *block)).collect();
                prop_assert_eq!(&prefixes.leaves, &leaves);
            }
            while prefixes.evict(|_| true).is_some() {}
            prop_assert!(prefixes.nodes.is_empty() && prefixes.roots.is_empty());
        }
    }
}
