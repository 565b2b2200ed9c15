//! The macro-kernel of tile products: the loops around the tile unit, for a linear layer of any number type.
//!
//! Data that is read again stays in cache. Two panels of weights over a block of depth stay in L1 while all rows pass
//! by, thirty-two at a time. The rows of that block of depth are contiguous, and stay in L2 for all panels of a piece.
//! The sums of the piece also stay in L2, until the whole depth is done. So weights come from memory once, and rows
//! from L3 once per piece.
//!
//! The cycle counts are for 512 rows and a piece of 24 panels in bf16 or int8. A product of 32 by 32 sums takes 512
//! cycles of the tile unit per block of depth. It moves 24 KiB from and to L2 (rows 16, sums 4 in and 4 out), and L2
//! delivers 48 bytes per cycle. In each cycle, 2.7 bytes of rows come from L3 (of 9.7 per core) and 2 bytes of weights
//! from memory (of 5.5). They are prefetched one product at a time during other products. An fp16 block has the same
//! number of bytes, split into parts, and takes half as many cycles again. The products of the last block are finished
//! at once, so their output leaves the core during the next product.
//!
//! On an Intel Xeon, a little less than half of the peak is reached (`docs/SPEED.md`). Rows from L3 cost
//! most of the rest: with rows in L2, the same loops reach 0.7.
//!
//! Few rows need no blocks of depth: a product covers the whole depth of four panels, which stream from memory. On AMX,
//! up to 96 rows do the same with two panels, while the panels of the next step come from memory. A unit that splits
//! numbers into parts splits a tile of each panel at a time on the way. Without such a product, the parts of four panels stay
//! in L1 between splitting and multiplying. These blocks are processed consecutively, so memory is read in the same four
//! streams.

use std::ops::Range;

use bytemuck::Pod;

use crate::buffer::{HUGE_PAGE_BYTES, LINE_BYTES, fence_streams, prefetch};
use crate::pack::{PANEL, TILE_BYTES, TILE_ROWS};
use crate::pool::{Pool, part};
use crate::product::scratch::{Room, Scratch};

use super::{NARROW, Shape, TileProduct, TileUnit, Unpack};

/// Rows that are multiplied while a panel is in cache. More rows read the weights again.
pub(crate) const BLOCK_ROWS: usize = 512;
/// Bytes of the panels in a step over a block of depth. Of 48 KiB of L1, the panels take 16 KiB, thirty-two passing
/// rows 16 KiB and their sums 4 KiB. Larger blocks were simulated for integers (`docs/SPEED.md`).
pub(crate) const BLOCK_BYTES: usize = 16 << 10;
/// Maximum panels of a piece whose sums wait between blocks of depth. Of 2 MiB of L2, the sums of 512 rows take 768
/// KiB. The rows of two blocks of depth take 512 KiB, and the passing panels 192 KiB.
const PIECE_PANELS: usize = 24;
/// Minimum pieces per thread, so that threads finish together even if one was delayed.
const PIECES_A_THREAD: usize = 4;
/// Number of sums of a product, of either shape.
const PRODUCT_SUMS: usize = TILE_ROWS * NARROW * PANEL;
/// Number of sums in a thread's workspace: those of a piece. It is a huge page of them, as scattered small pages share
/// sets of L2 with each other.
pub(crate) const ROOM_SUMS: usize = HUGE_PAGE_BYTES / size_of::<f32>();
const _: () = assert!(ROOM_SUMS >= BLOCK_ROWS * PIECE_PANELS * PANEL, "the sums of a piece fit");

/// A linear layer as the loops see it: weights of one number type, and a use for the sums.
pub(crate) trait Layer: Sync {
    /// The type of the sums.
    type Sum: Pod;

    /// Returns the tile unit.
    fn unit(&self) -> TileUnit<Self::Sum>;

    /// Returns how stored tiles are split into parts; `None` if they are multiplied as stored.
    fn unpack(&self) -> Option<Unpack>;

