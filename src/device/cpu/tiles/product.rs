//! A linear layer's product by tiles: rows packed into tiles, panels of weights streamed past them.
//!
//! What is read again lies near. A pair of panels by a block of depth stays in L1 while all rows pass by, sixteen or
//! thirty-two at a time; the rows of that block of depth, which lie together, stay in L2 for the pairs of a group, and so do the
//! group's sums until the depth is through. So weights come from memory once, rows from L3 once a group. Counted for 512 rows
//! in bf16, the products of 32 by 32 sums over a block of depth take 512 cycles, and 24 KiB from and to L2 (rows 16, sums 4 in
//! and 4 out), where 48 bytes a cycle can be had; what comes from further away is asked for while others are multiplied. The
//! last block's products are finished at once: what they write leaves while the next is multiplied.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::device::DeviceError;
use crate::device::cpu::buffer::{Buffer, SharedSlice, prefetch};
use crate::device::cpu::kernels::{Kernels, PANEL};
use crate::device::cpu::linear::{Linear, Rows, RowsMut};
use crate::device::cpu::pool::{Pool, part};

use super::{NARROW_PANELS, Shape, TILE_BYTES, TILE_DEPTH, TILE_ROWS, TileKernels, TileProduct, WIDE};

/// Rows that are multiplied while a panel lies in cache; more rows read the weights again.
const BLOCK_ROWS: usize = 512;
/// Bytes of a step's panels by a block of depth. Of 48 KiB of L1 they take 16, thirty-two rows passing by 16 and their sums 4
/// (larger blocks were simulated for integers: `TRIED.md`).
const BLOCK_BYTES: usize = 16 << 10;
/// Panels of a group at most: of 2 MiB of L2 the sums of 512 rows take 768 KiB, the rows of two blocks of depth 512 KiB and
/// the panels that pass by 192 KiB.
const GROUP_PANELS: usize = 24;
/// Groups for each thread at least: the threads end together even if one was held up.
const GROUPS_A_THREAD: usize = 4;
/// What the memory is for.
const WHAT: &str = "activations in tiles";

/// Working memory, taken while the weights are loaded.
#[derive(Debug)]
pub struct TileScratch {
    /// The rows of a product, packed: block of depth after block of depth, in each the blocks of sixteen rows.
    rows: Buffer<u8>,
    threads: Vec<Mutex<ThreadScratch>>,
}

/// A thread's working memory.
#[derive(Debug)]
struct ThreadScratch {
    /// Sums of all rows by a group of panels, step after step.
    sums: Buffer<f32>,
    /// A step's panels of a block of depth, cut into parts.
    split: Buffer<u8>,
}

impl TileScratch {
    /// For a team of threads.
    pub fn new(threads: usize) -> Result<Self, DeviceError> {
        let of_thread = || {
            let sums = Buffer::zeroed(BLOCK_ROWS * GROUP_PANELS * PANEL, WHAT)?;
            Ok(Mutex::new(ThreadScratch { sums, split: Buffer::zeroed(BLOCK_BYTES, WHAT)? }))
        };
        let threads = (0..threads).map(|_| of_thread()).collect::<Result<_, DeviceError>>()?;
        Ok(Self { rows: Buffer::zeroed(0, WHAT)?, threads })
    }

    /// Takes what the rows of products of `k` numbers need.
    pub fn reserve(&mut self, k: usize, tiles: &TileKernels) -> Result<(), DeviceError> {
        let depth = k.div_ceil(TILE_DEPTH).next_multiple_of(BLOCK_BYTES / TILE_BYTES);
        let bytes = BLOCK_ROWS / TILE_ROWS * depth * tiles.parts * TILE_BYTES;
        if self.rows.len() < bytes {
            self.rows = Buffer::zeroed(bytes, WHAT)?;
        }
        Ok(())
    }
}

/// What becomes of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epilogue {
    /// `sum + bias`, rounded.
    Bias,
    /// The same; then `silu` of the first half of the columns times the second half, as the SwiGLU operator has it.
    /// The halves are whole panels.
    SwiGlu,
}

