//! Integer products on x86-64.

use std::arch::x86_64::{
    __m512i, _mm256_abs_epi8, _mm256_add_epi32, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_setzero_si256, _mm256_sign_epi8, _mm256_storeu_si256,
    _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_storeu_si512,
    _mm512_xor_si512,
};

use super::kernels::{Int8Product, QUAD};
use crate::device::cpu::buffer::prefetch_line;
use crate::device::cpu::kernels::PANEL;

/// `vpdpbusd` multiplies unsigned by signed numbers: weights are made unsigned by adding this, so that the activations, four of
/// which are read from memory as the instruction's last operand, stay as they are.
pub const VNNI_OFFSET: i32 = 128;

/// Rows of the highest tile of VNNI, by two panels: 24 sums, two registers of weights and the activations. A step of depth loads 14
/// times for 24 products; with one panel it loaded 13 times for 12, as much as the load units can do.
const VNNI_ROWS: usize = 12;
/// How far ahead of a panel's reading its memory is asked for, where it is read once.
const AHEAD_BYTES: usize = 2048;
/// Rows of the widest tile of AVX2: 8 sums, two registers of weights, the activations and their magnitudes, and the ones.
const AVX2_ROWS: usize = 4;

/// Four activations as one lane.
#[inline(always)]
unsafe fn quad(a: *const i8) -> i32 {
    // SAFETY: four numbers by the caller's promise.
    unsafe { a.cast::<i32>().read_unaligned() }
}

/// `M` rows by `P` panels, the whole of `k` in registers.
#[inline(always)]
unsafe fn tile_avx2<const M: usize, const P: usize>(t: &Int8Product, row: usize, panel: usize) {
    // SAFETY: rows `row..row + M` and panels `panel..panel + P` lie inside the product; AVX2 is present by the caller's promise.
    unsafe {
        let a = t.a.add(row * t.a_stride);
        let w = t.w.add(panel * t.panel_stride);
        let at = |m: usize, p: usize, half: usize| {
            t.c.add((row + m) * t.c_stride + (panel + p) * PANEL + half * 8)
        };
        let ones = _mm256_set1_epi16(1);
        let mut sums = [[[_mm256_setzero_si256(); 2]; P]; M];
        for k in (0..t.k).step_by(QUAD) {
            for m in 0..M {
                let x = _mm256_set1_epi32(quad(a.add(m * t.a_stride + k)));
                let magnitude = _mm256_abs_epi8(x);
                for p in 0..P {
                    for half in 0..2 {
                        let w = w.add(p * t.panel_stride + k * PANEL + half * 32);
                        let w = _mm256_loadu_si256(w.cast());
                        // |x| * (w with x's sign): two products are at most 2 * 127 * 127, which 16 bits hold.
                        let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(w, x));
                        let quads = _mm256_madd_epi16(pairs, ones);
                        sums[m][p][half] = _mm256_add_epi32(sums[m][p][half], quads);
                    }
                }
            }
        }
        for m in 0..M {
            for p in 0..P {
                for half in 0..2 {
                    let c = at(m, p, half);
                    let sum = _mm256_add_epi32(_mm256_loadu_si256(c.cast()), sums[m][p][half]);
                    _mm256_storeu_si256(c.cast(), sum);
                }
            }
        }
    }
}

/// As [`tile_avx2`]; with `AHEAD` the panels come from memory, which is asked for in time.
#[inline(always)]
unsafe fn tile_vnni<const M: usize, const P: usize, const AHEAD: bool>(
    t: &Int8Product,
    row: usize,
    panel: usize,
) {
    // SAFETY: as in `tile_avx2`; VNNI is present by the caller's promise; a prefetch may name any address.
    unsafe {
        let a = t.a.add(row * t.a_stride);
        let w = t.w.add(panel * t.panel_stride);
        let offset = _mm512_set1_epi32(i32::from_le_bytes([VNNI_OFFSET as u8; QUAD]));
        let mut sums = [[_mm512_setzero_si512(); P]; M];
        for m in 0..M {
            for p in 0..P {
                sums[m][p] = _mm512_loadu_si512(at_vnni(t, row + m, panel + p));
            }
        }
        for k in (0..t.k).step_by(QUAD) {
            let mut weights = [_mm512_setzero_si512(); P];
            for p in 0..P {
                let w = w.add(p * t.panel_stride + k * PANEL);
                if AHEAD {
                    prefetch_line(w.wrapping_add(AHEAD_BYTES).cast());
                }
                let w = _mm512_loadu_si512(w.cast());
                // Adding 128 to a number of eight bits turns its first bit.
                weights[p] = _mm512_xor_si512(w, offset);
            }
            for m in 0..M {
                let x = _mm512_set1_epi32(quad(a.add(m * t.a_stride + k)));
                for p in 0..P {
                    sums[m][p] = _mm512_dpbusd_epi32(sums[m][p], weights[p], x);
                }
            }
        }
        for m in 0..M {
            for p in 0..P {
                _mm512_storeu_si512(at_vnni(t, row + m, panel + p), sums[m][p]);
            }
        }
    }
}

