//! Working memory of integer products: a block of rows as integers, and every thread's sums.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::device::DeviceError;
use crate::device::cpu::buffer::{Buffer, SharedSlice};
use crate::device::cpu::linear::Rows;
use crate::device::cpu::pool::Pool;
use crate::device::cpu::tiles::{TILE_BYTES, TILE_ROWS};

use super::kernels::{Int8Kernels, Multiply, Scaled, TILE_K, TileRow};
use super::rows;
use super::tiles::{BLOCK_TILES, SUMS, WIDE};

/// Rows that are multiplied while a panel lies in cache; more rows read the weights again.
pub const BLOCK_ROWS: usize = 512;
/// Numbers of sixteen rows by a block of depth.
pub const BLOCK_NUMBERS: usize = BLOCK_TILES * TILE_BYTES;

/// What the memory is for.
const WHAT: &str = "activations as integers";

/// Rows of activations as integers, and room for sums: taken once for the widest.
#[derive(Debug)]
pub struct Quantised {
    data: Buffer<i8>,
    scaled: Vec<Scaled>,
    /// A thread's sums.
    sums: Vec<Mutex<Buffer<i32>>>,
    threads: usize,
}

impl Quantised {
    /// Room for nothing, for so many threads.
    pub fn new(threads: usize) -> Result<Self, DeviceError> {
        Ok(Self { data: Buffer::zeroed(0, WHAT)?, scaled: Vec::new(), sums: Vec::new(), threads })
    }

    /// Makes room for so many rows of `width` numbers; what was in it is lost.
    pub fn reserve(&mut self, rows: usize, width: usize) -> Result<(), DeviceError> {
        let rows = rows.min(BLOCK_ROWS).next_multiple_of(WIDE * TILE_ROWS);
        let numbers = rows * width.next_multiple_of(BLOCK_TILES * TILE_K).max(row_stride(width));
        if numbers > self.data.len() {
            self.data = Buffer::zeroed(numbers, WHAT)?;
        }
        if rows > self.scaled.len() {
            self.scaled.resize(rows, Scaled { scale: 0.0, sum: 0 });
        }
        while self.sums.len() < self.threads {
            self.sums.push(Mutex::new(Buffer::zeroed(SUMS, WHAT)?));
        }
        Ok(())
    }

    /// Takes the first `k` numbers of each of a block's rows, in the order that the kernels want.
    pub fn fill(&mut self, x: Rows<'_>, k: usize, kernels: &Int8Kernels, pool: &mut Pool) {
        let (stride, blocks) = (row_stride(k), row_blocks(x.rows));
        let (data, scaled) = (self.data.shared(), SharedSlice::new(&mut self.scaled));
        pool.split(x.rows, x.rows * k, &|rows| {
            for row in rows {
                let x = &x.data[row * x.stride..row * x.stride + k];
                // SAFETY: a row is one thread's; there is room for it; the kernels belong to this machine.
                unsafe {
                    scaled.range(row..row + 1)[0] = match kernels.multiply {
                        Multiply::Rows { .. } => {
                            let row = row * stride;
                            (kernels.quantise)(x, data.range(row..row + k.next_multiple_of(TILE_K)))
                        }
                        Multiply::Tiles(_) => {
                            let at = row / TILE_ROWS * BLOCK_NUMBERS + row % TILE_ROWS * TILE_K;
                            let to =
                                TileRow { first: data.pointer(at), block_stride: blocks * BLOCK_NUMBERS };
                            Scaled { scale: (kernels.quantise_tiles)(x, to), sum: 0 }
                        }
                    };
                }
            }
        });
    }

    /// The integers.
    pub fn data(&self) -> &[i8] {
        &self.data
    }

    /// Scales and sums of the rows.
    pub fn scaled(&self) -> &[Scaled] {
        &self.scaled
    }

    /// A thread's room for sums.
    pub fn sums(&self, thread: usize) -> MutexGuard<'_, Buffer<i32>> {
        self.sums[thread].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Numbers between rows that lie one after the other: an odd number of blocks of depth, so that a block of several rows is
/// spread over the sets of a cache.
pub fn row_stride(k: usize) -> usize {
    (k.div_ceil(rows::BLOCK_K) | 1) * rows::BLOCK_K
}

/// Blocks of sixteen that rows in tiles lie in: a pair for each wide product.
pub fn row_blocks(rows: usize) -> usize {
    if rows <= TILE_ROWS { 1 } else { rows.div_ceil(WIDE * TILE_ROWS) * WIDE }
}