/// `out = epilogue(x * weight^T + bias)`.
pub fn apply(
    linear: &Linear,
    x: Rows<'_>,
    epilogue: Epilogue,
    out: &mut RowsMut<'_>,
    (tiles, kernels): (&TileKernels, &Kernels),
    (scratch, pool): (&mut TileScratch, &mut Pool),
) {
    for first in (0..x.rows).step_by(BLOCK_ROWS) {
        let rows = BLOCK_ROWS.min(x.rows - first);
        let x = Rows { data: &x.data[first * x.stride..], rows, stride: x.stride };
        let shape = if rows <= TILE_ROWS { Shape::Narrow { rows } } else { Shape::Wide };
        let layout = Layout::new(linear.k, shape, rows, tiles);
        layout.pack(x, linear.k, &mut scratch.rows, tiles, pool);
        let (packed, out_stride) = (&scratch.rows, out.stride);
        let shared = SharedSlice::new(&mut out.data[first * out_stride..]);
        let job =
            Job { linear, rows, shape, layout, packed, epilogue, tiles, kernels, out: &shared, out_stride };
        let (steps, groups) = (job.steps(), job.groups(pool.threads()));
        pool.each(groups, rows * linear.n * linear.k, &|thread, group| {
            let mut scratch = scratch.threads[thread].lock().unwrap_or_else(PoisonError::into_inner);
            job.run(part(steps, group, groups), &mut scratch);
        });
    }
}

/// Where packed rows lie: tiles of a block of depth of sixteen rows, then the next sixteen, then the next block of depth. Rows
/// that lay together over the whole depth would be a power of two apart, and share a few sets of L2.
#[derive(Debug, Clone, Copy)]
struct Layout {
    /// Tiles of depth.
    depth: usize,
    /// Tiles of a block of depth; the last may have fewer.
    block: usize,
    /// Blocks of sixteen rows.
    row_blocks: usize,
    /// Bytes of a tile with its parts.
    tile_bytes: usize,
}

impl Layout {
    fn new(k: usize, shape: Shape, rows: usize, tiles: &TileKernels) -> Self {
        let (depth, tile_bytes) = (k.div_ceil(TILE_DEPTH), tiles.parts * TILE_BYTES);
        let (panels, row_blocks) = match shape {
            Shape::Narrow { .. } => (NARROW_PANELS, 1),
            Shape::Wide => (WIDE, rows.div_ceil(WIDE * TILE_ROWS) * WIDE),
        };
        // Panels that one block of rows passes need no blocks of depth, unless they are to be cut into parts.
        let once = row_blocks == 1 && tiles.split.is_none();
        let block = if once { depth } else { BLOCK_BYTES / (panels * tile_bytes) };
        Self { depth, block, row_blocks, tile_bytes }
    }

    /// Blocks of depth.
    fn blocks(&self) -> usize {
        self.depth.div_ceil(self.block)
    }

    /// The tiles of a block of depth.
    fn tiles(&self, block: usize) -> Range<usize> {
        block * self.block..self.depth.min((block + 1) * self.block)
    }

    /// Where a block of sixteen rows begins in a block of depth.
    fn at(&self, block: usize, rows: usize) -> usize {
        (block * self.row_blocks + rows) * self.block * self.tile_bytes
    }

    /// Writes the rows.
    fn pack(&self, x: Rows<'_>, k: usize, packed: &mut Buffer<u8>, tiles: &TileKernels, pool: &mut Pool) {
        let shared = packed.shared();
        pool.split(x.rows.div_ceil(TILE_ROWS), x.rows * k, &|blocks| {
            for row in blocks.start * TILE_ROWS..x.rows.min(blocks.end * TILE_ROWS) {
                let x = &x.data[row * x.stride..][..k];
                for (block, x) in x.chunks(self.block * TILE_DEPTH).enumerate() {
                    let to = shared.pointer(self.at(block, row / TILE_ROWS));
                    // SAFETY: the tiles of these sixteen rows, which one thread writes, were reserved.
                    unsafe { (tiles.pack_row)(x.as_ptr(), x.len(), to, row % TILE_ROWS) };
                }
            }
        });
    }
}

/// A product of up to [`BLOCK_ROWS`] rows. Its steps are what the tiles of sums hold at a time: four panels of few rows, two of
/// many.
struct Job<'a> {
    linear: &'a Linear,
    rows: usize,
    shape: Shape,
    layout: Layout,
    packed: &'a [u8],
    epilogue: Epilogue,
    tiles: &'a TileKernels,
    kernels: &'a Kernels,
    out: &'a SharedSlice<'a, f32>,
    out_stride: usize,
}

