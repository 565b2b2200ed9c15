//! Products of one block with the vector kernels.

use glmbench_device::{AttentionShape, DeviceError, KV_BLOCK_TOKENS};

use crate::buffer::{Buffer, Strided};
use crate::pack::PANEL;
use crate::product::Gemm;
use crate::simd::Vectors;

use super::channel_cache::{WidenKeys, WidenValues};
use super::int8_cache::{WidenColumns, WidenRows};
use super::kv::Panels;
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

    fn score(&mut self, block: &Block<'_>, chunk: Chunk, scores: &mut [f32], _ahead: &mut Ahead<'_>) {
        let (channels, panels) = (self.channels, block.tokens.div_ceil(PANEL));
        let (w, by, streamed) = match block.keys {
            Panels::Stored(keys) => (keys, self.vectors, true),
            Panels::Int8(keys, scales) => {
                let numbers = channels * PANEL;
                let keys = keys.chunks_exact(numbers).zip(scales.chunks_exact(PANEL));
                for ((q, scales), out) in keys.zip(self.wide.chunks_exact_mut(numbers)).take(panels) {
                    self.vectors.run(WidenColumns { q, scales, out });
                }
                (bytemuck::cast_slice(&self.wide), self.vectors.fp32(), false)
            }
            Panels::Channels(keys, by) => {
                let keys = keys.chunks_exact(channels * PANEL);
                for (q, out) in keys.zip(self.wide.chunks_exact_mut(channels * PANEL)).take(panels) {
                    self.vectors.run_fp32(WidenKeys { q, by, out });
                }
                (bytemuck::cast_slice(&self.wide), self.vectors.fp32(), false)
            }
        };
        scores[..chunk.rows * KV_BLOCK_TOKENS].fill(0.0);
        by.run(Gemm {
            a: &self.queries[chunk.first * channels..],
            a_stride: channels,
            w,
            panel_stride: channels * PANEL,
            k: channels,
            c: Strided::new(scores, chunk.rows, panels * PANEL, KV_BLOCK_TOKENS),
            streamed,
        });
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
        _ahead: &mut Ahead<'_>,
    ) {
        let (w, by, streamed) = match block.values {
            Panels::Stored(values) => (values, self.vectors, true),
            Panels::Int8(values, scales) => {
                let numbers = KV_BLOCK_TOKENS * PANEL;
                for (q, out) in values.chunks_exact(numbers).zip(self.wide.chunks_exact_mut(numbers)) {
                    self.vectors.run(WidenRows { q, scales: &scales[..block.tokens], out });
                }
                (bytemuck::cast_slice(&self.wide), self.vectors.fp32(), false)
            }
            Panels::Channels(values, by) => {
                let numbers = KV_BLOCK_TOKENS * PANEL;
                let panels = values.chunks_exact(numbers).zip(self.wide.chunks_exact_mut(numbers));
                for (panel, (q, out)) in panels.enumerate() {
                    let (first, tokens) = (panel * PANEL, block.tokens);
                    self.vectors.run_fp32(WidenValues { q, by, first, tokens, out });
                }
                (bytemuck::cast_slice(&self.wide), self.vectors.fp32(), false)
            }
        };
        let columns = self.channels.div_ceil(PANEL) * PANEL;
        by.run(Gemm {
            a: weights,
            a_stride: KV_BLOCK_TOKENS,
            w,
            panel_stride: KV_BLOCK_TOKENS * PANEL,
            k: block.tokens,
            c: Strided::new(sums, chunk.rows, columns, values_width(self.channels)),
            streamed,
        });
    }

    fn end(&mut self) {}
}
