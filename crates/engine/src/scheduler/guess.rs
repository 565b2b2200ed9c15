//! Whether guesses of the next tokens pay: a row that is verified costs time, and a guess that is right saves a step.

use crate::lookup;
use crate::sequence::Sequence;
use crate::{PromptLookup, Saved};

/// Weight of what is known after each further step or guess. The last hundred count most.
const MEMORY: f64 = 0.99;

/// Steps after which a few guesses are made even if they do not pay, because texts differ.
const TRIAL_STEPS: u32 = 64;

/// Steps with guesses in a row while costs are unknown.
const TRIALS: u32 = 4;

/// Steps with different numbers of rows that must be known before costs are believed.
const ENOUGH_STEPS: f64 = 8.0;

/// How much more a guess must save than it costs.
const MARGIN: f64 = 1.1;

/// Duration of decoding steps by their rows, and how often guesses are right.
#[derive(Debug, Default)]
pub(super) struct Guessing {
    possible: bool,
    /// Sums over steps, for a line through their durations: steps, rows, rows², ns, rows × ns.
    steps: f64,
    rows: f64,
    rows_squared: f64,
    ns: f64,
    rows_ns: f64,
    guessed: f64,
    accepted: f64,
    /// Steps without guesses since the last with some.
    without: u32,
    /// Steps with guesses since the last without.
    with: u32,
}

impl Guessing {
    /// Creates the state of a new engine. Guesses are possible only if rows are independent.
    pub(super) fn new(possible: bool) -> Self {
        Self { possible, ..Self::default() }
    }

    /// Notes a decoding step of this number of rows.
    pub(super) fn note(&mut self, rows: usize, ns: u64, saved: Saved) {
        let (rows, ns) = (rows as f64, ns as f64);
        for (sum, of_step) in [
            (&mut self.steps, 1.0),
            (&mut self.rows, rows),
            (&mut self.rows_squared, rows * rows),
            (&mut self.ns, ns),
            (&mut self.rows_ns, rows * ns),
        ] {
            *sum = *sum * MEMORY + of_step;
        }
        self.note_outcome(saved);
    }

    /// Notes which guesses of a step were right. Its duration is not that of a decoding step.
    pub(super) fn note_outcome(&mut self, saved: Saved) {
        let kept = MEMORY.powi(saved.guessed as i32);
        self.guessed = self.guessed * kept + saved.guessed as f64;
        self.accepted = self.accepted * kept + saved.accepted as f64;
        (self.with, self.without) = match saved.guessed {
            0 => (0, self.without.saturating_add(1)),
            _ => (self.with.saturating_add(1), 0),
        };
    }

    /// Whether to guess for a request in a step that decodes this number of sequences.
    pub(super) fn is_due(&self, lookup: PromptLookup, sequences: usize) -> bool {
        let is_wanted = match lookup {
            PromptLookup::Never => false,
            PromptLookup::WhereItGains => self.without >= TRIAL_STEPS || self.gains(sequences as f64),
            PromptLookup::Always => true,
        };
        self.possible && is_wanted
    }

    /// Whether the expected gain of a guess is more than its cost. A step of `n` sequences takes `a + b n`, so each of its
    /// tokens takes `(a + b n) / n`, and a guess `b`. While costs are unknown, steps with and without guesses find them out.
    fn gains(&self, sequences: f64) -> bool {
        let spread = self.steps * self.rows_squared - self.rows * self.rows;
        if self.steps < ENOUGH_STEPS || spread < self.steps {
            return self.with < TRIALS;
        }
        let each = ((self.steps * self.rows_ns - self.rows * self.ns) / spread).max(0.0);
        let fixed = ((self.ns - each * self.rows) / self.steps).max(0.0);
        let right = (self.accepted + 1.0) / (self.guessed + 2.0);
        right * (fixed + each * sequences) > MARGIN * each * sequences
    }
}

/// Returns guesses of the next tokens of a sequence, at most `most`.
pub(super) fn of(sequence: &Sequence, most: usize) -> &[u32] {
    let request = &sequence.request;
    let left = (request.prompt.len() + request.max_new_tokens).saturating_sub(sequence.tokens.len() + 1);
    lookup::guesses(&sequence.tokens, most.min(left).min(sequence.guesses.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAINS: PromptLookup = PromptLookup::WhereItGains;

    /// Steps that take `fixed + each * rows`, one or five rows each, with this share of right guesses.
    fn after(fixed: u64, each: u64, accepted: usize) -> Guessing {
        let mut guessing = Guessing::new(true);
        for step in 0..200 {
            let guessed = if step % 2 == 0 { 4 } else { 0 };
            let saved = Saved { reused: 0, guessed, accepted: accepted.min(guessed) };
            guessing.note(1 + guessed, fixed + each * (1 + guessed as u64), saved);
        }
        guessing
    }

    #[test]
    fn guesses_are_made_where_they_save_more_than_they_cost() {
        assert!(Guessing::new(true).is_due(GAINS, 1) && !Guessing::new(false).is_due(GAINS, 1));
        // A step of one row costs as much as a step of five.
        assert!(after(1000, 0, 1).is_due(GAINS, 1));
        // Every row costs as much as a step, and one guess of four is right.
        assert!(!after(0, 1000, 1).is_due(GAINS, 1));
        assert!(after(3000, 1000, 2).is_due(GAINS, 1) && !after(3000, 1000, 2).is_due(GAINS, 8));
        // What is wanted at any cost is not weighed.
        assert!(after(0, 1000, 1).is_due(PromptLookup::Always, 1));
        assert!(!Guessing::new(false).is_due(PromptLookup::Always, 1));
        assert!(!after(1000, 0, 1).is_due(PromptLookup::Never, 1));
    }

    #[test]
    fn guesses_that_do_not_pay_are_tried_again_later() {
        let mut guessing = after(0, 1000, 0);
        assert!(!guessing.is_due(GAINS, 1));
        (0..TRIAL_STEPS).for_each(|_| guessing.note(1, 1000, Saved::default()));
        assert!(guessing.is_due(GAINS, 1));
        guessing.note(2, 2000, Saved { reused: 0, guessed: 1, accepted: 0 });
        assert!(!guessing.is_due(GAINS, 1));
    }
}
