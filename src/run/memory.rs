//! The engine capacity that a plan's cases need, and the cases that do not fit the device's memory.

use glmbench_engine::cache::blocks_for;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::memory::{MemoryBudget, MemoryEstimate, MemoryOf};
use glmbench_engine::model::Capacity;

use crate::bench::LOGIT_ROWS;

use super::accuracy::AccuracyRun;
use super::cases::{Case, Room};
use super::plan::Plan;

/// Slack for a second stage, which repeats the first's prompt and answer and adds some words, tokenized again.
const STAGE_SLACK_TOKENS: usize = 128;
/// Largest batch that is looked for.
const LARGEST_BATCH: usize = 1 << 14;
/// Maximum tokens that one generated token's text may become when tokenized again: names of unused pieces, broken
/// characters.
const RETOKENIZED: usize = 8;
/// Rows of logits for each sequence that generates: its next token, and guesses of those after it.
const VERIFIED_ROWS: usize = 4;
/// Rows of logits for prompts with scored tokens, of all sequences together. More rows wait for another step.
const SCORED_ROWS: usize = LOGIT_ROWS;

impl Plan<'_> {
    /// Returns the capacity that the engine must be loaded with on `tp` ranks.
    pub fn capacity(&self, tp: usize) -> Capacity {
        self.capacities.get(&tp).copied().unwrap_or_else(|| smallest(self.step_tokens()))
    }

    /// Excludes what does not fit into memory: marks performance cases with the reason, and limits the searches'
    /// batches.
    /// If nothing at all fits, nothing is excluded: the check before loading reports it.
    pub fn fit_memory(&mut self, config: &ModelConfig, on: impl Into<MemoryOf>, budget: MemoryBudget) {
        let on = on.into();
        let fits = |capacity: Capacity, tp: usize| budget.holds(config, on, capacity, tp);
        let alone = |case: &dyn Case| room(self.step_tokens(), config, &[], &[case]);
        let optional = |case: &dyn Case| case.room().optional;
        let timed = self.timed();
        let others = !self.accuracy.is_empty() || timed.iter().any(|case| !optional(*case));
        let fit = |case: &dyn Case| fits(alone(case), case.tp());
        let reason = |case: &dyn Case| {
            let wanted = budget.wanted(config, on, alone(case), case.tp());
            (optional(case) && !fit(case))
                .then(|| format!("out of memory by estimate: {wanted}, {}", budget.words()))
        };
        let reasons: Vec<Option<String>> = timed.iter().map(|case| reason(*case)).collect();
        if others || timed.iter().zip(&reasons).any(|(case, reason)| optional(*case) && reason.is_none()) {
            for (case, reason) in self.timed_mut().into_iter().zip(reasons) {
                if let Some(reason) = reason {
                    case.leave_out(reason);
                }
            }
        }
        for tp in self.tp_sizes() {
            let capacity = self.fitting(config, tp, &|capacity| fits(capacity, tp));
            self.capacities.insert(tp, capacity);
        }
    }

    /// Sets the largest batch that fits for the lengths of every performance case, and the memory that the case takes. Each
    /// counts as if it was alone. The estimate is up to 5 % above the allocator's count.
    pub fn find_largest_batches(
        &mut self,
        config: &ModelConfig,
        on: impl Into<MemoryOf>,
        budget: MemoryBudget,
    ) {
        let (on, prefix, base) = (on.into(), config.pre_seq_len.unwrap_or(0), smallest(self.step_tokens()));
        for case in &mut self.performance {
            let (tokens, tp) = (case.shape.sequence_tokens(), case.tp);
            let fits =
                |batch: usize| budget.holds(config, on, wanted_capacity(tokens, batch, prefix, base), tp);
            let (mut good, mut bad) = (0, LARGEST_BATCH + 1);
            while bad - good > 1 {
                let middle = good + (bad - good) / 2;
                if fits(middle) { good = middle } else { bad = middle }
            }
            case.largest_batch = Some(good);
            let own = wanted_capacity(tokens, case.shape.batch, prefix, base);
            let estimate = MemoryEstimate::per_rank(config, on, own, tp).ok();
            case.alone_bytes = estimate.map(|estimate| estimate.total_bytes());
        }
    }

    /// Returns a capacity that holds every case on `tp` ranks, with the searches at their largest batches.
    pub(super) fn largest(&self, config: &ModelConfig, tp: usize) -> Capacity {
        let prefix = config.pre_seq_len.unwrap_or(0);
        self.elastic(tp).into_iter().fold(self.fixed(config, tp), |capacity, room| {
            union(capacity, wanted_capacity(room.tokens, room.most_batch, prefix, capacity))
        })
    }

    /// Returns a capacity that holds every case except the elastic ones, which can do with less.
    fn fixed(&self, config: &ModelConfig, tp: usize) -> Capacity {
        let accuracy: Vec<_> = self.accuracy.iter().filter(|run| run.tp == tp).collect();
        let mut timed = self.timed();
        timed.retain(|case| case.tp() == tp && case.unfit().is_none() && !case.is_elastic());
        room(self.step_tokens(), config, &accuracy, &timed)
    }

    /// Returns the largest batch of an elastic case that the engine is loaded for. Larger ones count as out of memory by
    /// estimate.
    pub fn largest_batch(&self, case: &dyn Case, config: &ModelConfig) -> usize {
        let (capacity, prefix) = (self.capacity(case.tp()), config.pre_seq_len.unwrap_or(0));
        let Room { least_batch: low, most_batch: high, tokens, .. } = case.room();
        let fits = |batch: usize| {
            let wanted = wanted_capacity(tokens, batch, prefix, capacity);
            wanted.kv_blocks <= capacity.kv_blocks && batch <= capacity.max_batch
        };
        let (mut good, mut bad) = (low.saturating_sub(1), high.saturating_add(1));
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            if fits(middle) { good = middle } else { bad = middle }
        }
        good
    }

    /// Returns the rooms of the cases that take the largest batch that fits.
    fn elastic(&self, tp: usize) -> Vec<Room> {
        let own = self.timed().into_iter().filter(|case| case.tp() == tp && case.is_elastic());
        own.map(Case::room).collect()
    }

    /// Returns a capacity with the largest batches of the elastic cases that fit, first each on its own. Larger batches count as
    /// out of memory and are not run.
    fn fitting(&self, config: &ModelConfig, tp: usize, fits: &dyn Fn(Capacity) -> bool) -> Capacity {
        let largest = self.largest(config, tp);
        if fits(largest) {
            return largest;
        }
        let prefix = config.pre_seq_len.unwrap_or(0);
        let base = self.fixed(config, tp);
        let with = |room: Room, batch: usize, capacity: Capacity| {
            union(capacity, wanted_capacity(room.tokens, batch, prefix, capacity))
        };
        let most = |&room: &Room| {
            // Bisects for the largest batch that fits, because memory grows with the batch.
            let (mut good, mut bad) = (room.least_batch, room.most_batch + 1);
            while bad - good > 1 {
                let middle = good + (bad - good) / 2;
                if fits(with(room, middle, base)) { good = middle } else { bad = middle }
            }
            good
        };
        let rooms = self.elastic(tp);
        let alone: Vec<usize> = rooms.iter().map(most).collect();
        // Each case fits alone, but one's batch beside another's blocks may not. All are reduced by the same
        // fraction.
        let at = |permille: usize| {
            rooms.iter().zip(&alone).fold(base, |capacity, (&room, &batch)| {
                let low = room.least_batch;
                with(room, low + (batch - low) * permille / 1000, capacity)
            })
        };
        let (mut good, mut bad) = (0, 1001);
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            if fits(at(middle)) { good = middle } else { bad = middle }
        }
        at(good)
    }
}

