//! The GEMM of the vector kernels, with sums in registers.

use super::buffer::{LINE_BYTES, prefetch_line};
use super::kernels::{Element, PANEL};
use super::simd::Simd16;

/// One product `c[m, 16 p..] += a[m, k] * panel_p[k, 16]` for `rows` rows and `panels` panels.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// First number of `a`.
    pub a: *const f32,
    /// Distance between rows of `a`, in numbers.
    pub a_stride: usize,
    /// Rows of `a` and `c`.
    pub rows: usize,
    /// First number of the first panel: fp32, fp16 or bf16, depending on the kernel.
    pub w: *const u8,
    /// Distance between panels, in numbers.
    pub panel_stride: usize,
    /// Number of panels.
    pub panels: usize,
    /// Number of products per sum.
    pub k: usize,
    /// First number of `c`.
    pub c: *mut f32,
    /// Distance between rows of `c`, in numbers.
    pub c_stride: usize,
}

/// Prefetch distance in a panel: enough to cover the memory latency, and small enough that the panels read side by side
/// fit the first-level cache.
const AHEAD_BYTES: usize = 2048;

/// Multiplies `M` rows by `P` panels, with all sums in registers over the whole of `k`. With `AHEAD`, panels come from
/// memory and are prefetched.
///
/// # Safety
/// As [`Kernels`](super::kernels::Kernels).
#[inline(always)]
unsafe fn tile<V: Simd16, E: Element, const M: usize, const P: usize, const AHEAD: bool>(
    t: &Product,
    row: usize,
    panel: usize,
) {
    // SAFETY: rows `row..row + M` and panels `panel..panel + P` lie inside the product; a prefetch may name any address.
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
        // One cache line of each panel.
        let line = const { LINE_BYTES / (PANEL * E::BYTES) };
        let mut k = 0;
        while k + line <= t.k {
            if AHEAD {
                for p in 0..P {
                    let from = w.wrapping_add((p * t.panel_stride + k * PANEL) * E::BYTES);
                    prefetch_line(from.wrapping_add(AHEAD_BYTES));
                }
            }
            for k in k..k + line {
                step::<V, E, M, P>(t, (a, w), k, &mut sums);
            }
            k += line;
        }
        for k in k..t.k {
            step::<V, E, M, P>(t, (a, w), k, &mut sums);
        }
        for m in 0..M {
            for p in 0..P {
                sums[m][p].store(c.add(m * t.c_stride + p * PANEL));
            }
        }
    }
}

/// Performs one step of depth of a tile: `k` of the tile's rows, which begin at `a`, and panels, which begin at `w`.
#[inline(always)]
unsafe fn step<V: Simd16, E: Element, const M: usize, const P: usize>(
    t: &Product,
    (a, w): (*const f32, *const u8),
    k: usize,
    sums: &mut [[V; P]; M],
) {
    // SAFETY: the caller's promise.
    unsafe {
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
}

/// Multiplies `M` rows by all panels, `P` at a time and the remaining ones singly.
#[inline(always)]
unsafe fn strip<V: Simd16, E: Element, const M: usize, const P: usize, const AHEAD: bool>(t: &Product) {
    let whole = t.panels / P * P;
    for panel in (0..whole).step_by(P) {
        // SAFETY: inside the product.
        unsafe { tile::<V, E, M, P, AHEAD>(t, 0, panel) };
    }
    for panel in whole..t.panels {
        // SAFETY: inside the product.
        unsafe { tile::<V, E, M, 1, AHEAD>(t, 0, panel) };
    }
}

/// Computes the product. With `AHEAD`, panels come from memory; otherwise they are in the first-level cache.
///
/// # Safety
/// As [`Kernels`](super::kernels::Kernels).
#[inline(always)]
pub(crate) unsafe fn gemm<V: Simd16, E: Element, const AHEAD: bool>(t: &Product) {
    // SAFETY: the tiles lie inside the product.
    unsafe {
        match (t.rows, V::TILE_PANELS) {
            (0, _) => {}
            // Few rows: several panels at once, so that enough sums and enough memory requests are in flight.
            (1, 1) => strip::<V, E, 1, 4, AHEAD>(t),
            (2, 1) => strip::<V, E, 2, 2, AHEAD>(t),
            (3, 1) => strip::<V, E, 3, 2, AHEAD>(t),
            (1, _) => strip::<V, E, 1, 8, AHEAD>(t),
            (2, _) => strip::<V, E, 2, 4, AHEAD>(t),
            (3, _) => strip::<V, E, 3, 4, AHEAD>(t),
            // Loops instead of closures, which would be compiled without the instruction set.
            (_, 1) => {
                for panel in 0..t.panels {
                    rows_of_panels::<V, E, 1, AHEAD>(t, panel);
                }
            }
            _ => {
                let whole = t.panels / 3 * 3;
                for panel in (0..whole).step_by(3) {
                    rows_of_panels::<V, E, 3, AHEAD>(t, panel);
                }
                match t.panels - whole {
                    0 => {}
                    1 => rows_of_panels::<V, E, 1, AHEAD>(t, whole),
                    _ => rows_of_panels::<V, E, 2, AHEAD>(t, whole),
                }
            }
        }
    }
}

/// Multiplies all rows by `P` panels, in tiles of nearly equal height.
#[inline(always)]
unsafe fn rows_of_panels<V: Simd16, E: Element, const P: usize, const AHEAD: bool>(
    t: &Product,
    panel: usize,
) {
    let tiles = t.rows.div_ceil(V::TILE_ROWS);
    for i in 0..tiles {
        let (row, end) = (t.rows * i / tiles, t.rows * (i + 1) / tiles);
        // SAFETY: inside the product; no tile is higher than `TILE_ROWS`.
        unsafe {
            match end - row {
                1 => tile::<V, E, 1, P, AHEAD>(t, row, panel),
                2 => tile::<V, E, 2, P, AHEAD>(t, row, panel),
                3 => tile::<V, E, 3, P, AHEAD>(t, row, panel),
                4 => tile::<V, E, 4, P, AHEAD>(t, row, panel),
                5 if V::TILE_ROWS >= 5 => tile::<V, E, 5, P, AHEAD>(t, row, panel),
                6 if V::TILE_ROWS >= 6 => tile::<V, E, 6, P, AHEAD>(t, row, panel),
                7 if V::TILE_ROWS >= 7 => tile::<V, E, 7, P, AHEAD>(t, row, panel),
                8 if V::TILE_ROWS >= 8 => tile::<V, E, 8, P, AHEAD>(t, row, panel),
                _ => {}
            }
        }
    }
}
