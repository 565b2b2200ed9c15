//! Prompt lookup: guesses of the next tokens, from what followed the same tokens earlier in the sequence.
//!
//! Answers repeat their questions. The method is "prompt lookup decoding" (Saxena 2023): no second model guesses. All guesses
//! are verified in one step, which chooses the same tokens as step after step does.

/// Numbers of last tokens to look for, in this order. A longer match is a better guess.
const MATCHES: [usize; 3] = [3, 2, 1];

/// The most tokens to guess at once.
const MOST: usize = 8;

/// Lower bound of [`GuessLength`]. After a wrong guess, the next match is often at another place.
const FEWEST: usize = 2;

/// Returns up to `most` tokens that followed the last earlier place where the sequence had its last three tokens, or two, or
/// one.
pub(super) fn guesses(tokens: &[u32], most: usize) -> &[u32] {
    for length in MATCHES {
        let Some(earlier) = tokens.len().checked_sub(length + 1) else { continue };
        let last = &tokens[tokens.len() - length..];
        let place = (0..=earlier).rev().find(|&at| tokens[at..].starts_with(last));
        if let Some(place) = place {
            let next = place + length;
            return &tokens[next..tokens.len().min(next + most)];
        }
    }
    &[]
}

/// How many tokens to guess for a sequence: more while they are right, fewer after a wrong one.
#[derive(Debug, Clone, Copy)]
pub(super) struct GuessLength(usize);

impl Default for GuessLength {
    fn default() -> Self {
        Self(MOST / 2)
    }
}

impl GuessLength {
    /// Returns the number.
    pub(super) fn get(self) -> usize {
        self.0
    }

    /// Notes that the first `right` of `guessed` tokens were right.
    pub(super) fn note(&mut self, guessed: usize, right: usize) {
        match guessed {
            0 => {}
            _ if right == guessed => self.0 = (2 * self.0).min(MOST),
            _ => self.0 = (right + 1).max(FEWEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_of_the_longest_match_is_continued() {
        assert_eq!(guesses(&[1, 2, 3, 9, 1, 2, 3, 8, 7, 5, 1, 2, 3], 2), [8, 7]);
        assert_eq!(guesses(&[4, 2, 3, 9, 9, 1, 2, 3], 5), [9, 9, 1, 2, 3]);
        // Places may overlap.
        assert_eq!(guesses(&[6, 6, 6, 6], 4), [6]);
        // One token is enough.
        assert_eq!(guesses(&[5, 3, 8, 9, 3], 2), [8, 9]);
        for none in [&[][..], &[1], &[1, 2], &[1, 2, 3, 4]] {
            assert_eq!(guesses(none, 4), [0; 0]);
        }
        assert_eq!(guesses(&[1, 2, 1, 2], 0), [0; 0]);
    }

    #[test]
    fn the_number_of_guesses_follows_what_was_right() {
        let mut length = GuessLength::default();
        length.note(4, 4);
        length.note(8, 8);
        assert_eq!(length.get(), 8);
        length.note(8, 4);
        assert_eq!(length.get(), 5);
        length.note(5, 0);
        assert_eq!(length.get(), 2);
        length.note(0, 0);
        length.note(2, 2);
        assert_eq!(length.get(), 4);
    }
}
