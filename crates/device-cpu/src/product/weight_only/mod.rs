//! Products of integer weights with floating-point inputs ("weight-only quantisation": W8A16, W4A16).
//!
//! Integers are widened in registers, and sums are fp32 ([`gemm`]). Scales multiply the sums of their groups, so a weight
//! is read as the bytes that it has. All kernel families use these vector kernels.

mod gemm;
#[cfg(test)]
pub(in crate::product) mod tests;

use std::marker::PhantomData;
use std::ops::Range;

use glmbench_device::{DeviceError, Form, HostTensor, Inputs, LinearWeight};

use crate::buffer::{SharedSlice, Strided};
use crate::elementwise::Finish;
use crate::pack::grouped::{self, GroupedLinear, Groups, LINE};
use crate::pack::{PANEL, Rows, RowsMut};
use crate::packs::Packs;
use crate::pool::Pool;
use crate::simd::Vectors;

use super::vector::{BLOCK_NUMBERS, Wide};
use super::{Epilogue, PackedWeight, Scratch, WeightKernels};

use self::gemm::{GroupGemm, Integers};

pub(crate) use self::gemm::{Int4, Int8};

/// From this number of rows on, a product is computed in blocks of inputs.
const MANY_ROWS: usize = 24;
/// Inputs of such a block: its rows stay in L2.
const BLOCK_K: usize = 256;
/// Panels that share a block of rows while it is in L2, in whole tiles.
const GROUP_PANELS: usize = 12;

/// Products with weights of one kind of integers.
#[derive(Debug)]
pub(crate) struct WeightOnly<Q> {
    vectors: Vectors,
    of: PhantomData<Q>,
}

impl<Q> WeightOnly<Q> {
    /// Creates the products of a set.
    pub(crate) fn new(vectors: Vectors) -> Self {
        Self { vectors, of: PhantomData }
    }
}

impl<Q: Integers + std::fmt::Debug> WeightKernels for WeightOnly<Q> {
    fn name(&self) -> &'static str {
        self.vectors.name()
    }

    fn pack(
        &self,
        weight: LinearWeight<'_>,
        bias: Option<HostTensor<'_>>,
        at: (&mut Packs, &mut Pool),
    ) -> Result<Box<dyn PackedWeight>, DeviceError> {
        let rows = match weight {
            LinearWeight::Int8(int8) => grouped::Rows::Int8(int8),
            LinearWeight::Int4(int4) => grouped::Rows::Int4(int4),
            other => {
                let forms = [Form::Int8(Inputs::Float), Form::Int4(Inputs::Float)];
                return Err(other.refused(crate::NAME, forms));
            }
        };
        let linear = GroupedLinear::pack(rows, Q::PACKING, bias, self.vectors, at)?;
        Ok(Box::new(Layer::<Q> { linear, vectors: self.vectors, of: PhantomData }))
    }

    fn bytes(&self, n: usize, k: usize, group: usize) -> usize {
        GroupedLinear::bytes(n, Groups::new(k, group, Q::PACKING))
    }

    fn row_bytes(&self, _k: usize, _group: usize) -> Option<usize> {
        None
    }
}

/// A weight, with the kernels that multiply it.
#[derive(Debug)]
struct Layer<Q> {
    linear: GroupedLinear,
    vectors: Vectors,
    of: PhantomData<Q>,
}

impl<Q: Integers + std::fmt::Debug> PackedWeight for Layer<Q> {
    fn shape(&self) -> (usize, usize) {
        (self.linear.n, self.linear.groups.k())
    }

    fn ends_with_swiglu(&self) -> bool {
        false
    }