impl Job<'_> {
    /// Panels of a step.
    fn width(&self) -> usize {
        if self.shape == Shape::Wide { WIDE } else { NARROW_PANELS }
    }

    /// Rows of one product.
    fn height(&self) -> usize {
        if self.shape == Shape::Wide { WIDE * TILE_ROWS } else { TILE_ROWS }
    }

    /// Sums of a step.
    fn step_sums(&self) -> usize {
        self.rows.next_multiple_of(self.height()) * self.width() * PANEL
    }

    /// Panels of the weight.
    fn all_panels(&self) -> usize {
        self.linear.n.div_ceil(PANEL)
    }

    fn steps(&self) -> usize {
        self.all_panels().div_ceil(self.width())
    }

    /// A step's panels. Where halves meet in the epilogue, a step has as many of each; the last panel stands in for those that
    /// are missing, and nobody reads its sums.
    fn panels(&self, step: usize) -> [usize; NARROW_PANELS] {
        let (width, all) = (self.width(), self.all_panels());
        std::array::from_fn(|i| match self.epilogue {
            Epilogue::Bias => (step * width + i).min(all - 1),
            Epilogue::SwiGlu => {
                let (half, each) = (i % width / (width / 2), width / 2);
                half * (all / 2) + (step * each + i % each).min(all / 2 - 1)
            }
        })
    }

    /// Groups of steps, as many for each thread.
    fn groups(&self, threads: usize) -> usize {
        let fewest = self.steps().div_ceil(GROUP_PANELS / self.width());
        fewest.max(threads * GROUPS_A_THREAD).next_multiple_of(threads).min(self.steps())
    }

    /// Does a group of steps, one block of depth after the other.
    fn run(&self, group: Range<usize>, scratch: &mut ThreadScratch) {
        let ThreadScratch { sums, split } = scratch;
        // SAFETY: these kernels were given out because the machine has the instructions.
        unsafe { (self.tiles.configure)(self.shape) };
        for block in 0..self.layout.blocks() {
            for (step, sums) in group.clone().zip(sums.chunks_exact_mut(self.step_sums())) {
                let b = self.weights(step, &self.layout.tiles(block), split);
                let ahead = self.ahead(&group, step, block);
                self.step(step, block, b, sums, &ahead);
            }
        }
        // SAFETY: as above.
        unsafe { (self.tiles.release)() };
    }

    /// All rows by a step's panels over a block of depth; after the last block their sums are finished.
    fn step(
        &self,
        step: usize,
        block: usize,
        b: [*const u8; NARROW_PANELS],
        sums: &mut [f32],
        ahead: &Ahead,
    ) {
        let tiles = self.layout.tiles(block).len();
        let products = self.rows.div_ceil(self.height());
        for (i, c) in sums.chunks_exact_mut(self.height() * self.width() * PANEL).enumerate() {
            let a = [0, self.height() / TILE_ROWS - 1].map(|second| {
                let rows = i * self.height() / TILE_ROWS + second;
                self.packed[self.layout.at(block, rows)..].as_ptr()
            });
            if self.shape == Shape::Wide {
                self.fetch(ahead, i, products);
            }
            let fresh = block == 0;
            let product = TileProduct { shape: self.shape, a, b, tiles, fresh, c: c.as_mut_ptr() };
            // SAFETY: blocks, panels and sums hold the shape, which this thread has configured.
            unsafe { (self.tiles.multiply)(&product) };
            if block + 1 == self.layout.blocks() {
                self.write_out(step, i * self.height(), c);
            }
        }
    }

    /// What comes after a step's block of depth. The last step is followed by the next group's first, most likely.
    fn ahead(&self, group: &Range<usize>, step: usize, block: usize) -> Ahead {
        let after = (block + 1) % self.layout.blocks();
        let next = match step + 1 {
            next if next < group.end => (next, block),
            next => (if after == 0 { next } else { group.start }, after),
        };
        Ahead {
            panels: self.panels(next.0),
            tiles: self.layout.tiles(next.1),
            block: after,
            place: step - group.start,
            places: group.len(),
        }
    }

    /// Asks for what comes next, this one of so many products' part of it: weights from memory, rows from L3.
    fn fetch(&self, ahead: &Ahead, product: usize, products: usize) {
        let fetch = |bytes: &[u8], i: usize, n: usize| prefetch(&bytes[part(bytes.len(), i, n)]);
        for &panel in &ahead.panels[..self.width()] {
            fetch(self.linear.tiles(panel, ahead.tiles.start, ahead.tiles.len()), product, products);
        }
        let rows = &self.packed[self.layout.at(ahead.block, 0)..self.layout.at(ahead.block + 1, 0)];
        fetch(rows, ahead.place * products + product, ahead.places * products);
    }

    /// A step's panels over a block of depth, in parts.
    fn weights(&self, step: usize, block: &Range<usize>, split: &mut [u8]) -> [*const u8; NARROW_PANELS] {
        let bytes = block.len() * self.layout.tile_bytes;
        let mut out = [std::ptr::null(); NARROW_PANELS];
        for (i, panel) in self.panels(step).into_iter().enumerate().take(self.width()) {
            let stored = self.linear.tiles(panel, block.start, block.len());
            out[i] = match self.tiles.split {
                None => stored.as_ptr(),
                Some(cut) => {
                    let parts = &mut split[i * bytes..(i + 1) * bytes];
                    // SAFETY: a block's tiles in, as many of each part out.
                    unsafe { cut(stored.as_ptr(), block.len(), parts.as_mut_ptr()) };
                    parts.as_ptr()
                }
            };
        }
        out
    }

    /// A product's sums, of rows from `first` on, to `out`.
    fn write_out(&self, step: usize, first: usize, sums: &mut [f32]) {
        let rows = first..self.rows.min(first + self.height());
        for (row, sums) in rows.zip(sums.chunks_exact_mut(self.width() * PANEL)) {
            match self.epilogue {
                Epilogue::Bias => self.finish(row, step, sums),
                Epilogue::SwiGlu => self.join(row, step, sums),
            }
        }
    }

    /// Where columns of a row from a panel on are written, `numbers` of them or as many as there are panels of `all`.
    #[expect(clippy::mut_from_ref, reason = "threads share the matrix by columns")]
    fn columns(&self, row: usize, panel: usize, numbers: usize, all: usize) -> &mut [f32] {
        let begin = row * self.out_stride;
        let end = (panel * PANEL + numbers).min(all * PANEL);
        // SAFETY: a row's columns of these panels belong to this thread.
        unsafe { self.out.range(begin + panel * PANEL..begin + end) }
    }

    /// Consecutive columns of a row, with bias and rounding.
    fn finish(&self, row: usize, step: usize, sums: &[f32]) {
        let [panel, ..] = self.panels(step);
        let out = self.columns(row, panel, sums.len(), self.all_panels());
        out.copy_from_slice(&sums[..out.len()]);
        // SAFETY: whole panels; the bias is padded to them.
        unsafe { (self.kernels.finish)(out.as_mut_ptr(), self.linear.bias(panel * PANEL), out.len()) };
    }

    /// Columns of both halves of a row, joined.
    fn join(&self, row: usize, step: usize, sums: &mut [f32]) {
        let (panels, each) = (self.panels(step), sums.len() / 2);
        let (gate, up) = sums.split_at_mut(each);
        let out = self.columns(row, panels[0], each, self.all_panels() / 2);
        for (half, panel) in [(&mut *gate, panels[0]), (&mut *up, panels[self.width() / 2])] {
            // SAFETY: whole panels; the bias is padded to them.
            unsafe {
                (self.kernels.finish)(half.as_mut_ptr(), self.linear.bias(panel * PANEL), out.len());
            }
        }
        // SAFETY: as many numbers of either half, a multiple of sixteen.
        unsafe { (self.kernels.swiglu)(gate.as_ptr(), up.as_ptr(), out.len(), out.as_mut_ptr()) };
    }
}

/// What is wanted after a step's block of depth.
struct Ahead {
    /// The next step's panels.
    panels: [usize; NARROW_PANELS],
    /// The tiles of its block of depth.
    tiles: Range<usize>,
    /// The next block of depth of the rows.
    block: usize,
    /// Which of so many parts of it to ask for.
    place: usize,
    /// So many.
    places: usize,
}
