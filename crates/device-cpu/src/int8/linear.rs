//! Linear layers in int8: weights with one scale per output channel, activations with one scale per token.

use std::ops::Range;

use glmbench_device::{DType, DeviceError, HostTensor, Int8Weight};

use crate::buffer::{Buffer, SharedSlice};
use crate::kernels::{Kernels, PANEL};
use crate::linear::{Epilogue, Rows, RowsMut, padded_vector};
use crate::pool::Pool;
use crate::scratch::Scratch;
use crate::tiles::{TILE_BYTES, blocks_of_rows};

use super::kernels::{Block, Int8Kernels, Multiply, QUAD, Scales, TILE_K};
use super::{rows, tiles};

/// Maximum number of products of ±127 that fit a 32-bit sum.
const MOST_K: usize = i32::MAX as usize / (127 * 127);

/// A weight `[out, in]` in panels of sixteen output columns, each `[in/4][16][4]` with `in` padded to a multiple of 64.
/// Every 64 inputs are one tile of 1 KiB. The distance between panels is an odd number of tiles. This spreads the same
/// inputs of many panels over the sets of a cache.
#[derive(Debug)]
pub struct Int8Linear {
    /// Output width.
    pub n: usize,
    /// Input width.
    pub k: usize,
    data: Buffer<i8>,
    /// One scale per output channel.
    scales: Buffer<f32>,
    bias: Option<Buffer<f32>>,
}

impl Int8Linear {
    /// Packs `weight` `[n, k]`, one panel at a time, and rounds the bias to `dtype`. Each thread of the pool writes the
    /// parts that it will read.
    ///
    /// # Errors
    /// Rows are too long for 32-bit sums, or memory ran out.
    pub fn pack(
        weight: Int8Weight<'_>,
        bias: Option<HostTensor<'_>>,
        dtype: DType,
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
                    scales[column] = weight.row(n, &mut row, &mut integers[..k]);
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

    /// Returns the size of a weight `[n, k]` with its scales, in bytes.
    pub fn bytes((n, k): (usize, usize)) -> usize {
        n.div_ceil(PANEL) * (panel_stride(k) + PANEL * size_of::<f32>())
    }

    /// Returns the number of panels.
    pub fn panels(&self) -> usize {
        self.n.div_ceil(PANEL)
    }

    /// Returns the number of tiles of depth.
    pub fn depth(&self) -> usize {
        self.k.div_ceil(TILE_K)
    }

    /// Returns a range of depth tiles of a panel.
    pub fn tiles(&self, panel: usize, tiles: &Range<usize>) -> &[i8] {
        let begin = panel * panel_stride(self.k);
        &self.data[begin + tiles.start * TILE_BYTES..begin + tiles.end * TILE_BYTES]
    }

    /// Computes `out = epilogue(x * weight^T + bias)`: the exact sum of integer products, times the token's scale,
    /// times the channel's scale, plus the bias. Each step is in fp32; the result is rounded to the type of `kernels`.
    pub fn apply(
        &self,
        x: Rows<'_>,
        epilogue: Epilogue,
        out: &mut RowsMut<'_>,
        (kernels, int8): (&Kernels, &Int8Kernels),
        (scratch, pool): (&mut Scratch, &mut Pool),
    ) {
        for rows in blocks_of_rows(x.rows) {
            let (x, out_stride) = (x.range(&rows), out.stride);
            let out = &SharedSlice::new(&mut out.data[rows.start * out_stride..]);
            let layer = |scratch| Int8Layer {
                linear: self,
                rows: x.rows,
                scratch,
                epilogue,
                kernels,
                int8,
                out,
                out_stride,
            };
            match int8.multiply {
                Multiply::Rows { gemm, .. } => {
                    rows::quantise(x, self.k, int8, scratch, pool);
                    rows::multiply(&layer(scratch), gemm, pool);
                }
                Multiply::Tiles(unit) => {
                    let layout = tiles::quantise(x, self.k, int8, scratch, pool);
                    tiles::multiply(&layer(scratch), unit, layout, pool);
                }
            }
        }
    }
}

/// Returns the size of a row of `k` numbers as integers, in bytes, for any layout.
pub(crate) fn row_bytes(k: usize) -> usize {
    rows::row_stride(k)
}

/// Returns the distance between panels, in numbers.
pub(super) fn panel_stride(k: usize) -> usize {
    (k.div_ceil(TILE_K) | 1) * TILE_BYTES
}

/// A linear layer, with a block of rows that were quantised for it and the destination of its results.
pub(super) struct Int8Layer<'a> {
    /// The layer.
    pub linear: &'a Int8Linear,
    /// Number of rows in the block.
    pub rows: usize,
    /// The rows, and the workspaces of the threads.
    pub scratch: &'a Scratch,
    epilogue: Epilogue,
    kernels: &'a Kernels,
    int8: &'a Int8Kernels,
    out: &'a SharedSlice<'a, f32>,
    out_stride: usize,
}

