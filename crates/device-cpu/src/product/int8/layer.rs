//! Linear layers in int8: weights with one scale per output channel, activations with one scale per token or a stored one.

use std::ops::Range;

use glmbench_device::{DeviceError, Form, HostTensor, Inputs, LinearWeight};

use crate::buffer::{SharedSlice, Strided};
use crate::elementwise::{Finish, SwiGlu};
use crate::pack::int8::{Int8Linear, Source};
use crate::pack::quantise::Scaled;
use crate::pack::{PANEL, Rows, RowsMut};
use crate::pool::Pool;
use crate::product::tiles::blocks_of_rows;
use crate::product::{Epilogue, PackedWeight, Scratch, WeightKernels};
use crate::simd::{Element, Isa, Kernel, Simd16, Vectors};

use super::{Int8Kernels, Multiply, rows, tiles};

impl WeightKernels for Int8Kernels {
    fn name(&self) -> &'static str {
        self.name
    }

    fn pack(
        &self,
        weight: LinearWeight<'_>,
        bias: Option<HostTensor<'_>>,
        pool: &mut Pool,
    ) -> Result<Box<dyn PackedWeight>, DeviceError> {
        let LinearWeight::Int8(weight) = weight else {
            return Err(weight.refused(crate::NAME, [Form::Int8(Inputs::Int8PerToken)]));
        };
        let linear = Int8Linear::pack(Source::PerToken(weight), bias, self.vectors, pool)?;
        Ok(Box::new(Layer { linear, kernels: *self }))
    }

    fn bytes(&self, n: usize, k: usize, _group: usize) -> usize {
        Int8Linear::bytes(n, k)
    }

    /// Rows have the same size in either layout.
    fn row_bytes(&self, k: usize, _group: usize) -> Option<usize> {
        Some(rows::row_stride(k))
    }
}

/// The same products for inputs that are quantised by a stored scale (static W8A8).
#[derive(Debug, Clone, Copy)]
pub(crate) struct StaticKernels(pub(crate) Int8Kernels);

impl WeightKernels for StaticKernels {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn pack(
        &self,
        weight: LinearWeight<'_>,
        bias: Option<HostTensor<'_>>,
        pool: &mut Pool,
    ) -> Result<Box<dyn PackedWeight>, DeviceError> {
        let LinearWeight::Int8Static(weight) = weight else {
            return Err(weight.refused(crate::NAME, [Form::Int8(Inputs::Int8Static)]));
        };
        let linear = Int8Linear::pack(Source::Static(weight), bias, self.0.vectors, pool)?;
        Ok(Box::new(Layer { linear, kernels: self.0 }))
    }

    fn bytes(&self, n: usize, k: usize, _group: usize) -> usize {
        Int8Linear::bytes(n, k) + Int8Linear::quant_bias_bytes(n)
    }

    fn row_bytes(&self, k: usize, _group: usize) -> Option<usize> {
        Some(rows::row_stride(k))
    }
}

/// A weight in int8, with the kernels that multiply it.
#[derive(Debug)]
struct Layer {
    linear: Int8Linear,
    kernels: Int8Kernels,
}

impl PackedWeight for Layer {
    fn shape(&self) -> (usize, usize) {
        (self.linear.n, self.linear.k)
    }

    fn ends_with_swiglu(&self) -> bool {
        true
    }

    /// The exact sum of integer products plus the integer bias, times the token's scale, times the channel's scale, plus
    /// the bias. Each step is in fp32; the result is rounded to the type of the device.
    fn multiply(
        &self,
        x: Rows<'_>,
        epilogue: Epilogue,
        out: &mut RowsMut<'_>,
        scratch: &mut Scratch,
        pool: &mut Pool,
    ) {
        let Self { linear, kernels } = self;
        let vectors = kernels.vectors;
        for rows in blocks_of_rows(x.rows) {
            let (x, out_stride) = (x.range(&rows), out.stride);
            let out = &SharedSlice::new(&mut out.data[rows.start * out_stride..]);
            let of_rows = |scratch, offset| Int8Layer {
                linear,
                rows: x.rows,
                scratch,
                epilogue,
                vectors,
                offset,
                out,
                out_stride,
            };
            match kernels.multiply {
                Multiply::Rows(gemm) => {
                    rows::quantise(x, linear, vectors, scratch, pool);
                    rows::multiply(&of_rows(scratch, gemm.offset()), gemm, pool);
                }
                Multiply::Tiles(unit) => {
                    let layout = tiles::quantise(x, linear, vectors, scratch, pool);
                    tiles::multiply(&of_rows(scratch, 0), unit, layout, pool);
                }
            }
        }
    }
}

