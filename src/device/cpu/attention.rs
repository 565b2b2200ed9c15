//! Attention over the paged KV cache: the online softmax, a block of 128 tokens at a time.
//!
//! A block's scores, its softmax weights and their products with the values follow on each other while the block lies in
//! cache: working memory does not grow with the context, and keys and values are read once for all query heads that share
//! them. Blocks are added up to runs of [`RUN_TOKENS`] tokens and runs to the context, always from token 0 on and in order.
//! So a row's numbers depend on its own context alone, and threads may share a context run by run.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::device::{AttentionShape, DeviceError, KV_BLOCK_TOKENS, SequenceView};

use super::buffer::{Buffer, SharedSlice};
use super::int8::Int8Kernels;
use super::kernels::{Kernels, PANEL, Product};
use super::kv::{KvCache, Panels};
use super::linear::Rows;
use super::pool::Pool;
use super::softmax::RowState;

/// Rows of one work item: enough to fill the GEMM tiles, few enough to share the work.
const ITEM_ROWS: usize = 32;
/// Tokens of context that are summed by themselves before they are added to what came before.
const RUN_TOKENS: usize = 4 * KV_BLOCK_TOKENS;
/// The runs of a context are shared, too, where there are fewer items than so many for each thread.
const ITEMS_A_THREAD: usize = 2;

/// One work item: some consecutive tokens of one sequence, under one KV head.
#[derive(Debug, Clone, Copy)]
struct Item {
    sequence: usize,
    head: usize,
    first: usize,
    tokens: usize,
}

/// Tokens of one sequence in one work item.
fn item_tokens(shape: AttentionShape) -> usize {
    (ITEM_ROWS * shape.kv_heads / shape.heads).max(1)
}

/// Rows of one work item at most.
fn item_rows(shape: AttentionShape) -> usize {
    item_tokens(shape) * (shape.heads / shape.kv_heads)
}

/// Numbers of a row of [`Sums`].
fn sums_width(shape: AttentionShape) -> usize {
    shape.channels.next_multiple_of(PANEL) + PANEL
}

/// Rows of the softmax over part of a context, not yet divided by its total: the values weighted relative to the row's
/// largest score, then the row's [`RowState`], padded to sixteen numbers each.
struct Sums<'a> {
    data: &'a mut [f32],
    width: usize,
}

impl Sums<'_> {
    fn clear(&mut self) {
        self.data.fill(0.0);
        for row in 0..self.data.len() / self.width {
            self.set_state(row, RowState::EMPTY);
        }
    }

    fn values(&self, row: usize) -> &[f32] {
        &self.data[row * self.width..(row + 1) * self.width - PANEL]
    }

    fn values_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.width..(row + 1) * self.width - PANEL]
    }

    fn state(&self, row: usize) -> RowState {
        let at = (row + 1) * self.width - PANEL;
        RowState { max: self.data[at], total: self.data[at + 1] }
    }

    fn set_state(&mut self, row: usize, state: RowState) {
        let at = (row + 1) * self.width - PANEL;
        (self.data[at], self.data[at + 1]) = (state.max, state.total);
    }

    /// Adds what `rows` have over the next part of their context.
    fn merge(&mut self, rows: Range<usize>, next: &Sums<'_>, kernels: &Kernels) {
        for row in rows {
            let (before, other) = (self.state(row), next.state(row));
            let max = before.max.max(other.max);
            // SAFETY: the kernels belong to this machine.
            let (a, b) = unsafe { ((kernels.decay)(before.max, max), (kernels.decay)(other.max, max)) };
            self.set_state(row, RowState { max, total: before.total * a + other.total * b });
            let values = self.values_mut(row).iter_mut().zip(next.values(row));
            values.for_each(|(x, y)| *x = *x * a + *y * b);
        }
    }
}

/// A thread's working memory.
#[derive(Debug)]
struct Scratch {
    queries: Buffer<f32>,
    block: Block,
    /// [`Sums`] over the runs so far.
    whole: Buffer<f32>,
    /// [`Sums`] over the present run.
    run: Buffer<f32>,
}

/// Working memory for one block.
#[derive(Debug)]
struct Block {
    scores: Buffer<f32>,
    /// Keys, then values, that are stored as integers, as numbers.
    wide: Buffer<f32>,
}

