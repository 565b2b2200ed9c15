//! What the engine computed for the items of a task, and what it spared itself.

use crate::language::{Text, text};
use serde::{Deserialize, Serialize};

/// Tokens of the items of a task, by how they came about. Processes that were killed have not told
/// theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TaskWork {
    /// Prompt tokens that were computed.
    pub prefilled: u64,
    /// Prompt tokens that were in the KV cache already, because an earlier prompt begins alike.
    pub reused: u64,
    /// Tokens generated.
    pub generated: u64,
    /// Tokens that were guessed from the text so far.
    pub guessed: u64,
    /// Guessed tokens that were generated. Each saved a step.
    pub accepted: u64,
}

impl TaskWork {
    /// Adds the work of another process.
    pub fn add(&mut self, other: Self) {
        let Self { prefilled, reused, generated, guessed, accepted } = other;
        for (sum, more) in [
            (&mut self.prefilled, prefilled),
            (&mut self.reused, reused),
            (&mut self.generated, generated),
            (&mut self.guessed, guessed),
            (&mut self.accepted, accepted),
        ] {
            *sum = sum.saturating_add(more);
        }
    }

    /// Describes the work in words: `23,456 prompt tokens computed, 98,765 reused`.
    pub fn words(&self) -> Text {
        let mut words = text!("{prompt} prompt tokens computed", prompt = grouped(self.prefilled));
        if self.reused > 0 {
            words = words
                + text!(", {reused} reused from prompts that begin alike", reused = grouped(self.reused));
        }
        if self.guessed > 0 {
            let (guessed, generated) = (grouped(self.guessed), grouped(self.generated));
            let guesses = match self.accepted {
                0 => text!(
                    ", none of {guessed} guesses of next tokens was right: guessing stopped because it did not pay",
                    guessed
                ),
                accepted => text!(
                    ", {accepted} of {generated} generated tokens were guessed ahead ({share} % of {guessed} guesses were right)",
                    accepted = grouped(accepted),
                    generated,
                    share = format!("{:.0}", 100.0 * accepted as f64 / self.guessed as f64),
                    guessed
                ),
            };
            words = words + guesses;
        }
        words
    }
}

/// Writes a number with separators of thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_told_in_words() {
        let mut work = TaskWork { prefilled: 1_234, ..TaskWork::default() };
        assert_eq!(work.words(), "1,234 prompt tokens computed");
        work.add(TaskWork { reused: 1_000_000, generated: 100, guessed: 40, accepted: 30, prefilled: 6 });
        assert_eq!(
            work.words(),
            "1,240 prompt tokens computed, 1,000,000 reused from prompts that begin alike, 30 of 100 generated tokens were \
             guessed ahead (75 % of 40 guesses were right)"
        );
        let in_vain = TaskWork { generated: 1_212, guessed: 30, prefilled: 6, ..TaskWork::default() };
        assert_eq!(
            in_vain.words(),
            "6 prompt tokens computed, none of 30 guesses of next tokens was right: guessing stopped because it did not pay"
        );
        assert_eq!(["0", "999", "1,000"], [0, 999, 1000].map(grouped)[..]);
    }
}
