//! Linear layers in int8: weights with a scale for each output channel, activations with one for each token.

use std::ops::Range;

use crate::device::cpu::buffer::{Buffer, SharedSlice};
use crate::device::cpu::kernels::{Kernels, PANEL};
use crate::device::cpu::linear::{Rows, RowsMut, padded_vector};
use crate::device::cpu::pool::Pool;
use crate::device::{DType, DeviceError, HostTensor};

use super::kernels::{Int8Kernels, Int8Product, QUAD, Scaled, TILE_K};

/// Depth of a block of a large product: sixteen columns of it fit L1 beside the rows.
const BLOCK_K: usize = 1024;
/// Panels that share a block of rows while it lies in L2.
const GROUP_PANELS: usize = 8;
/// From so many rows on a product is done in blocks.
const BLOCK_ROWS: usize = 24;
/// So many products of ±127 fit a sum of 32 bits.
const MOST_K: usize = i32::MAX as usize / (127 * 127);

/// Rows of activations as integers: working memory, taken once for the largest.
#[derive(Debug)]
pub struct Quantised {
    data: Buffer<i8>,
    scaled: Vec<Scaled>,
}

impl Quantised {
    /// Room for nothing.
    pub fn new() -> Result<Self, DeviceError> {
        Ok(Self { data: Buffer::zeroed(0, "activations")?, scaled: Vec::new() })
    }

    /// Makes room for so many rows of `width` numbers; what was in it is lost.
    pub fn reserve(&mut self, rows: usize, width: usize) -> Result<(), DeviceError> {
        let numbers = rows * width.next_multiple_of(TILE_K);
        if numbers > self.data.len() {
            self.data = Buffer::zeroed(numbers, "activations")?;
        }
        if rows > self.scaled.len() {
            self.scaled.resize(rows, Scaled { scale: 0.0, sum: 0 });
        }
        Ok(())
    }

    /// Takes the first `k` numbers of each row.
    fn fill(&mut self, x: Rows<'_>, k: usize, kernels: &Int8Kernels, pool: &mut Pool) {
        let stride = k.next_multiple_of(TILE_K);
        let (data, scaled) = (self.data.shared(), SharedSlice::new(&mut self.scaled));
        pool.split(x.rows, x.rows * k, &|rows| {
            for row in rows {
                let x = &x.data[row * x.stride..row * x.stride + k];
                // SAFETY: a row is one thread's; the kernels belong to this machine.
                unsafe {
                    let out = data.range(row * stride..(row + 1) * stride);
                    scaled.range(row..row + 1)[0] = (kernels.quantise)(x, out);
                }
            }
        });
    }
}

/// `[out, in]` as panels of sixteen output columns, each `[in/4][16][4]` with `in` padded to a multiple of 64.
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
        let padded = k.next_multiple_of(TILE_K);
        let mut data = Buffer::zeroed(panels * padded * PANEL, "weights")?;
        let mut scales = Buffer::zeroed(panels * PANEL, "weights")?;
        let (panels_of, scales_of) = (data.shared(), scales.shared());
        pool.split(panels, n * k, &|range| {
            let (mut row, mut integers) = (vec![0.0; k], vec![0i8; padded]);
            for panel in range {
                // SAFETY: every panel is written by one thread only.
                let out = unsafe { panels_of.range(panel * padded * PANEL..(panel + 1) * padded * PANEL) };
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
        quantised.fill(x, self.k, int8, pool);
        let out_stride = out.stride;
        let shared = SharedSlice::new(out.data);
        let job = Job { linear: self, rows: x.rows, x: quantised, kernels, int8, out: &shared, out_stride };
        // An integer product takes about a quarter of the time of one of floats.
        pool.split(self.n.div_ceil(PANEL), x.rows * self.n * self.k / 4, &|range| {
            if x.rows >= BLOCK_ROWS {
                job.large(range);
            } else {
                job.small(range);
            }
        });
    }
}

struct Job<'a> {
    linear: &'a Int8Linear,
    rows: usize,
    x: &'a Quantised,
    kernels: &'a Kernels,
    int8: &'a Int8Kernels,
    /// Sums as bits until they are finished.
    out: &'a SharedSlice<'a, f32>,
    out_stride: usize,
}

impl Job<'_> {
    fn padded(&self) -> usize {
        self.linear.k.next_multiple_of(TILE_K)
    }

    /// Adds some panels over a range of `k` to the sums.
    fn multiply(&self, panels: &Range<usize>, k: Range<usize>) {
        let padded = self.padded();
        let product = Int8Product {
            a: self.x.data[k.start..].as_ptr(),
            a_stride: padded,
            rows: self.rows,
            w: self.linear.data[panels.start * padded * PANEL + k.start * PANEL..].as_ptr(),
            panel_stride: padded * PANEL,
            panels: panels.len(),
            k: k.len(),
            // This thread alone writes the columns of its panels.
            c: self.out.pointer(panels.start * PANEL).cast(),
            c_stride: self.out_stride,
        };
        // SAFETY: the product lies inside weights, activations and the result; the kernels belong to this machine.
        unsafe { (self.int8.gemm)(&product) };
    }

    /// Few rows: the weights stream by once, straight from memory.
    fn small(&self, panels: Range<usize>) {
        self.clear(&panels);
        self.multiply(&panels, 0..self.padded());
        self.finish(&panels);
    }

    /// Many rows: blocks of `k`, so that a panel's is read from L1 by all rows; sums wait in `out` between blocks.
    fn large(&self, panels: Range<usize>) {
        for first in panels.clone().step_by(GROUP_PANELS) {
            let group = first..panels.end.min(first + GROUP_PANELS);
            self.clear(&group);
            for begin in (0..self.padded()).step_by(BLOCK_K) {
                self.multiply(&group, begin..self.padded().min(begin + BLOCK_K));
            }
            self.finish(&group);
        }
    }

    /// This thread's columns of row `row`.
    #[expect(clippy::mut_from_ref, reason = "threads share the matrix by columns")]
    fn columns(&self, row: usize, panels: &Range<usize>) -> &mut [f32] {
        let begin = row * self.out_stride;
        // SAFETY: a row's columns of these panels belong to this thread.
        unsafe { self.out.range(begin + panels.start * PANEL..begin + panels.end * PANEL) }
    }

    fn clear(&self, panels: &Range<usize>) {
        for row in 0..self.rows {
            self.columns(row, panels).fill(0.0);
        }
    }

    fn finish(&self, panels: &Range<usize>) {
        let numbers = panels.start * PANEL..panels.end * PANEL;
        let bias = self.linear.bias.as_ref().map_or(std::ptr::null(), |b| b[numbers.start..].as_ptr());
        for row in 0..self.rows {
            let columns = self.columns(row, panels);
            let scales = &self.linear.scales[numbers.clone()];
            // SAFETY: whole panels; scales and bias are padded to them; the kernels belong to this machine.
            unsafe {
                (self.int8.scale)(columns, self.int8.offset, self.x.scaled[row], scales);
                (self.kernels.finish)(columns.as_mut_ptr(), bias, columns.len());
            }
        }
    }
}