impl Scratch {
    fn new(shape: AttentionShape) -> Result<Self, DeviceError> {
        let rows = item_rows(shape);
        let buffer = |numbers| Buffer::zeroed(numbers, "attention");
        Ok(Self {
            queries: buffer(rows * shape.channels + PANEL)?,
            block: Block {
                scores: buffer(rows * KV_BLOCK_TOKENS + PANEL)?,
                wide: buffer(KV_BLOCK_TOKENS * shape.channels.next_multiple_of(PANEL))?,
            },
            whole: buffer(rows * sums_width(shape))?,
            run: buffer(rows * sums_width(shape))?,
        })
    }
}

/// The working memory of all threads, taken once.
#[derive(Debug)]
pub struct Workspace {
    scratch: Vec<Mutex<Scratch>>,
    items: Vec<Item>,
    /// Items with one run each, where the runs are shared.
    units: Vec<(Item, usize)>,
    /// [`Sums`] of each unit.
    partial: Buffer<f32>,
}

impl Workspace {
    /// For so many threads and contexts of up to `max_context` tokens.
    pub fn new(shape: AttentionShape, threads: usize, max_context: usize) -> Result<Self, DeviceError> {
        let scratch = (0..threads).map(|_| Scratch::new(shape).map(Mutex::new)).collect::<Result<_, _>>()?;
        let runs = max_context.div_ceil(RUN_TOKENS);
        let units = if threads > 1 && runs > 1 { ITEMS_A_THREAD * threads * runs } else { 0 };
        let partial = Buffer::zeroed(units * item_rows(shape) * sums_width(shape), "attention")?;
        Ok(Self { scratch, items: Vec::new(), units: Vec::with_capacity(units), partial })
    }

    /// Threads that it is for.
    pub fn threads(&self) -> usize {
        self.scratch.len()
    }
}

/// One attention operator.
#[derive(Debug)]
pub struct Attention<'a> {
    /// `[q | k | v]` rows.
    pub qkv: Rows<'a>,
    /// The cache.
    pub cache: &'a KvCache,
    /// Which layer.
    pub layer: usize,
    /// The ragged batch.
    pub sequences: &'a [SequenceView<'a>],
    /// Heads and channels.
    pub shape: AttentionShape,
    /// The kernels.
    pub kernels: &'a Kernels,
    /// Those for a cache of integers.
    pub int8: &'a Int8Kernels,
    /// `[rows, heads * channels]`.
    pub out: &'a SharedSlice<'a, f32>,
    /// Numbers between rows of `out`.
    pub out_stride: usize,
}

