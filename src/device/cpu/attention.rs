//! The paged KV cache and attention over it.
//!
//! A block holds 128 tokens of one layer and KV head as GEMM panels: keys as eight panels `[channels][16 tokens]`, values
//! as panels `[128 tokens][16 channels]`. Scores and weighted sums are then the very product of the linear layers, with
//! the query heads that share a KV head as its rows: the cache is read once for all of them.

use crate::device::{AttentionShape, DType, DeviceError, KV_BLOCK_TOKENS, KvShape, SequenceView};

use super::buffer::{Buffer, SharedSlice};
use super::kernels::{Kernels, PANEL, Product};
use super::linear::Rows;

/// Rows of one work item: enough to fill the GEMM tiles, few enough to share the work.
const ITEM_ROWS: usize = 32;

/// Keys and values of all layers.
#[derive(Debug)]
pub struct KvCache {
    shape: KvShape,
    dtype: DType,
    keys: Buffer<u8>,
    values: Buffer<u8>,
}

impl KvCache {
    /// An empty cache.
    pub fn new(shape: KvShape, dtype: DType) -> Result<Self, DeviceError> {
        let heads = shape.layers * shape.blocks * shape.kv_heads;
        let key_bytes = KV_BLOCK_TOKENS * shape.channels * dtype.bytes();
        let value_bytes = KV_BLOCK_TOKENS * shape.channels.next_multiple_of(PANEL) * dtype.bytes();
        Ok(Self {
            shape,
            dtype,
            keys: Buffer::zeroed(heads * key_bytes, "the KV cache")?,
            values: Buffer::zeroed(heads * value_bytes, "the KV cache")?,
        })
    }

    fn padded_channels(&self) -> usize {
        self.shape.channels.next_multiple_of(PANEL)
    }

    /// Which of the `(layer, block, head)` triples, in memory order.
    fn index(&self, layer: usize, block: usize, head: usize) -> usize {
        (layer * self.shape.blocks + block) * self.shape.kv_heads + head
    }

    /// Where keys of one block and head begin, in bytes.
    fn key_at(&self, layer: usize, block: usize, head: usize) -> usize {
        self.index(layer, block, head) * KV_BLOCK_TOKENS * self.shape.channels * self.dtype.bytes()
    }

    /// Where values of one block and head begin, in bytes.
    fn value_at(&self, layer: usize, block: usize, head: usize) -> usize {
        self.index(layer, block, head) * KV_BLOCK_TOKENS * self.padded_channels() * self.dtype.bytes()
    }

    /// Writes one token's key and value of one head (numbers already representable in the type).
    pub fn write(
        &mut self,
        layer: usize,
        (block, place): (usize, usize),
        head: usize,
        key: &[f32],
        value: &[f32],
        kernels: &Kernels,
    ) {
        let bytes = self.dtype.bytes();
        let channels = self.shape.channels;
        let mut stored = [0u8; 4 * 64];
        let (panel, lane) = (place / PANEL, place % PANEL);
        let keys_at = self.key_at(layer, block, head) + panel * channels * PANEL * bytes;
        let values_at = self.value_at(layer, block, head);
        for first in (0..channels).step_by(64) {
            let n = 64.min(channels - first);
            // SAFETY: at most 64 numbers of at most 4 bytes.
            unsafe { (kernels.narrow)(key[first..first + n].as_ptr(), stored.as_mut_ptr(), n) };
            for (i, number) in stored[..n * bytes].chunks_exact(bytes).enumerate() {
                let at = keys_at + ((first + i) * PANEL + lane) * bytes;
                self.keys[at..at + bytes].copy_from_slice(number);
            }
        }
        for first in (0..channels).step_by(PANEL) {
            let n = PANEL.min(channels - first);
            let at = values_at + (first / PANEL * KV_BLOCK_TOKENS + place) * PANEL * bytes;
            let out = &mut self.values[at..at + n * bytes];
            // SAFETY: `n` numbers on both sides.
            unsafe { (kernels.narrow)(value[first..first + n].as_ptr(), out.as_mut_ptr(), n) };
        }
    }
}

/// A thread's working memory, taken once.
#[derive(Debug)]
pub struct Scratch {
    queries: Buffer<f32>,
    scores: Buffer<f32>,
    sums: Buffer<f32>,
}

impl Scratch {
    /// For contexts of up to `max_context` tokens.
    pub fn new(shape: AttentionShape, max_context: usize) -> Result<Self, DeviceError> {
        let rows = item_tokens(shape) * (shape.heads / shape.kv_heads);
        let context = max_context.next_multiple_of(KV_BLOCK_TOKENS);
        Ok(Self {
            queries: Buffer::zeroed(rows * shape.channels + PANEL, "attention")?,
            scores: Buffer::zeroed(rows * context + PANEL, "attention")?,
            sums: Buffer::zeroed(rows * shape.channels.next_multiple_of(PANEL), "attention")?,
        })
    }
}

/// Tokens of one sequence in one work item.
fn item_tokens(shape: AttentionShape) -> usize {
    (ITEM_ROWS * shape.kv_heads / shape.heads).max(1)
}

/// One work item: some consecutive tokens of one sequence, under one KV head.
#[derive(Debug, Clone, Copy)]
pub struct Item {
    sequence: usize,
    head: usize,
    first: usize,
    tokens: usize,
}

