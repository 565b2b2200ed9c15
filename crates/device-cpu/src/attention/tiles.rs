//! Products of one block with tiles.
//!
//! The cycle counts are for a block of 128 tokens by 128 channels. A chunk of 32 rows takes 32 steps of 32 by 32 by 32.
//! In bf16 a step takes 64 cycles, 2,048 in all. Each step reads 4 KiB of tiles, half of them from L2, which delivers
//! 48 bytes per cycle and must deliver 32. The softmax between the two products takes twice as long. In fp16 there are
//! three times as many steps. Splitting a block into parts takes some 8 cycles per line, 8,000 in all. Items therefore
//! have several chunks, which share it.
//!
//! For one token of sixteen heads, the products take 1,024 cycles in bf16 and 3,072 in fp16. Softmax and packing take
//! some 3,000 cycles. Memory takes 13,000 cycles for the block's 64 KiB. So bf16 waits for memory, and fp16 runs at
//! about the same speed as memory.

use std::ops::Range;

use glmbench_device::{AttentionShape, DeviceError, KV_BLOCK_TOKENS};

use crate::buffer::Buffer;
use crate::pack::{PANEL, TILE_BYTES, TILE_DEPTH, TILE_ROWS};
use crate::product::tiles::{Configured, Shape, TileKernels, TileProduct, TileUnit, Unpack};

use super::kv::clear_after;
use super::products::{Ahead, Block, Chunk, Products};
use super::softmax::Weights;
use super::sums::Strips;
use super::{CHUNK_ROWS, WHAT};

/// Tiles per block along the tokens.
pub(super) const TOKEN_TILES: usize = KV_BLOCK_TOKENS / TILE_DEPTH;

/// The tile kernels, with the workspace of a thread.
#[derive(Debug)]
pub(super) struct Tiles {
    tiles: TileKernels,
    channels: usize,
    /// Queries of an item, in blocks of sixteen rows.
    queries: Buffer<u8>,
    /// Softmax weights of a chunk in the stored type, in blocks of sixteen rows.
    weights: Buffer<u8>,
    /// Softmax weights of a chunk, split into parts.
    weight_parts: Buffer<u8>,
    /// Keys of a block, split into parts.
    keys: Buffer<u8>,
    /// Values of a block, split into parts.
    values: Buffer<u8>,
    /// Values of a block, with zeros after its tokens.
    cleared: Buffer<u8>,
    /// The configuration of the tile registers, if they are configured.
    configured: Option<Configured>,
}

impl Tiles {
    /// Allocates the workspace for items of `rows` rows.
    pub(super) fn new(shape: AttentionShape, rows: usize, tiles: &TileKernels) -> Result<Self, DeviceError> {
        let depth = shape.channels.div_ceil(TILE_DEPTH);
        let blocks = rows.next_multiple_of(CHUNK_ROWS) / TILE_ROWS;
        let buffer = |tiles_of: usize| Buffer::zeroed(tiles_of * tiles.parts * TILE_BYTES, WHAT);
        let cut = |tiles_of: usize| buffer(if tiles.unpack().is_some() { tiles_of } else { 0 });
        Ok(Self {
            tiles: *tiles,
            channels: shape.channels,
            queries: buffer(blocks * depth)?,
            weights: Buffer::zeroed(CHUNK_ROWS / TILE_ROWS * TOKEN_TILES * TILE_BYTES, WHAT)?,
            weight_parts: cut(CHUNK_ROWS / TILE_ROWS * TOKEN_TILES)?,
            keys: cut(KV_BLOCK_TOKENS / PANEL * depth)?,
            values: cut(shape.channels.div_ceil(PANEL) * TOKEN_TILES)?,
            cleared: Buffer::zeroed(shape.channels.div_ceil(PANEL) * TOKEN_TILES * TILE_BYTES, WHAT)?,
            configured: None,
        })
    }

