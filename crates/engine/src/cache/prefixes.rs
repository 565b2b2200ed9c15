//! The tree of cached blocks, by what they hold.
//!
//! A node is a block with its tokens. Its parent is the block before it, so a path from a root is the beginning of a
//! sequence. Tokens are compared one by one: there are no hashes, and so no false hits. Sequences differ soon after they
//! part, so looking at every child of a node costs little.

use std::collections::HashMap;

use glmbench_device::KV_BLOCK_TOKENS;

use super::Shared;

/// A block and what it holds.
#[derive(Debug)]
struct Node {
    parent: Option<u32>,
    children: Vec<u32>,
    /// Fewer than [`KV_BLOCK_TOKENS`] if the sequence ended, or goes on with tokens that nobody can share yet.
    tokens: Vec<u32>,
    last_use: u64,
}

/// Blocks by content.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    nodes: HashMap<u32, Node>,
    roots: Vec<u32>,
    /// Number of uses so far: the clock of [`Node::last_use`].
    uses: u64,
}

impl Prefixes {
    /// Whether the block is a node.
    pub(super) fn holds(&self, block: u32) -> bool {
        self.nodes.contains_key(&block)
    }

    /// Returns the blocks of all nodes.
    pub(super) fn blocks(&self) -> impl Iterator<Item = u32> {
        self.nodes.keys().copied()
    }

    /// Returns the longest beginning of `content` that the blocks hold.
    pub(super) fn find(&self, content: &[u32]) -> Shared {
        let mut found = Shared::default();
        let mut siblings = &self.roots;
        for wanted in content.chunks(KV_BLOCK_TOKENS) {
            let best = siblings.iter().map(|&block| (common(&self.nodes[&block].tokens, wanted), block));
            let Some((tokens, block)) = best.max().filter(|(tokens, _)| *tokens > 0) else { break };
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
            let siblings = parent.map_or(&self.roots, |parent| &self.nodes[&parent].children);
            let same = siblings.iter().copied().find(|sibling| {
                let there = &self.nodes[sibling].tokens;
                *sibling != block && there.starts_with(tokens)
            });
            let node = match (same, self.nodes.get_mut(&block)) {
                (Some(_), None) if !whole => return,
                (Some(same), None) => same,
                (_, Some(own)) => {
                    if own.tokens.len() < tokens.len() {
                        own.tokens = tokens.to_vec();
                    }
                    block
                }
                (None, None) => {
                    self.insert(block, parent, tokens);
                    block
                }
            };
            self.touch(node);
            parent = Some(node);
        }
    }

    fn insert(&mut self, block: u32, parent: Option<u32>, tokens: &[u32]) {
        let node = Node { parent, children: Vec::new(), tokens: tokens.to_vec(), last_use: self.uses };
        match parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            Some(parent) => parent.children.push(block),
            None => self.roots.push(block),
        }
        self.nodes.insert(block, node);
    }

    /// Notes that the block is used.
    pub(super) fn touch(&mut self, block: u32) {
        self.uses += 1;
        if let Some(node) = self.nodes.get_mut(&block) {
            node.last_use = self.uses;
        }
    }

    /// Removes the node that was used least recently, among those that no other needs and that may go. Returns its block.
    pub(super) fn evict(&mut self, may_go: impl Fn(u32) -> bool) -> Option<u32> {
        let leaves = self.nodes.iter().filter(|(block, node)| node.children.is_empty() && may_go(**block));
        let (_, block) = leaves.map(|(block, node)| (node.last_use, *block)).min()?;
        let node = self.nodes.remove(&block)?;
        let siblings = match node.parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            Some(parent) => &mut parent.children,
            None => &mut self.roots,
        };
        siblings.retain(|sibling| *sibling != block);
        Some(block)
    }
}

/// Returns how many tokens two sequences begin with in common.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
