//! Products of one block with the vector kernels.

use std::ops::Range;

use glmbench_device::{AttentionShape, DType, DeviceError, KV_BLOCK_TOKENS};

use crate::buffer::{Buffer, Strided};
use crate::pack::PANEL;
use crate::product::{Gemm, Prefetch};
use crate::simd::Vectors;

use super::channel_cache::{WidenKeys, WidenValues};
use super::int8_cache::{WidenColumns, WidenRows};
use super::kv::{Panels, Steps};
use super::products::{Ahead, Block, Chunk, Products};
use super::softmax::Weights;
use super::sums::Strips;
use super::{CHUNK_ROWS, WHAT, values_width};

/// The vector GEMM, with the workspace of a thread.
#[derive(Debug)]
pub(super) struct Vector {
    vectors: Vectors,
    channels: usize,
    queries: Buffer<f32>,
    /// Keys of a block in fp32, if they are stored in another form: all of them, or the panels that a tile reads side by side.
    keys: Buffer<f32>,
    /// Values of a block, likewise.
    values: Buffer<f32>,
}

impl Vector {
    /// Allocates the workspace for items of `rows` rows.
    pub(super) fn new(shape: AttentionShape, rows: usize, vectors: Vectors) -> Result<Self, DeviceError> {
        let channels = shape.channels;
        Ok(Self {
            vectors,
            channels,
            queries: Buffer::zeroed(rows * channels + PANEL, WHAT)?,
            keys: Buffer::zeroed(KV_BLOCK_TOKENS * channels, WHAT)?,
            values: Buffer::zeroed(KV_BLOCK_TOKENS * channels.next_multiple_of(PANEL), WHAT)?,
        })
    }
}

impl Products for Vector {
    fn score_strips(&self, _rows: usize) -> Strips {
        Strips { rows: CHUNK_ROWS, width: KV_BLOCK_TOKENS }
    }

    fn value_strips(&self, _rows: usize, width: usize) -> Strips {
        Strips { rows: CHUNK_ROWS, width }
    }

    fn take_query(&mut self, row: usize, query: &[f32]) {
        self.queries[row * self.channels..(row + 1) * self.channels].copy_from_slice(query);
    }

    fn score(&mut self, block: &Block<'_>, chunk: Chunk, scores: &mut [f32], ahead: &mut Ahead<'_>) {
        let channels = self.channels;
        let (numbers, panels) = (channels * PANEL, block.tokens.div_ceil(PANEL));
        scores[..chunk.rows * KV_BLOCK_TOKENS].fill(0.0);
        let queries = &self.queries[chunk.first * channels..];
        let product = Product { a: queries, a_stride: channels, k: channels, panels, chunk };
        let wide = self.keys.chunks_exact_mut(numbers).take(panels);
        match block.keys {
            Panels::Stored(keys) => {
                let next = ahead.take().map(|next| next.keys.stored());
                let out = (scores, KV_BLOCK_TOKENS);
                product.of_stored(self.vectors, &mut self.keys, (keys, numbers), next, out);
                return;
            }
            Panels::Int8Keys(keys, steps) if chunk.is_first() => {
                let steps = steps.scales.chunks_exact(PANEL).zip(steps.zeros.chunks_exact(PANEL));
                for ((q, (scales, zeros)), out) in keys.chunks_exact(numbers).zip(steps).zip(wide) {
                    self.vectors.run(WidenColumns { q, by: Steps { scales, zeros }, out });
                }
            }
            Panels::Channels(keys, by) if chunk.is_first() => {
                for (q, out) in keys.chunks_exact(numbers).zip(wide) {
                    self.vectors.run_fp32(WidenKeys { q, by, out });
                }
            }
            Panels::Int8Keys(..) | Panels::Channels(..) => {}
            Panels::Int8Values(..) => unreachable!("invariant: keys have zero points"),
        }
        product.of_wide(self.vectors, &self.keys, numbers, (scores, KV_BLOCK_TOKENS));
    }

