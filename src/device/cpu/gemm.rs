//! The product of the vector kernels, in registers of sums.

use super::kernels::{Element, PANEL};
use super::simd::Simd16;

/// One product `c[m, 16 p..] += a[m, k] * panel_p[k, 16]` for `rows` rows and `panels` panels.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// First number of `a`.
    pub a: *const f32,
    /// Numbers between rows of `a`.
    pub a_stride: usize,
    /// Rows of `a` and `c`.
    pub rows: usize,
    /// First number of the first panel; fp32, fp16 or bf16 as the kernel says.
    pub w: *const u8,
    /// Numbers between panels.
    pub panel_stride: usize,
    /// Panels.
    pub panels: usize,
    /// Products a sum.
    pub k: usize,
    /// First number of `c`.
    pub c: *mut f32,
    /// Numbers between rows of `c`.
    pub c_stride: usize,
}

/// `M` rows by `P` panels, the whole of `k` in registers.
///
/// # Safety
/// As [`Kernels`](super::kernels::Kernels).
#[inline(always)]
unsafe fn tile<V: Simd16, E: Element, const M: usize, const P: usize>(t: &Product, row: usize, panel: usize) {
    // SAFETY: rows `row..row + M` and panels `panel..panel + P` lie inside the product.
    unsafe {
        let a = t.a.add(row * t.a_stride);
        let w = t.w.add(panel * t.panel_stride * E::BYTES);
        let c = t.c.add(row * t.c_stride + panel * PANEL);
        let mut sums = [[V::splat(0.0); P]; M];
        for m in 0..M {
            for p in 0..P {
                sums[m][p] = V::load(c.add(m * t.c_stride + p * PANEL));
            }
        }
        for k in 0..t.k {
            let mut weights = [V::splat(0.0); P];
            for p in 0..P {
                weights[p] = E::load(w.add((p * t.panel_stride + k * PANEL) * E::BYTES));
            }
            for m in 0..M {
                let x = V::splat(*a.add(m * t.a_stride + k));
                for p in 0..P {
                    sums[m][p] = x.mul_add(weights[p], sums[m][p]);
                }
            }
        }
        for m in 0..M {
            for p in 0..P {
                sums[m][p].store(c.add(m * t.c_stride + p * PANEL));
            }
        }
    }
}

/// All panels, `P` at a time, the rest one by one.
#[inline(always)]
unsafe fn strip<V: Simd16, E: Element, const M: usize, const P: usize>(t: &Product, row: usize) {
    let whole = t.panels / P * P;
    for panel in (0..whole).step_by(P) {
        // SAFETY: inside the product.
        unsafe { tile::<V, E, M, P>(t, row, panel) };
    }
    for panel in whole..t.panels {
        // SAFETY: inside the product.
        unsafe { tile::<V, E, M, 1>(t, row, panel) };
    }
}

/// # Safety
/// As [`Kernels`](super::kernels::Kernels).
#[inline(always)]
pub unsafe fn gemm<V: Simd16, E: Element>(t: &Product) {
    // SAFETY: the tiles lie inside the product.
    unsafe {
        match t.rows {
            0 => {}
            // Few rows: several panels at once, so that enough independent sums are in flight.
            1 => strip::<V, E, 1, 4>(t, 0),
            2 => strip::<V, E, 2, 2>(t, 0),
            3 => strip::<V, E, 3, 2>(t, 0),
            rows => {
                let tiles = rows.div_ceil(V::TILE_ROWS);
                for panel in 0..t.panels {
                    for i in 0..tiles {
                        let (begin, end) = (rows * i / tiles, rows * (i + 1) / tiles);
                        rows_of_panel::<V, E>(t, begin, end - begin, panel);
                    }
                }
            }
        }
    }
}

/// One panel, up to twelve rows.
#[inline(always)]
unsafe fn rows_of_panel<V: Simd16, E: Element>(t: &Product, row: usize, rows: usize, panel: usize) {
    // SAFETY: the caller's promise; tiles wider than `TILE_ROWS` are never asked for.
    unsafe {
        match rows {
            1 => tile::<V, E, 1, 1>(t, row, panel),
            2 => tile::<V, E, 2, 1>(t, row, panel),
            3 => tile::<V, E, 3, 1>(t, row, panel),
            4 => tile::<V, E, 4, 1>(t, row, panel),
            5 if V::TILE_ROWS >= 5 => tile::<V, E, 5, 1>(t, row, panel),
            6 if V::TILE_ROWS >= 6 => tile::<V, E, 6, 1>(t, row, panel),
            7 if V::TILE_ROWS >= 7 => tile::<V, E, 7, 1>(t, row, panel),
            8 if V::TILE_ROWS >= 8 => tile::<V, E, 8, 1>(t, row, panel),
            9 if V::TILE_ROWS >= 9 => tile::<V, E, 9, 1>(t, row, panel),
            10 if V::TILE_ROWS >= 10 => tile::<V, E, 10, 1>(t, row, panel),
            11 if V::TILE_ROWS >= 11 => tile::<V, E, 11, 1>(t, row, panel),
            12 if V::TILE_ROWS >= 12 => tile::<V, E, 12, 1>(t, row, panel),
            _ => {}
        }
    }
}