/// Of panels that are read once, from memory.
#[inline(always)]
unsafe fn tile_vnni_streamed<const M: usize, const P: usize>(t: &Int8Product, row: usize, panel: usize) {
    // SAFETY: the caller's promise.
    unsafe { tile_vnni::<M, P, true>(t, row, panel) }
}

/// Of panels that other rows read, too.
#[inline(always)]
unsafe fn tile_vnni_cached<const M: usize, const P: usize>(t: &Int8Product, row: usize, panel: usize) {
    // SAFETY: the caller's promise.
    unsafe { tile_vnni::<M, P, false>(t, row, panel) }
}

/// Where the sums of a row and panel lie.
#[inline(always)]
unsafe fn at_vnni(t: &Int8Product, row: usize, panel: usize) -> *mut __m512i {
    // SAFETY: inside the product by the caller's promise.
    unsafe { t.c.add(row * t.c_stride + panel * PANEL).cast() }
}

/// Calls a tile of all rows for all panels, `P` panels at a time, the rest one by one.
macro_rules! strip {
    ($tile:ident, $t:ident, $m:literal, $p:literal) => {{
        let whole = $t.panels / $p * $p;
        for panel in (0..whole).step_by($p) {
            $tile::<$m, $p>($t, 0, panel);
        }
        for panel in whole..$t.panels {
            $tile::<$m, 1>($t, 0, panel);
        }
    }};
}

/// Calls tiles of like height, `most` rows at most, for `P` panels from one on.
macro_rules! rows_of_panels {
    ($tile:ident, $t:ident, $most:expr, $panel:expr, [$($m:literal),+], $p:literal) => {{
        let tiles = $t.rows.div_ceil($most);
        for i in 0..tiles {
            let (row, end) = ($t.rows * i / tiles, $t.rows * (i + 1) / tiles);
            match end - row {
                $($m => $tile::<$m, $p>($t, row, $panel),)+
                _ => {}
            }
        }
    }};
}

/// [`Int8Product`] with AVX2.
#[inline(always)]
pub unsafe fn gemm_avx2(t: &Int8Product) {
    // SAFETY: the tiles lie inside the product.
    unsafe {
        match t.rows {
            0 => {}
            // Few rows: several panels at once, so that enough independent sums are in flight.
            1 => strip!(tile_avx2, t, 1, 4),
            2 => strip!(tile_avx2, t, 2, 2),
            _ => {
                for panel in 0..t.panels {
                    rows_of_panels!(tile_avx2, t, AVX2_ROWS, panel, [1, 2, 3, 4], 1);
                }
            }
        }
    }
}

/// [`Int8Product`] with AVX-512 VNNI and [`VNNI_OFFSET`].
#[inline(always)]
pub unsafe fn gemm_vnni(t: &Int8Product) {
    // SAFETY: the tiles lie inside the product.
    unsafe {
        match t.rows {
            0 => {}
            // Few rows, whose weights come from memory: as many panels as the registers have room for.
            1 => strip!(tile_vnni_streamed, t, 1, 8),
            2 => strip!(tile_vnni_streamed, t, 2, 8),
            3 => strip!(tile_vnni_streamed, t, 3, 6),
            4 => strip!(tile_vnni_streamed, t, 4, 4),
            5 => strip!(tile_vnni_streamed, t, 5, 4),
            6 => strip!(tile_vnni_streamed, t, 6, 3),
            7 => strip!(tile_vnni_streamed, t, 7, 3),
            8 => strip!(tile_vnni_streamed, t, 8, 3),
            _ => {
                let pairs = t.panels / 2 * 2;
                for panel in (0..pairs).step_by(2) {
                    rows_of_panels!(tile_vnni_cached, t, VNNI_ROWS, panel, [6, 7, 8, 9, 10, 11, 12], 2);
                }
                if pairs < t.panels {
                    rows_of_panels!(tile_vnni_cached, t, VNNI_ROWS, pairs, [6, 7, 8, 9, 10, 11, 12], 1);
                }
            }
        }
    }
}