/// Cuts a ragged batch into work items, the longest contexts first so that the threads end together.
pub fn items(sequences: &[SequenceView<'_>], shape: AttentionShape, out: &mut Vec<Item>) {
    out.clear();
    for (index, sequence) in sequences.iter().enumerate() {
        for first in (0..sequence.rows.len()).step_by(item_tokens(shape)) {
            let tokens = item_tokens(shape).min(sequence.rows.len() - first);
            out.extend((0..shape.kv_heads).map(|head| Item { sequence: index, head, first, tokens }));
        }
    }
    out.sort_by_key(|i| std::cmp::Reverse(sequences[i.sequence].visible(i.first) * i.tokens));
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
    /// `[rows, heads * channels]`.
    pub out: &'a SharedSlice<'a, f32>,
    /// Numbers between rows of `out`.
    pub out_stride: usize,
}

impl Attention<'_> {
    /// Does one item.
    pub fn run(&self, item: Item, scratch: &mut Scratch) {
        let sequence = &self.sequences[item.sequence];
        let group = self.shape.heads / self.shape.kv_heads;
        let rows = item.tokens * group;
        let longest = sequence.visible(item.first + item.tokens - 1);
        let stride = longest.next_multiple_of(KV_BLOCK_TOKENS);
        self.collect_queries(item, sequence, scratch);
        scratch.scores[..rows * stride].fill(0.0);
        self.scores(item, sequence, longest, stride, scratch);
        let scale = 1.0 / (self.shape.channels as f32).sqrt();
        let mut totals = [0.0f32; 1 << 10];
        for (row, total) in totals.iter_mut().enumerate().take(rows) {
            let visible = sequence.visible(item.first + row / group);
            let scores = &mut scratch.scores[row * stride..(row + 1) * stride];
            // SAFETY: the row holds `stride` numbers, a multiple of sixteen.
            *total = unsafe { (self.kernels.softmax)(scores.as_mut_ptr(), scale, visible, stride) };
        }
        scratch.sums.fill(0.0);
        self.weighted_values(item, sequence, longest, stride, scratch);
        self.write_out(item, sequence, scratch, &totals);
    }

    fn collect_queries(&self, item: Item, sequence: &SequenceView<'_>, scratch: &mut Scratch) {
        let width = self.shape.heads / self.shape.kv_heads * self.shape.channels;
        for token in 0..item.tokens {
            let row = sequence.rows.start + item.first + token;
            let from = row * self.qkv.stride + item.head * width;
            scratch.queries[token * width..(token + 1) * width]
                .copy_from_slice(&self.qkv.data[from..from + width]);
        }
    }

    fn scores(
        &self,
        item: Item,
        sequence: &SequenceView<'_>,
        longest: usize,
        stride: usize,
        scratch: &mut Scratch,
    ) {
        let channels = self.shape.channels;
        for (index, begin) in (0..longest).step_by(KV_BLOCK_TOKENS).enumerate() {
            let tokens = KV_BLOCK_TOKENS.min(longest - begin);
            let keys = self.cache.key_at(self.layer, sequence.blocks[index] as usize, item.head);
            let product = Product {
                a: scratch.queries.as_ptr(),
                a_stride: channels,
                rows: item.tokens * (self.shape.heads / self.shape.kv_heads),
                w: self.cache.keys[keys..].as_ptr(),
                panel_stride: channels * PANEL,
                panels: tokens.div_ceil(PANEL),
                k: channels,
                c: scratch.scores[begin..].as_mut_ptr(),
                c_stride: stride,
            };
            // SAFETY: queries, the block's panels and the score rows hold these shapes.
            unsafe { (self.kernels.gemm)(&product) };
        }
    }

    fn weighted_values(
        &self,
        item: Item,
        sequence: &SequenceView<'_>,
        longest: usize,
        stride: usize,
        scratch: &mut Scratch,
    ) {
        let padded = self.cache.padded_channels();
        for (index, begin) in (0..longest).step_by(KV_BLOCK_TOKENS).enumerate() {
            let tokens = KV_BLOCK_TOKENS.min(longest - begin);
            let values = self.cache.value_at(self.layer, sequence.blocks[index] as usize, item.head);
            let product = Product {
                a: scratch.scores[begin..].as_ptr(),
                a_stride: stride,
                rows: item.tokens * (self.shape.heads / self.shape.kv_heads),
                w: self.cache.values[values..].as_ptr(),
                panel_stride: KV_BLOCK_TOKENS * PANEL,
                panels: padded / PANEL,
                k: tokens,
                c: scratch.sums.as_mut_ptr(),
                c_stride: padded,
            };
            // SAFETY: score rows, the block's panels and the sums hold these shapes.
            unsafe { (self.kernels.gemm)(&product) };
        }
    }

    fn write_out(&self, item: Item, sequence: &SequenceView<'_>, scratch: &Scratch, totals: &[f32]) {
        let group = self.shape.heads / self.shape.kv_heads;
        let (channels, padded) = (self.shape.channels, self.cache.padded_channels());
        for row in 0..item.tokens * group {
            let token = sequence.rows.start + item.first + row / group;
            let head = item.head * group + row % group;
            let begin = token * self.out_stride + head * channels;
            // SAFETY: a head's channels of a token belong to one item.
            let out = unsafe { self.out.range(begin..begin + channels) };
            let sums = &scratch.sums[row * padded..(row + 1) * padded];
            // SAFETY: `channels` numbers on both sides, the input padded to sixteen.
            unsafe { (self.kernels.divide)(sums.as_ptr(), totals[row], channels, out.as_mut_ptr()) };
        }
    }
}
