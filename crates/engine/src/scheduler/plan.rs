//! What a step computes: rows of prompts, or a row of every running sequence.

use std::ops::Range;

use super::{Engine, guess};
use crate::StepKind;
use crate::sequence::Sequence;

/// Rows of one sequence in a step, before block tables are borrowed.
pub(super) struct Part {
    /// Place among the running sequences.
    pub(super) index: usize,
    pub(super) rows: Range<usize>,
    /// Number of rows, from the last backwards, to return logits of.
    pub(super) logits: usize,
    /// The tokens of the rows after the first, if they are guessed.
    pub(super) guesses: Vec<u32>,
}

impl Engine {
    /// Plans prompt chunks while any prompt is unfinished, else one token of every sequence.
    pub(super) fn plan(&self) -> (StepKind, Vec<Part>) {
        let decode = self.plan_decode();
        let is_decodes_turn = self.prefill_run.is_some_and(|most| self.prefills >= most);
        if is_decodes_turn && !decode.is_empty() {
            return (StepKind::Decode, decode);
        }
        let prefill = self.plan_prefill();
        if !prefill.is_empty() {
            return (StepKind::Prefill, prefill);
        }
        let kind = if decode.is_empty() { StepKind::Idle } else { StepKind::Decode };
        (kind, decode)
    }

    /// Plans as many prompt tokens as fit.
    fn plan_prefill(&self) -> Vec<Part> {
        let capacity = self.model.capacity();
        let mut parts = Vec::new();
        let (mut row, mut logits_left) = (0, capacity.max_logit_rows);
        for (index, sequence) in self.running.iter().enumerate() {
            let left = sequence.prompt_left();
            let mut count = left.min(capacity.max_step_tokens - row);
            let wanted = sequence.wanted_rows(count);
            let logits = wanted.min(logits_left);
            // The last rows wait for a step that can return their logits.
            count -= wanted - logits;
            if count > 0 {
                parts.push(Part { index, rows: row..row + count, logits, guesses: Vec::new() });
                row += count;
                logits_left -= logits;
            }
        }
        parts
    }

    /// Plans one token of every sequence with a fed prompt, and guesses of the next ones where guesses pay.
    fn plan_decode(&self) -> Vec<Part> {
        let capacity = self.model.capacity();
        let fed = self.running.iter().enumerate().filter(|(_, sequence)| sequence.prompt_left() == 0);
        let fed: Vec<_> = fed.take(capacity.max_step_tokens).collect();
        let most = capacity.max_step_tokens.min(capacity.max_logit_rows);
        let sequences = fed.len();
        let mut spare = most.saturating_sub(sequences);
        let mut row = 0;
        let part = |(index, sequence): (usize, &Sequence)| {
            let is_due = self.guessing.is_due(sequence.request.savings.prompt_lookup, sequences);
            let guesses = if is_due { guess::of(sequence, spare).to_vec() } else { Vec::new() };
            spare -= guesses.len();
            let rows = row..row + 1 + guesses.len();
            row = rows.end;
            Part { index, logits: rows.len(), rows, guesses }
        };
        fed.into_iter().map(part).collect()
    }
}