impl Int8Layer<'_> {
    /// Returns the cost of the layer, for the pool: an integer product takes about a quarter of the time of a float
    /// product.
    pub(super) fn work(&self) -> usize {
        self.rows * self.linear.n * self.linear.k / 4
    }

    /// Returns how many parts the weight has. Each output has one column in each part.
    pub(super) fn halves(&self) -> usize {
        self.epilogue.halves()
    }

    /// Returns the number of output panels.
    pub(super) fn outputs(&self) -> usize {
        self.linear.panels() / self.halves()
    }

    /// Returns the panel of a half that belongs to an output panel.
    pub(super) fn panel(&self, half: usize, output: usize) -> usize {
        half * self.outputs() + output
    }

    /// Converts sums `[_][half][16 * each]` to numbers and writes them, with rows starting at `first`. Of the `each`
    /// output panels, the first `outputs.len()` are in use, and no other thread writes them. Overwrites the sums and as
    /// many spare numbers.
    pub(super) fn finish(
        &self,
        (sums, spare): (&mut [i32], &mut [i32]),
        first: usize,
        outputs: Range<usize>,
        each: usize,
    ) {
        let (halves, stride) = (self.halves(), each * PANEL);
        let rows = (self.rows - first).min(sums.len() / (halves * stride));
        let (columns, half) = (outputs.len() * PANEL, rows * stride);
        let numbers: *mut f32 = spare[..halves * half].as_mut_ptr().cast();
        let out = self.out.pointer(first * self.out_stride + outputs.start * PANEL);
        // SAFETY: rows and whole panels, to which scales, bias and rows of `out` are padded, and one half after the
        // other. These columns belong to this thread. The kernels belong to this machine.
        unsafe {
            for i in 0..halves {
                let from = sums[i * stride..].as_ptr();
                let to = numbers.add(i * half);
                let block = Block { from, stride: halves * stride, rows, columns, to, to_stride: stride };
                (self.int8.scale)(&block, &self.scales(first, self.panel(i, outputs.start) * PANEL));
            }
            (self.kernels.finish)(numbers, std::ptr::null(), halves * half);
            let from = match self.epilogue {
                Epilogue::Bias => numbers,
                Epilogue::SwiGlu => {
                    let joined = sums.as_mut_ptr().cast();
                    (self.kernels.swiglu)(numbers, numbers.add(half), half, joined);
                    joined
                }
            };
            (self.int8.copy)(&Block { from, stride, rows, columns, to: out, to_stride: self.out_stride });
        }
    }

    /// Returns the scales of the sums starting at a row and a column.
    fn scales(&self, row: usize, column: usize) -> Scales {
        Scales {
            offset: if let Multiply::Rows { offset, .. } = self.int8.multiply { offset } else { 0 },
            x: self.scratch.scaled[row..].as_ptr(),
            w: self.linear.scales[column..].as_ptr(),
            bias: self.linear.bias.as_ref().map_or(std::ptr::null(), |bias| bias[column..].as_ptr()),
        }
    }
}
