//! What a step computes: rows of prompts, a row of every sequence that decodes, or both.

use std::fmt;
use std::ops::Range;

use super::{Engine, guess};
use crate::StepKind;
use crate::sequence::Sequence;

/// How prompts share the steps with the sequences that decode. No result depends on it, only the order of the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheduling {
    /// Sequences that decode wait until all prompts are fed.
    #[default]
    PrefillFirst,
    /// After this many prefill steps in a row, sequences that decode get a step.
    Alternating(usize),
    /// Every step has the next token of each sequence that decodes, and at most this many prompt tokens beside them. A step
    /// without such a sequence is filled with prompts.
    Mixed(usize),
}

impl Scheduling {
    /// Alternation in place of mixed steps, for devices that cannot mix.
    pub const ALTERNATING: Self = Self::Alternating(2);
    /// Prompt tokens of a mixed step, if no one says otherwise: one block of the KV cache.
    pub const DEFAULT_CHUNK: usize = glmbench_device::KV_BLOCK_TOKENS;
}

/// The form in records: `prefill-first`, `alternating 2` or `mixed 128`.
impl fmt::Display for Scheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrefillFirst => f.write_str("prefill-first"),
            Self::Alternating(steps) => write!(f, "alternating {steps}"),
            Self::Mixed(tokens) => write!(f, "mixed {tokens}"),
        }
    }
}

/// Rows and rows of logits that a step has left, or that parts of it take.
#[derive(Debug, Clone, Copy, Default)]
struct Room {
    rows: usize,
    logits: usize,
}

impl Room {
    /// Returns what is left beside `other`.
    fn beside(self, other: Self) -> Self {
        Self { rows: self.rows.saturating_sub(other.rows), logits: self.logits.saturating_sub(other.logits) }
    }

    /// Returns what parts take.
    fn of(parts: &[Part]) -> Self {
        let rows = parts.iter().map(|part| part.rows.len()).sum();
        Self { rows, logits: parts.iter().map(|part| part.logits).sum() }
    }
}

/// What a step computes.
pub(super) struct Plan {
    /// Parts of prompts, then of sequences that decode.
    pub(super) parts: Vec<Part>,
    /// Number of rows of prompts.
    pub(super) prompt_tokens: usize,
}

impl Plan {
    fn new(prefill: Vec<Part>, decode: Vec<Part>) -> Self {
        let prompt_tokens = Room::of(&prefill).rows;
        let mut parts = prefill;
        parts.extend(decode);
        Self { parts, prompt_tokens }
    }

    /// Returns the kind of the step.
    pub(super) fn kind(&self) -> StepKind {
        match (self.prompt_tokens, Room::of(&self.parts).rows) {
            (_, 0) => StepKind::Idle,
            (0, _) => StepKind::Decode,
            (prompt, all) if prompt == all => StepKind::Prefill,
            _ => StepKind::Mixed,
        }
    }
}

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
    /// Plans the next step as [`Scheduling`] says.
    pub(super) fn plan(&self) -> Plan {
        if let Scheduling::Mixed(most) = self.scheduling {
            return self.plan_mixed(most);
        }
        let decode = self.plan_decode(Room::default());
        let is_decodes_turn =
            matches!(self.scheduling, Scheduling::Alternating(most) if self.prefills >= most);
        if is_decodes_turn && !decode.is_empty() {
            return Plan::new(Vec::new(), decode);
        }
        let prefill = self.plan_prefill(self.step_room());
        let decode = if prefill.is_empty() { decode } else { Vec::new() };
        Plan::new(prefill, decode)
    }

    /// Returns the room of an empty step.
    fn step_room(&self) -> Room {
        let capacity = self.model.capacity();
        Room { rows: capacity.max_step_tokens, logits: capacity.max_logit_rows }
    }

    /// Plans the next token of every sequence with a fed prompt, and at most `most` prompt tokens. Prompts come before guesses,
    /// because a guess may be wrong.
    fn plan_mixed(&self, most: usize) -> Plan {
        let fed = self.running.iter().filter(|sequence| sequence.prompt_left() == 0).count();
        let left = self.step_room().beside(Room { rows: fed, logits: fed });
        // With no token to delay, the step is filled.
        let rows = if fed == 0 { left.rows } else { left.rows.min(most.max(1)) };
        let prefill = self.plan_prefill(Room { rows, ..left });
        let decode = self.plan_decode(Room::of(&prefill));
        Plan::new(prefill, decode)
    }

    /// Plans as many prompt tokens as fit.
    fn plan_prefill(&self, room: Room) -> Vec<Part> {
        let mut parts = Vec::new();
        let (mut row, mut logits_left) = (0, room.logits);
        let unfed = self.running.iter().enumerate().filter(|(_, sequence)| sequence.prompt_left() > 0);
        for (index, sequence) in unfed {
            let mut count = sequence.prompt_left().min(room.rows - row);
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

    /// Plans one token of every sequence with a fed prompt, and guesses of the next ones where they are due. The rows follow
    /// those that are `taken`.
    fn plan_decode(&self, taken: Room) -> Vec<Part> {
        let room = self.step_room().beside(taken);
        let fed = self.running.iter().enumerate().filter(|(_, sequence)| sequence.prompt_left() == 0);
        let fed: Vec<_> = fed.take(room.rows).collect();
        let sequences = fed.len();
        let mut spare = room.rows.min(room.logits).saturating_sub(sequences);
        let mut row = taken.rows;
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
