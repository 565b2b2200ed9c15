//! Attention over the paged KV cache: online softmax, one block of 128 tokens at a time.
//!
//! The scores of a block, its softmax weights and their products with the values are computed while the block is in
//! cache. The workspace does not grow with the context. Keys and values are read once for all query heads that share
//! them. Vector kernels or tiles compute the products ([`products`]). The next block is prefetched while one is
//! computed.
//!
//! Blocks are summed to runs of [`RUN_TOKENS`] tokens, and runs to the context, always from token 0 and in order. A
//! row's numbers therefore depend on its own context only, and threads may split a context by runs.
//!
//! A row is also multiplied with values after its context: those of later rows of its item, and earlier contents of a
//! tile. They have the weight zero. Zero times infinity or NaN is NaN, which every later sum keeps. An item with such
//! results is computed again, one token at a time ([`Attention::each_alone`]). So a sequence whose own numbers are NaN
//! takes twice as long. Of other values, only the sign of zero reaches a sum ([`Divide`]). Scores after the context are
//! replaced before they are used.

mod channel_cache;
mod int8;
mod int8_cache;
mod kv;
mod products;
mod softmax;
mod sums;
mod tiles;
mod vector;

use std::sync::{Mutex, PoisonError};

use glmbench_device::{AttentionShape, DeviceError, KV_BLOCK_TOKENS, SequenceView};

use crate::buffer::{Buffer, SharedSlice};
use crate::pack::{PANEL, Rows, TILE_DEPTH};
use crate::pool::{Pool, part};
use crate::simd::Vectors;

use self::int8::Int8Tiles;
use self::products::{Ahead, Block, Chunk, Products};
use self::softmax::{Divide, Online};
use self::sums::{Strips, Sums};
use self::tiles::Tiles;
use self::vector::Vector;

pub(crate) use self::kv::CacheKernels;
pub(crate) use self::kv::KvCache;

/// Rows of an item that are processed together. They fill the registers of a product, and their scores and sums
/// stay in L1.
const CHUNK_ROWS: usize = 32;
/// Maximum rows per item with vectors. The chunks of an item share the work that is done once per block.
const VECTOR_ITEM_ROWS: usize = 4 * CHUNK_ROWS;
/// Maximum tokens per item of several chunks with vectors. All rows of an item are multiplied with all tokens that the last one
/// sees, and few query heads per KV head would make that a large part of the work.
const VECTOR_ITEM_TOKENS: usize = 16;
/// Maximum rows per item with tiles.
const TILE_ITEM_ROWS: usize = 8 * CHUNK_ROWS;
/// Tokens of context that are summed separately before they are added to the earlier context.
const RUN_TOKENS: usize = 4 * KV_BLOCK_TOKENS;
/// Minimum number of items per thread. Items are made small enough to reach it. If even that fails, the runs of a
/// context are split too.
const ITEMS_A_THREAD: usize = 2;
/// Pieces of runs per thread. A piece reads memory sequentially, so pieces are no smaller than needed.
const PIECES_A_THREAD: usize = 4;
/// Approximate number of products per chunk and block. Prefetches are issued between them.
const PRODUCTS_A_CHUNK: usize = 4;
/// Purpose of the memory, for errors.
const WHAT: &str = "attention";

/// A work item: consecutive tokens of one sequence under one KV head. The tokens lie in one block, so every block that
/// one of them sees is at least partly visible to all.
#[derive(Debug, Clone, Copy)]
struct Item {
    sequence: usize,
    head: usize,
    first: usize,
    tokens: usize,
    /// Whether values after the context count as zeros, whatever the cache holds there.
    clears_after: bool,
}

/// Returns the width of a row of weighted values, padded to whole strips.
fn values_width(channels: usize) -> usize {
    channels.next_multiple_of(4 * PANEL)
}

