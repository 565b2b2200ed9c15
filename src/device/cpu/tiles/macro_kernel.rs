//! The macro-kernel of products by tiles: the loops around the tile unit, for a linear layer of whatever numbers.
//!
//! What is read again lies near. Two panels of weights by a block of depth stay in L1 while all rows pass by, thirty-two at a
//! time; the rows of that block of depth, which lie together, stay in L2 for all panels of a piece, and so do the piece's sums
//! until the depth is through. So weights come from memory once, rows from L3 once a piece. Counted for 512 rows and a piece of
//! 24 panels in bf16 or int8, a product of 32 by 32 sums takes 512 cycles of the tile unit a block of depth, and 24 KiB from and
//! to L2 (rows 16, sums 4 in and 4 out), where 48 bytes a cycle can be had. Each cycle 2.7 bytes of rows come from L3 (of 9.7 a
//! core) and 2 of weights from memory (of 5.5), asked for a product at a time while others are made. fp16 has as many bytes to a
//! block, cut into parts, and half as many cycles again to each. The last block's products are finished at once: what they write
//! leaves while the next is multiplied.
//!
//! Few rows need no blocks of depth: a product passes the whole depth of four panels, which stream by from memory. In fp16 they
//! do: the parts of four panels are to stay in L1 from where they are cut to where they are multiplied. The blocks follow on each
//! other then, so that memory is read in the same four streams.

use std::ops::Range;

use bytemuck::Pod;

use crate::device::cpu::buffer::prefetch;
use crate::device::cpu::kernels::PANEL;
use crate::device::cpu::pool::{Pool, part};
use crate::device::cpu::scratch::{Room, Scratch};

use super::{NARROW, Shape, Split, TILE_BYTES, TILE_ROWS, TileProduct, TileUnit};

/// Rows that are multiplied while a panel lies in cache; more rows read the weights again.
pub const BLOCK_ROWS: usize = 512;
/// Bytes of a step's panels by a block of depth. Of 48 KiB of L1 they take 16, thirty-two rows passing by 16 and their sums 4
/// (larger blocks were simulated for integers: `docs/SPEED.md`).
pub const BLOCK_BYTES: usize = 16 << 10;
/// Panels of a piece at most, where sums have to wait: of 2 MiB of L2 those of 512 rows take 768 KiB, the rows of two blocks of
/// depth 512 KiB and the panels that pass by 192 KiB.
const PIECE_PANELS: usize = 24;
/// Pieces for each thread at least: the threads end together even if one was held up.
const PIECES_A_THREAD: usize = 4;
/// Sums of a piece.
const PIECE_SUMS: usize = BLOCK_ROWS * PIECE_PANELS * PANEL;
/// Sums of a product, of either shape.
const PRODUCT_SUMS: usize = TILE_ROWS * NARROW * PANEL;
/// Sums that a thread has room for: a piece's, and those of one product to spare.
pub const ROOM_SUMS: usize = PIECE_SUMS + PRODUCT_SUMS;

/// A linear layer as the loops see it: weights of one kind of numbers, and what becomes of the sums.
pub trait Layer: Sync {
    /// What products are summed up in.
    type Sum: Pod;

    /// What multiplies.
    fn unit(&self) -> TileUnit<Self::Sum>;

    /// What cuts stored tiles into parts; `None` where they are multiplied as they are stored.
    fn split(&self) -> Option<Split>;

    /// Some tiles of depth of a panel, as they are stored.
    fn stored(&self, panel: usize, tiles: &Range<usize>) -> &[u8];

    /// Takes a product's sums `[_][half][16 * each]`, rows from `first` on. Of the `each` panels of outputs there are as many as
    /// `outputs`, which no other thread has. The sums may be spoilt, and as many to spare.
    fn finish(
        &self,
        sums: (&mut [Self::Sum], &mut [Self::Sum]),
        first: usize,
        outputs: Range<usize>,
        each: usize,
    );
}

/// The parts of so many rows that are multiplied at a time, [`BLOCK_ROWS`] at most. They are of like size: one of few rows
/// reads the weights as well.
pub fn blocks_of_rows(rows: usize) -> impl Iterator<Item = Range<usize>> {
    let blocks = rows.div_ceil(BLOCK_ROWS).max(1);
    let block = rows.div_ceil(blocks).next_multiple_of(Shape::Wide.rows()).max(1);
    (0..rows).step_by(block).map(move |first| first..rows.min(first + block))
}

