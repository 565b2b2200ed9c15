//! Products of int4 weights with int8 activations ("w4a8-dynamic").
//!
//! Activations have one scale per token ([`quantise`](crate::pack::quantise)). The sum of a group is exact. Groups are
//! added up in fp32, in order, by fused multiply-adds with their scales. Results are therefore the same for every
//! instruction set, batch, chunk and number of threads. Machines with tiles use the vectors, too: tiles would sum the
//! whole depth, across the groups.

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod gemm;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests;

use std::ops::Range;

use glmbench_device::{DeviceError, Form, HostTensor, Inputs, LinearWeight};

use crate::buffer::{SharedSlice, Strided};
use crate::elementwise::Finish;
use crate::pack::grouped::{self, GroupedLinear, Groups, LINE, Packing};
use crate::pack::quantise::Quantise;
use crate::pack::{PANEL, Rows, RowsMut, TILE_K};
use crate::packs::Packs;
use crate::pool::{Pool, part};
use crate::simd::{Element, Isa, Kernel, Simd16, Vectors};

use super::int8::{Int8Gemm, row_stride};
use super::tiles::{BLOCK_ROWS, blocks_of_rows};
use super::{Epilogue, PackedWeight, Scratch, WeightKernels};

use self::gemm::Product;

/// From this number of rows on, a product is computed in blocks of inputs.
const MANY_ROWS: usize = 24;
/// Inputs of such a block. The rows of the block stay in L2.
const BLOCK_K: usize = 1024;
/// Panels that share its rows while they are in L2.
const MANY_PANELS: usize = 8;
/// Pieces of the panels per thread, so that threads finish together even if one was delayed.
const PIECES_A_THREAD: usize = 4;
/// Bytes that a product may read after a row: a line that begins with its last input.
const AFTER_ROW: usize = LINE;

/// Products of int4 weights with int8 activations.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Int4Kernels {
    pub(crate) vectors: Vectors,
    pub(crate) gemm: Int8Gemm,
}

/// Returns the size in bytes of a row of integers, and of the sums of its groups.
fn row_bytes(groups: &Groups) -> [usize; 2] {
    [row_stride(groups.k() + AFTER_ROW), groups.count() * size_of::<i32>()]
}

impl WeightKernels for Int4Kernels {
    fn name(&self) -> &'static str {
        self.gemm.name()
    }

    fn pack(
        &self,
        weight: LinearWeight<'_>,
        bias: Option<HostTensor<'_>>,
        at: (&mut Packs, &mut Pool),
    ) -> Result<Box<dyn PackedWeight>, DeviceError> {
        let LinearWeight::Int4(int4) = weight else {
            return Err(weight.refused(crate::NAME, [Form::Int4(Inputs::Int8PerToken)]));
        };
        let linear = GroupedLinear::pack(grouped::Rows::Int4(int4), Packing::Halves, bias, self.vectors, at)?;
        Ok(Box::new(Layer { linear, kernels: *self }))
    }

    fn bytes(&self, n: usize, k: usize, group: usize) -> usize {
        GroupedLinear::bytes(n, Groups::new(k, group, Packing::Halves))
    }

    fn row_bytes(&self, k: usize, group: usize) -> Option<usize> {
        Some(row_bytes(&Groups::new(k, group, Packing::Halves)).iter().sum())
    }
}

/// A weight in int4, with the kernels that multiply it.
#[derive(Debug)]
struct Layer {
    linear: GroupedLinear,
    kernels: Int4Kernels,
}

impl PackedWeight for Layer {
    fn shape(&self) -> (usize, usize) {
        (self.linear.n, self.linear.groups.k())
    }

    fn ends_with_swiglu(&self) -> bool {
        false
    }

    /// The sum of the groups, times the token's scale, plus the bias. Each step is in fp32; the result is rounded to the
    /// type of the device.
    fn multiply(
        &self,
        x: Rows<'_>,
        _epilogue: Epilogue,
        out: &mut RowsMut<'_>,
        scratch: &mut Scratch,
        pool: &mut Pool,
    ) {
        for rows in blocks_of_rows(x.rows, BLOCK_ROWS) {
            let x = x.range(&rows);
            let out_stride = out.stride;
            let shared = SharedSlice::new(&mut out.data[rows.start * out_stride..]);
            quantise(x, &self.linear.groups, self.kernels.vectors, scratch, pool);
            Job { layer: self, rows: x.rows, scratch, out: &shared, out_stride }.run(pool);
        }
    }
}

