//! Products of int8 rows with panels of int4 on x86-64.
//!
//! Weights are stored without a sign, as both instructions want one operand: `vpdpbusd` and `vpmaddubsw`. The sum of a
//! group is therefore too large by the offset times the sum of its activations.

use std::arch::x86_64::{
    __m256i, __m512i, _mm256_add_epi16, _mm256_add_epi32, _mm256_and_si256, _mm256_cvtepi32_ps,
    _mm256_dpbusd_avx_epi32, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_setzero_ps,
    _mm256_setzero_si256, _mm256_srli_epi16, _mm256_storeu_ps, _mm256_sub_epi32, _mm512_and_si512,
    _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_set1_epi8, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_srli_epi16,
    _mm512_storeu_ps, _mm512_sub_epi32,
};

use crate::buffer::prefetch_line;
use crate::pack::grouped::{LINE, Packing};
use crate::product::narrow::narrow;
use crate::simd::{Avx2, Avx512Vnni, AvxVnni};

use super::gemm::{Checked, OFFSET, Product};

/// Rows of the highest VNNI tile, with two panels: 24 accumulators, four registers of weights, the activations.
const VNNI_ROWS: usize = 12;
/// Rows of the highest AVX2 tile: 8 accumulators, four registers of weights, activations, ones and a mask.
const AVX2_ROWS: usize = 4;
/// Rows of the highest AVX-VNNI tile: 12 accumulators, two registers of weights, activations and a mask.
const AVX_VNNI_ROWS: usize = 6;
/// Prefetch distance in a panel that is read once.
const AHEAD_BYTES: usize = 2048;
/// Bytes of a line.
const LINE_BYTES: usize = Packing::Halves.line_bytes();

/// Loads four activations as one lane.
///
/// # Safety
/// There must be four.
#[inline(always)]
unsafe fn quad(a: *const i8) -> i32 {
    // SAFETY: four numbers; they have no alignment.
    unsafe { a.cast::<i32>().read_unaligned() }
}

/// Multiplies `M` rows by `P` panels, with the sums of a group in registers.
///
/// # Safety
/// AVX-512 VNNI must be present. Rows `row..row + M` and panels `panel..panel + P` must lie inside the product.
#[inline(always)]
unsafe fn tile_vnni<const M: usize, const P: usize, const AHEAD: bool>(
    t: &Product<'_>,
    row: usize,
    panel: usize,
) {
    let panel_bytes = t.layout.panel_bytes();
    // SAFETY: rows and panels lie inside the product; the instructions are present; a prefetch may name any address.
    unsafe {
        let mask = _mm512_set1_epi8(15);
        for group in t.groups.clone() {
            let inputs = t.layout.inputs(group);
            let a = t.a.as_ptr().add(row * t.a_stride + inputs.start);
            let w = t.w.as_ptr().add(panel * panel_bytes + t.layout.at(group));
            let mut sums = [[_mm512_setzero_si512(); P]; M];
            let lines = inputs.len().div_ceil(LINE);
            for line in 0..lines {
                let mut halves = [[_mm512_setzero_si512(); P]; 2];
                for p in 0..P {
                    let w = w.add(p * panel_bytes + line * LINE_BYTES);
                    if AHEAD {
                        prefetch_line(w.wrapping_add(AHEAD_BYTES));
                    }
                    let both: __m512i = _mm512_loadu_si512(w.cast());
                    halves[0][p] = _mm512_and_si512(both, mask);
                    halves[1][p] = _mm512_and_si512(_mm512_srli_epi16::<4>(both), mask);
                }
                for m in 0..M {
                    let a = a.add(m * t.a_stride + line * LINE);
                    for half in 0..2 {
                        let x = _mm512_set1_epi32(quad(a.add(4 * half)));
                        for p in 0..P {
                            sums[m][p] = _mm512_dpbusd_epi32(sums[m][p], halves[half][p], x);
                        }
                    }
                }
            }
            let scales = w.add(lines * LINE_BYTES);
            for p in 0..P {
                let scale = _mm512_loadu_ps(scales.add(p * panel_bytes).cast());
                for m in 0..M {
                    let excess = OFFSET * *t.sums.as_ptr().add((row + m) * t.layout.count() + group);
                    let sum = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[m][p], _mm512_set1_epi32(excess)));
                    let to: *mut f32 = t.to(row + m, panel + p).cast();
                    let total = if group == 0 { _mm512_setzero_ps() } else { _mm512_loadu_ps(to) };
                    _mm512_storeu_ps(to, _mm512_fmadd_ps(sum, scale, total));
                }
            }
        }
    }
}

