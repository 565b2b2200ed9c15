//! Linear layers in int8: weights with a scale for each output channel, activations with one for each token.

use std::ops::Range;

use crate::device::cpu::buffer::{Buffer, SharedSlice};
use crate::device::cpu::kernels::{Kernels, PANEL};
use crate::device::cpu::linear::{Rows, RowsMut, padded_vector};
use crate::device::cpu::pool::Pool;
use crate::device::cpu::tiles::{TILE_BYTES, TILE_ROWS};
use crate::device::{DType, DeviceError, HostTensor};

use super::kernels::{Int8Kernels, Multiply, QUAD, Sums, TILE_K};
use super::scratch::{BLOCK_ROWS, Quantised};
use super::tiles::WIDE;
use super::{rows, tiles};

/// So many products of ±127 fit a sum of 32 bits.
const MOST_K: usize = i32::MAX as usize / (127 * 127);

/// `[out, in]` as panels of sixteen output columns, each `[in/4][16][4]` with `in` padded to a multiple of 64: a tile of 1 KiB
/// for every 64 inputs. From one panel to the next it is an odd number of tiles, so that the same inputs of many panels are
/// spread over the sets of a cache.
#[derive(Debug)]
pub struct Int8Linear {
    /// Output width.
    pub n: usize,
    /// Input width.
    pub k: usize,
    data: Buffer<i8>,
    /// A scale for each output channel.
    scales: Buffer<f32>,
    bias: Option<Buffer<f32>>,
}

impl Int8Linear {
    /// Quantises `weight` `[n, k]`, a panel at a time; the bias is rounded to `dtype`. The pool's threads write the parts they
    /// will read.
    ///
    /// # Errors
    /// Sums over rows so long do not fit 32 bits; memory ran out.
    pub fn pack(
        weight: HostTensor<'_>,
        bias: Option<HostTensor<'_>>,
        dtype: DType,
        kernels: &Int8Kernels,
        pool: &mut Pool,
    ) -> Result<Self, DeviceError> {
        let (n, k) = (weight.rows, weight.width);
        if k > MOST_K {
            return Err(DeviceError::Unsupported {
                device: "cpu",
                problem: format!(
                    "a linear layer has {k} inputs, sums of int8 products hold {MOST_K} at most; use fp16"
                ),
            });
        }
        let panels = n.div_ceil(PANEL);
        let (padded, stride) = (k.next_multiple_of(TILE_K), panel_stride(k));
        let mut data = Buffer::zeroed(panels * stride, "weights")?;
        let mut scales = Buffer::zeroed(panels * PANEL, "weights")?;
        let (panels_of, scales_of) = (data.shared(), scales.shared());
        pool.split(panels, n * k, &|range| {
            let (mut row, mut integers) = (vec![0.0; k], vec![0i8; padded]);
            for panel in range {
                // SAFETY: every panel is written by one thread only.
                let out = unsafe { panels_of.range(panel * stride..panel * stride + padded * PANEL) };
                // SAFETY: as above.
                let scales = unsafe { scales_of.range(panel * PANEL..(panel + 1) * PANEL) };
                for (column, n) in (panel * PANEL..n.min((panel + 1) * PANEL)).enumerate() {
                    weight.row_f32(n, &mut row);
                    // SAFETY: the kernels belong to this machine.
                    scales[column] = unsafe { (kernels.quantise)(&row, &mut integers) }.scale;
                    let quads = integers.as_chunks::<QUAD>().0.iter().zip(out.chunks_exact_mut(QUAD * PANEL));
                    quads.for_each(|(quad, out)| {
                        out[column * QUAD..(column + 1) * QUAD].copy_from_slice(quad);
                    });
                }
            }
        });
        let bias = bias.map(|b| padded_vector(b, dtype)).transpose()?;
        Ok(Self { n, k, data, scales, bias })
    }

    /// Panels.
    pub fn panels(&self) -> usize {
        self.n.div_ceil(PANEL)
    }

    /// Tiles of depth.
    pub fn depth(&self) -> usize {
        self.k.div_ceil(TILE_K)
    }

