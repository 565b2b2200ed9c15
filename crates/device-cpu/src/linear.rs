//! Weight matrices in panels, and products with them.

use std::ops::Range;

use glmbench_device::{DType, DeviceError, HostTensor};

use super::buffer::{Buffer, SharedSlice};
use super::gemm::Product;
use super::int8::{QUAD, TILE_K};
use super::kernels::{Kernels, PANEL};
use super::pool::Pool;
use super::tiles::{PAIR, TILE_BYTES, TILE_DEPTH, TileKernels};

/// Numbers per block of a large product: the panels that a tile reads side by side, over some depth, widened to fp32.
/// 24 KiB, which fit L1 beside a tile's rows.
const BLOCK_NUMBERS: usize = 6144;
/// Maximum depth of such a block.
const BLOCK_K: usize = 256;
/// Panels that share a block of rows while it is in L2, in whole tiles.
const GROUP_PANELS: usize = 12;
/// From this number of rows on, a panel is widened to fp32 once and then read from cache.
const WIDEN_ROWS: usize = 24;

/// Numbers in the device's storage type, as bytes.
pub(crate) type Bytes = Buffer<u8>;

/// The layout of a panel: `[in][16]` for the vector kernels, or tiled. Tiles are `[in / 2][16][2]`, or `[in /
/// 4][16][4]` for integer products, with `in` padded by zeros to whole tiles.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    /// Inputs stored side by side.
    together: usize,
    /// Input width including the padding.
    depth: usize,
}

impl Order {
    /// Returns the layout for `k` inputs, tiled if `tiles` multiply it.
    pub(crate) fn new(k: usize, tiles: Option<&TileKernels>) -> Self {
        match tiles {
            None => Self { together: 1, depth: k },
            Some(_) => Self { together: PAIR, depth: k.next_multiple_of(TILE_DEPTH) },
        }
    }

    /// Returns the layout for `k` inputs that tiles multiply as integers.
    pub(crate) fn integers(k: usize) -> Self {
        Self { together: QUAD, depth: k.next_multiple_of(TILE_K) }
    }

    /// Returns the numbers per panel.
    pub(crate) fn numbers(self) -> usize {
        self.depth * PANEL
    }

    /// Returns the index of input `j` of column `i`.
    #[inline]
    pub(crate) fn at(self, j: usize, i: usize) -> usize {
        match self.together {
            1 => j * PANEL + i,
            PAIR => (j / PAIR * PANEL + i) * PAIR + j % PAIR,
            _ => (j / QUAD * PANEL + i) * QUAD + j % QUAD,
        }
    }
}

/// A weight `[out, in]` in panels of sixteen output columns. A panel is contiguous in memory, and so are the panels of
/// a thread.
#[derive(Debug)]
pub struct Linear {
    /// Output width.
    pub n: usize,
    /// Input width.
    pub k: usize,
    order: Order,
    data: Bytes,
    bias: Option<Buffer<f32>>,
}

impl Linear {
    /// Packs `weight` `[n, k]`, rounded to `dtype`. Each thread of the pool writes the parts that it will read.
    pub fn pack(
        weight: HostTensor<'_>,
        bias: Option<HostTensor<'_>>,
        dtype: DType,
        kernels: &Kernels,
        pool: &mut Pool,
    ) -> Result<Self, DeviceError> {
        let (n, k) = (weight.rows, weight.width);
        let order = Order::new(k, kernels.tiles.as_ref());
        let panels = n.div_ceil(PANEL);
        let panel_bytes = order.numbers() * dtype.bytes();
        let mut data = Bytes::zeroed(Self::bytes((n, k), dtype, kernels), "weights")?;
        let shared = data.shared();
        pool.split(panels, n * k, &|range| {
            let mut packer = Packer { weight, order, dtype, kernels, row: vec![0.0; k], rows: Vec::new() };
            for panel in range {
                // SAFETY: every panel is written by one thread only.
                let out = unsafe { shared.range(panel * panel_bytes..(panel + 1) * panel_bytes) };
                packer.panel(panel * PANEL..n.min((panel + 1) * PANEL), out);
            }
        });
        let bias = bias.map(|b| padded_vector(b, dtype)).transpose()?;
        Ok(Self { n, k, order, data, bias })
    }

    /// Returns the size of a packed weight `[n, k]` in bytes.
    pub fn bytes((n, k): (usize, usize), dtype: DType, kernels: &Kernels) -> usize {
        n.div_ceil(PANEL) * Order::new(k, kernels.tiles.as_ref()).numbers() * dtype.bytes()
    }

    /// Returns a range of depth tiles of a panel in tiled layout.
    pub fn tiles(&self, panel: usize, tiles: &Range<usize>) -> &[u8] {
        let first = panel * self.order.depth / TILE_DEPTH;
        &self.data[(first + tiles.start) * TILE_BYTES..(first + tiles.end) * TILE_BYTES]
    }

    /// Returns a pointer to the bias of column `column`, padded to whole panels; null without a bias.
    pub fn bias(&self, column: usize) -> *const f32 {
        self.bias.as_ref().map_or(std::ptr::null(), |b| b[column..].as_ptr())
    }