/// For panels that are read once, from memory.
///
/// # Safety
/// As [`tile_vnni`].
#[inline(always)]
unsafe fn tile_vnni_streamed<const M: usize, const P: usize>(t: &Product<'_>, row: usize, panel: usize) {
    // SAFETY: as above.
    unsafe { tile_vnni::<M, P, true>(t, row, panel) }
}

/// For panels that other rows read too.
///
/// # Safety
/// As [`tile_vnni`].
#[inline(always)]
unsafe fn tile_vnni_cached<const M: usize, const P: usize>(t: &Product<'_>, row: usize, panel: usize) {
    // SAFETY: as above.
    unsafe { tile_vnni::<M, P, false>(t, row, panel) }
}

/// As [`tile_vnni`], with 256 bits. With `DOT`, by AVX-VNNI.
///
/// # Safety
/// As [`tile_vnni`], with AVX2, and with AVX-VNNI for `DOT`.
#[inline(always)]
unsafe fn tile_256<const M: usize, const P: usize, const DOT: bool>(
    t: &Product<'_>,
    row: usize,
    panel: usize,
) {
    let panel_bytes = t.layout.panel_bytes();
    // SAFETY: rows and panels lie inside the product; the instructions are present.
    unsafe {
        let (mask, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
        for group in t.groups.clone() {
            let inputs = t.layout.inputs(group);
            let a = t.a.as_ptr().add(row * t.a_stride + inputs.start);
            let w = t.w.as_ptr().add(panel * panel_bytes + t.layout.at(group));
            let mut sums = [[[_mm256_setzero_si256(); 2]; P]; M];
            let lines = inputs.len().div_ceil(LINE);
            for line in 0..lines {
                for p in 0..P {
                    for half in 0..2 {
                        let w = w.add(p * panel_bytes + line * LINE_BYTES + half * 32);
                        let both: __m256i = _mm256_loadu_si256(w.cast());
                        let low = _mm256_and_si256(both, mask);
                        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(both), mask);
                        for m in 0..M {
                            let a = a.add(m * t.a_stride + line * LINE);
                            let x = [_mm256_set1_epi32(quad(a)), _mm256_set1_epi32(quad(a.add(4)))];
                            if DOT {
                                let sum = _mm256_dpbusd_avx_epi32(sums[m][p][half], low, x[0]);
                                sums[m][p][half] = _mm256_dpbusd_avx_epi32(sum, high, x[1]);
                                continue;
                            }
                            // Four products of at most 15 * 128 fit 16 bits.
                            let pairs = _mm256_add_epi16(
                                _mm256_maddubs_epi16(low, x[0]),
                                _mm256_maddubs_epi16(high, x[1]),
                            );
                            let quads = _mm256_madd_epi16(pairs, ones);
                            sums[m][p][half] = _mm256_add_epi32(sums[m][p][half], quads);
                        }
                    }
                }
            }
            let scales = w.add(lines * LINE_BYTES);
            for p in 0..P {
                for half in 0..2 {
                    let scale = _mm256_loadu_ps(scales.add(p * panel_bytes + half * 32).cast());
                    for m in 0..M {
                        let excess = OFFSET * *t.sums.as_ptr().add((row + m) * t.layout.count() + group);
                        let sum = _mm256_sub_epi32(sums[m][p][half], _mm256_set1_epi32(excess));
                        let to: *mut f32 = t.to(row + m, panel + p).cast::<f32>().add(half * 8);
                        let total = if group == 0 { _mm256_setzero_ps() } else { _mm256_loadu_ps(to) };
                        _mm256_storeu_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, total));
                    }
                }
            }
        }
    }
}