/// Quantises rows and sums the integers of each group.
fn quantise(x: Rows<'_>, groups: &Groups, vectors: Vectors, scratch: &mut Scratch, pool: &mut Pool) {
    let ([stride, _], k) = (row_bytes(groups), groups.k());
    let (integers, sums) = scratch.rows.split_at_mut(x.rows * stride);
    let integers = SharedSlice::new(bytemuck::cast_slice_mut(integers));
    let sums: SharedSlice<'_, i32> =
        SharedSlice::new(bytemuck::cast_slice_mut(&mut sums[..x.rows * groups.count() * size_of::<i32>()]));
    let scaled = SharedSlice::new(&mut scratch.scaled);
    pool.split(x.rows, x.rows * k, &|rows| {
        for row in rows {
            // SAFETY: a row belongs to one thread.
            let (out, sums, scaled) = unsafe {
                let out =
                    integers.range(row * stride..row * stride + (k + AFTER_ROW).next_multiple_of(TILE_K));
                let sums = sums.range(row * groups.count()..(row + 1) * groups.count());
                (out, sums, scaled.range(row..row + 1))
            };
            scaled[0] = vectors.run(Quantise { x: &x.data[row * x.stride..][..k], out, by: None });
            vectors.run_fp32(SumGroups { q: out, groups, sums });
        }
    });
}

/// Sums the integers of each group over whole lines, as products read them.
struct SumGroups<'a> {
    q: &'a [i8],
    groups: &'a Groups,
    sums: &'a mut [i32],
}

impl Kernel for SumGroups<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, _isa: I) {
        for (group, sum) in self.sums.iter_mut().enumerate() {
            let inputs = self.groups.inputs(group);
            let lines = &self.q[inputs.start..inputs.start + inputs.len().next_multiple_of(LINE)];
            *sum = lines.iter().map(|&q| i32::from(q)).sum();
        }
    }
}

/// A block of rows that were quantised for a layer, and the destination of its results.
struct Job<'a> {
    layer: &'a Layer,
    rows: usize,
    scratch: &'a Scratch,
    out: &'a SharedSlice<'a, f32>,
    out_stride: usize,
}

impl Job<'_> {
    /// Multiplies the rows. An integer product takes about a quarter of the time of a float product.
    fn run(&self, pool: &mut Pool) {
        let GroupedLinear { n, groups, .. } = &self.layer.linear;
        let panels = n.div_ceil(PANEL);
        let pieces = (pool.threads() * PIECES_A_THREAD).min(panels);
        pool.each(pieces, self.rows * n * groups.k() / 4, &|_, piece| {
            let piece = part(panels, piece, pieces);
            if self.rows < MANY_ROWS {
                self.multiply(&piece, 0..groups.count());
                self.finish(&piece);
                return;
            }
            let each = (BLOCK_K / groups.group()).max(1);
            for first in piece.clone().step_by(MANY_PANELS) {
                let panels = first..piece.end.min(first + MANY_PANELS);
                for begin in (0..groups.count()).step_by(each) {
                    self.multiply(&panels, begin..groups.count().min(begin + each));
                }
                self.finish(&panels);
            }
        });
    }

    fn multiply(&self, panels: &Range<usize>, groups: Range<usize>) {
        let linear = &self.layer.linear;
        let [stride, _] = row_bytes(&linear.groups);
        let (integers, sums) = self.scratch.rows.split_at(self.rows * stride);
        Product {
            a: bytemuck::cast_slice(integers),
            a_stride: stride,
            sums: bytemuck::cast_slice(&sums[..self.rows * linear.groups.count() * size_of::<i32>()]),
            w: linear.panels_from(panels.start),
            layout: linear.groups,
            groups,
            c: self.columns(panels),
        }
        .run(self.layer.kernels.gemm);
    }

    /// Returns this thread's columns of all rows.
    fn columns(&self, panels: &Range<usize>) -> Strided<'_, f32> {
        let (first, columns) = (panels.start * PANEL, panels.len() * PANEL);
        // SAFETY: the columns of these panels belong to this thread.
        unsafe { self.out.strided(first, self.rows, columns, self.out_stride) }
    }

    /// Applies the tokens' scales, adds the bias and rounds.
    fn finish(&self, panels: &Range<usize>) {
        let (vectors, linear) = (self.layer.kernels.vectors, &self.layer.linear);
        let bias = linear.bias(panels.start * PANEL..panels.end * PANEL);
        let mut columns = self.columns(panels);
        for row in 0..self.rows {
            let sums = columns.row(row);
            vectors.run_fp32(ScaleRow { sums, scale: self.scratch.scaled[row].scale });
            vectors.run(Finish { sums, bias });
        }
    }
}

/// `sums[i] = sums[i] * scale` in place, for whole vectors.
struct ScaleRow<'a> {
    sums: &'a mut [f32],
    scale: f32,
}

impl Kernel for ScaleRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, isa: I) {
        let scale = isa.splat(self.scale);
        for sums in self.sums.as_chunks_mut().0 {
            isa.load(sums).mul(scale).store(sums);
        }
    }
}
