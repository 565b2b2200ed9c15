//! Linear layers in bf16 and fp16 with tiles.

use std::ops::Range;

use glmbench_device::{DeviceError, HostTensor, LinearWeight};

use crate::buffer::{Buffer, SharedSlice, is_streamed};
use crate::elementwise::{Finish, Stream, SwiGlu};
use crate::pack::{Linear, Order, PANEL, Rows, RowsMut, TILE_BYTES, TILE_DEPTH, TILE_ROWS};
use crate::packs::Packs;
use crate::pool::Pool;
use crate::product::{Epilogue, PackedWeight, Scratch, WeightKernels};
use crate::simd::Vectors;

use super::macro_kernel::{BLOCK_BYTES, BLOCK_ROWS, Layer, Layout, MacroKernel, blocks_of_rows};
use super::{Shape, TileKernels, TileUnit, Unpack};

/// Rows up to which sixteen at a time are faster than all at once, if a product of few rows splits panels on the way.
const SPLIT_ROWS: usize = 32;

/// Products with tiles.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TileLayers {
    pub(crate) tiles: TileKernels,
    pub(crate) vectors: Vectors,
    /// Name for the record.
    pub(crate) name: &'static str,
}

impl WeightKernels for TileLayers {
    fn name(&self) -> &'static str {
        self.name
    }

    fn pack(
        &self,
        weight: LinearWeight<'_>,
        bias: Option<HostTensor<'_>>,
        at: (&mut Packs, &mut Pool),
    ) -> Result<Box<dyn PackedWeight>, DeviceError> {
        let weight = weight.dense(crate::NAME)?;
        let linear = Linear::pack(weight, bias, Order::tiles(weight.width), self.vectors, at)?;
        Ok(Box::new(TileLinear { linear, kernels: *self }))
    }

    fn bytes(&self, n: usize, k: usize, _group: usize) -> usize {
        Linear::bytes(n, Order::tiles(k), self.vectors.dtype())
    }

    /// Rows are padded to the largest block of depth.
    fn row_bytes(&self, k: usize, _group: usize) -> Option<usize> {
        let tiles = k.div_ceil(TILE_DEPTH).next_multiple_of(BLOCK_BYTES / TILE_BYTES);
        Some(tiles * self.tiles.parts * (TILE_BYTES / TILE_ROWS))
    }
}

/// A weight that tiles multiply.
#[derive(Debug)]
struct TileLinear {
    linear: Linear,
    kernels: TileLayers,
}

impl PackedWeight for TileLinear {
    fn shape(&self) -> (usize, usize) {
        (self.linear.n, self.linear.k)
    }

    fn ends_with_swiglu(&self) -> bool {
        true
    }

    fn multiply(
        &self,
        x: Rows<'_>,
        epilogue: Epilogue,
        out: &mut RowsMut<'_>,
        scratch: &mut Scratch,
        pool: &mut Pool,
    ) {
        let Self { linear, kernels: TileLayers { tiles, vectors, .. } } = self;
        let most = if tiles.unit.takes_stored(Shape::of(TILE_ROWS)) && x.rows <= SPLIT_ROWS {
            TILE_ROWS
        } else {
            BLOCK_ROWS
        };
        for rows in blocks_of_rows(x.rows, most) {
            let x = x.range(&rows);
            let layout = Layout::new(x.rows, linear.k.div_ceil(TILE_DEPTH), &tiles.unit);
            pack(x, linear.k, &layout, &mut scratch.rows, tiles, pool);
            let out_stride = out.stride;
            let out = SharedSlice::new(&mut out.data[rows.start * out_stride..]);
            let work = x.rows * linear.n * linear.k;
            let streamed = is_streamed(x.rows * linear.n / epilogue.halves());
            let (rows, vectors) = (x.rows, *vectors);
            let layer = FloatLayer { linear, rows, epilogue, tiles, vectors, out, out_stride, streamed };
            let (halves, outputs, threads) = (epilogue.halves(), layer.outputs(), pool.threads());
            MacroKernel { layer: &layer, halves, outputs, layout, scratch, threads }.run(work, pool);
        }
    }
}

/// Packs rows into tiles.
fn pack(x: Rows<'_>, k: usize, layout: &Layout, to: &mut Buffer<u8>, tiles: &TileKernels, pool: &mut Pool) {
    let shared = to.shared();
    pool.split(x.rows.div_ceil(TILE_ROWS), x.rows * k, &|blocks| {
        for row in blocks.start * TILE_ROWS..x.rows.min(blocks.end * TILE_ROWS) {
            let x = &x.data[row * x.stride..][..k];
            for (block, x) in x.chunks(layout.block() * TILE_DEPTH).enumerate() {
                let at = layout.at(block, row / TILE_ROWS);
                let bytes = x.len().div_ceil(TILE_DEPTH) * tiles.parts * TILE_BYTES;
                // SAFETY: one thread writes the tiles of these sixteen rows.
                let to = unsafe { shared.range(at..at + bytes) };
                tiles.pack_row(x, to, row % TILE_ROWS);
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
    vectors: Vectors,
    out: SharedSlice<'a, f32>,
    out_stride: usize,
    /// Whether the results are streamed past the caches.
    streamed: bool,
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

    fn unpack(&self) -> Option<Unpack> {
        self.tiles.unpack()
    }

    fn stored(&self, panel: usize, tiles: &Range<usize>) -> &[u8] {
        self.linear.tiles(panel, tiles)
    }

    /// Adds the bias, rounds, and applies the epilogue.
    fn finish(&self, sums: &mut [f32], first: usize, outputs: Range<usize>, each: usize) {
        let (numbers, columns) = (each * PANEL, outputs.len() * PANEL);
        let rows = sums.chunks_exact_mut(self.epilogue.halves() * numbers);
        for (row, sums) in (first..self.rows).zip(rows) {
            for (half, sums) in sums.chunks_exact_mut(numbers).enumerate() {
                let column = (half * self.outputs() + outputs.start) * PANEL;
                let bias = self.linear.bias(column..column + columns);
                self.vectors.run(Finish { sums: &mut sums[..columns], bias });
            }
            let begin = row * self.out_stride + outputs.start * PANEL;
            // SAFETY: a row's columns of these outputs belong to this thread.
            let out = unsafe { self.out.range(begin..begin + columns) };
            match self.epilogue {
                Epilogue::Bias if self.streamed => {
                    self.vectors.run(Stream { from: &sums[..columns], to: out });
                }
                Epilogue::Bias => out.copy_from_slice(&sums[..columns]),
                Epilogue::SwiGlu => {
                    let (gate, up) = sums.split_at(numbers);
                    let (gate, up) = (&gate[..columns], &up[..columns]);
                    self.vectors.run(SwiGlu { gate, up, out, streamed: self.streamed });
                }
            }
        }
    }
}
