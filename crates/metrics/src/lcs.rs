//! Longest common subsequences within bounds of time and memory.

use std::collections::HashMap;

use rapidfuzz::distance::{lcs_seq, levenshtein};

use crate::Undefined;

/// Pairs of elements that one metric may compare. A table of directions for them has 64 MiB.
const MAX_PAIRS: u64 = 1 << 29;

/// Pairs that one metric may compare where 64 of them are one operation and no table is kept.
const MAX_BIT_PAIRS: u64 = 1 << 35;

/// Counts the pairs that a metric compares, and stops it before it takes minutes.
pub(crate) struct Budget {
    left: u64,
    limit: u64,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self { left: MAX_PAIRS, limit: MAX_PAIRS }
    }

    /// Takes the pairs of two lengths, and 64 for the comparison itself: a text may have millions of short sentences.
    pub(crate) fn take(&mut self, first: usize, second: usize) -> Result<(), Undefined> {
        let pairs = (first as u64).saturating_mul(second as u64).saturating_add(64);
        let too_long = Undefined::TooLong { first, second, limit: self.limit };
        self.left = self.left.checked_sub(pairs).ok_or(too_long)?;
        Ok(())
    }
}

fn check_bits(first: usize, second: usize) -> Result<(), Undefined> {
    Budget { left: MAX_BIT_PAIRS, limit: MAX_BIT_PAIRS }.take(first, second)
}

/// Numbers words, so that they are compared by number. Equal words have equal numbers.
#[derive(Default)]
pub(crate) struct Numbers<'t>(HashMap<&'t str, u32>);

impl<'t> Numbers<'t> {
    pub(crate) fn of(&mut self, word: &'t str) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(word).or_insert(next)
    }

    pub(crate) fn all(&mut self, words: impl IntoIterator<Item = &'t str>) -> Vec<u32> {
        words.into_iter().map(|word| self.of(word)).collect()
    }
}

/// Returns the length of the longest common subsequence.
pub(crate) fn length(first: &[u32], second: &[u32]) -> Result<usize, Undefined> {
    check_bits(first.len(), second.len())?;
    Ok(lcs_seq::similarity(first.iter().copied(), second.iter().copied()))
}

/// Returns the length of the longest common subsequence of the characters.
pub(crate) fn length_of_characters(first: &str, second: &str) -> Result<usize, Undefined> {
    check_bits(first.chars().count(), second.chars().count())?;
    Ok(lcs_seq::similarity(first.chars(), second.chars()))
}

/// Returns the Levenshtein distance of the characters.
pub(crate) fn levenshtein_distance(first: &[char], second: &[char]) -> Result<usize, Undefined> {
    check_bits(first.len(), second.len())?;
    Ok(levenshtein::distance(first.iter().copied(), second.iter().copied()))
}

/// Where the way back goes if two subsequences are equally long. Programs differ, and so do their unions of subsequences.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tie {
    /// To the shorter part of the first sequence: the package `rouge_score`.
    First,
    /// To the shorter part of the second sequence: the package `rouge`.
    Second,
}

/// Returns the positions in `first` of one longest common subsequence, last position first.
pub(crate) fn positions(
    first: &[u32],
    second: &[u32],
    tie: Tie,
    budget: &mut Budget,
) -> Result<Vec<usize>, Undefined> {
    budget.take(first.len(), second.len())?;
    let width = second.len();
    // One bit a pair: whether the way back shortens the first sequence.
    let mut shortens_first = vec![0_u64; (first.len() * width).div_ceil(64)];
    let (mut above, mut row) = (vec![0_u32; width + 1], vec![0_u32; width + 1]);
    for (i, a) in first.iter().enumerate() {
        for (j, b) in second.iter().enumerate() {
            let (up, left) = (above[j + 1], row[j]);
            row[j + 1] = if a == b { above[j] + 1 } else { up.max(left) };
            if up > left || (up == left && tie == Tie::First) {
                shortens_first[(i * width + j) / 64] |= 1 << ((i * width + j) % 64);
            }
        }
        std::mem::swap(&mut above, &mut row);
    }
    let (mut i, mut j) = (first.len(), width);
    let mut positions = Vec::new();
    while i > 0 && j > 0 {
        let at = (i - 1) * width + j - 1;
        if first[i - 1] == second[j - 1] {
            positions.push(i - 1);
            (i, j) = (i - 1, j - 1);
        } else if shortens_first[at / 64] >> (at % 64) & 1 == 1 {
            i -= 1;
        } else {
            j -= 1;
        }
    }
    Ok(positions)
}