/// A linear layer, with a block of rows that were quantised for it and the destination of its results.
pub(super) struct Int8Layer<'a> {
    /// The layer.
    pub(super) linear: &'a Int8Linear,
    /// Number of rows in the block.
    pub(super) rows: usize,
    /// The rows, and the workspaces of the threads.
    pub(super) scratch: &'a Scratch,
    epilogue: Epilogue,
    vectors: Vectors,
    /// The offset that the product adds to every weight.
    offset: i32,
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
        let numbers: &mut [f32] = bytemuck::cast_slice_mut(&mut spare[..halves * half]);
        for (i, to) in numbers.chunks_exact_mut(half).enumerate() {
            let column = self.panel(i, outputs.start) * PANEL;
            self.vectors.run(Scale {
                sums: &sums[i * stride..],
                sums_stride: halves * stride,
                rows: &self.scratch.scaled[first..first + rows],
                offset: self.offset,
                quant_bias: self.linear.quant_bias(column..column + columns),
                scales: self.linear.scales(column..column + columns),
                bias: self.linear.bias(column..column + columns),
                to: Strided::new(to, rows, columns, stride),
            });
        }
        self.vectors.run(Finish { sums: numbers, bias: None });
        let from: &[f32] = match self.epilogue {
            Epilogue::Bias => numbers,
            Epilogue::SwiGlu => {
                let joined: &mut [f32] = bytemuck::cast_slice_mut(&mut sums[..half]);
                let (gate, up) = numbers.split_at(half);
                self.vectors.run(SwiGlu { gate, up, out: joined });
                joined
            }
        };
        let begin = first * self.out_stride + outputs.start * PANEL;
        // SAFETY: these columns belong to this thread.
        let to = unsafe { self.out.strided(begin, rows, columns, self.out_stride) };
        self.vectors.run(CopyOut { from, stride, to });
    }
}

/// Converts sums to numbers: `((sum - offset * x.sum + quant_bias) * x.scale) * scale + bias`, each step rounded to fp32.
/// Integers wrap. Columns are whole panels.
struct Scale<'a> {
    sums: &'a [i32],
    /// Distance between rows of sums, in numbers.
    sums_stride: usize,
    /// Scale and sum of the integers in each row.
    rows: &'a [Scaled],
    /// The offset that the product added to every weight.
    offset: i32,
    /// One integer bias per column.
    quant_bias: Option<&'a [i32]>,
    /// One scale per column.
    scales: &'a [f32],
    /// One bias per column.
    bias: Option<&'a [f32]>,
    to: Strided<'a, f32>,
}

impl Kernel for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(mut self, _isa: I) {
        let (scales, _) = self.scales.as_chunks::<PANEL>();
        let bias = self.bias.map(|bias| bias.as_chunks::<PANEL>().0);
        let quant_bias = self.quant_bias.map(|bias| bias.as_chunks::<PANEL>().0);
        for (row, x) in self.rows.iter().enumerate() {
            let excess = self.offset.wrapping_mul(x.sum);
            let (sums, _) = self.sums[row * self.sums_stride..].as_chunks::<PANEL>();
            let (to, _) = self.to.row(row).as_chunks_mut::<PANEL>();
            for (panel, ((sums, w), to)) in sums.iter().zip(scales).zip(to).enumerate() {
                let mut sums = sums.map(|sum| sum.wrapping_sub(excess));
                if let Some(bias) = quant_bias {
                    let bias = &bias[panel];
                    sums = std::array::from_fn(|i| sums[i].wrapping_add(bias[i]));
                }
                let mut y: [f32; PANEL] = std::array::from_fn(|i| sums[i] as f32 * x.scale * w[i]);
                if let Some(bias) = bias {
                    let bias = &bias[panel];
                    y = std::array::from_fn(|i| y[i] + bias[i]);
                }
                *to = y;
            }
        }
    }
}

/// Copies whole vectors, so that a store to a distant cache line waits only once.
struct CopyOut<'a> {
    from: &'a [f32],
    /// Distance between rows of `from`, in numbers.
    stride: usize,
    to: Strided<'a, f32>,
}

impl Kernel for CopyOut<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(mut self, isa: I) {
        for row in 0..self.to.rows() {
            let (from, _) = self.from[row * self.stride..].as_chunks();
            for (from, to) in from.iter().zip(self.to.row(row).as_chunks_mut().0) {
                isa.load(from).store(to);
            }
        }
    }
}