    /// Computes `out = x * weight^T + bias`, rounded to `dtype`.
    pub fn apply(
        &self,
        x: Rows<'_>,
        out: &mut RowsMut<'_>,
        dtype: DType,
        kernels: &Kernels,
        pool: &mut Pool,
    ) {
        let panels = self.n.div_ceil(PANEL);
        let out_stride = out.stride;
        let shared = SharedSlice::new(out.data);
        let job = Job { linear: self, x, dtype, kernels, out: &shared, out_stride };
        pool.split(panels, x.rows * self.n * self.k, &|range| {
            if x.rows >= WIDEN_ROWS {
                job.large(range);
            } else {
                job.small(range);
            }
        });
    }
}

/// A matrix to read.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Row-major numbers, padded by sixteen at the end.
    pub data: &'a [f32],
    /// Rows in use.
    pub rows: usize,
    /// Distance between rows, in numbers.
    pub stride: usize,
}

impl Rows<'_> {
    /// Returns a range of the rows.
    pub fn range(&self, rows: &Range<usize>) -> Self {
        Self { data: &self.data[rows.start * self.stride..], rows: rows.len(), stride: self.stride }
    }
}

/// A matrix to write.
#[derive(Debug)]
pub struct RowsMut<'a> {
    /// Row-major numbers; rows are padded to sixteen.
    pub data: &'a mut [f32],
    /// Distance between rows, in numbers.
    pub stride: usize,
}

/// The last step of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epilogue {
    /// `sum + bias`, rounded.
    Bias,
    /// As [`Self::Bias`], then `silu` of the first half of the columns times the second half, as in the SwiGLU
    /// operator. The halves are whole panels.
    SwiGlu,
}

impl Epilogue {
    /// Returns how many parts the weight has. Each output has one column in each part.
    pub fn halves(self) -> usize {
        match self {
            Self::Bias => 1,
            Self::SwiGlu => 2,
        }
    }
}

/// The widened panels of a block, one after the other. The alignment keeps a panel's row inside one cache line.
#[repr(align(64))]
struct Wide([f32; BLOCK_NUMBERS]);

struct Job<'a> {
    linear: &'a Linear,
    x: Rows<'a>,
    dtype: DType,
    kernels: &'a Kernels,
    out: &'a SharedSlice<'a, f32>,
    out_stride: usize,
}

impl Job<'_> {
    /// Returns the product of some panels over a range of `k`, with weights at `w`.
    fn product(&self, panels: &Range<usize>, k: Range<usize>, w: *const u8, panel_stride: usize) -> Product {
        Product {
            a: self.x.data[k.start..].as_ptr(),
            a_stride: self.x.stride,
            rows: self.x.rows,
            w,
            panel_stride,
            panels: panels.len(),
            k: k.len(),
            // Only this thread writes the columns of its panels.
            c: self.out.pointer(panels.start * PANEL),
            c_stride: self.out_stride,
        }
    }

    fn panel(&self, panel: usize, k: usize) -> *const u8 {
        self.linear.data[(panel * self.linear.k + k) * PANEL * self.dtype.bytes()..].as_ptr()
    }

    /// Multiplies few rows: the weights stream from memory once.
    fn small(&self, panels: Range<usize>) {
        let k = self.linear.k;
        self.clear(&panels);
        let product = self.product(&panels, 0..k, self.panel(panels.start, 0), k * PANEL);
        // SAFETY: the product lies inside weights and matrices.
        unsafe { (self.kernels.gemm)(&product) };
        self.finish(&panels);
    }

    /// Multiplies many rows, in blocks of `k`. A tile's panels are widened once per block. Between blocks the sums stay
    /// in `out`, so the next block continues the same chain of additions.
    #[expect(clippy::large_stack_arrays, reason = "24 KiB, in use all the time")]
    fn large(&self, panels: Range<usize>) {
        let (k, side_by_side) = (self.linear.k, self.kernels.tile_panels);
        let block_k = BLOCK_K.min(BLOCK_NUMBERS / (side_by_side * PANEL));
        let mut wide = Wide([0.0; BLOCK_NUMBERS]);
        for first in panels.clone().step_by(GROUP_PANELS) {
            let group = first..panels.end.min(first + GROUP_PANELS);
            self.clear(&group);
            for begin in (0..k).step_by(block_k) {
                let block = begin..k.min(begin + block_k);
                for panel in group.clone().step_by(side_by_side) {
                    self.block(panel..group.end.min(panel + side_by_side), block.clone(), &mut wide);
                }
            }
            self.finish(&group);
        }
    }

    /// Multiplies some panels over a block of `k`.
    fn block(&self, panels: Range<usize>, k: Range<usize>, wide: &mut Wide) {
        let numbers = k.len() * PANEL;
        let (w, panel_stride, gemm) = if self.dtype == DType::Fp32 {
            (self.panel(panels.start, k.start), self.linear.k * PANEL, self.kernels.gemm)
        } else {
            for (panel, wide) in panels.clone().zip(wide.0.chunks_exact_mut(numbers)) {
                // SAFETY: a block of a panel on both sides.
                unsafe { (self.kernels.widen)(self.panel(panel, k.start), wide.as_mut_ptr(), numbers) };
            }
            (wide.0.as_ptr().cast(), numbers, self.kernels.gemm_f32)
        };
        let product = self.product(&panels, k, w, panel_stride);
        // SAFETY: the product lies inside the block and the matrices.
        unsafe { gemm(&product) };
    }

    /// Returns this thread's columns of row `row`.
    #[expect(clippy::mut_from_ref, reason = "threads share the matrix by columns")]
    fn columns(&self, row: usize, panels: &Range<usize>) -> &mut [f32] {
        let begin = row * self.out_stride;
        // SAFETY: a row's columns of these panels belong to this thread.
        unsafe { self.out.range(begin + panels.start * PANEL..begin + panels.end * PANEL) }
    }

    fn clear(&self, panels: &Range<usize>) {
        for row in 0..self.x.rows {
            self.columns(row, panels).fill(0.0);
        }
    }

    fn finish(&self, panels: &Range<usize>) {
        let bias = self.linear.bias(panels.start * PANEL);
        for row in 0..self.x.rows {
            let columns = self.columns(row, panels);
            // SAFETY: whole panels; the bias is padded to them.
            unsafe { (self.kernels.finish)(columns.as_mut_ptr(), bias, columns.len()) };
        }
    }
}

