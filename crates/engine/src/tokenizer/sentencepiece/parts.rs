//! The parts of a text between which no merge is possible, and the ids of parts that were seen before.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use rustc_hash::{FxBuildHasher, FxHashMap};

/// Pairs of characters that are adjacent in some piece.
#[derive(Debug)]
pub(super) struct Joints {
    /// For each ASCII character on the left, a bit for each on the right.
    ascii: Box<[u128; 128]>,
    others: HashSet<(char, char), FxBuildHasher>,
}

impl Joints {
    /// Collects the pairs of all pieces.
    pub(super) fn of<'p>(pieces: impl Iterator<Item = &'p str>) -> Self {
        let mut joints = Self { ascii: Box::new([0; 128]), others: HashSet::default() };
        for (left, right) in pieces.flat_map(|text| text.chars().zip(text.chars().skip(1))) {
            if left.is_ascii() && right.is_ascii() {
                joints.ascii[left as usize] |= 1 << right as u32;
            } else {
                joints.others.insert((left, right));
            }
        }
        joints
    }

    /// Whether some piece has the two characters side by side.
    pub(super) fn has(&self, left: char, right: char) -> bool {
        if left.is_ascii() && right.is_ascii() {
            self.ascii[left as usize] >> right as u32 & 1 == 1
        } else {
            self.others.contains(&(left, right))
        }
    }

    /// Returns the length in bytes of the first part of a text. Spaces count as the character `space`.
    pub(super) fn first_part(&self, text: &str, space: char) -> usize {
        let visible = |c| if c == ' ' { space } else { c };
        let mut chars = text.char_indices().map(|(at, c)| (at, visible(c)));
        let Some((_, mut left)) = chars.next() else { return 0 };
        let end = chars.find_map(|(at, right)| {
            let is_apart = !self.has(left, right);
            left = right;
            is_apart.then_some(at)
        });
        end.unwrap_or(text.len())
    }
}

/// Longest part that is remembered, in bytes. Longer ones seldom come again.
const LONGEST: usize = 32;
/// Most parts in a shard. A full shard remembers no more.
const MOST: usize = 1 << 13;
/// Number of shards, so that threads seldom wait for each other.
const SHARDS: usize = 16;

/// The ids of some parts by their text.
type Shard = RwLock<FxHashMap<Box<str>, Box<[u32]>>>;

/// The ids of parts by their text, a bounded number of them. Threads share it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    shards: [Shard; SHARDS],
}

impl Seen {
    /// Passes the ids of a part to `take`. They are made by `make` if the part is new.
    pub(super) fn with(&self, part: &str, make: impl FnOnce() -> Vec<u32>, take: impl FnOnce(&[u32])) {
        if part.len() > LONGEST {
            return take(&make());
        }
        let hash = std::hash::BuildHasher::hash_one(&FxBuildHasher, part);
        // The high bits are the well-mixed ones.
        let shard = &self.shards[(hash >> 60) as usize % SHARDS];
        if let Some(ids) = shard.read().unwrap_or_else(PoisonError::into_inner).get(part) {
            return take(ids);
        }
        let ids = make();
        take(&ids);
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        if shard.len() < MOST {
            shard.insert(part.into(), ids.into());
        }
    }
}

/// What was encoded last, so that a text that begins alike is encoded from there on. It belongs to one tokenizer.
#[derive(Debug, Default)]
pub struct Memo {
    text: String,
    /// After each part: its end in the text, and the number of ids up to there.
    marks: Vec<(usize, usize)>,
    ids: Vec<u32>,
}

impl Memo {
    /// Takes over another text. Returns the place from which it has to be encoded.
    pub(super) fn begin(&mut self, text: &str) -> usize {
        let shared = text.floor_char_boundary(alike(self.text.as_bytes(), text.as_bytes()));
        // A part's end depends on the character after it.
        let kept = self.marks.partition_point(|(end, _)| *end < shared);
        self.marks.truncate(kept);
        let (start, ids) = self.marks.last().copied().unwrap_or_default();
        self.ids.truncate(ids);
        self.text.truncate(shared);
        self.text.push_str(&text[shared..]);
        start
    }

    /// Returns the ids so far, for the next part.
    pub(super) fn ids_mut(&mut self) -> &mut Vec<u32> {
        &mut self.ids
    }

    /// Ends a part at this place of the text.
    pub(super) fn mark(&mut self, end: usize) {
        self.marks.push((end, self.ids.len()));
    }

    /// Returns the ids of the text.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Replaces everything, for a tokenizer that does not split texts into parts.
    pub(in super::super) fn replace(&mut self, ids: Vec<u32>) {
        *self = Self { ids, ..Self::default() };
    }
}

/// Returns the number of bytes with which both begin.
fn alike(a: &[u8], b: &[u8]) -> usize {
    const WIDE: usize = 64;
    let wide = a.chunks_exact(WIDE).zip(b.chunks_exact(WIDE)).take_while(|(a, b)| a == b).count() * WIDE;
    wide + a[wide..].iter().zip(&b[wide..]).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_end_where_no_piece_has_both_characters() {
        let joints = Joints::of(["ab", "b▁", "▁c", "é!"].into_iter());
        let parts = |mut text: &str| {
            let mut all = Vec::new();
            while !text.is_empty() {
                let (part, rest) = text.split_at(joints.first_part(text, '▁'));
                all.push(part.to_owned());
                text = rest;
            }
            all
        };
        assert_eq!(parts("ab cba"), ["ab c", "b", "a"]);
        assert_eq!(parts("é!é"), ["é!", "é"]);
        assert_eq!(parts(""), [""; 0]);
    }

    #[test]
    fn what_was_seen_is_bounded_and_comes_again() {
        let seen = Seen::default();
        for round in 0..2 {
            for n in 0..200_000_u32 {
                let mut got: Vec<u32> = Vec::new();
                seen.with(&n.to_string(), || vec![n], |ids| got.extend(ids));
                assert_eq!(got, [n], "round {round}");
            }
        }
        let len: usize = seen.shards.iter().map(|shard| shard.read().unwrap().len()).sum();
        assert!(len <= MOST * SHARDS && len > MOST, "{len}");
        seen.with(&"x".repeat(LONGEST + 1), || vec![7], |ids| assert_eq!(ids, [7]));
        seen.with(&"x".repeat(LONGEST + 1), || vec![8], |ids| assert_eq!(ids, [8]));
    }
}