/// How a block of rows lies in tiles, and how its depth is cut: the tiles of a block of depth of sixteen rows, then the next
/// sixteen, then the next block of depth. Rows that lay together over the whole depth would be a power of two apart, and share a
/// few sets of L2.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Of the products.
    shape: Shape,
    /// Rows in the block.
    rows: usize,
    /// Blocks of sixteen rows that they are filled up to.
    row_blocks: usize,
    /// Tiles of depth.
    depth: usize,
    /// Tiles of a block of depth; the last may have fewer.
    block: usize,
    /// Bytes of a tile with its parts.
    tile_bytes: usize,
}

impl Layout {
    /// For so many rows, tiles of depth and parts of a tile.
    pub fn new(rows: usize, depth: usize, parts: usize) -> Self {
        let (shape, tile_bytes) = (Shape::of(rows), parts * TILE_BYTES);
        let block = match shape {
            Shape::Narrow { .. } if parts == 1 => depth,
            _ => BLOCK_BYTES / (shape.panels() * tile_bytes),
        };
        let row_blocks = rows.next_multiple_of(shape.rows()) / TILE_ROWS;
        Self { shape, rows, row_blocks, depth, block, tile_bytes }
    }

    /// Tiles of a block of depth.
    pub fn block(&self) -> usize {
        self.block
    }

    /// Bytes between blocks of depth.
    pub fn block_stride(&self) -> usize {
        self.row_blocks * self.block * self.tile_bytes
    }

    /// Where a block of sixteen rows begins in a block of depth.
    pub fn at(&self, block: usize, rows: usize) -> usize {
        block * self.block_stride() + rows * self.block * self.tile_bytes
    }

    /// Blocks of depth.
    fn blocks(&self) -> usize {
        self.depth.div_ceil(self.block)
    }

    /// The tiles of a block of depth.
    fn tiles(&self, block: usize) -> Range<usize> {
        block * self.block..self.depth.min((block + 1) * self.block)
    }

    /// Products of a step over a block of depth.
    fn products(&self) -> usize {
        self.rows.div_ceil(self.shape.rows())
    }
}

/// A product of a block of rows that lie in tiles. Its steps are what the tiles of sums hold at a time: four panels of few rows,
/// two of many, as many of each half. A piece of the steps goes block of depth after block of depth, or step after step where rows
/// are few; what a thread does of it between two changes of its weights is a turn.
pub struct MacroKernel<'a, L> {
    /// The layer.
    pub layer: &'a L,
    /// Parts of the weight of which each output has a column.
    pub halves: usize,
    /// Panels of outputs.
    pub outputs: usize,
    /// How the rows lie.
    pub layout: Layout,
    /// The rows, and the working memory of the threads.
    pub scratch: &'a Scratch,
    /// Threads.
    pub threads: usize,
}