    /// Returns a range of depth tiles of a panel, as stored.
    fn stored(&self, panel: usize, tiles: &Range<usize>) -> &[u8];

    /// Finishes a product's sums `[_][half][16 * each]`, with rows starting at `first`. Of the `each` output panels,
    /// the first `outputs.len()` are in use, and no other thread writes them. The function may overwrite the sums.
    fn finish(&self, sums: &mut [Self::Sum], first: usize, outputs: Range<usize>, each: usize);
}

/// Splits the rows into blocks of at most `most`, which are multiplied one at a time. The blocks are of nearly
/// equal size, because a block of few rows also reads all weights.
pub(crate) fn blocks_of_rows(rows: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let blocks = rows.div_ceil(most).max(1);
    let whole = Shape::Wide.rows().min(most);
    let block = rows.div_ceil(blocks).next_multiple_of(whole).max(1);
    (0..rows).step_by(block).map(move |first| first..rows.min(first + block))
}

/// The layout of a block of rows in tiles, and the split of its depth. First come the tiles of sixteen rows over one
/// block of depth, then those of the next sixteen rows, then the next block of depth. If rows were contiguous over the
/// whole depth, they would be a power of two apart and share a few sets of L2.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    /// Shape of the products.
    shape: Shape,
    /// Rows in the block.
    rows: usize,
    /// Blocks of sixteen rows, including padding.
    row_blocks: usize,
    /// Number of tiles of depth.
    depth: usize,
    /// Tiles per block of depth; the last block may have fewer.
    block: usize,
    /// Size of a tile with its parts, in bytes.
    tile_bytes: usize,
}

impl Layout {
    /// Creates the layout for `rows` rows and `depth` tiles of depth.
    pub(crate) fn new<C>(rows: usize, depth: usize, unit: &TileUnit<C>) -> Self {
        let (shape, tile_bytes) = (Shape::of(rows), unit.row_bytes());
        let block = if unit.takes_whole_depth(shape, rows) {
            depth
        } else {
            BLOCK_BYTES / (shape.panels() * tile_bytes)
        };
        let row_blocks = rows.next_multiple_of(shape.rows()) / TILE_ROWS;
        Self { shape, rows, row_blocks, depth, block, tile_bytes }
    }

    /// Returns the number of tiles per block of depth.
    pub(crate) fn block(&self) -> usize {
        self.block
    }

    /// Returns the distance between blocks of depth, in bytes.
    pub(crate) fn block_stride(&self) -> usize {
        self.row_blocks * self.block * self.tile_bytes
    }

    /// Returns the offset of a block of sixteen rows in a block of depth, in bytes.
    pub(crate) fn at(&self, block: usize, rows: usize) -> usize {
        block * self.block_stride() + rows * self.block * self.tile_bytes
    }

    /// Returns the number of blocks of depth.
    fn blocks(&self) -> usize {
        self.depth.div_ceil(self.block)
    }

    /// Returns the tiles of a block of depth.
    fn tiles(&self, block: usize) -> Range<usize> {
        block * self.block..self.depth.min((block + 1) * self.block)
    }

    /// Returns the number of products of a step over a block of depth.
    fn products(&self) -> usize {
        self.rows.div_ceil(self.shape.rows())
    }
}

/// A product with a block of rows in tiles. A step is as many panels as the sum tiles hold at a time: four for few
/// rows, two for many. Each half gives the same number. A piece is a range of steps. With many rows it runs one block
/// of depth after the other; with few rows, one step after the other. A turn is a thread's work between two changes of
/// its weights.
pub(crate) struct MacroKernel<'a, L> {
    /// The layer.
    pub layer: &'a L,
    /// Number of parts of the weight. Each output has one column in each part.
    pub halves: usize,
    /// Number of output panels.
    pub outputs: usize,
    /// Layout of the rows.
    pub layout: Layout,
    /// The rows, and the workspaces of the threads.
    pub scratch: &'a Scratch,
    /// Number of threads.
    pub threads: usize,
}

