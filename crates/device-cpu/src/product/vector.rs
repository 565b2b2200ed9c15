//! Linear layers in the type of the device with vectors.

use std::ops::Range;

use glmbench_device::{DType, DeviceError, HostTensor, LinearWeight};

use crate::buffer::{SharedSlice, Strided};
use crate::elementwise::Finish;
use crate::pack::{Linear, Order, PANEL, Rows, RowsMut, Widen};
use crate::packs::Packs;
use crate::pool::Pool;
use crate::simd::Vectors;

use super::{Epilogue, Gemm, PackedWeight, Prefetch, Scratch, WeightKernels};

/// Numbers per block of a large product: the panels that a tile reads side by side, over some depth, widened to fp32.
/// 24 KiB, which fit L1 beside a tile's rows.
pub(super) const BLOCK_NUMBERS: usize = 6144;
/// Maximum depth of such a block.
const BLOCK_K: usize = 256;
/// Panels that share a block of rows while it is in L2, in whole tiles.
const GROUP_PANELS: usize = 12;
/// From this number of rows on, a panel is widened to fp32 once and then read from cache.
const WIDEN_ROWS: usize = 64;

/// Products with vectors.
#[derive(Debug)]
pub(crate) struct VectorKernels {
    pub(crate) vectors: Vectors,
}

impl WeightKernels for VectorKernels {
    fn name(&self) -> &'static str {
        self.vectors.name()
    }

    fn pack(
        &self,
        weight: LinearWeight<'_>,
        bias: Option<HostTensor<'_>>,
        at: (&mut Packs, &mut Pool),
    ) -> Result<Box<dyn PackedWeight>, DeviceError> {
        let weight = weight.dense(crate::NAME)?;
        let linear = Linear::pack(weight, bias, Order::rows(weight.width), self.vectors, at)?;
        Ok(Box::new(VectorLinear { linear, vectors: self.vectors }))
    }

    fn bytes(&self, n: usize, k: usize, _group: usize) -> usize {
        Linear::bytes(n, Order::rows(k), self.vectors.dtype())
    }

    fn row_bytes(&self, _k: usize, _group: usize) -> Option<usize> {
        None
    }
}

/// A weight that vectors multiply.
#[derive(Debug)]
struct VectorLinear {
    linear: Linear,
    vectors: Vectors,
}

impl PackedWeight for VectorLinear {
    fn shape(&self) -> (usize, usize) {
        (self.linear.n, self.linear.k)
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
        let Self { linear, vectors } = self;
        let panels = linear.n.div_ceil(PANEL);
        let out_stride = out.stride;
        let shared = SharedSlice::new(out.data);
        let job = Job { linear, x, vectors: *vectors, out: &shared, out_stride };
        pool.split(panels, x.rows * linear.n * linear.k, &|range| {
            if x.rows >= WIDEN_ROWS {
                job.large(range);
            } else {
                job.small(range);
            }
        });
    }
}

/// The widened panels of a block, one after the other. The alignment keeps a panel's row inside one cache line.
#[repr(align(64))]
pub(super) struct Wide(pub(super) [f32; BLOCK_NUMBERS]);

/// A block of a large product: some panels, over some depth.
type Block = (Range<usize>, Range<usize>);

/// Returns the blocks of a large product in their order. A group of panels has blocks of depth, and each of these has the
/// panels that a tile reads side by side.
fn blocks_of(
    panels: Range<usize>,
    k: usize,
    side_by_side: usize,
    block_k: usize,
) -> impl Iterator<Item = Block> {
    panels.clone().step_by(GROUP_PANELS).flat_map(move |first| {
        let group = first..panels.end.min(first + GROUP_PANELS);
        (0..k).step_by(block_k).flat_map(move |begin| {
            let (depth, end) = (begin..k.min(begin + block_k), group.end);
            let of_tile = move |first| (first..end.min(first + side_by_side), depth.clone());
            group.clone().step_by(side_by_side).map(of_tile)
        })
    })
}