/// The workspace of one thread.
#[derive(Debug)]
struct Scratch {
    products: Box<dyn Products>,
    /// Scores of the rows of a chunk over a block, then softmax weights.
    scores: Buffer<f32>,
    /// [`Sums`] over the runs so far, one chunk after the other.
    whole: Buffer<f32>,
    /// [`Sums`] over the current run.
    run: Buffer<f32>,
}

/// The workspace of all threads, allocated once.
#[derive(Debug)]
pub(crate) struct Workspace {
    scratch: Vec<Mutex<Scratch>>,
    items: Vec<Item>,
    /// Maximum tokens per item.
    item_tokens: usize,
    /// Pairs of an item and a run, if runs are split among threads.
    units: Vec<(Item, usize)>,
    /// [`Sums`] of each unit.
    partial: Buffer<f32>,
}

impl Workspace {
    /// Allocates the workspace for `threads` threads, the kernels of the cache, and contexts of up to `max_context`
    /// tokens.
    pub(crate) fn new(
        shape: AttentionShape,
        max_context: usize,
        threads: usize,
        cache: CacheKernels,
        vectors: Vectors,
    ) -> Result<Self, DeviceError> {
        let group = shape.heads / shape.kv_heads;
        let item_tokens = match cache {
            CacheKernels::Vector => VECTOR_ITEM_TOKENS.min(VECTOR_ITEM_ROWS / group).max(CHUNK_ROWS / group),
            _ => TILE_ITEM_ROWS / group,
        };
        let item_tokens = item_tokens.max(1);
        let rows = item_tokens * group;
        let scratch = || {
            let products: Box<dyn Products> = match cache {
                CacheKernels::Vector => Box::new(Vector::new(shape, rows, vectors)?),
                CacheKernels::Tiles(tiles) => Box::new(Tiles::new(shape, rows, &tiles)?),
                CacheKernels::Int8Tiles(of_values, of_keys) => {
                    Box::new(Int8Tiles::new(shape, rows, (of_values, of_keys), vectors)?)
                }
            };
            Ok(Mutex::new(Scratch {
                products,
                scores: Buffer::zeroed(CHUNK_ROWS * KV_BLOCK_TOKENS, WHAT)?,
                whole: Buffer::zeroed(sums_numbers(shape, rows), WHAT)?,
                run: Buffer::zeroed(sums_numbers(shape, rows), WHAT)?,
            }))
        };
        let scratch = (0..threads).map(|_| scratch()).collect::<Result<_, DeviceError>>()?;
        let runs = max_context.div_ceil(RUN_TOKENS);
        let units = if threads > 1 && runs > 1 { ITEMS_A_THREAD * threads * runs } else { 0 };
        // If runs are split, every item is one token.
        let partial = Buffer::zeroed(units * sums_numbers(shape, group), WHAT)?;
        Ok(Self { scratch, items: Vec::new(), item_tokens, units: Vec::with_capacity(units), partial })
    }

    /// Returns the number of threads.
    pub(crate) fn threads(&self) -> usize {
        self.scratch.len()
    }
}

/// Returns how many numbers the sums of `rows` rows take.
fn sums_numbers(shape: AttentionShape, rows: usize) -> usize {
    rows.div_ceil(CHUNK_ROWS) * Sums::numbers(values_width(shape.channels))
}

/// One call of the attention operator.
#[derive(Debug)]
pub(crate) struct Attention<'a> {
    /// Rows of `[q | k | v]`.
    pub qkv: Rows<'a>,
    /// The KV cache.
    pub cache: &'a KvCache,
    /// Index of the layer.
    pub layer: usize,
    /// The ragged batch.
    pub sequences: &'a [SequenceView<'a>],
    /// Heads and channels.
    pub shape: AttentionShape,
    /// The vectors, for all that is no product.
    pub vectors: Vectors,
    /// Output `[rows, heads * channels]`.
    pub out: &'a SharedSlice<'a, f32>,
    /// Distance between rows of `out`, in numbers.
    pub out_stride: usize,
}

