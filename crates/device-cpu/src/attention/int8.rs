//! Products of one block with tiles, for an int8 cache.
//!
//! Keys are multiplied as stored, by queries that are integers of two digits. The high and low digits of sixteen
//! queries are the thirty-two rows of one product, and [`KeySums`] turns both sums into scores and subtracts the
//! zero points. Values are widened to bf16, which is exact. Softmax weights times the values' scales are split into
//! two bf16 parts ([`TileKernels::weighted_integers`]).
//!
//! The cycle counts are without the zero points, for a block of 128 tokens by 128 channels, in either type. For one
//! token of sixteen heads, the products take 512 cycles for the keys and 1,024 for the values. A row takes 25 for
//! its scores, 100 for the softmax and 30 for packing, 2,500 in all. Widening the values takes 3 cycles per line,
//! 1,536 in all. The total is 5,600. Memory takes 6,700 for the block's 33 KiB, so the computation waits for
//! memory, half as long as with a 16-bit cache.
//!
//! A chunk of 32 rows takes 3,072 cycles for products and 5,000 for rows. In an item of eight chunks, 200 are added for
//! the values. That is 8,300 in either type, against 11,400 with an fp16 cache and 5,300 with a bf16 cache.
//!
//! Two alternatives were counted but not built. Widening keys to bf16 too takes 1,536 more cycles, and in fp16 another
//! 512 for a product with more parts. Integer values with weights of three digits save 1,536 cycles, and 256 in
//! products. However, finding a row's largest weight, writing three digits and adding three sums takes 50 more cycles
//! per row. That is 1,000 less for one token, and as much more for a chunk of 32 rows.

use std::ops::Range;

use glmbench_device::{AttentionShape, DeviceError, KV_BLOCK_TOKENS};

use crate::buffer::Buffer;
use crate::pack::{PANEL, TILE_BYTES, TILE_DEPTH, TILE_K, TILE_ROWS};
use crate::product::tiles::{
    Configured, INTEGER_BYTES, Shape, TileKernels, TileProduct, TileUnit, WEIGHT_PARTS,
};
use crate::simd::Vectors;

use super::int8_cache::{KEY_TOKENS, KeySums, Query, QueryStep};
use super::kv::Steps;
use super::products::{Ahead, Block, Chunk, Products};
use super::softmax::Weights;
use super::sums::Strips;
use super::tiles::{Arithmetic, Product, TOKEN_TILES, sums_of};
use super::{CHUNK_ROWS, WHAT};

/// Digits per query number.
const DIGITS: usize = 2;
/// Number of sums of sixteen queries with keys: those of a wide product.
const KEY_SUMS: usize = DIGITS * TILE_ROWS * KEY_TOKENS;
/// Bytes of the weights of sixteen rows over a block.
const WEIGHT_BYTES: usize = TOKEN_TILES * WEIGHT_PARTS * TILE_BYTES;

/// The tile kernels, with the workspace of a thread.
#[derive(Debug)]
pub(super) struct Int8Tiles {
    of_values: TileKernels,
    of_keys: TileUnit<i32>,
    vectors: Vectors,
    channels: usize,
    /// Queries of an item in blocks of sixteen rows: tiles of the high digits, then of the low digits.
    queries: Buffer<i8>,
    /// One for each query.
    query_steps: Buffer<QueryStep>,
    /// Sums of sixteen queries with keys.
    key_sums: Buffer<i32>,
    /// Softmax weights of a chunk times scales, in blocks of sixteen rows.
    weights: Buffer<u8>,
    /// Values of a block, widened.
    values: Buffer<u8>,
    /// The configuration of the tile registers, if they are configured.
    configured: Option<Configured>,
}

impl Int8Tiles {
    /// Allocates the workspace for items of `rows` rows, with the tile kernels for values and for keys.
    pub(super) fn new(
        shape: AttentionShape,
        rows: usize,
        (of_values, of_keys): (TileKernels, TileUnit<i32>),
        vectors: Vectors,
    ) -> Result<Self, DeviceError> {
        let rows = rows.next_multiple_of(CHUNK_ROWS);
        let digits = DIGITS * rows / TILE_ROWS * shape.channels.div_ceil(TILE_K) * TILE_BYTES;
        Ok(Self {
            of_values,
            of_keys,
            vectors,
            channels: shape.channels,
            queries: Buffer::zeroed(digits, WHAT)?,
            query_steps: Buffer::zeroed(rows, WHAT)?,
            key_sums: Buffer::zeroed(KEY_SUMS, WHAT)?,
            weights: Buffer::zeroed(CHUNK_ROWS / TILE_ROWS * WEIGHT_BYTES, WHAT)?,
            values: Buffer::zeroed(shape.channels.div_ceil(PANEL) * TOKEN_TILES * TILE_BYTES, WHAT)?,
            configured: None,
        })
    }