    fn weights(&mut self, _rows: Range<usize>) -> Weights<'_> {
        Weights::InPlace
    }

    fn weigh(
        &mut self,
        block: &Block<'_>,
        chunk: Chunk,
        weights: &[f32],
        sums: &mut [f32],
        ahead: &mut Ahead<'_>,
    ) {
        let (numbers, panels) = (KV_BLOCK_TOKENS * PANEL, self.channels.div_ceil(PANEL));
        let out = (sums, values_width(self.channels));
        let product = Product { a: weights, a_stride: KV_BLOCK_TOKENS, k: block.tokens, panels, chunk };
        let wide = self.values.chunks_exact_mut(numbers);
        match block.values {
            Panels::Stored(values) => {
                let next = ahead.take().map(|next| next.values.stored());
                product.of_stored(self.vectors, &mut self.values, (values, numbers), next, out);
                return;
            }
            Panels::Int8Values(values, scales) if chunk.is_first() => {
                for (q, out) in values.chunks_exact(numbers).zip(wide) {
                    self.vectors.run(WidenRows { q, scales: &scales[..block.tokens], out });
                }
            }
            Panels::Channels(values, by) if chunk.is_first() => {
                for (panel, (q, out)) in values.chunks_exact(numbers).zip(wide).enumerate() {
                    let (first, tokens) = (panel * PANEL, block.tokens);
                    self.vectors.run_fp32(WidenValues { q, by, first, tokens, out });
                }
            }
            Panels::Int8Values(..) | Panels::Channels(..) => {}
            Panels::Int8Keys(..) => unreachable!("invariant: values have no zero points"),
        }
        product.of_wide(self.vectors, &self.values, numbers, out);
    }

    fn end(&mut self) {}
}

/// A product of the rows of a chunk with the panels of a block.
struct Product<'a> {
    a: &'a [f32],
    a_stride: usize,
    /// Number of products per sum.
    k: usize,
    panels: usize,
    chunk: Chunk,
}

impl Product<'_> {
    /// Multiplies stored panels, `numbers` apart, and adds to the rows of `out`, `stride` numbers apart. Prefetches the
    /// panels `next` meanwhile. The first chunk of an item widens panels to fp32, and the others find them in `wide`. Of an
    /// item with one chunk, `wide` holds only the panels that a tile reads side by side, and stays in L1.
    fn of_stored(
        &self,
        vectors: Vectors,
        wide: &mut [f32],
        (stored, numbers): (&[u8], usize),
        next: Option<&[u8]>,
        out: (&mut [f32], usize),
    ) {
        let widened = self.k * PANEL;
        let widens = vectors.dtype() != DType::Fp32;
        if widens && !self.chunk.is_first() {
            self.of_wide(vectors, wide, widened, out);
            return;
        }
        let kept = if self.chunk.is_only() { vectors.tile_panels().min(self.panels) } else { self.panels };
        let wide = widens.then(|| Strided::new(wide, kept, widened, widened));
        let bytes = vectors.dtype().bytes();
        let next = next.filter(|_| self.chunk.is_first());
        let next = next.map(|panels| Prefetch::Next { panels, stride: numbers, bytes });
        let same = self.chunk.is_first().then_some(Prefetch::Same);
        let gemm = self.gemm(stored, numbers, out, next.or(same));
        vectors.run(Gemm { wide, ..gemm });
    }

    /// Multiplies panels in fp32, `numbers` apart, which are in cache.
    fn of_wide(&self, vectors: Vectors, wide: &[f32], numbers: usize, out: (&mut [f32], usize)) {
        vectors.fp32().run(self.gemm(bytemuck::cast_slice(wide), numbers, out, None));
    }

    /// Returns the product with panels `panel_stride` numbers apart.
    fn gemm<'b>(
        &'b self,
        w: &'b [u8],
        panel_stride: usize,
        (out, stride): (&'b mut [f32], usize),
        prefetch: Option<Prefetch<'b>>,
    ) -> Gemm<'b> {
        let Self { a, a_stride, k, panels, chunk } = *self;
        Gemm {
            a,
            a_stride,
            w,
            panel_stride,
            k,
            c: Strided::new(out, chunk.rows, panels * PANEL, stride),
            prefetch,
            next_rows: false,
            wide: None,
        }
    }
}
