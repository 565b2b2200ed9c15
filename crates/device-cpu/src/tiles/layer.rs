//! Linear layers in bf16 and fp16 with tiles.

use std::ops::Range;

use crate::buffer::{Buffer, SharedSlice};
use crate::kernels::{Kernels, PANEL};
use crate::linear::{Epilogue, Linear, Rows, RowsMut};
use crate::pool::Pool;
use crate::scratch::Scratch;

use super::macro_kernel::{BLOCK_BYTES, Layer, Layout, MacroKernel, blocks_of_rows};
use super::{Split, TILE_BYTES, TILE_DEPTH, TILE_ROWS, TileKernels, TileUnit};

/// Returns the size of a row of `k` numbers in tiles, padded to the largest block of depth, in bytes.
pub(crate) fn row_bytes(k: usize, tiles: &TileKernels) -> usize {
    k.div_ceil(TILE_DEPTH).next_multiple_of(BLOCK_BYTES / TILE_BYTES) * tiles.parts * (TILE_BYTES / TILE_ROWS)
}

/// Computes `out = epilogue(x * weight^T + bias)`. The scratch must have [space](row_bytes) for the rows.
pub(crate) fn apply(
    linear: &Linear,
    x: Rows<'_>,
    epilogue: Epilogue,
    out: &mut RowsMut<'_>,
    (tiles, kernels): (&TileKernels, &Kernels),
    (scratch, pool): (&mut Scratch, &mut Pool),
) {
    for rows in blocks_of_rows(x.rows) {
        let x = x.range(&rows);
        let layout = Layout::new(x.rows, linear.k.div_ceil(TILE_DEPTH), tiles.parts);
        pack(x, linear.k, &layout, &mut scratch.rows, tiles, pool);
        let out_stride = out.stride;
        let out = SharedSlice::new(&mut out.data[rows.start * out_stride..]);
        let work = x.rows * linear.n * linear.k;
        let layer = FloatLayer { linear, rows: x.rows, epilogue, tiles, kernels, out, out_stride };
        let (halves, outputs, threads) = (epilogue.halves(), layer.outputs(), pool.threads());
        MacroKernel { layer: &layer, halves, outputs, layout, scratch, threads }.run(work, pool);
    }
}

/// Packs rows into tiles.
fn pack(x: Rows<'_>, k: usize, layout: &Layout, to: &mut Buffer<u8>, tiles: &TileKernels, pool: &mut Pool) {
    let shared = to.shared();
    pool.split(x.rows.div_ceil(TILE_ROWS), x.rows * k, &|blocks| {
        for row in blocks.start * TILE_ROWS..x.rows.min(blocks.end * TILE_ROWS) {
            let x = &x.data[row * x.stride..][..k];
            for (block, x) in x.chunks(layout.block() * TILE_DEPTH).enumerate() {
                let to = shared.pointer(layout.at(block, row / TILE_ROWS));
                // SAFETY: the tiles of these sixteen rows, which one thread writes, were reserved.
                unsafe { (tiles.pack_row)(x.as_ptr(), x.len(), to, row % TILE_ROWS) };
            }
        }
    });
}

/// A layer, with the destination of the results of a block of rows.
struct FloatLayer<'a> {
    linear: &'a Linear,
    rows: usize,
    epilogue: Epilogue,
    tiles: &'a TileKernels,
    kernels: &'a Kernels,
    out: SharedSlice<'a, f32>,
    out_stride: usize,
}

impl FloatLayer<'_> {
    /// Returns the number of output panels.
    fn outputs(&self) -> usize {
        self.linear.n.div_ceil(PANEL) / self.epilogue.halves()
    }
}

impl Layer for FloatLayer<'_> {
    type Sum = f32;

    fn unit(&self) -> TileUnit {
        self.tiles.unit
    }

    fn split(&self) -> Option<Split> {
        self.tiles.split
    }

    fn stored(&self, panel: usize, tiles: &Range<usize>) -> &[u8] {
        self.linear.tiles(panel, tiles)
    }

    /// Adds the bias, rounds, and applies the epilogue.
    fn finish(&self, (sums, _): (&mut [f32], &mut [f32]), first: usize, outputs: Range<usize>, each: usize) {
        let (numbers, columns) = (each * PANEL, outputs.len() * PANEL);
        let rows = sums.chunks_exact_mut(self.epilogue.halves() * numbers);
        for (row, sums) in (first..self.rows).zip(rows) {
            for (half, sums) in sums.chunks_exact_mut(numbers).enumerate() {
                let panel = half * self.outputs() + outputs.start;
                // SAFETY: whole panels; the bias is padded to them.
                unsafe {
                    (self.kernels.finish)(sums.as_mut_ptr(), self.linear.bias(panel * PANEL), columns);
                }
            }
            let begin = row * self.out_stride + outputs.start * PANEL;
            // SAFETY: a row's columns of these outputs belong to this thread.
            let out = unsafe { self.out.range(begin..begin + columns) };
            match self.epilogue {
                Epilogue::Bias => out.copy_from_slice(&sums[..columns]),
                Epilogue::SwiGlu => {
                    let (gate, up) = sums.split_at(numbers);
                    // SAFETY: both halves have the same number of numbers, a multiple of sixteen.
                    unsafe { (self.kernels.swiglu)(gate.as_ptr(), up.as_ptr(), columns, out.as_mut_ptr()) };
                }
            }
        }
    }
}