impl<L: Layer> MacroKernel<'_, L> {
    /// Does it; `work` is what it costs in multiply-adds, for the pool.
    pub fn run(&self, work: usize, pool: &mut Pool) {
        let pieces = self.pieces();
        pool.each(pieces, work, &|thread, piece| {
            self.piece(&part(self.steps(), piece, pieces), &mut self.scratch.room(thread));
        });
    }

    /// Panels of outputs of a step.
    fn each(&self) -> usize {
        self.layout.shape.panels() / self.halves
    }

    fn steps(&self) -> usize {
        self.outputs.div_ceil(self.each())
    }

    /// Pieces of the steps, as many for each thread.
    fn pieces(&self) -> usize {
        let most = PIECE_PANELS / self.layout.shape.panels();
        let fewest = if self.sums_wait() { self.steps().div_ceil(self.threads * most) } else { 1 };
        (fewest.max(PIECES_A_THREAD) * self.threads).min(self.steps())
    }

    /// Whether sums are continued after others: where many rows share the panels of a block of depth.
    fn sums_wait(&self) -> bool {
        self.layout.shape == Shape::Wide && self.layout.blocks() > 1
    }

    /// A step's panels of outputs.
    fn outputs(&self, step: usize) -> Range<usize> {
        step * self.each()..self.outputs.min((step + 1) * self.each())
    }

    /// A step's panels. A half's last stands in for those that are missing; nobody reads its sums.
    fn panels(&self, step: usize) -> impl Iterator<Item = usize> {
        let (each, outputs) = (self.each(), self.outputs(step));
        let of_half = move |i: usize| (outputs.start + i).min(outputs.end - 1);
        (0..self.layout.shape.panels()).map(move |i| i / each * self.outputs + of_half(i % each))
    }

    /// Step and block of depth of a turn. A thread that is through with a piece goes on, most likely, behind the pieces that the
    /// others are at.
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

    /// All rows by a piece of the steps, turn after turn.
    fn piece(&self, piece: &Range<usize>, room: &mut Room) {
        let (sums, parts) = room.parts::<L::Sum>();
        let (sums, spare) = sums.split_at_mut(PIECE_SUMS);
        let (unit, layout, products) = (self.layer.unit(), &self.layout, self.layout.products());
        // SAFETY: the unit was given out because the machine has the instructions.
        unsafe { (unit.configure)(layout.shape) };
        for turn in 0..piece.len() * layout.blocks() {
            let (step, block) = self.turn(piece, turn);
            let b = self.weights(step, block, parts);
            let ahead = self.ahead(piece, turn);
            // Sums that need not wait are all made in the same place.
            let place = if self.sums_wait() { step - piece.start } else { 0 };
            let sums = &mut sums[place * products * PRODUCT_SUMS..][..products * PRODUCT_SUMS];
            for (i, c) in sums.chunks_exact_mut(PRODUCT_SUMS).enumerate() {
                ahead.iter().for_each(|bytes| prefetch(&bytes[part(bytes.len(), i, products)]));
                let product = TileProduct {
                    shape: layout.shape,
                    a: self.rows(i, block),
                    b,
                    tiles: layout.tiles(block).len(),
                    fresh: block == 0,
                    c: c.as_mut_ptr(),
                };
                // SAFETY: rows, panels and sums hold the shape, which this thread has configured.
                unsafe { (unit.multiply)(&product) };
                if block + 1 == layout.blocks() {
                    let first = i * layout.shape.rows();
                    self.layer.finish((c, spare), first, self.outputs(step), self.each());
                }
            }
        }
        // SAFETY: as above.
        unsafe { (unit.release)() };
    }

    /// The blocks of sixteen rows of a step's product over a block of depth.
    fn rows(&self, product: usize, block: usize) -> [*const u8; 2] {
        let blocks = self.layout.shape.rows() / TILE_ROWS;
        [0, blocks - 1]
            .map(|second| self.scratch.rows[self.layout.at(block, product * blocks + second)..].as_ptr())
    }

    /// A step's panels over a block of depth as they are multiplied: cut into `parts`, or as they are stored.
    fn weights(&self, step: usize, block: usize, parts: &mut [u8]) -> [*const u8; NARROW] {
        let tiles = self.layout.tiles(block);
        let bytes = tiles.len() * self.layout.tile_bytes;
        let mut out = [std::ptr::null(); NARROW];
        for (i, panel) in self.panels(step).enumerate() {
            let stored = self.layer.stored(panel, &tiles);
            debug_assert!(
                stored.len() >= tiles.len() * TILE_BYTES,
                "invariant: all tiles of a panel are there"
            );
            out[i] = stored.as_ptr();
            if let Some(split) = self.layer.split() {
                let parts = &mut parts[i * bytes..][..bytes];
                // SAFETY: a block's tiles in, as many of each part out.
                unsafe { split(out[i], tiles.len(), parts.as_mut_ptr()) };
                out[i] = parts.as_ptr();
            }
        }
        out
    }

    /// What comes next, to be asked for in a turn: the next turn's weights from memory, and from L3 this turn's part of the rows
    /// of the next block of depth.
    fn ahead(&self, piece: &Range<usize>, turn: usize) -> [&[u8]; NARROW + 1] {
        let (step, block) = self.turn(piece, turn + 1);
        let mut tiles = self.layout.tiles(block);
        if let Shape::Narrow { .. } = self.layout.shape {
            // Who reads weights only once asks for more on the way.
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
