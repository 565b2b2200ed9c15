//! Products of one block with the vector kernels.

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
    /// Dequantised keys, then values, of an int8 cache.
    wide: Buffer<f32>,
}

impl Vector {
    /// Allocates the workspace for items of `rows` rows.
    pub(super) fn new(shape: AttentionShape, rows: usize, vectors: Vectors) -> Result<Self, DeviceError> {
        let channels = shape.channels;
        Ok(Self {
            vectors,
            channels,
            queries: Buffer::zeroed(rows * channels + PANEL, WHAT)?,
            wide: Buffer::zeroed(KV_BLOCK_TOKENS * channels.next_multiple_of(PANEL), WHAT)?,
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
        let (channels, panels) = (self.channels, block.tokens.div_ceil(PANEL));
        scores[..chunk.rows * KV_BLOCK_TOKENS].fill(0.0);
        let queries = &self.queries[chunk.first * channels..];
        let product = Product { a: queries, a_stride: channels, k: channels, panels, rows: chunk.rows };
        match block.keys {
            Panels::Stored(keys) => {
                let next = ahead.take().map(|next| next.keys.stored());
                let out = (scores, KV_BLOCK_TOKENS);
                product.of_stored(self.vectors, &mut self.wide, (keys, channels * PANEL), next, out);
            }
            Panels::Int8Keys(keys, steps) => {
                let numbers = channels * PANEL;
                let steps = steps.scales.chunks_exact(PANEL).zip(steps.zeros.chunks_exact(PANEL));
                let keys = keys.chunks_exact(numbers).zip(steps);
                for ((q, (scales, zeros)), out) in keys.zip(self.wide.chunks_exact_mut(numbers)).take(panels)
                {
                    self.vectors.run(WidenColumns { q, by: Steps { scales, zeros }, out });
                }
                product.of_wide(self.vectors, &self.wide, numbers, (scores, KV_BLOCK_TOKENS));
            }
            Panels::Int8Values(..) => unreachable!("invariant: keys have zero points"),
            Panels::Channels(keys, by) => {
                let numbers = channels * PANEL;
                let keys = keys.chunks_exact(numbers).zip(self.wide.chunks_exact_mut(numbers));
                for (q, out) in keys.take(panels) {
                    self.vectors.run_fp32(WidenKeys { q, by, out });
                }
                product.of_wide(self.vectors, &self.wide, numbers, (scores, KV_BLOCK_TOKENS));
            }
        }
    }

    fn weights(&mut self, _row: usize) -> Weights<'_> {
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
        let product =
            Product { a: weights, a_stride: KV_BLOCK_TOKENS, k: block.tokens, panels, rows: chunk.rows };
        match block.values {
            Panels::Stored(values) => {
                let next = ahead.take().map(|next| next.values.stored());
                product.of_stored(self.vectors, &mut self.wide, (values, numbers), next, out);
            }
            Panels::Int8Values(values, scales) => {
                for (q, out) in values.chunks_exact(numbers).zip(self.wide.chunks_exact_mut(numbers)) {
                    self.vectors.run(WidenRows { q, scales: &scales[..block.tokens], out });
                }
                product.of_wide(self.vectors, &self.wide, numbers, out);
            }
            Panels::Int8Keys(..) => unreachable!("invariant: values have no zero points"),
            Panels::Channels(values, by) => {
                let panels = values.chunks_exact(numbers).zip(self.wide.chunks_exact_mut(numbers));
                for (panel, (q, out)) in panels.enumerate() {
                    let (first, tokens) = (panel * PANEL, block.tokens);
                    self.vectors.run_fp32(WidenValues { q, by, first, tokens, out });
                }
                product.of_wide(self.vectors, &self.wide, numbers, out);
            }
        }
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
    rows: usize,
}

impl Product<'_> {
    /// Multiplies stored panels, `numbers` apart, and adds to the rows of `out`, `stride` numbers apart. Prefetches the
    /// panels `next` meanwhile. Panels that a tile reads side by side are widened to fp32 once for all rows.
    fn of_stored(
        &self,
        vectors: Vectors,
        wide: &mut [f32],
        (stored, numbers): (&[u8], usize),
        next: Option<&[u8]>,
        (out, stride): (&mut [f32], usize),
    ) {
        let bytes = vectors.dtype().bytes();
        let prefetch = next.map(|panels| Prefetch::Next { panels, stride: numbers, bytes });
        let widened = self.k * PANEL;
        let wide = (vectors.dtype() != DType::Fp32)
            .then(|| Strided::new(wide, vectors.tile_panels().min(self.panels), widened, widened));
        let gemm = self.gemm(stored, numbers, self.panels, (out, stride), prefetch.or(Some(Prefetch::Same)));
        vectors.run(Gemm { wide, ..gemm });
    }

    /// Multiplies panels in fp32, which are in cache.
    fn of_wide(&self, vectors: Vectors, wide: &[f32], numbers: usize, out: (&mut [f32], usize)) {
        vectors.fp32().run(self.gemm(bytemuck::cast_slice(wide), numbers, self.panels, out, None));
    }

    /// Returns the product with the first `panels` panels of `w`, `panel_stride` numbers apart.
    fn gemm<'b>(
        &'b self,
        w: &'b [u8],
        panel_stride: usize,
        panels: usize,
        (out, stride): (&'b mut [f32], usize),
        prefetch: Option<Prefetch<'b>>,
    ) -> Gemm<'b> {
        let Self { a, a_stride, k, rows, .. } = *self;
        Gemm {
            a,
            a_stride,
            w,
            panel_stride,
            k,
            c: Strided::new(out, rows, panels * PANEL, stride),
            prefetch,
            wide: None,
        }
    }
}
