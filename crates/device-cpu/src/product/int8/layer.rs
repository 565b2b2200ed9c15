//! Linear layers in int8: weights with one scale per output channel, activations with one scale per token or a stored one.

use std::ops::Range;

use glmbench_device::{DeviceError, Form, HostTensor, Inputs, LinearWeight};

use crate::buffer::{SharedSlice, Strided, is_streamed};
use crate::elementwise::SwiGlu;
use crate::pack::int8::{Int8Linear, Source};
use crate::pack::quantise::Scaled;
use crate::pack::{PANEL, Rows, RowsMut};
use crate::packs::Packs;
use crate::pool::Pool;
use crate::product::tiles::{BLOCK_ROWS, blocks_of_rows};
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
        at: (&mut Packs, &mut Pool),
    ) -> Result<Box<dyn PackedWeight>, DeviceError> {
        let LinearWeight::Int8(weight) = weight else {
            return Err(weight.refused(crate::NAME, [Form::Int8(Inputs::Int8PerToken)]));
        };
        let linear = Int8Linear::pack(Source::PerToken(weight), bias, (self.vectors, self.offset()), at)?;
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
        at: (&mut Packs, &mut Pool),
    ) -> Result<Box<dyn PackedWeight>, DeviceError> {
        let LinearWeight::Int8Static(weight) = weight else {
            return Err(weight.refused(crate::NAME, [Form::Int8(Inputs::Int8Static)]));
        };
        let linear = Int8Linear::pack(Source::Static(weight), bias, (self.0.vectors, self.0.offset()), at)?;
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
        for rows in blocks_of_rows(x.rows, BLOCK_ROWS) {
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
                    let layout = tiles::quantise(x, linear, &unit, vectors, scratch, pool);
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
    /// output panels, the first `outputs.len()` are in use, and no other thread writes them.
    pub(super) fn finish(&self, sums: &[i32], first: usize, outputs: Range<usize>, each: usize) {
        let (halves, stride) = (self.halves(), each * PANEL);
        let rows = (self.rows - first).min(sums.len() / (halves * stride));
        let columns = outputs.len() * PANEL;
        let begin = first * self.out_stride + outputs.start * PANEL;
        let channels = |half: usize| {
            let column = self.panel(half, outputs.start) * PANEL;
            let columns = column..column + columns;
            Channels {
                quant_bias: self.linear.quant_bias(columns.clone()),
                scales: self.linear.scales(columns.clone()),
                bias: self.linear.bias(columns),
            }
        };
        self.vectors.run(ToNumbers {
            sums,
            last: (halves - 1) * stride,
            stride: halves * stride,
            rows: &self.scratch.scaled[first..first + rows],
            offset: self.offset,
            channels: [channels(0), channels(halves - 1)],
            epilogue: self.epilogue,
            streamed: is_streamed(self.rows * self.outputs() * PANEL),
            // SAFETY: these columns belong to this thread.
            to: unsafe { self.out.strided(begin, rows, columns, self.out_stride) },
        });
    }
}

/// What turns the sums of some channels into numbers.
struct Channels<'a> {
    /// One integer bias per column.
    quant_bias: Option<&'a [i32]>,
    /// One scale per column.
    scales: &'a [f32],
    /// One bias per column.
    bias: Option<&'a [f32]>,
}

impl Channels<'_> {
    /// Returns `((sum - excess + quant_bias) * x_scale) * scale + bias` for the sums of a panel. Each step is rounded to
    /// fp32, and the result to the type. Integers wrap.
    #[inline(always)]
    fn numbers<I: Isa, E: Element>(
        &self,
        isa: I,
        panel: usize,
        sums: &[i32; PANEL],
        (excess, x_scale): (i32, f32),
    ) -> I::Vector {
        let of_panel = panel * PANEL..(panel + 1) * PANEL;
        let mut sums = sums.map(|sum| sum.wrapping_sub(excess));
        if let Some(bias) = self.quant_bias {
            let bias = &bias[of_panel.clone()];
            sums = std::array::from_fn(|i| sums[i].wrapping_add(bias[i]));
        }
        let vector = |of: &[f32]| isa.load(of[of_panel.clone()].as_array().expect("invariant: whole panels"));
        let mut y = isa.load(&sums.map(|sum| sum as f32)).mul(isa.splat(x_scale)).mul(vector(self.scales));
        if let Some(bias) = self.bias {
            y = y.add(vector(bias));
        }
        E::round(y)
    }
}

/// Converts the sums of some rows to numbers, joins the halves, and writes the result. Columns are whole panels.
struct ToNumbers<'a> {
    sums: &'a [i32],
    /// Where the last half of a row of sums begins, in numbers.
    last: usize,
    /// Distance between rows of sums, in numbers.
    stride: usize,
    /// Scale and sum of the integers in each row.
    rows: &'a [Scaled],
    /// The offset that the product added to every weight.
    offset: i32,
    /// The channels of the first and of the last half.
    channels: [Channels<'a>; 2],
    epilogue: Epilogue,
    /// Whether the numbers are streamed past the caches.
    streamed: bool,
    to: Strided<'a, f32>,
}

impl Kernel for ToNumbers<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(mut self, isa: I) {
        for (row, x) in self.rows.iter().enumerate() {
            let by = (self.offset.wrapping_mul(x.sum), x.scale);
            let of_row = &self.sums[row * self.stride..];
            let [sums, last] = [0, self.last].map(|half| of_row[half..].as_chunks::<PANEL>().0);
            let (to, _) = self.to.row(row).as_chunks_mut::<PANEL>();
            for (panel, to) in to.iter_mut().enumerate() {
                let y = self.channels[0].numbers::<I, E>(isa, panel, &sums[panel], by);
                let y = match self.epilogue {
                    Epilogue::Bias => y,
                    Epilogue::SwiGlu => {
                        let up = self.channels[1].numbers::<I, E>(isa, panel, &last[panel], by);
                        SwiGlu::sixteen::<I, E>(isa, y, up)
                    }
                };
                if self.streamed { y.stream(to) } else { y.store(to) }
            }
        }
    }
}