    /// Returns the number of tiles for the digits of a query. A panel of keys has as many.
    fn key_tiles(&self) -> usize {
        self.channels.div_ceil(TILE_K)
    }

    /// Configures the tile registers, unless they already are. They always have sixteen rows.
    fn configure(&mut self) {
        if self.configured.is_none() {
            self.configured = Some(self.of_keys.configure(Shape::Wide));
        }
    }

    /// Multiplies the digits of sixteen rows, starting at `row`, with the keys of two panels. The registers must be
    /// configured.
    fn multiply_keys(&mut self, row: usize, panels: [&[i8]; 2]) {
        let configured = self.configured.as_ref().expect("invariant: the registers are configured");
        let tiles = self.key_tiles();
        assert!(tiles > 0, "invariant: a key has a channel");
        let digits = tiles * TILE_BYTES;
        let high = row / TILE_ROWS * DIGITS * digits;
        let [first, second] = panels.map(|panel| panel[..digits].as_ptr().cast());
        let product = TileProduct {
            shape: Shape::Wide,
            a: [high, high + digits].map(|at| self.queries[at..][..digits].as_ptr().cast()),
            b: [first, second, second, second],
            ahead_lines: 0,
            tiles,
            fresh: true,
            c: self.key_sums[..sums_of(Shape::Wide).distance()].as_mut_ptr(),
        };
        // SAFETY: this thread configured the registers. The digits' tiles, the panels and the sums hold the shape, and
        // there is a tile of depth.
        unsafe { self.of_keys.multiply(configured, &product) };
    }
}

impl Products for Int8Tiles {
    fn score_strips(&self, _rows: usize) -> Strips {
        Strips { rows: CHUNK_ROWS, width: KV_BLOCK_TOKENS }
    }

    fn value_strips(&self, rows: usize, _width: usize) -> Strips {
        sums_of(Shape::of(rows))
    }

    fn take_query(&mut self, row: usize, query: &[f32]) {
        let digits = self.key_tiles() * TILE_BYTES;
        let at = row / TILE_ROWS * DIGITS * digits + row % TILE_ROWS * TILE_K;
        self.query_steps[row] =
            self.vectors.run(Query { x: query, high: &mut self.queries[at..], distance: digits });
    }

    fn score(&mut self, block: &Block<'_>, chunk: Chunk, scores: &mut [f32], ahead: &mut Ahead<'_>) {
        self.configure();
        let (keys, steps) = block.keys.int8_keys();
        let panel_bytes = self.key_tiles() * TILE_BYTES;
        let last = block.tokens.div_ceil(PANEL) - 1;
        for token in (0..block.tokens).step_by(KEY_TOKENS) {
            // The last panel stands in for a missing one.
            let panels = [token / PANEL, last.min(token / PANEL + 1)];
            let panels = panels.map(|panel| &keys[panel * panel_bytes..]);
            let tokens = token..token + KEY_TOKENS;
            let steps = Steps { scales: &steps.scales[tokens.clone()], zeros: &steps.zeros[tokens] };
            for row in (0..chunk.rows).step_by(TILE_ROWS) {
                self.multiply_keys(chunk.first + row, panels);
                self.vectors.run(KeySums {
                    sums: &self.key_sums,
                    rows: TILE_ROWS.min(chunk.rows - row),
                    queries: &self.query_steps[chunk.first + row..],
                    keys: steps,
                    to: &mut scores[row * KV_BLOCK_TOKENS + token..],
                    to_stride: KV_BLOCK_TOKENS,
                });
            }
            ahead.fetch();
        }
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
        self.configure();
        let (values, scales) = block.values.int8_values();
        let by = self.of_values;
        let used = block.tokens.div_ceil(TILE_DEPTH);
        for (row, weights) in weights.chunks_exact(KV_BLOCK_TOKENS).take(chunk.rows).enumerate() {
            let of_rows = &mut self.weights[row / TILE_ROWS * WEIGHT_BYTES..];
            let k = used * TILE_DEPTH;
            by.pack_weights(&weights[..k], &scales[..k], of_rows, row % TILE_ROWS);
        }
        let product = Product {
            by: Arithmetic {
                stored_bytes: INTEGER_BYTES,
                unpack: Some(by.unpack_integers()),
                unit: by.weighted_integers.expect("invariant: a set with tiles of integers weighs them"),
            },
            // A multiple of sixteen rows, for which the registers are configured.
            shape: Shape::of(chunk.rows.next_multiple_of(TILE_ROWS)),
            chunk,
            rows: &self.weights,
            stored: bytemuck::cast_slice(values),
            depth: TOKEN_TILES,
            used,
            panels: self.channels.div_ceil(PANEL),
        };
        product.add_to(self.configured.as_ref(), sums, false, &mut self.values, ahead);
    }

    fn end(&mut self) {
        if let Some(configured) = self.configured.take() {
            self.of_keys.release(configured);
        }
    }
}
