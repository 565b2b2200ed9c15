//! Integer products by tiles: `TDPBSSD` multiplies sixteen rows of 64 integers with a tile of a panel, exactly.
//!
//! What is read again lies near. Two panels by a block of depth stay in L1 while all rows pass by, thirty-two at a time; the
//! rows of that block stay in L2 for all pairs of panels of a group, and so do the group's sums until the depth is through.
//! Counted for 512 rows and a group of 24 panels, a product of 32 by 32 sums takes 512 cycles of the tile unit a block of depth,
//! and 24 KiB from and to L2 (rows 16, sums 4 in and 4 out), where 48 bytes a cycle can be had. Each cycle 2.7 bytes of rows
//! come from L3 (of 9.7 a core) and 2 of weights from memory (of 5.5), asked for a product at a time while others are made.
//! The last block's products become numbers at once, halves that SwiGLU joins side by side: what they write leaves while the
//! next is multiplied. Few rows need no blocks: a product passes the whole depth of four panels, which stream by from memory.

use std::ops::Range;

use crate::device::cpu::buffer::prefetch;
use crate::device::cpu::kernels::PANEL;
use crate::device::cpu::pool::{Pool, part};
use crate::device::cpu::tiles::{Shape, TILE_ROWS};

use super::linear::{Layer, PIECES_A_THREAD};
use super::scratch::{BLOCK_NUMBERS, BLOCK_ROWS, row_blocks};

/// Panels of a product of few rows, one for each tile of sums.
pub const NARROW: usize = 4;
/// Panels, and blocks of rows, of a product of many rows.
pub const WIDE: usize = 2;

/// Tiles of a block of depth. Of 48 KiB of L1 two panels take 16, thirty-two rows passing by 16, and their sums 4.
pub const BLOCK_TILES: usize = 8;
/// Panels of a group at most. Of 2 MiB of L2 the sums of 512 rows take 768 KiB, and rows of two blocks of depth 512 KiB.
const GROUP_PANELS: usize = 24;
/// Sums of a group.
const GROUP_SUMS: usize = BLOCK_ROWS * GROUP_PANELS * PANEL;
/// Sums of a product, of either shape.
const PRODUCT_SUMS: usize = TILE_ROWS * NARROW * PANEL;
/// A group's sums, and numbers to spare for one product.
pub const SUMS: usize = GROUP_SUMS + PRODUCT_SUMS;

/// `c += a * b` over some tiles of depth; sums wrap.
#[derive(Debug, Clone, Copy)]
pub struct TileProduct {
    /// Sixteen rows or fewer by four panels, or thirty-two by two.
    pub shape: Shape,
    /// Blocks of sixteen rows, tile after tile.
    pub a: [*const i8; WIDE],
    /// Panels, tile after tile.
    pub b: [*const i8; NARROW],
    /// Tiles of depth.
    pub tiles: usize,
    /// The sums begin at zero, whatever is there.
    pub fresh: bool,
    /// The sums: `[16, 64]` or `[32, 32]`.
    pub c: *mut i32,
}

/// Products by tiles.
///
/// All functions are `unsafe`: the instructions must be present, pointers valid for the shapes given.
#[derive(Debug, Clone, Copy)]
pub struct TileKernels {
    /// Makes the tile registers ready for a shape; to be called by the thread that multiplies, before it does.
    pub configure: unsafe fn(Shape),
    /// A [`TileProduct`] of the shape configured last.
    pub multiply: unsafe fn(&TileProduct),
    /// Gives the tile registers back.
    pub release: unsafe fn(),
}

/// Multiplies a block of rows that lie in tiles.
pub fn multiply(layer: &Layer<'_>, tiles: TileKernels, pool: &mut Pool) {
    let shape = if layer.rows <= TILE_ROWS { Shape::Narrow { rows: layer.rows } } else { Shape::Wide };
    let job = Job { layer, tiles, shape };
    let pieces = job.pieces(pool.threads());
    pool.each(pieces, layer.work(), &|thread, piece| {
        job.run(part(job.steps(), piece, pieces), &mut layer.x.sums(thread));
    });
}

/// A product of a block of rows. Its steps are what the tiles of sums hold at a time: four panels of few rows, two of many,
/// as many of each half.
struct Job<'a> {
    layer: &'a Layer<'a>,
    tiles: TileKernels,
    shape: Shape,
}

