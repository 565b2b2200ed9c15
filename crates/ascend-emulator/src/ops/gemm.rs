//! The matrix product: tiles of up to six rows times panels of sixteen columns, which are converted once.
//!
//! Every result is one chain of additions over ascending `k`, whatever the tile. A row therefore does not depend on the
//! others.

use crate::half::{DType, has_avx2, widen};

/// Columns in a panel.
pub(crate) const PANEL: usize = 16;
/// Depth of a packed panel: 64 KiB.
const DEPTH: usize = 1024;

/// Layout of the right-hand matrix `[k, n]`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Right {
    /// `(k, n)` is at `k * stride + n`.
    Rows(usize),
    /// `(k, n)` is at `n * stride + k`.
    Columns(usize),
    /// `(k, n)` is at `k * first + n * second`.
    Strided(usize, usize),
    /// Blocks of `[k, n]`.
    Blocks,
    /// Blocks of `[n, k]`.
    BlocksTransposed,
}

/// One product `c[m, n] = a[m, k] * b[k, n]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product<'a> {
    /// `[m, k]`, row-major.
    pub a: &'a [f32],
    /// Number of rows.
    pub m: usize,
    /// Number of products per sum.
    pub k: usize,
    /// Number of columns.
    pub n: usize,
    /// First element of the right-hand matrix.
    pub b: *const u8,
    /// Its element type.
    pub dtype: DType,
    /// Its layout.
    pub layout: Right,
}

impl Product<'_> {
    /// Computes the product into `c`, `[m, n.next_multiple_of(16)]`.
    ///
    /// # Safety
    /// `b` points to a matrix of this shape, type and layout.
    pub(crate) unsafe fn run(&self, c: &mut [f32]) {
        let width = self.n.next_multiple_of(PANEL);
        c[..self.m * width].fill(0.0);
        let avx2 = has_avx2();
        let mut panel = vec![0f32; DEPTH.min(self.k.next_multiple_of(PANEL)) * PANEL];
        for first in (0..self.n).step_by(PANEL) {
            for from in (0..self.k).step_by(DEPTH) {
                let depth = DEPTH.min(self.k - from);
                // SAFETY: the caller's promise; the instruction set is there; the panel holds `depth` rounded up to 16.
                unsafe {
                    self.pack(first, from, depth, &mut panel);
                    #[cfg(target_arch = "x86_64")]
                    if avx2 {
                        tiles_avx2(self, from, depth, &panel, &mut c[first..], width);
                        continue;
                    }
                }
                let _ = avx2;
                tiles::<false>(self, from, depth, &panel, &mut c[first..], width);
            }
        }
    }

    /// Converts sixteen columns, `depth` deep, to `[depth][16]`. Columns beyond `n` are zero.
    unsafe fn pack(&self, first: usize, from: usize, depth: usize, panel: &mut [f32]) {
        let columns = PANEL.min(self.n - first);
        if columns < PANEL {
            panel.fill(0.0);
        }
        let bytes = self.dtype.bytes();
        let address = |index: usize| self.b.wrapping_add(index * bytes);
        // SAFETY: all indices are inside the matrix; runs of up to 16 numbers are contiguous as the layout says.
        unsafe {
            match self.layout {
                Right::Rows(stride) => {
                    for i in 0..depth {
                        let row = &mut panel[i * PANEL..][..columns];
                        widen(self.dtype, address((from + i) * stride + first), row);
                    }
                }
                Right::Blocks => {
                    let line = |i: usize| {
                        crate::nz::place(from + i, first, self.k, crate::nz::block_columns(self.dtype))
                    };
                    for i in 0..depth {
                        widen(self.dtype, address(line(i)), &mut panel[i * PANEL..][..columns]);
                    }
                }
                Right::Columns(stride) => {
                    transpose(panel, columns, depth, |column, i, run| {
                        widen(self.dtype, address((first + column) * stride + from + i), run);
                    });
                }
                Right::BlocksTransposed => {
                    let block = crate::nz::block_columns(self.dtype);
                    transpose(panel, columns, depth, |column, i, run| {
                        widen(
                            self.dtype,
                            address(crate::nz::place(first + column, from + i, self.n, block)),
                            run,
                        );
                    });
                }
                Right::Strided(by_k, by_n) => {
                    for i in 0..depth {
                        for column in 0..columns {
                            let at = address((from + i) * by_k + (first + column) * by_n);
                            panel[i * PANEL + column] = crate::half::read_f64(self.dtype, at) as f32;
                        }
                    }
                }
            }
        }
    }
}

/// Fills a panel from columns that are contiguous in depth, sixteen elements at a time.
fn transpose(
    panel: &mut [f32],
    columns: usize,
    depth: usize,
    mut read: impl FnMut(usize, usize, &mut [f32]),
) {
    let mut block = [[0f32; PANEL]; PANEL];
    for i in (0..depth).step_by(PANEL) {
        let n = PANEL.min(depth - i);
        for (column, run) in block.iter_mut().enumerate().take(columns) {
            read(column, i, &mut run[..n]);
        }
        for (j, out) in panel[i * PANEL..].chunks_exact_mut(PANEL).take(n).enumerate() {
            for column in 0..PANEL {
                out[column] = block[column][j];
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn tiles_avx2(p: &Product<'_>, from: usize, depth: usize, panel: &[f32], c: &mut [f32], width: usize) {
    tiles::<true>(p, from, depth, panel, c, width);
}

#[inline(always)]
fn tiles<const FMA: bool>(
    p: &Product<'_>,
    from: usize,
    depth: usize,
    panel: &[f32],
    c: &mut [f32],
    width: usize,
) {
    let mut row = 0;
    while row < p.m {
        let left = p.m - row;
        let a = &p.a[row * p.k + from..];
        let c = &mut c[row * width..];
        row += match left {
            1 => tile::<1, FMA>(a, p.k, depth, panel, c, width),
            2 => tile::<2, FMA>(a, p.k, depth, panel, c, width),
            3 => tile::<3, FMA>(a, p.k, depth, panel, c, width),
            4 => tile::<4, FMA>(a, p.k, depth, panel, c, width),
            5 => tile::<5, FMA>(a, p.k, depth, panel, c, width),
            _ => tile::<6, FMA>(a, p.k, depth, panel, c, width),
        };
    }
}

#[inline(always)]
fn tile<const M: usize, const FMA: bool>(
    a: &[f32],
    stride: usize,
    depth: usize,
    panel: &[f32],
    c: &mut [f32],
    width: usize,
) -> usize {
    let mut sums = [[0f32; PANEL]; M];
    for (i, sum) in sums.iter_mut().enumerate() {
        sum.copy_from_slice(&c[i * width..][..PANEL]);
    }
    let rows: [&[f32]; M] = std::array::from_fn(|i| &a[i * stride..][..depth]);
    for (j, b) in panel.chunks_exact(PANEL).take(depth).enumerate() {
        for (sum, row) in sums.iter_mut().zip(rows) {
            let x = row[j];
            for (s, b) in sum.iter_mut().zip(b) {
                *s = if FMA { x.mul_add(*b, *s) } else { x * b + *s };
            }
        }
    }
    for (i, sum) in sums.iter().enumerate() {
        c[i * width..][..PANEL].copy_from_slice(sum);
    }
    M
}
