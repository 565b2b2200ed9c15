//! A linear layer's product by tiles: rows packed into tiles, panels of weights streamed past them.
//!
//! What is read again lies near. A pair of panels by a block of depth stays in L1 while all rows pass by, sixteen or
//! thirty-two at a time; the rows of that block of depth stay in L2 for the pairs of a group, and so do the group's sums until
//! the depth is through. So weights come from memory once, rows from L3 once a group. Counted for 512 rows by 32 columns in
//! bf16, the products of one tile of depth take 1,024 cycles (64 for each 32 by 32 sums) and want 32 KiB from L2, where 48 KiB
//! can be had; what comes from further away is asked for while the step before is multiplied.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::device::DeviceError;
use crate::device::cpu::buffer::{Buffer, SharedSlice};
use crate::device::cpu::kernels::{Kernels, PANEL};
use crate::device::cpu::linear::{Linear, Rows, RowsMut};
use crate::device::cpu::pool::Pool;

use super::{NARROW_PANELS, Shape, TILE_BYTES, TILE_DEPTH, TILE_ROWS, TileKernels, TileProduct, WIDE};

/// Rows that are multiplied while a panel lies in cache; more rows read the weights again.
const BLOCK_ROWS: usize = 512;
/// Bytes of a step's panels by a block of depth. With as much of thirty-two rows and their sums beside them they are to fit
/// 48 KiB of L1.
const BLOCK_BYTES: usize = 20 << 10;
/// Panels of a group at most: of 2 MiB of L2 the sums of 512 rows take 768 KiB, the rows of two blocks of depth 640 KiB and
/// the panels that pass by 240 KiB.
const GROUP_PANELS: usize = 24;
/// Groups for each thread at least: the threads end together even if one was held up.
const GROUPS_A_THREAD: usize = 4;
/// What the memory is for.
const WHAT: &str = "activations in tiles";

/// Working memory, taken while the weights are loaded.
#[derive(Debug)]
pub struct TileScratch {
    /// The rows of a product, packed.
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
        let bytes = BLOCK_ROWS / TILE_ROWS * block_bytes(k, tiles);
        if self.rows.len() < bytes {
            self.rows = Buffer::zeroed(bytes, WHAT)?;
        }
        Ok(())
    }
}

/// Bytes of sixteen rows of `k` numbers.
fn block_bytes(k: usize, tiles: &TileKernels) -> usize {
    k.div_ceil(TILE_DEPTH) * tiles.parts * TILE_BYTES
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
        pack(x, linear.k, &mut scratch.rows, tiles, pool);
        let shape = if rows <= TILE_ROWS { Shape::Narrow { rows } } else { Shape::Wide };
        let (packed, out_stride) = (&scratch.rows, out.stride);
        let shared = SharedSlice::new(&mut out.data[first * out_stride..]);
        let job = Job { linear, rows, shape, packed, epilogue, tiles, kernels, out: &shared, out_stride };
        let (steps, groups) = (0..job.steps(), job.groups(pool.threads()));
        pool.each(groups, rows * linear.n * linear.k, &|thread, group| {
            let mut scratch = scratch.threads[thread].lock().unwrap_or_else(PoisonError::into_inner);
            job.run(part(&steps, group, groups), &mut scratch);
        });
    }
}

/// One of so many like parts of a range.
fn part(range: &Range<usize>, index: usize, parts: usize) -> Range<usize> {
    range.start + range.len() * index / parts..range.start + range.len() * (index + 1) / parts
}

/// Writes the rows into blocks of sixteen.
fn pack(x: Rows<'_>, k: usize, packed: &mut Buffer<u8>, tiles: &TileKernels, pool: &mut Pool) {
    let bytes = block_bytes(k, tiles);
    let shared = packed.shared();
    pool.split(x.rows.div_ceil(TILE_ROWS), x.rows * k, &|blocks| {
        for row in blocks.start * TILE_ROWS..x.rows.min(blocks.end * TILE_ROWS) {
            let block = shared.pointer(row / TILE_ROWS * bytes);
            // SAFETY: the row holds `k` numbers; its block, which one thread writes, was reserved for them.
            unsafe { (tiles.pack_row)(x.data[row * x.stride..][..k].as_ptr(), k, block, row % TILE_ROWS) };
        }
    });
}