impl Job<'_> {
    /// Panels of a step.
    fn width(&self) -> usize {
        if self.shape == Shape::Wide { WIDE } else { NARROW }
    }

    /// Rows of a product.
    fn height(&self) -> usize {
        if self.shape == Shape::Wide { WIDE * TILE_ROWS } else { TILE_ROWS }
    }

    /// Products of a step over a block of depth.
    fn products(&self) -> usize {
        self.layer.rows.div_ceil(self.height())
    }

    /// Panels of outputs of a step.
    fn each(&self) -> usize {
        self.width() / self.layer.halves()
    }

    fn steps(&self) -> usize {
        self.layer.outputs().div_ceil(self.each())
    }

    /// Blocks of depth. Panels that one product of rows passes need none.
    fn blocks(&self) -> usize {
        if self.shape == Shape::Wide { self.layer.linear.depth().div_ceil(BLOCK_TILES) } else { 1 }
    }

    /// The tiles of a block of depth.
    fn block(&self, block: usize) -> Range<usize> {
        let depth = self.layer.linear.depth();
        if self.blocks() == 1 { 0..depth } else { block * BLOCK_TILES..depth.min((block + 1) * BLOCK_TILES) }
    }

    /// Pieces of the steps: as many for each thread, and no larger than a group where sums have to wait.
    fn pieces(&self, threads: usize) -> usize {
        let group = if self.blocks() == 1 { usize::MAX } else { threads * (GROUP_PANELS / self.width()) };
        (self.steps().div_ceil(group).max(PIECES_A_THREAD) * threads).min(self.steps())
    }

    /// All rows by a piece of the steps, one block of depth after the other.
    fn run(&self, steps: Range<usize>, sums: &mut [i32]) {
        // SAFETY: these kernels were given out because the machine has the instructions.
        unsafe { (self.tiles.configure)(self.shape) };
        let (sums, spare) = sums.split_at_mut(GROUP_SUMS);
        for block in 0..self.blocks() {
            for (place, step) in steps.clone().enumerate() {
                // Sums that need not wait are all made in the same place.
                let place = if self.blocks() == 1 { 0 } else { place * self.products() };
                let sums = &mut sums[place * PRODUCT_SUMS..][..self.products() * PRODUCT_SUMS];
                for (product, c) in sums.as_chunks_mut::<PRODUCT_SUMS>().0.iter_mut().enumerate() {
                    self.fetch(&steps, step, block, product);
                    self.product(step, block, product, c);
                    if block + 1 == self.blocks() {
                        let (first, outputs) = (product * self.height(), self.outputs(step));
                        self.layer.finish((c, spare), first, outputs, self.each());
                    }
                }
            }
        }
        // SAFETY: as above.
        unsafe { (self.tiles.release)() };
    }

    /// A step's panels of outputs.
    fn outputs(&self, step: usize) -> Range<usize> {
        let first = step * self.each();
        first..self.layer.outputs().min(first + self.each())
    }

    fn product(&self, step: usize, block: usize, product: usize, c: &mut [i32; PRODUCT_SUMS]) {
        let (outputs, each, tiles) = (self.outputs(step), self.each(), self.block(block));
        let blocks = row_blocks(self.layer.rows);
        let product = TileProduct {
            shape: self.shape,
            // A narrow product has one block of rows, which lies in one run whatever its depth.
            a: [0, 1].map(|second| {
                let rows = (product * self.height() / TILE_ROWS + second).min(blocks - 1);
                self.layer.x.data()[(block * blocks + rows) * BLOCK_NUMBERS..].as_ptr()
            }),
            // A half's last panel stands in for those that are missing; nobody reads its sums.
            b: std::array::from_fn(|i| {
                let output = (outputs.start + i % each).min(outputs.end - 1);
                let panel = self.layer.panel(i % self.width() / each, output);
                self.layer.linear.tiles(panel, &tiles).as_ptr()
            }),
            tiles: tiles.len(),
            fresh: block == 0,
            c: c.as_mut_ptr(),
        };
        // SAFETY: rows, panels and sums hold the shape, which this thread has configured.
        unsafe { (self.tiles.multiply)(&product) };
    }

    /// Asks for what comes next, this product's part of it: the next step's weights, and rows of the next block of depth.
    fn fetch(&self, steps: &Range<usize>, step: usize, block: usize, product: usize) {
        let fetch = |bytes: &[i8], i, n| prefetch(bytemuck::cast_slice(&bytes[part(bytes.len(), i, n)]));
        let (next, in_block) =
            if step + 1 < steps.end { (step + 1, block) } else { (steps.start, block + 1) };
        if in_block < self.blocks() {
            // A narrow product asks for more as it goes.
            let tiles = if self.shape == Shape::Wide { self.block(in_block) } else { 0..1 };
            let outputs = self.outputs(next);
            for i in 0..self.layer.halves() * outputs.len() {
                let panel = self.layer.panel(i / outputs.len(), outputs.start + i % outputs.len());
                fetch(self.layer.linear.tiles(panel, &tiles), product, self.products());
            }
        }
        // The next group begins with the first block again.
        let next = (block + 1) % self.blocks();
        if next != block {
            let rows = row_blocks(self.layer.rows) * BLOCK_NUMBERS;
            let rows = &self.layer.x.data()[next * rows..(next + 1) * rows];
            let (place, products) = (step - steps.start, self.products());
            fetch(rows, place * products + product, steps.len() * products);
        }
    }
}
