//! Integer products on x86-64.

use std::arch::x86_64::{
    __m512i, _mm256_abs_epi8, _mm256_add_epi32, _mm256_dpbusd_avx_epi32, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_setzero_si256,
    _mm256_sign_epi8, _mm256_storeu_si256, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32,
    _mm512_setzero_si512, _mm512_storeu_si512,
};

use crate::buffer::prefetch_line;
use crate::pack::{PANEL, QUAD};
use crate::product::narrow::narrow;
use crate::simd::{Avx2, Avx512Vnni, AvxVnni};

use super::gemm::{Checked, Product};
use super::rows::MANY_ROWS;

/// `vpdpbusd` multiplies unsigned by signed numbers. Weights are stored with this offset added, which makes them
/// unsigned. Activations stay as they are: the instruction reads four of them from memory as its last operand.
pub(super) const VNNI_OFFSET: i32 = 128;

/// Rows of the highest VNNI tile, with two panels: 24 accumulators, two registers of weights and the activations. A
/// step of depth has 14 loads for 24 products. With one panel it had 13 loads for 12, the limit of the load units.
const VNNI_ROWS: usize = 12;
/// Prefetch distance in a panel that is read once.
const AHEAD_BYTES: usize = 2048;
/// Rows of the highest AVX2 tile: 8 accumulators, two registers of weights, the activations and their magnitudes, and
/// the ones.
const AVX2_ROWS: usize = 4;

/// Rows of the highest AVX-VNNI tile: 12 accumulators, two registers of weights and the activations. A step of depth has 8
/// loads for 12 products.
const AVX_VNNI_ROWS: usize = 6;

/// Loads four activations as one lane.
///
/// # Safety
/// There must be four.
#[inline(always)]
unsafe fn quad(a: *const i8) -> i32 {
    // SAFETY: four numbers; they have no alignment.
    unsafe { a.cast::<i32>().read_unaligned() }
}