/// A product of up to [`BLOCK_ROWS`] rows. Its steps are what the tiles of sums hold at a time: four panels of few rows, two of
/// many.
struct Job<'a> {
    linear: &'a Linear,
    rows: usize,
    shape: Shape,
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

    /// Tiles of depth.
    fn depth(&self) -> usize {
        self.linear.k.div_ceil(TILE_DEPTH)
    }

    /// Blocks of depth. Panels that one block of rows passes need none, unless they are to be cut into parts.
    fn blocks(&self) -> usize {
        if self.shape != Shape::Wide && self.tiles.split.is_none() {
            return 1;
        }
        self.depth().div_ceil(BLOCK_BYTES / (self.width() * self.tiles.parts * TILE_BYTES))
    }

    /// Groups of steps, as many for each thread.
    fn groups(&self, threads: usize) -> usize {
        let fewest = self.steps().div_ceil(GROUP_PANELS / self.width());
        fewest.max(threads * GROUPS_A_THREAD).next_multiple_of(threads).min(self.steps())
    }

    /// Does a group of steps.
    fn run(&self, group: Range<usize>, scratch: &mut ThreadScratch) {
        scratch.sums[..group.len() * self.step_sums()].fill(0.0);
        // SAFETY: these kernels were given out because the machine has the instructions.
        unsafe { (self.tiles.configure)(self.shape) };
        self.multiply(&group, scratch);
        // SAFETY: as above.
        unsafe { (self.tiles.release)() };
        self.write_out(&group, &mut scratch.sums);
    }

    /// All rows by a group of steps, one block of depth after the other.
    fn multiply(&self, group: &Range<usize>, scratch: &mut ThreadScratch) {
        let blocks = self.blocks();
        let block = |i: usize| part(&(0..self.depth()), i, blocks);
        for i in 0..blocks {
            for (place, step) in group.clone().enumerate() {
                let sums = &mut scratch.sums[place * self.step_sums()..][..self.step_sums()];
                let b = self.weights(step, &block(i), &mut scratch.split);
                let after = (i + 1) % blocks;
                // The last step is followed by the next group's first, most likely.
                let next = match step + 1 {
                    next if next < group.end => (next, i),
                    next => (if after == 0 { next } else { group.start }, after),
                };
                let ahead = Ahead {
                    panels: self.panels(next.0),
                    block: block(next.1),
                    rows: (block(after), place, group.len()),
                };
                self.step(&block(i), b, sums, &ahead);
            }
        }
    }

    /// All rows by a step's panels over a block of depth.
    fn step(&self, block: &Range<usize>, b: [*const u8; NARROW_PANELS], sums: &mut [f32], ahead: &Ahead) {
        let parts = self.tiles.parts;
        let bytes = block_bytes(self.linear.k, self.tiles);
        let products = self.rows.div_ceil(self.height());
        for (i, c) in sums.chunks_exact_mut(self.height() * self.width() * PANEL).enumerate() {
            // A wide product's second block may lie past the rows: there is room for it, and nobody reads its sums.
            let a = [0, 1].map(|second| {
                let rows = (i * self.height() / TILE_ROWS + second).min(BLOCK_ROWS / TILE_ROWS - 1);
                self.packed[rows * bytes + block.start * parts * TILE_BYTES..].as_ptr()
            });
            if self.shape == Shape::Wide {
                self.fetch(ahead, i, products);
            }
            let product = TileProduct { shape: self.shape, a, b, tiles: block.len(), c: c.as_mut_ptr() };
            // SAFETY: blocks, panels and sums hold the shape, which this thread has configured.
            unsafe { (self.tiles.multiply)(&product) };
        }
    }

    /// Asks for what comes next, this one of so many products' part of it: weights from memory, rows from L3.
    fn fetch(&self, ahead: &Ahead, product: usize, products: usize) {
        let fetch = |bytes: &[u8], (i, n): (usize, usize)| {
            let bytes = &bytes[part(&(0..bytes.len()), i, n)];
            // SAFETY: the machine has the instruction; the bytes are there.
            unsafe { (self.tiles.prefetch)(bytes.as_ptr(), bytes.len()) };
        };
        for &panel in &ahead.panels[..self.width()] {
            fetch(self.linear.tiles(panel, ahead.block.start, ahead.block.len()), (product, products));
        }
        let bytes = block_bytes(self.linear.k, self.tiles);
        let (block, place, places) = &ahead.rows;
        let tile = self.tiles.parts * TILE_BYTES;
        for rows in product * WIDE..((product + 1) * WIDE).min(self.rows.div_ceil(TILE_ROWS)) {
            let packed = &self.packed[rows * bytes..][block.start * tile..block.end * tile];
            fetch(packed, (*place, *places));
        }
    }

    /// A step's panels over a block of depth, in parts.
    fn weights(&self, step: usize, block: &Range<usize>, split: &mut [u8]) -> [*const u8; NARROW_PANELS] {
        let bytes = block.len() * self.tiles.parts * TILE_BYTES;
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

    /// A group's sums to `out`, row after row.
    fn write_out(&self, group: &Range<usize>, sums: &mut [f32]) {
        let (columns, of_step) = (self.width() * PANEL, self.step_sums());
        for row in 0..self.rows {
            for (place, step) in group.clone().enumerate() {
                let sums = &mut sums[place * of_step + row * columns..][..columns];
                match self.epilogue {
                    Epilogue::Bias => self.finish(row, step, sums),
                    Epilogue::SwiGlu => self.join(row, step, sums),
                }
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

/// What is wanted after a step.
struct Ahead {
    /// The next step's panels.
    panels: [usize; NARROW_PANELS],
    /// The next step's block of depth.
    block: Range<usize>,
    /// The rows' next block of depth, and which of so many parts of it to ask for.
    rows: (Range<usize>, usize, usize),
}