    /// Returns the size of `tiles` tiles with their parts, in bytes.
    fn bytes(&self, tiles: usize) -> usize {
        tiles * self.tiles.parts * TILE_BYTES
    }

    /// Configures the tile registers for a chunk, unless they already are.
    fn configure(&mut self, chunk: Chunk) -> Shape {
        let shape = Shape::of(chunk.rows);
        if self.configured.as_ref().is_none_or(|configured| !configured.serves(shape)) {
            self.configured = Some(self.tiles.unit.configure(shape));
        }
        shape
    }
}

/// Returns the layout of the sums of a product.
pub(super) fn sums_of(shape: Shape) -> Strips {
    Strips { rows: shape.rows(), width: shape.panels() * PANEL }
}

impl Products for Tiles {
    fn score_strips(&self, rows: usize) -> Strips {
        sums_of(Shape::of(rows))
    }

    fn value_strips(&self, rows: usize, _width: usize) -> Strips {
        sums_of(Shape::of(rows))
    }

    fn take_query(&mut self, row: usize, query: &[f32]) {
        let bytes = self.bytes(self.channels.div_ceil(TILE_DEPTH));
        let block = &mut self.queries[row / TILE_ROWS * bytes..][..bytes];
        self.tiles.pack_row(query, block, row % TILE_ROWS);
    }

    fn score(&mut self, block: &Block<'_>, chunk: Chunk, scores: &mut [f32], ahead: &mut Ahead<'_>) {
        let depth = self.channels.div_ceil(TILE_DEPTH);
        let shape = self.configure(chunk);
        let product = Product {
            by: Arithmetic::of_type(&self.tiles),
            shape,
            chunk,
            rows: &self.queries[chunk.first / TILE_ROWS * self.bytes(depth)..],
            stored: block.keys.stored(),
            depth,
            used: depth,
            panels: block.tokens.div_ceil(PANEL),
        };
        product.add_to(self.configured.as_ref(), scores, true, &mut self.keys, ahead);
    }

    fn weights(&mut self, rows: Range<usize>) -> Weights<'_> {
        let bytes = TOKEN_TILES * TILE_BYTES;
        Weights::Tiles(&mut self.weights[rows.start / TILE_ROWS * bytes..][..bytes])
    }

    fn weigh(
        &mut self,
        block: &Block<'_>,
        chunk: Chunk,
        _scores: &[f32],
        sums: &mut [f32],
        ahead: &mut Ahead<'_>,
    ) {
        let shape = self.configure(chunk);
        if let Some(unpack) = self.tiles.unpack() {
            let tiles = chunk.rows.div_ceil(TILE_ROWS) * TOKEN_TILES;
            unpack.run(&self.weights[..tiles * TILE_BYTES], &mut self.weight_parts);
        }
        let clears = block.clears_after && self.reads_after(block.tokens);
        if clears && chunk.is_first() {
            self.cleared.copy_from_slice(block.values.stored());
            clear_after(&mut self.cleared, block.tokens);
        }
        let product = Product {
            by: Arithmetic::of_type(&self.tiles),
            shape,
            chunk,
            rows: if self.tiles.unpack().is_some() { &self.weight_parts } else { &self.weights },
            stored: if clears { &self.cleared } else { block.values.stored() },
            depth: TOKEN_TILES,
            used: block.tokens.div_ceil(TILE_DEPTH),
            panels: self.channels.div_ceil(PANEL),
        };
        product.add_to(self.configured.as_ref(), sums, false, &mut self.values, ahead);
    }

    fn reads_after(&self, tokens: usize) -> bool {
        !tokens.is_multiple_of(TILE_DEPTH)
    }

    fn end(&mut self) {
        if let Some(configured) = self.configured.take() {
            self.tiles.unit.release(configured);
        }
    }
}

/// How rows are multiplied with panels of a given form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arithmetic {
    /// Size of a stored panel tile in bytes.
    pub stored_bytes: usize,
    /// Converts stored tiles to the tiles that are multiplied; `None` if they are multiplied as stored.
    pub unpack: Option<Unpack>,
    /// The product.
    pub unit: TileUnit,
}