/// Returns a capacity for one sequence of one token.
fn smallest(step_tokens: usize) -> Capacity {
    Capacity { max_batch: 1, max_step_tokens: step_tokens, max_context: 1, kv_blocks: 1, max_logit_rows: 1 }
}

/// Returns a capacity for the longest sequence and the batch of every case.
fn room(
    step_tokens: usize,
    config: &ModelConfig,
    accuracy: &[&AccuracyRun<'_>],
    timed: &[&dyn Case],
) -> Capacity {
    let prefix = config.pre_seq_len.unwrap_or(0);
    let mut capacity = Capacity { max_context: 1 + prefix, ..smallest(step_tokens) };
    let mut verified = 0;
    // Blocks for a batch of usual sequences, or for one of the longest while the others wait for it.
    let mut grow = |batch: usize, usual: usize, longest: usize| {
        let context = |tokens: usize| tokens.min(config.seq_length) + prefix;
        capacity.max_batch = capacity.max_batch.max(batch);
        capacity.max_context = capacity.max_context.max(context(longest));
        let blocks = (batch * blocks_for(context(usual))).max(blocks_for(context(longest)));
        capacity.kv_blocks = capacity.kv_blocks.max(blocks);
    };
    for run in accuracy {
        let new = run.evaluation.plan().max_new_tokens;
        let prompt = run.evaluation.longest_prompt().unwrap_or(1);
        let usual = prompt + prompt / 4 + 2 * new + STAGE_SLACK_TOKENS;
        grow(run.batch, usual, usual + RETOKENIZED * new);
        if run.evaluation.plan().protocol.scores_prompts() {
            verified = verified.max(SCORED_ROWS);
        }
        if new > 0 {
            verified = verified.max(VERIFIED_ROWS * run.batch);
        }
    }
    for Room { most_batch: batch, tokens, logit_rows, .. } in timed.iter().map(|case| case.room()) {
        grow(batch, tokens, tokens);
        verified = verified.max(logit_rows);
    }
    capacity.max_step_tokens = step_tokens.max(capacity.max_batch);
    capacity.max_logit_rows = capacity.max_batch.max(verified).min(capacity.max_step_tokens);
    capacity
}

/// Returns a capacity that satisfies both.
fn union(a: Capacity, b: Capacity) -> Capacity {
    Capacity {
        max_batch: a.max_batch.max(b.max_batch),
        max_step_tokens: a.max_step_tokens.max(b.max_step_tokens),
        max_context: a.max_context.max(b.max_context),
        kv_blocks: a.kv_blocks.max(b.kv_blocks),
        max_logit_rows: a.max_logit_rows.max(b.max_logit_rows),
    }
}

/// Returns the capacity of an engine that runs `batch` sequences of `tokens` tokens. Other sizes are taken from `capacity`.
pub(crate) fn wanted_capacity(tokens: usize, batch: usize, prefix: usize, capacity: Capacity) -> Capacity {
    let context = prefix + tokens;
    Capacity {
        max_batch: batch,
        max_step_tokens: capacity.max_step_tokens.max(batch),
        max_context: capacity.max_context.max(context),
        kv_blocks: batch.saturating_mul(blocks_for(context)),
        max_logit_rows: batch,
    }
}