struct Job<'a> {
    linear: &'a Linear,
    x: Rows<'a>,
    vectors: Vectors,
    out: &'a SharedSlice<'a, f32>,
    out_stride: usize,
}

impl Job<'_> {
    /// Multiplies few rows: the weights stream from memory once.
    fn small(&self, panels: Range<usize>) {
        let k = self.linear.k;
        self.clear(&panels);
        self.vectors.run(Gemm {
            a: self.x.data,
            a_stride: self.x.stride,
            w: self.linear.rows(panels.start, 0),
            panel_stride: k * PANEL,
            k,
            c: self.columns(&panels),
            prefetch: Some(Prefetch::Same),
            next_rows: false,
            wide: None,
        });
        self.finish(&panels);
    }

    /// Multiplies many rows, in blocks of `k`. A tile's panels are widened once per block. Between blocks the sums stay
    /// in `out`, so the next block continues the same chain of additions.
    #[expect(clippy::large_stack_arrays, reason = "24 KiB, in use all the time")]
    fn large(&self, panels: Range<usize>) {
        let (k, side_by_side) = (self.linear.k, self.vectors.tile_panels());
        let block_k = BLOCK_K.min(BLOCK_NUMBERS / (side_by_side * PANEL));
        let mut wide = Wide([0.0; BLOCK_NUMBERS]);
        let mut blocks = blocks_of(panels, k, side_by_side, block_k).peekable();
        while let Some((panels, depth)) = blocks.next() {
            if depth.start == 0 {
                self.clear(&panels);
            }
            self.block(&panels, depth.clone(), blocks.peek(), &mut wide);
            if depth.end == k {
                self.finish(&panels);
            }
        }
    }

    /// Multiplies some panels over a block of depth, and prefetches the panels of the next block.
    fn block(&self, panels: &Range<usize>, depth: Range<usize>, next: Option<&Block>, wide: &mut Wide) {
        let (numbers, stored) = (depth.len() * PANEL, self.linear.k * PANEL);
        let bytes = self.vectors.dtype().bytes();
        let next = next.map(|(panels, depth)| self.linear.rows(panels.start, depth.start));
        let prefetch = next.map(|panels| Prefetch::Next { panels, stride: stored, bytes });
        let (w, panel_stride) = if self.vectors.dtype() == DType::Fp32 {
            (self.linear.rows(panels.start, depth.start), stored)
        } else {
            for (panel, wide) in panels.clone().zip(wide.0.chunks_exact_mut(numbers)) {
                let stored = &self.linear.rows(panel, depth.start)[..numbers * bytes];
                self.vectors.run(Widen { from: stored, to: wide });
            }
            (bytemuck::cast_slice(&wide.0), numbers)
        };
        self.vectors.fp32().run(Gemm {
            a: &self.x.data[depth.start..],
            a_stride: self.x.stride,
            w,
            panel_stride,
            k: depth.len(),
            c: self.columns(panels),
            prefetch,
            next_rows: true,
            wide: None,
        });
    }

    /// Returns this thread's columns of all rows.
    fn columns(&self, panels: &Range<usize>) -> Strided<'_, f32> {
        let (first, columns) = (panels.start * PANEL, panels.len() * PANEL);
        // SAFETY: the columns of these panels belong to this thread.
        unsafe { self.out.strided(first, self.x.rows, columns, self.out_stride) }
    }

    fn clear(&self, panels: &Range<usize>) {
        let mut columns = self.columns(panels);
        for row in 0..self.x.rows {
            columns.row(row).fill(0.0);
        }
    }

    fn finish(&self, panels: &Range<usize>) {
        let bias = self.linear.bias(panels.start * PANEL..panels.end * PANEL);
        let mut columns = self.columns(panels);
        for row in 0..self.x.rows {
            self.vectors.run(Finish { sums: columns.row(row), bias });
        }
    }
}