/// Multiplies `M` rows by `P` panels, with all sums in registers over the whole of `k`. With `AHEAD`, panels come from memory and
/// are prefetched.
///
/// # Safety
/// AVX2 must be present. Rows `row..row + M` and panels `panel..panel + P` must lie inside the product.
#[inline(always)]
unsafe fn tile_avx2<const M: usize, const P: usize, const AHEAD: bool>(
    t: &Product<'_>,
    row: usize,
    panel: usize,
) {
    // SAFETY: rows and panels lie inside the product; the instructions are present.
    unsafe {
        let a = t.a.as_ptr().add(row * t.a_stride);
        let w = t.w.as_ptr().add(panel * t.panel_stride);
        let at = |m: usize, p: usize, half: usize| t.c.pointer(row + m, (panel + p) * PANEL + half * 8);
        let ones = _mm256_set1_epi16(1);
        let mut sums = [[[_mm256_setzero_si256(); 2]; P]; M];
        for k in (0..t.k).step_by(QUAD) {
            for m in 0..M {
                let x = _mm256_set1_epi32(quad(a.add(m * t.a_stride + k)));
                let magnitude = _mm256_abs_epi8(x);
                for p in 0..P {
                    if AHEAD && m == 0 {
                        prefetch_line(w.wrapping_add(p * t.panel_stride + k * PANEL + AHEAD_BYTES).cast());
                    }
                    for half in 0..2 {
                        let w = w.add(p * t.panel_stride + k * PANEL + half * 32);
                        let w = _mm256_loadu_si256(w.cast());
                        // |x| * (w with x's sign): two products are at most 2 * 128 * 127, which fits 16 bits.
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

/// As [`tile_avx2`], with weights stored with [`VNNI_OFFSET`].
///
/// # Safety
/// As [`tile_avx2`], with AVX-VNNI.
#[inline(always)]
unsafe fn tile_avx_vnni<const M: usize, const P: usize, const AHEAD: bool>(
    t: &Product<'_>,
    row: usize,
    panel: usize,
) {
    // SAFETY: rows and panels lie inside the product; the instructions are present.
    unsafe {
        let a = t.a.as_ptr().add(row * t.a_stride);
        let w = t.w.as_ptr().add(panel * t.panel_stride);
        let at =
            |m: usize, p: usize, half: usize| t.c.pointer(row + m, (panel + p) * PANEL + half * 8).cast();
        let mut sums = [[[_mm256_setzero_si256(); 2]; P]; M];
        for m in 0..M {
            for p in 0..P {
                for half in 0..2 {
                    sums[m][p][half] = _mm256_loadu_si256(at(m, p, half));
                }
            }
        }
        for k in (0..t.k).step_by(QUAD) {
            let mut weights = [[_mm256_setzero_si256(); 2]; P];
            for p in 0..P {
                if AHEAD {
                    prefetch_line(w.wrapping_add(p * t.panel_stride + k * PANEL + AHEAD_BYTES).cast());
                }
                for half in 0..2 {
                    let w = w.add(p * t.panel_stride + k * PANEL + half * 32);
                    weights[p][half] = _mm256_loadu_si256(w.cast());
                }
            }
            for m in 0..M {
                let x = _mm256_set1_epi32(quad(a.add(m * t.a_stride + k)));
                for p in 0..P {
                    for half in 0..2 {
                        sums[m][p][half] = _mm256_dpbusd_avx_epi32(sums[m][p][half], weights[p][half], x);
                    }
                }
            }
        }
        for m in 0..M {
            for p in 0..P {
                for half in 0..2 {
                    _mm256_storeu_si256(at(m, p, half), sums[m][p][half]);
                }
            }
        }
    }
}

/// As [`tile_avx2`], with weights stored with [`VNNI_OFFSET`].
///
/// # Safety
/// As [`tile_avx2`], with AVX-512 VNNI.
#[inline(always)]
unsafe fn tile_vnni<const M: usize, const P: usize, const AHEAD: bool>(
    t: &Product<'_>,
    row: usize,
    panel: usize,
) {
    // SAFETY: as in `tile_avx2`; a prefetch may name any address.
    unsafe {
        let a = t.a.as_ptr().add(row * t.a_stride);
        let w = t.w.as_ptr().add(panel * t.panel_stride);
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
                weights[p] = _mm512_loadu_si512(w.cast());
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

/// Returns a pointer to the sums of a row and panel.
#[inline(always)]
fn at_vnni(t: &Product<'_>, row: usize, panel: usize) -> *mut __m512i {
    t.c.pointer(row, panel * PANEL).cast()
}

/// Calls tiles of all rows for all panels, `P` panels at a time and the remaining ones singly. Panels come from memory.
macro_rules! strip {
    ($tile:ident, $t:ident, $m:literal, $p:literal) => {{
        let whole = $t.panels() / $p * $p;
        for panel in (0..whole).step_by($p) {
            $tile::<$m, $p, true>($t, 0, panel);
        }
        for panel in whole..$t.panels() {
            $tile::<$m, 1, true>($t, 0, panel);
        }
    }};
}

/// Calls tiles of nearly equal height, at most `most` rows, for `P` panels starting at one. Few rows prefetch the panels on the
/// way. Of many rows, each tile prefetches its share of the panels that are read next.
macro_rules! rows_of_panels {
    ($tile:ident, $t:ident, $most:expr, $panel:expr, [$($m:literal),+], $p:literal) => {{
        let tiles = $t.rows().div_ceil($most);
        for i in 0..tiles {
            let (row, end) = ($t.rows() * i / tiles, $t.rows() * (i + 1) / tiles);
            if $t.rows() < MANY_ROWS {
                match end - row {
                    $($m => $tile::<$m, $p, true>($t, row, $panel),)+
                    _ => {}
                }
                continue;
            }
            $t.fetch_share(($panel + $p, $p), i, tiles);
            match end - row {
                $($m => $tile::<$m, $p, false>($t, row, $panel),)+
                _ => {}
            }
        }
    }};
}

narrow! {
    /// Computes a [`Product`] with AVX2.
    avx2, Avx2, "avx2,fma", tile_avx2, AVX2_ROWS, [1, 2, 3, 4]
}
narrow! {
    /// Computes a [`Product`] with AVX-VNNI and [`VNNI_OFFSET`].
    avx_vnni, AvxVnni, "avxvnni,avx2,fma", tile_avx_vnni, AVX_VNNI_ROWS, [1, 2, 3, 4, 5, 6]
}

/// Computes a [`Product`] with AVX-512 VNNI and [`VNNI_OFFSET`].
pub(super) fn avx512_vnni(_: Avx512Vnni, t: Checked<'_>) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
    fn compiled(t: Checked<'_>) {
        let t = &*t;
        // SAFETY: the tiles lie inside the product, which was checked; the instructions are present.
        unsafe {
            match t.rows() {
                0 => {}
                // Few rows, with weights from memory: more than four panels side by side are slower on Zen 4.
                1 => strip!(tile_vnni, t, 1, 4),
                2 => strip!(tile_vnni, t, 2, 4),
                3 => strip!(tile_vnni, t, 3, 4),
                4 => strip!(tile_vnni, t, 4, 4),
                5 => strip!(tile_vnni, t, 5, 4),
                6 => strip!(tile_vnni, t, 6, 3),
                7 => strip!(tile_vnni, t, 7, 3),
                8 => strip!(tile_vnni, t, 8, 3),
                _ => {
                    let pairs = t.panels() / 2 * 2;
                    for panel in (0..pairs).step_by(2) {
                        rows_of_panels!(tile_vnni, t, VNNI_ROWS, panel, [6, 7, 8, 9, 10, 11, 12], 2);
                    }
                    if pairs < t.panels() {
                        rows_of_panels!(tile_vnni, t, VNNI_ROWS, pairs, [6, 7, 8, 9, 10, 11, 12], 1);
                    }
                }
            }
        }
    }
    // SAFETY: the arguments prove that the machine has the instructions and that the operands hold the product.
    unsafe { compiled(t) }
}