    /// Some tiles of depth of a panel.
    pub fn tiles(&self, panel: usize, tiles: &Range<usize>) -> &[i8] {
        let begin = panel * panel_stride(self.k);
        &self.data[begin + tiles.start * TILE_BYTES..begin + tiles.end * TILE_BYTES]
    }

    /// `out = x * weight^T + bias`, rounded to the type of `kernels`: the exact sum of integer products, times the token's scale,
    /// times the channel's scale, plus the bias, each step in fp32, then rounded once more.
    pub fn apply(
        &self,
        x: Rows<'_>,
        out: &mut RowsMut<'_>,
        (kernels, int8): (&Kernels, &Int8Kernels),
        quantised: &mut Quantised,
        pool: &mut Pool,
    ) {
        // Blocks of like size: one of few rows reads the weights as well.
        let blocks = x.rows.div_ceil(BLOCK_ROWS).max(1);
        let block = x.rows.div_ceil(blocks).next_multiple_of(WIDE * TILE_ROWS);
        for first in (0..x.rows).step_by(block) {
            let rows = block.min(x.rows - first);
            let x = Rows { data: &x.data[first * x.stride..], rows, stride: x.stride };
            quantised.fill(x, self.k, int8, pool);
            let (out, out_stride) = (&mut out.data[first * out.stride..], out.stride);
            let out = SharedSlice::new(out);
            let layer = Layer { linear: self, rows, x: quantised, kernels, int8, out: &out, out_stride };
            match int8.multiply {
                Multiply::Rows { gemm, .. } => rows::multiply(&layer, gemm, pool),
                Multiply::Tiles(tiles) => tiles::multiply(&layer, tiles, pool),
            }
        }
    }
}

/// Numbers between panels.
pub fn panel_stride(k: usize) -> usize {
    (k.div_ceil(TILE_K) | 1) * TILE_BYTES
}

/// Pieces that a layer is cut into for each thread at least: the threads end together even if one was held up.
pub const PIECES_A_THREAD: usize = 4;

/// One of so many like parts of `0..count`.
pub fn part(count: usize, index: usize, parts: usize) -> Range<usize> {
    count * index / parts..count * (index + 1) / parts
}

/// A linear layer, a block of rows that were quantised for it, and where its results go.
pub struct Layer<'a> {
    /// The layer.
    pub linear: &'a Int8Linear,
    /// Rows in the block.
    pub rows: usize,
    /// The block.
    pub x: &'a Quantised,
    kernels: &'a Kernels,
    int8: &'a Int8Kernels,
    out: &'a SharedSlice<'a, f32>,
    out_stride: usize,
}

impl Layer<'_> {
    /// What the layer costs, for the pool: an integer product takes about a quarter of the time of one of floats.
    pub fn work(&self) -> usize {
        self.rows * self.linear.n * self.linear.k / 4
    }

    /// Makes numbers of the sums `[_, 16 * width]` of some panels, rows from `first` on, and writes them out. The calling thread
    /// alone has these columns. The sums are spoilt.
    pub fn finish(&self, sums: &mut [i32], first: usize, panels: Range<usize>, width: usize) {
        let stride = width * PANEL;
        let rows = (self.rows - first).min(sums.len() / stride);
        let begin = panels.start * PANEL;
        let numbers = sums.as_mut_ptr().cast::<f32>();
        let t = Sums {
            sums: sums.as_ptr(),
            stride,
            rows,
            columns: panels.len() * PANEL,
            offset: if let Multiply::Rows { offset, .. } = self.int8.multiply { offset } else { 0 },
            x: self.x.scaled()[first..first + rows].as_ptr(),
            w: self.linear.scales[begin..].as_ptr(),
            bias: self.linear.bias.as_ref().map_or(std::ptr::null(), |bias| bias[begin..].as_ptr()),
            out: numbers,
            out_stride: stride,
        };
        let out = self.out.pointer(first * self.out_stride + begin);
        // SAFETY: rows and whole panels, to which scales, bias and rows of `out` are padded; these columns belong to this
        // thread; the kernels belong to this machine.
        unsafe {
            (self.int8.scale)(&t);
            (self.kernels.finish)(numbers, std::ptr::null(), rows * stride);
            (self.int8.copy)((numbers, stride), (out, self.out_stride), rows, t.columns);
        }
    }
}