    fn multiply(
        &self,
        x: Rows<'_>,
        _epilogue: Epilogue,
        out: &mut RowsMut<'_>,
        _scratch: &mut Scratch,
        pool: &mut Pool,
    ) {
        let (n, k) = self.shape();
        let out_stride = out.stride;
        let shared = SharedSlice::new(out.data);
        let job = Job { layer: self, x, out: &shared, out_stride };
        pool.split(n.div_ceil(PANEL), x.rows * n * k, &|range| {
            if x.rows >= MANY_ROWS {
                job.large(range);
            } else {
                let groups = 0..self.linear.groups.count();
                job.multiply(&range, groups, 0..k, None);
                job.finish(&range);
            }
        });
    }
}

struct Job<'a, Q> {
    layer: &'a Layer<Q>,
    x: Rows<'a>,
    out: &'a SharedSlice<'a, f32>,
    out_stride: usize,
}

impl<Q: Integers> Job<'_, Q> {
    /// Multiplies many rows, a block of inputs after the other. Between blocks the sums stay in `out`.
    #[expect(clippy::large_stack_arrays, reason = "24 KiB, in use all the time")]
    fn large(&self, panels: Range<usize>) {
        let layout = self.layer.linear.groups;
        let side_by_side = self.layer.vectors.tile_panels();
        let block_k = BLOCK_K.min(BLOCK_NUMBERS / (side_by_side * PANEL));
        let mut wide = Wide([0.0; BLOCK_NUMBERS]);
        for first in panels.clone().step_by(GROUP_PANELS) {
            let group = first..panels.end.min(first + GROUP_PANELS);
            if layout.count() == 1 {
                const {
                    assert!(
                        BLOCK_K.is_multiple_of(LINE) && (BLOCK_NUMBERS / (3 * PANEL)).is_multiple_of(LINE)
                    );
                };
                for begin in (0..layout.k()).step_by(block_k) {
                    self.multiply(&group, 0..1, begin..layout.k().min(begin + block_k), Some(&mut wide));
                }
            } else {
                let each = (block_k / layout.group()).max(1);
                for begin in (0..layout.count()).step_by(each) {
                    let groups = begin..layout.count().min(begin + each);
                    self.multiply(&group, groups, 0..layout.k(), Some(&mut wide));
                }
            }
            self.finish(&group);
        }
    }

    /// Multiplies panels over groups. With `wide`, there are many rows, and a tile's panels are widened there if they fit. Without,
    /// there are few rows, and the panels stream from memory.
    fn multiply(
        &self,
        panels: &Range<usize>,
        groups: Range<usize>,
        inputs: Range<usize>,
        wide: Option<&mut Wide>,
    ) {
        let linear = &self.layer.linear;
        let streamed = wide.is_none();
        let most =
            if linear.groups.count() == 1 { inputs.len() } else { groups.len() * linear.groups.group() };
        let side_by_side = self.layer.vectors.tile_panels();
        let wide = wide
            .filter(|_| side_by_side * most * PANEL <= BLOCK_NUMBERS)
            .map(|wide| Strided::new(&mut wide.0, side_by_side, most * PANEL, most * PANEL));
        self.layer.vectors.run_fp32(GroupGemm::<Q> {
            a: self.x.data,
            a_stride: self.x.stride,
            w: linear.panels_from(panels.start),
            layout: linear.groups,
            groups,
            inputs,
            c: self.columns(panels),
            streamed,
            wide,
            of: PhantomData,
        });
    }

    /// Returns this thread's columns of all rows.
    fn columns(&self, panels: &Range<usize>) -> Strided<'_, f32> {
        let (first, columns) = (panels.start * PANEL, panels.len() * PANEL);
        // SAFETY: the columns of these panels belong to this thread.
        unsafe { self.out.strided(first, self.x.rows, columns, self.out_stride) }
    }

    /// Adds the bias and rounds.
    fn finish(&self, panels: &Range<usize>) {
        let bias = self.layer.linear.bias(panels.start * PANEL..panels.end * PANEL);
        let mut columns = self.columns(panels);
        for row in 0..self.x.rows {
            self.layer.vectors.run(Finish { sums: columns.row(row), bias });
        }
    }
}
