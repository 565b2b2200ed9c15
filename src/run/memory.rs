//! The engine limits that a plan's cases need, and the cases that do not fit the device's memory.

use glmbench_engine::cache::blocks_for;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::memory::{MemoryBudget, MemoryOf};
use glmbench_engine::model::Capacity;

use super::AccuracyRun;
use super::plan::{LoadRun, PerformanceRun, Plan, SearchRun};
use super::search::wanted_limits;

/// Slack for a second stage, which repeats the first's prompt and answer and adds some words, tokenized again.
const STAGE_SLACK_TOKENS: usize = 128;
/// Maximum tokens that one generated token's text may become when tokenized again: names of unused pieces, broken
/// characters.
const RETOKENIZED: usize = 8;

impl Plan<'_> {
    /// Returns the limits that the engine must be loaded with on `world` ranks.
    pub fn limits(&self, world: usize) -> Capacity {
        self.limits.get(&world).copied().unwrap_or_else(|| smallest(self.step_tokens()))
    }

    /// Excludes what does not fit into memory: marks performance cases with the reason, and limits the searches'
    /// batches.
    /// If nothing at all fits, nothing is excluded: the check before loading reports it.
    pub fn fit_memory(&mut self, config: &ModelConfig, on: impl Into<MemoryOf>, budget: MemoryBudget) {
        let on = on.into();
        let fits = |limits: Capacity, world: usize| budget.holds(config, on, limits, world);
        let alone = |run: &PerformanceRun| room(self.step_tokens(), config, &[], &[run], &[]);
        let unfit: Vec<bool> = self.performance.iter().map(|run| !fits(alone(run), run.tp)).collect();
        let others = !self.accuracy.is_empty() || !self.searches.is_empty() || !self.loads.is_empty();
        if others || unfit.contains(&false) {
            let wanted = |run: &PerformanceRun| budget.wanted(config, on, alone(run), run.tp);
            let wanted: Vec<String> = self.performance.iter().map(wanted).collect();
            let cases = self.performance.iter_mut().zip(&unfit).zip(wanted);
            for ((run, _), wanted) in cases.filter(|((_, unfit), _)| **unfit) {
                run.unfit = Some(format!("out of memory by estimate: {wanted}, {}", budget.words()));
            }
        }
        for world in self.worlds() {
            let limits = self.fitting(config, world, &|limits| fits(limits, world));
            self.limits.insert(world, limits);
        }
    }

    /// Returns limits that hold every case on `world` ranks, with the searches at their largest batches.
    pub(super) fn largest(&self, config: &ModelConfig, world: usize) -> Capacity {
        let prefix = config.pre_seq_len.unwrap_or(0);
        self.searches_of(world).fold(self.fixed(config, world), |limits, search| {
            union(limits, wanted_limits(search, search.high, prefix, limits))
        })
    }

    /// Returns limits that hold every case except the searches, which can do with less.
    fn fixed(&self, config: &ModelConfig, world: usize) -> Capacity {
        let accuracy: Vec<_> = self.accuracy.iter().filter(|run| run.tp == world).collect();
        let fit = |run: &&PerformanceRun| run.tp == world && run.unfit.is_none();
        let performance: Vec<_> = self.performance.iter().filter(fit).collect();
        let loads: Vec<_> = self.loads.iter().filter(|run| run.tp == world).collect();
        room(self.step_tokens(), config, &accuracy, &performance, &loads)
    }

    /// Returns the largest batch of a search that the engine is loaded for. Larger ones count as out of memory by
    /// estimate.
    pub fn largest_batch(&self, search: &SearchRun, config: &ModelConfig) -> usize {
        let (limits, prefix) = (self.limits(search.tp), config.pre_seq_len.unwrap_or(0));
        let fits = |batch: usize| {
            let wanted = wanted_limits(search, batch, prefix, limits);
            wanted.kv_blocks <= limits.kv_blocks && batch <= limits.max_batch
        };
        let (mut good, mut bad) = (search.low.saturating_sub(1), search.high.saturating_add(1));
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            if fits(middle) { good = middle } else { bad = middle }
        }
        good
    }

    fn searches_of(&self, world: usize) -> impl Iterator<Item = &SearchRun> {
        self.searches.iter().filter(move |run| run.tp == world)
    }

    /// Returns limits with the largest search batches that fit, first each search on its own. Larger batches count as
    /// out of memory and are not run.
    fn fitting(&self, config: &ModelConfig, world: usize, fits: &dyn Fn(Capacity) -> bool) -> Capacity {
        let largest = self.largest(config, world);
        if fits(largest) {
            return largest;
        }
        let prefix = config.pre_seq_len.unwrap_or(0);
        let base = self.fixed(config, world);
        let with = |search: &SearchRun, batch: usize, limits: Capacity| {
            union(limits, wanted_limits(search, batch, prefix, limits))
        };
        let most = |search: &SearchRun| {
            // Bisects for the largest batch that fits, because memory grows with the batch.
            let (mut good, mut bad) = (search.low, search.high + 1);
            while bad - good > 1 {
                let middle = good + (bad - good) / 2;
                if fits(with(search, middle, base)) { good = middle } else { bad = middle }
            }
            good
        };
        let alone: Vec<usize> = self.searches_of(world).map(most).collect();
        // Each search fits alone, but one's batch beside another's blocks may not. All are reduced by the same
        // fraction.
        let at = |permille: usize| {
            self.searches_of(world).zip(&alone).fold(base, |limits, (search, &batch)| {
                with(search, search.low + (batch - search.low) * permille / 1000, limits)
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

/// Returns limits for one sequence of one token.
fn smallest(step_tokens: usize) -> Capacity {
    Capacity { max_batch: 1, max_step_tokens: step_tokens, max_context: 1, kv_blocks: 1, max_logit_rows: 1 }
}

/// Returns limits for the longest sequence and the batch of every case.
fn room(
    step_tokens: usize,
    config: &ModelConfig,
    accuracy: &[&AccuracyRun<'_>],
    performance: &[&PerformanceRun],
    loads: &[&LoadRun],
) -> Capacity {
    let prefix = config.pre_seq_len.unwrap_or(0);
    let mut limits = Capacity { max_context: 1 + prefix, ..smallest(step_tokens) };
    // Blocks for a batch of usual sequences, or for one of the longest while the others wait for it.
    let mut grow = |batch: usize, usual: usize, longest: usize| {
        let context = |tokens: usize| tokens.min(config.seq_length) + prefix;
        limits.max_batch = limits.max_batch.max(batch);
        limits.max_context = limits.max_context.max(context(longest));
        let blocks = (batch * blocks_for(context(usual))).max(blocks_for(context(longest)));
        limits.kv_blocks = limits.kv_blocks.max(blocks);
    };
    for run in accuracy {
        let new = run.evaluation.plan().max_new_tokens;
        let prompt = (0..run.evaluation.len())
            .filter_map(|i| run.evaluation.first_prompt(i))
            .map(|(_, ids)| ids.len())
            .max()
            .unwrap_or(1);
        let usual = prompt + prompt / 4 + 2 * new + STAGE_SLACK_TOKENS;
        grow(run.batch, usual, usual + RETOKENIZED * new);
    }
    for run in performance {
        grow(run.shape.batch, run.shape.sequence_tokens(), run.shape.sequence_tokens());
    }
    for run in loads {
        grow(run.max_batch, run.longest(), run.longest());
    }
    limits.max_step_tokens = step_tokens.max(limits.max_batch);
    limits.max_logit_rows = limits.max_batch;
    limits
}

/// Returns limits that satisfy both.
fn union(a: Capacity, b: Capacity) -> Capacity {
    Capacity {
        max_batch: a.max_batch.max(b.max_batch),
        max_step_tokens: a.max_step_tokens.max(b.max_step_tokens),
        max_context: a.max_context.max(b.max_context),
        kv_blocks: a.kv_blocks.max(b.kv_blocks),
        max_logit_rows: a.max_logit_rows.max(b.max_logit_rows),
    }
}