/// By AVX2.
///
/// # Safety
/// As [`tile_256`].
#[inline(always)]
unsafe fn tile_avx2<const M: usize, const P: usize>(t: &Product<'_>, row: usize, panel: usize) {
    // SAFETY: as above.
    unsafe { tile_256::<M, P, false>(t, row, panel) }
}

/// By AVX-VNNI.
///
/// # Safety
/// As [`tile_256`].
#[inline(always)]
unsafe fn tile_avx_vnni<const M: usize, const P: usize>(t: &Product<'_>, row: usize, panel: usize) {
    // SAFETY: as above.
    unsafe { tile_256::<M, P, true>(t, row, panel) }
}

/// Calls tiles of all rows for all panels, `P` panels at a time and the remaining ones singly.
macro_rules! strip {
    ($tile:ident, $t:ident, $m:literal, $p:literal) => {{
        let whole = $t.panels() / $p * $p;
        for panel in (0..whole).step_by($p) {
            $tile::<$m, $p>($t, 0, panel);
        }
        for panel in whole..$t.panels() {
            $tile::<$m, 1>($t, 0, panel);
        }
    }};
}

/// Calls tiles of nearly equal height, at most `most` rows, for `P` panels starting at one.
macro_rules! rows_of_panels {
    ($tile:ident, $t:ident, $most:expr, $panel:expr, [$($m:literal),+], $p:literal) => {{
        let tiles = $t.rows().div_ceil($most);
        for i in 0..tiles {
            let (row, end) = ($t.rows() * i / tiles, $t.rows() * (i + 1) / tiles);
            match end - row {
                $($m => $tile::<$m, $p>($t, row, $panel),)+
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
    /// Computes a [`Product`] with AVX-VNNI.
    avx_vnni, AvxVnni, "avxvnni,avx2,fma", tile_avx_vnni, AVX_VNNI_ROWS, [1, 2, 3, 4, 5, 6]
}

/// Computes a [`Product`] with AVX-512 VNNI.
pub(super) fn avx512_vnni(_: Avx512Vnni, t: Checked<'_>) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
    fn compiled(t: Checked<'_>) {
        let t = &*t;
        // SAFETY: the tiles lie inside the product, which was checked; the instructions are present.
        unsafe {
            match t.rows() {
                0 => {}
                // Few rows, with weights from memory: as many panels as fit the registers.
                1 => strip!(tile_vnni_streamed, t, 1, 8),
                2 => strip!(tile_vnni_streamed, t, 2, 6),
                3 => strip!(tile_vnni_streamed, t, 3, 4),
                4 => strip!(tile_vnni_streamed, t, 4, 4),
                5 => strip!(tile_vnni_streamed, t, 5, 3),
                6 => strip!(tile_vnni_streamed, t, 6, 3),
                7 => strip!(tile_vnni_streamed, t, 7, 3),
                8 => strip!(tile_vnni_streamed, t, 8, 2),
                _ => {
                    let pairs = t.panels() / 2 * 2;
                    for panel in (0..pairs).step_by(2) {
                        rows_of_panels!(tile_vnni_cached, t, VNNI_ROWS, panel, [6, 7, 8, 9, 10, 11, 12], 2);
                    }
                    if pairs < t.panels() {
                        rows_of_panels!(tile_vnni_cached, t, VNNI_ROWS, pairs, [6, 7, 8, 9, 10, 11, 12], 1);
                    }
                }
            }
        }
    }
    // SAFETY: the arguments prove that the machine has the instructions and that the operands hold the product.
    unsafe { compiled(t) }
}
