//! The similarity of Python's `difflib.SequenceMatcher`.

use std::collections::HashMap;

use crate::Undefined;

/// Steps after which a comparison is given up, some seconds of work.
const MAX_STEPS: u64 = 1 << 26;

/// Returns `SequenceMatcher(None, first, second).ratio()`: 2 M / T with M matching characters of T in both texts.
///
/// Matching blocks are found as Ratcliff and Obershelp did: the longest common block, then the same on both sides of it. In a
/// second text of 200 characters and more, characters that make up more than 1 % of it begin no block ("autojunk").
pub(crate) fn ratio(first: &str, second: &str) -> Result<f64, Undefined> {
    let matcher = Matcher::new(first, second);
    let total = matcher.first.len() + matcher.second.len();
    if total == 0 {
        return Ok(1.0);
    }
    Ok(2.0 * matcher.matches()? as f64 / total as f64)
}

/// A block of equal characters: its start in both texts, and its length.
#[derive(Clone, Copy, Default)]
struct Block {
    first: usize,
    second: usize,
    length: usize,
}

/// A part of both texts: start and end in the first, start and end in the second.
type Part = (usize, usize, usize, usize);

struct Matcher {
    first: Vec<char>,
    second: Vec<char>,
    /// Where each character stands in the second text.
    places: HashMap<char, Vec<usize>>,
}

impl Matcher {
    fn new(first: &str, second: &str) -> Self {
        let second: Vec<char> = second.chars().collect();
        let mut places: HashMap<char, Vec<usize>> = HashMap::new();
        second.iter().enumerate().for_each(|(at, &c)| places.entry(c).or_default().push(at));
        if second.len() >= 200 {
            let most = second.len() / 100 + 1;
            places.retain(|_, at| at.len() <= most);
        }
        Self { first: first.chars().collect(), second, places }
    }

    fn matches(&self) -> Result<usize, Undefined> {
        let mut steps = 0;
        let mut matches = 0;
        let mut parts = vec![(0, self.first.len(), 0, self.second.len())];
        // Lengths of the blocks that end at the previous and at the current character, by their end in the second text.
        let mut lengths = (HashMap::new(), HashMap::new());
        while let Some(part) = parts.pop() {
            let block = self.longest(part, &mut lengths, &mut steps)?;
            if block.length == 0 {
                continue;
            }
            matches += block.length;
            let (start, end, other_start, other_end) = part;
            if start < block.first && other_start < block.second {
                parts.push((start, block.first, other_start, block.second));
            }
            let (after, other_after) = (block.first + block.length, block.second + block.length);
            if after < end && other_after < other_end {
                parts.push((after, end, other_after, other_end));
            }
        }
        Ok(matches)
    }

    /// Returns the longest block within a part, the first of several.
    fn longest(
        &self,
        (start, end, other_start, other_end): Part,
        (before, now): &mut (HashMap<usize, usize>, HashMap<usize, usize>),
        steps: &mut u64,
    ) -> Result<Block, Undefined> {
        let mut best = Block { first: start, second: other_start, length: 0 };
        before.clear();
        for i in start..end {
            now.clear();
            let places = self.places.get(&self.first[i]).map_or(&[][..], Vec::as_slice);
            let inside = &places[places.partition_point(|&j| j < other_start)..];
            let inside = &inside[..inside.partition_point(|&j| j < other_end)];
            *steps += 1 + inside.len() as u64;
            if *steps > MAX_STEPS {
                let (first, second) = (self.first.len(), self.second.len());
                return Err(Undefined::TooLong { first, second, limit: MAX_STEPS });
            }
            for &j in inside {
                let length = 1 + j.checked_sub(1).and_then(|j| before.get(&j)).copied().unwrap_or(0);
                now.insert(j, length);
                if length > best.length {
                    best = Block { first: i + 1 - length, second: j + 1 - length, length };
                }
            }
            std::mem::swap(before, now);
        }
        Ok(self.extended(best, (start, end, other_start, other_end)))
    }

    /// Extends a block on both sides by equal characters, frequent ones as well.
    fn extended(&self, mut block: Block, (start, end, other_start, other_end): Part) -> Block {
        while block.first > start
            && block.second > other_start
            && self.first[block.first - 1] == self.second[block.second - 1]
        {
            block = Block { first: block.first - 1, second: block.second - 1, length: block.length + 1 };
        }
        while block.first + block.length < end
            && block.second + block.length < other_end
            && self.first[block.first + block.length] == self.second[block.second + block.length]
        {
            block.length += 1;
        }
        block
    }
}
