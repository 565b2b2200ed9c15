//! A linear layer's product by tiles: rows packed into tiles, panels of weights streamed past them.

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
/// Bytes of panels that stay in L1 while rows pass by.
const BLOCK_BYTES: usize = 32 << 10;

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
    /// Sums of all rows by a group of panels.
    sums: Buffer<f32>,
    /// Panels of a block of depth, cut into parts.
    split: Buffer<u8>,
}

impl TileScratch {
    /// For a team of threads.
    pub fn new(threads: usize) -> Result<Self, DeviceError> {
        let of_thread = || {
            let sums = Buffer::zeroed(BLOCK_ROWS * WIDE * PANEL, WHAT)?;
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

/// What the memory is for.
const WHAT: &str = "activations in tiles";
/// Pieces that the panels are cut into for each thread: the threads end together even if one was held up.
const PIECES_A_THREAD: usize = 4;

/// Bytes of sixteen rows of `k` numbers.
fn block_bytes(k: usize, tiles: &TileKernels) -> usize {
    k.div_ceil(TILE_DEPTH) * tiles.parts * TILE_BYTES
}

/// `out = x * weight^T + bias`, rounded.
pub fn apply(
    linear: &Linear,
    x: Rows<'_>,
    out: &mut RowsMut<'_>,
    tiles: &TileKernels,
    kernels: &Kernels,
    (scratch, pool): (&mut TileScratch, &mut Pool),
) {
    let panels = linear.n.div_ceil(PANEL);
    for first in (0..x.rows).step_by(BLOCK_ROWS) {
        let rows = BLOCK_ROWS.min(x.rows - first);
        let x = Rows { data: &x.data[first * x.stride..], rows, stride: x.stride };
        pack(x, linear.k, &mut scratch.rows, tiles, pool);
        let (shape, group) =
            if rows <= TILE_ROWS { (Shape::Narrow { rows }, NARROW_PANELS) } else { (Shape::Wide, WIDE) };
        let (packed, out_stride) = (&scratch.rows, out.stride);
        let shared = SharedSlice::new(&mut out.data[first * out_stride..]);
        let job = Job { linear, rows, shape, group, packed, tiles, kernels, out: &shared, out_stride };
        let groups = panels.div_ceil(group);
        let pieces = groups.min(pool.threads() * PIECES_A_THREAD);
        pool.each(pieces, rows * linear.n * linear.k, &|thread, piece| {
            let begin = |piece: usize| panels.min(groups * piece / pieces * group);
            let mut scratch = scratch.threads[thread].lock().unwrap_or_else(PoisonError::into_inner);
            job.run(begin(piece)..begin(piece + 1), &mut scratch);
        });
    }
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

struct Job<'a> {
    linear: &'a Linear,
    rows: usize,
    shape: Shape,
    /// Panels of the shape.
    group: usize,
    packed: &'a [u8],
    tiles: &'a TileKernels,
    kernels: &'a Kernels,
    out: &'a SharedSlice<'a, f32>,
    out_stride: usize,
}

impl Job<'_> {
    fn run(&self, panels: Range<usize>, scratch: &mut ThreadScratch) {
        // SAFETY: these kernels were given out because the machine has the instructions.
        unsafe { (self.tiles.configure)(self.shape) };
        let sums = self.rows.next_multiple_of(self.step()) * self.group * PANEL;
        for first in panels.clone().step_by(self.group) {
            let panels = first..panels.end.min(first + self.group);
            scratch.sums[..sums].fill(0.0);
            self.multiply(&panels, scratch);
            self.write_out(&panels, &scratch.sums);
        }
        // SAFETY: as above.
        unsafe { (self.tiles.release)() };
    }

    /// Rows of one product.
    fn step(&self) -> usize {
        if self.shape == Shape::Wide { WIDE * TILE_ROWS } else { TILE_ROWS }
    }

    /// All rows by a group of panels, one block of depth after the other.
    fn multiply(&self, panels: &Range<usize>, scratch: &mut ThreadScratch) {
        let depth = self.linear.k.div_ceil(TILE_DEPTH);
        let parts = self.tiles.parts;
        let bytes = block_bytes(self.linear.k, self.tiles);
        // Panels that one block of rows passes need no blocks of depth, unless they are to be cut into parts.
        let once = self.shape != Shape::Wide && self.tiles.split.is_none();
        let block = if once { depth } else { BLOCK_BYTES / (self.group * parts * TILE_BYTES) };
        for begin in (0..depth).step_by(block) {
            let tiles = block.min(depth - begin);
            let b = self.panels(panels, begin, tiles, &mut scratch.split);
            for row in (0..self.rows).step_by(self.step()) {
                // A wide product's second block may lie past the rows: there is room for it, and nobody reads its sums.
                let a = [0, 1].map(|second| {
                    let rows = (row / TILE_ROWS + second).min(BLOCK_ROWS / TILE_ROWS - 1);
                    self.packed[rows * bytes + begin * parts * TILE_BYTES..].as_ptr()
                });
                let c = scratch.sums[row * self.group * PANEL..].as_mut_ptr();
                let product = TileProduct { shape: self.shape, a, b, tiles, c };
                // SAFETY: blocks, panels and sums hold the shape, which this thread has configured.
                unsafe { (self.tiles.multiply)(&product) };
            }
        }
    }

    /// A block of depth of each panel of the group, in parts; the last panel stands in for those that are missing.
    fn panels(
        &self,
        panels: &Range<usize>,
        begin: usize,
        tiles: usize,
        split: &mut [u8],
    ) -> [*const u8; NARROW_PANELS] {
        let mut out = [std::ptr::null(); NARROW_PANELS];
        let bytes = tiles * self.tiles.parts * TILE_BYTES;
        for (i, panel) in panels.clone().enumerate() {
            let stored = self.linear.tiles(panel, begin, tiles);
            out[i] = match self.tiles.split {
                None => stored.as_ptr(),
                Some(cut) => {
                    let parts = &mut split[i * bytes..(i + 1) * bytes];
                    // SAFETY: `tiles` tiles in, as many of each part out.
                    unsafe { cut(stored.as_ptr(), tiles, parts.as_mut_ptr()) };
                    parts.as_ptr()
                }
            };
        }
        let last = out[panels.len() - 1];
        out[panels.len()..].fill(last);
        out
    }

    /// Sums to `out`, with bias and rounding.
    fn write_out(&self, panels: &Range<usize>, sums: &[f32]) {
        let columns = panels.start * PANEL..panels.end * PANEL;
        let bias = self.linear.bias(columns.start);
        for row in 0..self.rows {
            let begin = row * self.out_stride;
            // SAFETY: a row's columns of these panels belong to this thread.
            let out = unsafe { self.out.range(begin + columns.start..begin + columns.end) };
            out.copy_from_slice(&sums[row * self.group * PANEL..][..out.len()]);
            // SAFETY: whole panels; the bias is padded to them.
            unsafe { (self.kernels.finish)(out.as_mut_ptr(), bias, out.len()) };
        }
    }
}