impl<L: Layer> MacroKernel<'_, L> {
    /// Runs the product. `work` is its cost in multiply-adds, for the pool.
    pub(crate) fn run(&self, work: usize, pool: &mut Pool) {
        let pieces = self.pieces();
        pool.each(pieces, work, &|thread, piece| {
            self.piece(&part(self.steps(), piece, pieces), &mut self.scratch.room(thread));
        });
    }

    /// Returns the output panels per step.
    fn each(&self) -> usize {
        self.layout.shape.panels() / self.halves
    }

    fn steps(&self) -> usize {
        self.outputs.div_ceil(self.each())
    }

    /// Returns the number of pieces. All threads have the same number, if there are enough steps.
    fn pieces(&self) -> usize {
        let most = PIECE_PANELS / self.layout.shape.panels();
        let fewest = if self.sums_wait() { self.steps().div_ceil(self.threads * most) } else { 1 };
        (fewest.max(PIECES_A_THREAD) * self.threads).min(self.steps())
    }

    /// Returns whether sums wait between blocks of depth: many rows share the panels of a block of depth.
    fn sums_wait(&self) -> bool {
        self.layout.shape == Shape::Wide && self.layout.blocks() > 1
    }

    /// Returns a step's output panels.
    fn outputs(&self, step: usize) -> Range<usize> {
        step * self.each()..self.outputs.min((step + 1) * self.each())
    }

    /// Returns a step's panels. The last panel of a half stands in for missing ones, and the sums of a stand-in are not
    /// read.
    fn panels(&self, step: usize) -> impl Iterator<Item = usize> {
        let (each, outputs) = (self.each(), self.outputs(step));
        let of_half = move |i: usize| (outputs.start + i).min(outputs.end - 1);
        (0..self.layout.shape.panels()).map(move |i| i / each * self.outputs + of_half(i % each))
    }

    /// Returns step and block of depth of a turn. After the end of a piece, it guesses where the thread will continue:
    /// most likely after the pieces of the other threads.
    fn turn(&self, piece: &Range<usize>, turn: usize) -> (usize, usize) {
        let blocks = self.layout.blocks();
        if turn == piece.len() * blocks {
            ((piece.end + (self.threads - 1) * piece.len()).min(self.steps() - 1), 0)
        } else if self.sums_wait() {
            (piece.start + turn % piece.len(), turn / piece.len())
        } else {
            (piece.start + turn / blocks, turn % blocks)
        }
    }

    /// Multiplies all rows by a piece of the steps, turn after turn.
    fn piece(&self, piece: &Range<usize>, room: &mut Room) {
        let (sums, parts) = room.parts::<L::Sum>();
        let (unit, layout, products) = (self.layer.unit(), &self.layout, self.layout.products());
        let tile_bytes = [unit.row_bytes(), unit.panel_bytes()];
        assert_eq!(tile_bytes, [layout.tile_bytes; 2], "invariant: the layout is for the unit's parts");
        let configured = unit.configure(layout.shape);
        let stored = unit.takes_stored(layout.shape);
        for turn in 0..piece.len() * layout.blocks() {
            let (step, block) = self.turn(piece, turn);
            let mut b = self.weights(step, block, parts);
            // A product's tiles lie inside its blocks of sixteen rows, and the layout has space for all of them.
            let rows = &self.scratch.rows[layout.at(block, 0)..][..layout.block_stride()];
            let ahead = self.ahead(piece, turn);
            // Sums that need not wait all use the same space.
            let place = if self.sums_wait() { step - piece.start } else { 0 };
            let sums = &mut sums[place * products * PRODUCT_SUMS..][..products * PRODUCT_SUMS];
            for (i, c) in sums.chunks_exact_mut(PRODUCT_SUMS).enumerate() {
                let mut ahead_lines = 0;
                if self.streams() {
                    ahead_lines = (TILE_BYTES / LINE_BYTES).div_ceil(products);
                    let first = i * ahead_lines * LINE_BYTES * layout.depth;
                    (b[2], b[3]) =
                        (ahead[0].as_ptr().wrapping_add(first), ahead[1].as_ptr().wrapping_add(first));
                } else {
                    ahead.iter().for_each(|bytes| prefetch(&bytes[part(bytes.len(), i, products)]));
                }
                let product = TileProduct {
                    shape: layout.shape,
                    a: self.rows(rows, i),
                    b,
                    ahead_lines,
                    tiles: layout.tiles(block).len(),
                    fresh: block == 0,
                    c: c.as_mut_ptr(),
                };
                // SAFETY: this thread configured the registers. Rows, panels and sums hold the shape: `rows`, `weights`
                // and the slice of the sums were checked in this turn. A block of depth has a tile.
                unsafe {
                    if stored {
                        unit.multiply_stored(&configured, &product, parts);
                    } else {
                        unit.multiply(&configured, &product);
                    }
                }
                if block + 1 == layout.blocks() {
                    let first = i * layout.shape.rows();
                    self.layer.finish(c, first, self.outputs(step), self.each());
                }
            }
        }
        unit.release(configured);
        fence_streams();
    }

    /// Returns whether products prefetch the panels of the next turn.
    fn streams(&self) -> bool {
        self.layout.shape == Shape::Wide && self.layer.unit().takes_whole_depth(Shape::Wide, self.layout.rows)
    }

    /// Returns the blocks of sixteen rows of a product, of the `rows` of a block of depth.
    fn rows(&self, rows: &[u8], product: usize) -> [*const u8; 2] {
        let blocks = self.layout.shape.rows() / TILE_ROWS;
        [0, blocks - 1].map(|second| rows[self.layout.at(0, product * blocks + second)..].as_ptr())
    }

    /// Returns a step's panels over a block of depth in the form that is multiplied: split into `parts`, or as stored.
    fn weights(&self, step: usize, block: usize, parts: &mut [u8]) -> [*const u8; NARROW] {
        let tiles = self.layout.tiles(block);
        let bytes = tiles.len() * self.layout.tile_bytes;
        let mut out = [std::ptr::null(); NARROW];
        for (i, panel) in self.panels(step).enumerate() {
            let stored = self.layer.stored(panel, &tiles);
            let stored_tiles = self.layer.unit().takes_stored(self.layout.shape);
            let unpack = self.layer.unpack().filter(|_| !stored_tiles);
            let needed = if self.layer.unpack().is_some() { tiles.len() * TILE_BYTES } else { bytes };
            assert!(stored.len() >= needed, "invariant: all tiles of a panel are there");
            out[i] = stored.as_ptr();
            if let Some(unpack) = unpack {
                let parts = &mut parts[i * bytes..][..bytes];
                unpack.run(stored, parts);
                out[i] = parts.as_ptr();
            }
        }
        out
    }

    /// Returns what to prefetch during a turn. The next turn's weights come from memory. This turn's share of the rows
    /// of the next block of depth comes from L3.
    fn ahead(&self, piece: &Range<usize>, turn: usize) -> [&[u8]; NARROW + 1] {
        let (step, block) = self.turn(piece, turn + 1);
        let mut tiles = self.layout.tiles(block);
        if let Shape::Narrow { .. } = self.layout.shape {
            // A narrow product, which reads the weights only once, prefetches the rest on the way.
            tiles.end = tiles.start + 1;
        }
        let mut out = [&[][..]; NARROW + 1];
        for (out, panel) in out.iter_mut().zip(self.panels(step)) {
            *out = self.layer.stored(panel, &tiles);
        }
        if self.sums_wait() {
            let block = (turn / piece.len() + 1) % self.layout.blocks();
            let rows = &self.scratch.rows[self.layout.at(block, 0)..][..self.layout.block_stride()];
            out[NARROW] = &rows[part(rows.len(), turn % piece.len(), piece.len())];
        }
        out
    }
}