/// Packs panels of one weight.
struct Packer<'a> {
    weight: HostTensor<'a>,
    order: Order,
    dtype: DType,
    kernels: &'a Kernels,
    /// A row of the weight in fp32.
    row: Vec<f32>,
    /// A panel's rows in the device's type, if the weight has another type.
    rows: Vec<u8>,
}

impl Packer<'_> {
    /// Packs the weight's rows `rows` as columns of the zeroed panel `out`.
    fn panel(&mut self, rows: Range<usize>, out: &mut [u8]) {
        let bytes = self.weight.width * self.dtype.bytes();
        let stored = if self.dtype == self.weight.dtype {
            &self.weight.data[rows.start * bytes..rows.end * bytes]
        } else {
            self.convert(rows);
            &self.rows
        };
        match self.dtype.bytes() {
            2 => self.place::<2>(stored, out),
            _ => self.place::<4>(stored, out),
        }
    }

    /// Converts rows of the weight to the device's type.
    fn convert(&mut self, rows: Range<usize>) {
        let bytes = self.weight.width * self.dtype.bytes();
        self.rows.resize(rows.len() * bytes, 0);
        for (row, out) in rows.zip(self.rows.chunks_exact_mut(bytes)) {
            self.weight.row_f32(row, &mut self.row);
            // SAFETY: a row on both sides; the kernels belong to this machine.
            unsafe { (self.kernels.narrow)(self.row.as_ptr(), out.as_mut_ptr(), self.row.len()) };
        }
    }

    /// Packs numbers that already have the device's type.
    fn place<const BYTES: usize>(&self, stored: &[u8], out: &mut [u8]) {
        let (stored, out) = (stored.as_chunks::<BYTES>().0, out.as_chunks_mut::<BYTES>().0);
        match self.order.together {
            1 => transpose::<BYTES, 1>(stored, self.weight.width, out),
            _ => transpose::<BYTES, PAIR>(stored, self.weight.width, out),
        }
    }
}

/// Transposes rows of `k` numbers into a panel with `TOGETHER` inputs side by side. It handles a short stretch of all
/// rows at a time, so that the stretch of the panel stays in the first-level cache.
fn transpose<const BYTES: usize, const TOGETHER: usize>(
    rows: &[[u8; BYTES]],
    k: usize,
    panel: &mut [[u8; BYTES]],
) {
    const STRETCH: usize = 64;
    for (stretch, out) in panel.chunks_mut(STRETCH * PANEL).enumerate() {
        for (i, row) in rows.chunks_exact(k).enumerate() {
            let row = &row[k.min(stretch * STRETCH)..k.min((stretch + 1) * STRETCH)];
            let (whole, rest) = row.as_chunks::<TOGETHER>();
            let mut places = out.chunks_exact_mut(PANEL * TOGETHER);
            for (numbers, place) in whole.iter().zip(&mut places) {
                place.as_chunks_mut::<TOGETHER>().0[i] = *numbers;
            }
            if let Some(place) = places.next() {
                place[i * TOGETHER..][..rest.len()].copy_from_slice(rest);
            }
        }
    }
}

/// Converts a vector to fp32, rounded to `dtype` and padded to sixteen numbers.
pub(crate) fn padded_vector(values: HostTensor<'_>, dtype: DType) -> Result<Buffer<f32>, DeviceError> {
    let values = values.to_f32();
    let mut out = Buffer::zeroed(values.len().next_multiple_of(PANEL), "a vector")?;
    for (o, v) in out.iter_mut().zip(values) {
        *o = dtype.round(v);
    }
    Ok(out)
}
