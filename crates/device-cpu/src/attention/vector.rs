//! Products of one block with the vector kernels.

use glmbench_device::{AttentionShape, DeviceError, KV_BLOCK_TOKENS};

use crate::buffer::Buffer;
use crate::gemm::Product;
use crate::int8::Int8Kernels;
use crate::kernels::{Kernels, PANEL};
use crate::kv::Panels;
use crate::softmax::Weights;

use super::products::{Ahead, Block, Chunk, Products};
use super::sums::Strips;
use super::{CHUNK_ROWS, WHAT, values_width};

/// The vector GEMM, with the workspace of a thread.
#[derive(Debug)]
pub(super) struct Vector {
    kernels: Kernels,
    int8: Int8Kernels,
    channels: usize,
    queries: Buffer<f32>,
    /// Dequantised keys, then values, of an int8 cache.
    wide: Buffer<f32>,
}

impl Vector {
    /// Allocates the workspace for items of `rows` rows.
    pub(super) fn new(
        shape: AttentionShape,
        rows: usize,
        kernels: &Kernels,
        int8: Int8Kernels,
    ) -> Result<Self, DeviceError> {
        let channels = shape.channels;
        Ok(Self {
            kernels: *kernels,
            int8,
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
        let (w, gemm) = match block.keys {
            Panels::Stored(keys) => (keys.as_ptr(), self.kernels.gemm),
            Panels::Int8(keys, scales) => {
                let numbers = channels * PANEL;
                let keys = keys.chunks_exact(numbers).zip(scales.chunks_exact(PANEL));
                for ((keys, scales), wide) in keys.zip(self.wide.chunks_exact_mut(numbers)).take(panels) {
                    // SAFETY: the kernels belong to this machine.
                    unsafe { (self.int8.widen_columns)(keys, scales, wide) };
                }
                (self.wide.as_ptr().cast(), self.kernels.gemm_f32)
            }
        };
        scores[..chunk.rows * KV_BLOCK_TOKENS].fill(0.0);
        let product = Product {
            a: self.queries[chunk.first * channels..].as_ptr(),
            a_stride: channels,
            rows: chunk.rows,
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

    fn weights(&mut self, _row: usize) -> Weights {
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
        let (w, gemm) = match block.values {
            Panels::Stored(values) => (values.as_ptr(), self.kernels.gemm),
            Panels::Int8(values, scales) => {
                let numbers = KV_BLOCK_TOKENS * PANEL;
                let values = values.chunks_exact(numbers).zip(self.wide.chunks_exact_mut(numbers));
                for (values, wide) in values {
                    // SAFETY: the kernels belong to this machine.
                    unsafe { (self.int8.widen_rows)(values, &scales[..block.tokens], wide) };
                }
                (self.wide.as_ptr().cast(), self.kernels.gemm_f32)
            }
        };
        let product = Product {
            a: weights.as_ptr(),
            a_stride: KV_BLOCK_TOKENS,
            rows: chunk.rows,
            w,
            panel_stride: KV_BLOCK_TOKENS * PANEL,
            panels: self.channels.div_ceil(PANEL),
            k: block.tokens,
            c: sums.as_mut_ptr(),
            c_stride: values_width(self.channels),
        };
        // SAFETY: weight rows, the block's panels and the sums hold these shapes.
        unsafe { gemm(&product) };
    }

    fn end(&mut self) {}
}