impl Attention<'_> {
    /// Runs the operator on the pool's threads.
    pub(crate) fn run(&self, space: &mut Workspace, pool: &mut Pool) {
        let Workspace { scratch, items, item_tokens, units, partial } = space;
        self.cut(*item_tokens, pool.threads(), items);
        let seen: usize = self.sequences.iter().map(|s| s.rows.len() * s.context).sum();
        let work = 2 * seen * self.shape.heads * self.shape.channels;
        let lock = |thread: usize| scratch[thread].lock().unwrap_or_else(PoisonError::into_inner);
        if !self.shares_runs(items, pool.threads()) {
            pool.each(items.len(), work, &|thread, i| self.whole_item(&items[i], &mut lock(thread)));
            return;
        }
        units.clear();
        units.extend(items.iter().flat_map(|item| (0..self.runs(item)).map(move |run| (*item, run))));
        let numbers = sums_numbers(self.shape, self.group());
        let shared = partial.shared();
        // SAFETY: one thread computes a unit, and it is read only after all are done.
        let sums = |unit: usize| unsafe { shared.range(unit * numbers..(unit + 1) * numbers) };
        let pieces = units.len().min(PIECES_A_THREAD * pool.threads());
        pool.each(pieces, work, &|thread, piece| {
            let piece = part(units.len(), piece, pieces);
            let Scratch { products, scores, .. } = &mut *lock(thread);
            for unit in piece.clone() {
                let (item, run) = &units[unit];
                self.take_queries(item, &mut **products);
                let goes_on = unit + 1 < piece.end && units[unit + 1].1 == run + 1;
                self.sum_run(item, *run, goes_on, &mut **products, scores, sums(unit));
                products.end();
            }
        });
        let first_unit = |i: usize| items[..i].iter().map(|item| self.runs(item)).sum::<usize>();
        pool.each(items.len(), units.len() * self.group() * self.shape.channels, &|thread, i| {
            let (item, first, scratch) = (&items[i], first_unit(i), &mut *lock(thread));
            let whole = sums(first);
            for run in 1..self.runs(item) {
                self.merge(item, &*scratch.products, whole, sums(first + run));
            }
            if !self.write_out(item, &*scratch.products, whole) {
                self.each_alone(item, scratch);
            }
        });
    }

    /// Splits the ragged batch into work items, longest contexts first, so that the threads finish together.
    fn cut(&self, item_tokens: usize, threads: usize, out: &mut Vec<Item>) {
        out.clear();
        let tokens: usize = self.sequences.iter().map(|s| s.rows.len()).sum();
        let for_all = tokens * self.shape.kv_heads / (ITEMS_A_THREAD * threads);
        let most = for_all.clamp(1, item_tokens);
        for (index, sequence) in self.sequences.iter().enumerate() {
            let mut first = 0;
            while first < sequence.rows.len() {
                let left_in_block = KV_BLOCK_TOKENS - (sequence.visible(first) - 1) % KV_BLOCK_TOKENS;
                let tokens = most.min(sequence.rows.len() - first).min(left_in_block);
                let heads = 0..self.shape.kv_heads;
                out.extend(heads.map(|head| Item {
                    sequence: index,
                    head,
                    first,
                    tokens,
                    clears_after: false,
                }));
                first += tokens;
            }
        }
        out.sort_by_key(|i| std::cmp::Reverse(self.sequences[i.sequence].visible(i.first) * i.tokens));
    }

    /// Returns whether there are too few items for the threads, and contexts that can be split. If so, every item is
    /// one token.
    fn shares_runs(&self, items: &[Item], threads: usize) -> bool {
        threads > 1 && items.len() < ITEMS_A_THREAD * threads && items.iter().any(|item| self.runs(item) > 1)
    }

    fn group(&self) -> usize {
        self.shape.heads / self.shape.kv_heads
    }

    /// Returns how many tokens the item's last row sees.
    fn longest(&self, item: &Item) -> usize {
        self.sequences[item.sequence].visible(item.first + item.tokens - 1)
    }

    fn runs(&self, item: &Item) -> usize {
        self.longest(item).div_ceil(RUN_TOKENS)
    }

    /// Returns the item's rows in chunks.
    fn chunks(&self, item: &Item) -> impl Iterator<Item = Chunk> + use<> {
        let of = item.tokens * self.group();
        (0..of).step_by(CHUNK_ROWS).map(move |first| Chunk { first, rows: CHUNK_ROWS.min(of - first), of })
    }

    /// Returns the sums of an item that belong to a chunk.
    fn sums<'a>(&self, chunk: Chunk, products: &dyn Products, data: &'a mut [f32]) -> Sums<'a> {
        let width = values_width(self.shape.channels);
        let numbers = Sums::numbers(width);
        let data = &mut data[chunk.first / CHUNK_ROWS * numbers..][..numbers];
        Sums::new(data, products.value_strips(chunk.rows, width))
    }

    /// Processes one item.
    fn whole_item(&self, item: &Item, scratch: &mut Scratch) {
        if !self.compute(item, scratch) {
            self.each_alone(item, scratch);
        }
    }

    /// Computes an item with infinite or NaN results again, one token at a time, with zeros after each context. The results of
    /// rows that were right before do not change.
    fn each_alone(&self, item: &Item, scratch: &mut Scratch) {
        if item.tokens == 1 && !scratch.products.reads_after(self.longest(item)) {
            return;
        }
        for token in 0..item.tokens {
            self.compute(
                &Item { first: item.first + token, tokens: 1, clears_after: true, ..*item },
                scratch,
            );
        }
    }

    /// Computes the results of an item, and returns whether all are finite.
    fn compute(&self, item: &Item, scratch: &mut Scratch) -> bool {
        let Scratch { products, scores, whole, run: next } = scratch;
        let products = &mut **products;
        self.take_queries(item, products);
        self.sum_run(item, 0, true, products, scores, whole);
        for run in 1..self.runs(item) {
            self.sum_run(item, run, true, products, scores, next);
            self.merge(item, products, whole, next);
        }
        products.end();
        self.write_out(item, products, whole)
    }

    fn take_queries(&self, item: &Item, products: &mut dyn Products) {
        let (group, channels) = (self.group(), self.shape.channels);
        for row in 0..item.tokens * group {
            let token = self.sequences[item.sequence].rows.start + item.first + row / group;
            let from = token * self.qkv.stride + (item.head * group + row % group) * channels;
            products.take_query(row, &self.qkv.data[from..from + channels]);
        }
    }

    /// Sums an item's rows over one run of their context. `goes_on` says whether the next run follows.
    fn sum_run(
        &self,
        item: &Item,
        run: usize,
        goes_on: bool,
        products: &mut dyn Products,
        scores: &mut [f32],
        sums: &mut [f32],
    ) {
        self.chunks(item).for_each(|chunk| self.sums(chunk, products, sums).clear());
        let all = self.longest(item);
        let end = all.min((run + 1) * RUN_TOKENS);
        for begin in (run * RUN_TOKENS..end).step_by(KV_BLOCK_TOKENS) {
            let block = self.block(item, begin, end);
            let next = begin + KV_BLOCK_TOKENS;
            let is_next = next < if goes_on { all } else { end };
            let next = is_next.then(|| self.block(item, next, all));
            let mut ahead = self.ahead(item, next);
            for chunk in self.chunks(item) {
                let mut sums = self.sums(chunk, products, sums);
                products.score(&block, chunk, scores, &mut ahead);
                let strips = products.score_strips(chunk.rows);
                self.soften((item, chunk, begin), products, (scores, strips), &mut sums, &mut ahead);
                products.weigh(&block, chunk, scores, sums.values(), &mut ahead);
            }
        }
    }

    /// Returns the context block of the item from token `begin` up to token `end`.
    fn block(&self, item: &Item, begin: usize, end: usize) -> Block<'_> {
        let block = self.sequences[item.sequence].blocks[begin / KV_BLOCK_TOKENS] as usize;
        let at = self.cache.index(self.layer, block, item.head);
        let tokens = KV_BLOCK_TOKENS.min(end - begin);
        Block {
            keys: self.cache.keys(at),
            values: self.cache.values(at),
            tokens,
            clears_after: item.clears_after,
        }
    }

    /// Returns what to prefetch while a block is computed: one share per row, and some between products.
    fn ahead<'a>(&self, item: &Item, next: Option<Block<'a>>) -> Ahead<'a> {
        let rows = item.tokens * self.group();
        let calls = rows + PRODUCTS_A_CHUNK * rows.div_ceil(CHUNK_ROWS);
        Ahead::new(next, calls)
    }

    /// Turns the scores of a block into softmax weights, for the tokens that each row sees. Rescales earlier sums to
    /// the new largest score.
    fn soften(
        &self,
        (item, chunk, begin): (&Item, Chunk, usize),
        products: &mut dyn Products,
        (scores, strips): (&mut [f32], Strips),
        sums: &mut Sums<'_>,
        ahead: &mut Ahead<'_>,
    ) {
        let scale = 1.0 / (self.shape.channels as f32).sqrt();
        let tokens = KV_BLOCK_TOKENS.min(self.longest(item) - begin);
        let padded = tokens.next_multiple_of(TILE_DEPTH);
        for first in (0..chunk.rows).step_by(PANEL) {
            let rows = first..chunk.rows.min(first + PANEL);
            let mut seen = [0; PANEL];
            for (row, seen) in rows.clone().zip(&mut seen) {
                let token = item.first + (chunk.first + row) / self.group();
                *seen = tokens.min(self.sequences[item.sequence].visible(token) - begin);
            }
            let mut factors = [1.0; PANEL];
            self.vectors.run(Online {
                scores: &mut scores[first * strips.width..],
                strips,
                scale,
                seen: &seen[..rows.len()],
                padded,
                to: products.weights(rows.clone()),
                states: sums.states(rows.clone()),
                factors: &mut factors,
                ahead,
            });
            for (row, factor) in rows.zip(factors) {
                if factor != 1.0 {
                    sums.scale(row, factor);
                }
            }
        }
    }

    /// Adds the sums of the next part of the context.
    fn merge(&self, item: &Item, products: &dyn Products, whole: &mut [f32], next: &mut [f32]) {
        for chunk in self.chunks(item) {
            let next = self.sums(chunk, products, next);
            self.sums(chunk, products, whole).merge(chunk.rows, &next, self.vectors);
        }
    }

    /// Writes the results of an item, and returns whether all are finite.
    fn write_out(&self, item: &Item, products: &dyn Products, sums: &mut [f32]) -> bool {
        let mut finite = true;
        for chunk in self.chunks(item) {
            let sums = self.sums(chunk, products, sums);
            for row in 0..chunk.rows {
                finite &= self.write_row(item, chunk.first + row, sums.state(row).total, sums.row(row));
            }
        }
        finite
    }

    /// Writes a row's weighted values, divided by their total, to the output. Returns whether all are finite.
    fn write_row<'a>(
        &self,
        item: &Item,
        row: usize,
        total: f32,
        values: impl Iterator<Item = &'a [f32]>,
    ) -> bool {
        let (group, channels) = (self.group(), self.shape.channels);
        let token = self.sequences[item.sequence].rows.start + item.first + row / group;
        let begin = token * self.out_stride + (item.head * group + row % group) * channels;
        // SAFETY: a head's channels of a token belong to one item.
        let mut out = unsafe { self.out.range(begin..begin + channels) };
        let mut finite = true;
        for values in values {
            let (strip, rest) = out.split_at_mut(values.len().min(out.len()));
            finite &= self.vectors.run(Divide { x: values, divisor: total, out: strip });
            out = rest;
        }
        finite
    }
}

#[cfg(test)]
mod tests;