impl Attention<'_> {
    /// Does it, shared among the pool's threads.
    pub fn run(&self, space: &mut Workspace, pool: &mut Pool) {
        let Workspace { scratch, items, units, partial } = space;
        self.cut(items);
        let seen: usize = self.sequences.iter().map(|s| s.rows.len() * s.context).sum();
        let work = 2 * seen * self.shape.heads * self.shape.channels;
        let lock = |thread: usize| scratch[thread].lock().unwrap_or_else(PoisonError::into_inner);
        if !self.shares_runs(items, pool.threads()) {
            pool.each(items.len(), work, &|thread, i| self.whole_item(items[i], &mut lock(thread)));
            return;
        }
        units.clear();
        units.extend(items.iter().flat_map(|item| (0..self.runs(item)).map(move |run| (*item, run))));
        let (width, shared) = (sums_width(self.shape), partial.shared());
        let numbers = item_rows(self.shape) * width;
        // SAFETY: a unit is done by one thread, and read when all are done.
        let sums = |unit: usize| unsafe { shared.range(unit * numbers..(unit + 1) * numbers) };
        pool.each(units.len(), work, &|thread, i| {
            let Scratch { queries, block, .. } = &mut *lock(thread);
            let (item, run) = units[i];
            self.collect_queries(&item, queries);
            self.sum_run(&item, run, queries, block, &mut Sums { data: sums(i), width });
        });
        let first_unit = |i: usize| items[..i].iter().map(|item| self.runs(item)).sum::<usize>();
        pool.each(items.len(), units.len() * numbers, &|_, i| {
            let (item, first) = (&items[i], first_unit(i));
            let mut whole = Sums { data: sums(first), width };
            for run in 1..self.runs(item) {
                let next = Sums { data: sums(first + run), width };
                whole.merge(self.rows_that_see(item, run * RUN_TOKENS), &next, self.kernels);
            }
            self.write_out(item, &whole);
        });
    }

    /// Cuts the ragged batch into work items, the longest contexts first so that the threads end together.
    fn cut(&self, out: &mut Vec<Item>) {
        out.clear();
        let most = item_tokens(self.shape);
        for (index, sequence) in self.sequences.iter().enumerate() {
            for first in (0..sequence.rows.len()).step_by(most) {
                let tokens = most.min(sequence.rows.len() - first);
                let heads = 0..self.shape.kv_heads;
                out.extend(heads.map(|head| Item { sequence: index, head, first, tokens }));
            }
        }
        out.sort_by_key(|i| std::cmp::Reverse(self.sequences[i.sequence].visible(i.first) * i.tokens));
    }

    /// Whether there are too few items for the threads, and contexts to share.
    fn shares_runs(&self, items: &[Item], threads: usize) -> bool {
        threads > 1 && items.len() < ITEMS_A_THREAD * threads && items.iter().any(|item| self.runs(item) > 1)
    }

    fn group(&self) -> usize {
        self.shape.heads / self.shape.kv_heads
    }

    /// Tokens that the item's last row sees.
    fn longest(&self, item: &Item) -> usize {
        self.sequences[item.sequence].visible(item.first + item.tokens - 1)
    }

    fn runs(&self, item: &Item) -> usize {
        self.longest(item).div_ceil(RUN_TOKENS)
    }

    /// The item's rows that see token `begin` of their sequence; its last does.
    fn rows_that_see(&self, item: &Item, begin: usize) -> Range<usize> {
        let first = (begin + 1).saturating_sub(self.sequences[item.sequence].visible(item.first));
        first * self.group()..item.tokens * self.group()
    }

    /// Does one item.
    fn whole_item(&self, item: Item, scratch: &mut Scratch) {
        let Scratch { queries, block, whole, run } = scratch;
        let width = sums_width(self.shape);
        let mut whole = Sums { data: whole, width };
        let mut next = Sums { data: run, width };
        self.collect_queries(&item, queries);
        self.sum_run(&item, 0, queries, block, &mut whole);
        for run in 1..self.runs(&item) {
            self.sum_run(&item, run, queries, block, &mut next);
            whole.merge(self.rows_that_see(&item, run * RUN_TOKENS), &next, self.kernels);
        }
        self.write_out(&item, &whole);
    }

    fn collect_queries(&self, item: &Item, queries: &mut [f32]) {
        let width = self.group() * self.shape.channels;
        for token in 0..item.tokens {
            let row = self.sequences[item.sequence].rows.start + item.first + token;
            let from = row * self.qkv.stride + item.head * width;
            queries[token * width..(token + 1) * width].copy_from_slice(&self.qkv.data[from..from + width]);
        }
    }

    /// An item's rows over one run of their context.
    fn sum_run(&self, item: &Item, run: usize, queries: &[f32], memory: &mut Block, sums: &mut Sums<'_>) {
        sums.clear();
        let end = self.longest(item).min((run + 1) * RUN_TOKENS);
        for begin in (run * RUN_TOKENS..end).step_by(KV_BLOCK_TOKENS) {
            let tokens = KV_BLOCK_TOKENS.min(end - begin);
            let rows = self.rows_that_see(item, begin);
            let block = self.sequences[item.sequence].blocks[begin / KV_BLOCK_TOKENS] as usize;
            let at = self.cache.index(self.layer, block, item.head);
            self.score(at, tokens, rows.clone(), queries, memory);
            self.soften(item, begin, tokens, rows.clone(), &mut memory.scores, sums);
            self.weigh(at, tokens, rows, memory, sums);
        }
    }

    /// Scores of a block's tokens: queries times keys.
    fn score(&self, at: usize, tokens: usize, rows: Range<usize>, queries: &[f32], memory: &mut Block) {
        let (channels, panels) = (self.shape.channels, tokens.div_ceil(PANEL));
        let (w, gemm) = match self.cache.keys(at) {
            Panels::Stored(keys) => (keys.as_ptr(), self.kernels.gemm),
            Panels::Int8(keys, scales) => {
                let numbers = channels * PANEL;
                let keys = keys.chunks_exact(numbers).zip(scales.chunks_exact(PANEL));
                for ((keys, scales), wide) in keys.zip(memory.wide.chunks_exact_mut(numbers)).take(panels) {
                    // SAFETY: the kernels belong to this machine.
                    unsafe { (self.int8.widen_columns)(keys, scales, wide) };
                }
                (memory.wide.as_ptr().cast(), self.kernels.gemm_f32)
            }
        };
        let scores = &mut memory.scores[rows.start * KV_BLOCK_TOKENS..];
        scores[..rows.len() * KV_BLOCK_TOKENS].fill(0.0);
        let product = Product {
            a: queries[rows.start * channels..].as_ptr(),
            a_stride: channels,
            rows: rows.len(),
            w,
            panel_stride: channels * PANEL,
            panels,
            k: channels,
            c: scores.as_mut_ptr(),
            c_stride: KV_BLOCK_TOKENS,
        };
        // SAFETY: queries, the block's panels and the score rows hold these shapes.
        unsafe { gemm(&product) };
    }

    /// Scores of a block's tokens to softmax weights, each row's for the tokens that it sees; what went before is brought
    /// to the new largest scores.
    fn soften(
        &self,
        item: &Item,
        begin: usize,
        tokens: usize,
        rows: Range<usize>,
        scores: &mut [f32],
        sums: &mut Sums<'_>,
    ) {
        let scale = 1.0 / (self.shape.channels as f32).sqrt();
        let padded = tokens.next_multiple_of(PANEL);
        for row in rows {
            let visible = self.sequences[item.sequence].visible(item.first + row / self.group());
            let scores = &mut scores[row * KV_BLOCK_TOKENS..(row + 1) * KV_BLOCK_TOKENS];
            let mut state = sums.state(row);
            let n = tokens.min(visible - begin);
            // SAFETY: the row holds a block's tokens, of which `padded` at most are touched.
            let factor = unsafe { (self.kernels.softmax)(scores.as_mut_ptr(), scale, n, padded, &mut state) };
            sums.set_state(row, state);
            if factor != 1.0 {
                sums.values_mut(row).iter_mut().for_each(|x| *x *= factor);
            }
        }
    }

    /// Adds a block's values, weighted.
    fn weigh(&self, at: usize, tokens: usize, rows: Range<usize>, memory: &mut Block, sums: &mut Sums<'_>) {
        let (w, gemm) = match self.cache.values(at) {
            Panels::Stored(values) => (values.as_ptr(), self.kernels.gemm),
            Panels::Int8(values, scales) => {
                let numbers = KV_BLOCK_TOKENS * PANEL;
                let values = values.chunks_exact(numbers).zip(memory.wide.chunks_exact_mut(numbers));
                for (values, wide) in values {
                    // SAFETY: the kernels belong to this machine.
                    unsafe { (self.int8.widen_rows)(values, &scales[..tokens], wide) };
                }
                (memory.wide.as_ptr().cast(), self.kernels.gemm_f32)
            }
        };
        let product = Product {
            a: memory.scores[rows.start * KV_BLOCK_TOKENS..].as_ptr(),
            a_stride: KV_BLOCK_TOKENS,
            rows: rows.len(),
            w,
            panel_stride: KV_BLOCK_TOKENS * PANEL,
            panels: self.shape.channels.div_ceil(PANEL),
            k: tokens,
            c: sums.data[rows.start * sums.width..].as_mut_ptr(),
            c_stride: sums.width,
        };
        // SAFETY: score rows, the block's panels and the sums hold these shapes.
        unsafe { gemm(&product) };
    }

    fn write_out(&self, item: &Item, sums: &Sums<'_>) {
        let (group, channels) = (self.group(), self.shape.channels);
        for row in 0..item.tokens * group {
            let token = self.sequences[item.sequence].rows.start + item.first + row / group;
            let head = item.head * group + row % group;
            let begin = token * self.out_stride + head * channels;
            // SAFETY: a head's channels of a token belong to one item.
            let out = unsafe { self.out.range(begin..begin + channels) };
            let (values, total) = (sums.values(row), sums.state(row).total);
            // SAFETY: `channels` numbers on both sides, the input padded to sixteen.
            unsafe { (self.kernels.divide)(values.as_ptr(), total, channels, out.as_mut_ptr()) };
        }
    }
}

#[cfg(test)]
mod tests;