impl Arithmetic {
    /// Returns the arithmetic for panels in the device's type.
    fn of_type(tiles: &TileKernels) -> Self {
        Self { stored_bytes: TILE_BYTES, unpack: tiles.unpack(), unit: tiles.unit }
    }
}

/// A product of the rows of a chunk with the panels of a block.
pub(super) struct Product<'a> {
    /// How the rows are multiplied.
    pub by: Arithmetic,
    /// The shape for which the tile registers are configured.
    pub shape: Shape,
    /// The row chunk of the item.
    pub chunk: Chunk,
    /// Blocks of sixteen rows, with [`Self::depth`] tiles each.
    pub rows: &'a [u8],
    /// Panels, with [`Self::depth`] tiles each.
    pub stored: &'a [u8],
    /// Tiles per panel.
    pub depth: usize,
    /// Tiles per panel that are multiplied.
    pub used: usize,
    /// Number of panels that are multiplied.
    pub panels: usize,
}

impl Product<'_> {
    /// Adds the product to `c`, or to zero if `fresh`. The registers must be configured. `unpacked` has space for the
    /// converted panels.
    pub(super) fn add_to(
        &self,
        configured: Option<&Configured>,
        c: &mut [f32],
        fresh: bool,
        unpacked: &mut [u8],
        ahead: &mut Ahead<'_>,
    ) {
        let configured = configured.expect("invariant: the registers are configured");
        assert!(
            (1..=self.depth).contains(&self.used),
            "invariant: panels have the tiles that are multiplied"
        );
        let strips = sums_of(self.shape);
        let group = strips.width / PANEL;
        let block = self.depth * self.by.unit.row_bytes();
        let a = [0, strips.rows / TILE_ROWS - 1].map(|i| self.rows[i * block..][..block].as_ptr());
        let groups = c.chunks_exact_mut(strips.distance()).take(self.panels.div_ceil(group));
        for (i, c) in groups.enumerate() {
            let b = self.group(i, group, unpacked);
            let product = TileProduct {
                shape: self.shape,
                a,
                b,
                ahead_lines: 0,
                tiles: self.used,
                fresh,
                c: c.as_mut_ptr(),
            };
            // SAFETY: this thread configured the registers. The blocks, the panels and the strip of sums hold the
            // shape, and the product has a tile of depth.
            unsafe { self.by.unit.multiply(configured, &product) };
            ahead.fetch();
        }
    }

    /// Returns the panels of group `index`. The last panel stands in for missing ones.
    fn group(&self, index: usize, group: usize, unpacked: &mut [u8]) -> [*const u8; 4] {
        let mut out = [std::ptr::null(); 4];
        let panels = (index * group..self.panels).take(group);
        for (place, panel) in panels.enumerate() {
            out[place..].fill(self.panel(panel, place, unpacked));
        }
        out
    }

    /// Returns a panel in the form that is multiplied. If it must be converted, the item's first chunk does so for all
    /// chunks. With only one chunk, the panels of all groups share the same space, which stays in L1.
    fn panel(&self, panel: usize, place: usize, unpacked: &mut [u8]) -> *const u8 {
        let bytes = self.by.stored_bytes;
        let stored = &self.stored[panel * self.depth * bytes..][..self.used * bytes];
        let multiplied = self.by.unit.panel_bytes();
        let Some(unpack) = self.by.unpack else {
            assert_eq!(bytes, multiplied, "invariant: tiles multiplied as stored have the unit's parts");
            return stored.as_ptr();
        };
        let place = if self.chunk.is_only() { place } else { panel };
        let bytes = multiplied;
        let unpacked = &mut unpacked[place * self.depth * bytes..][..self.used * bytes];
        if self.chunk.is_first() {
            unpack.run(stored, unpacked);
        }
        unpacked.as_ptr()
    }
}
