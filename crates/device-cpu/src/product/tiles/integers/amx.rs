//! Weighted sums of integers on Intel's AMX, with AVX-512 for the work around the tiles.

use std::arch::x86_64::{
    __m512i, _mm_loadu_si128, _mm512_castps_si512, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_loadu_ps,
    _mm512_mul_ps, _mm512_or_si512, _mm512_srli_epi32, _mm512_storeu_si512,
};

use crate::buffer::prefetch_line;
use crate::pack::{PANEL, TILE_BYTES, TILE_DEPTH, TILE_ROWS};
use crate::product::tiles::amx::{AHEAD_BYTES, parts, store_row};
use crate::product::tiles::amx_loops::{next_sums, tile_loop, wide_row_parts};
use crate::product::tiles::{Shape, TileProduct};
use crate::simd::Avx512;

use super::WEIGHT_PARTS;

/// The product.
pub(crate) const PRODUCT: unsafe fn(&TileProduct) = multiply;

/// Size of a tile row in bytes.
const ROW_BYTES: usize = TILE_BYTES / TILE_ROWS;

/// Packs a row of weights times their scales.
pub(crate) fn pack_row(_: Avx512, weights: &[f32], scales: &[f32], block: &mut [u8], row: usize) {
    #[target_feature(enable = "avx512f,avx512bw")]
    fn compiled(weights: &[f32], scales: &[f32], block: &mut [u8], row: usize) {
        let numbers = weights.as_chunks::<TILE_DEPTH>().0.iter().zip(scales.as_chunks::<TILE_DEPTH>().0);
        for ((weights, scales), tiles) in numbers.zip(block.chunks_exact_mut(WEIGHT_PARTS * TILE_BYTES)) {
            // SAFETY: two registers hold the numbers of one tile depth.
            let [first, second] = unsafe {
                let (w, s) = (weights.as_ptr(), scales.as_ptr());
                [
                    _mm512_mul_ps(_mm512_loadu_ps(w), _mm512_loadu_ps(s)),
                    _mm512_mul_ps(_mm512_loadu_ps(w.add(PANEL)), _mm512_loadu_ps(s.add(PANEL))),
                ]
            };
            let both = parts(_mm512_castps_si512(first), _mm512_castps_si512(second));
            for (bits, tile) in both.into_iter().zip(tiles.as_chunks_mut::<TILE_BYTES>().0) {
                store_row(tile, row, bits);
            }
        }
    }
    // SAFETY: the first argument proves that the machine has the instructions.
    unsafe { compiled(weights, scales, block, row) }
}

/// Widens tiles of integers to tiles of bf16. Takes six instructions per line of two depth rows, besides load and
/// store: three cycles.
pub(crate) fn widen(_: Avx512, stored: &[u8], out: &mut [u8]) {
    #[target_feature(enable = "avx512f,avx512bw")]
    fn compiled(stored: &[u8], out: &mut [u8]) {
        let lines = stored.as_chunks::<{ 2 * PANEL }>().0.iter().zip(out.as_chunks_mut::<ROW_BYTES>().0);
        for (from, to) in lines {
            prefetch_line(from.as_ptr().wrapping_add(AHEAD_BYTES));
            let (even, odd) = from.split_at(PANEL);
            // The lower halves of these numbers are zero.
            let pairs = _mm512_or_si512(_mm512_srli_epi32::<16>(sixteen(even)), sixteen(odd));
            // SAFETY: a line has the register's size.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), pairs) };
        }
    }
    // SAFETY: the first argument proves that the machine has the instructions.
    unsafe { compiled(stored, out) }
}

/// Converts sixteen integers to fp32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn sixteen(from: &[u8]) -> __m512i {
    let from = &from[..PANEL];
    // SAFETY: sixteen integers.
    let integers = unsafe { _mm_loadu_si128(from.as_ptr().cast()) };
    _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(integers)))
}

/// A sum waits 52 cycles for the previous one, and a product takes 16 cycles, so four sums take turns. A narrow product
/// therefore loads its panels twice (10 KiB per step of 128 cycles).
///
/// # Safety
/// As [`TileUnit::multiply`](crate::product::tiles::TileUnit::multiply).
unsafe fn multiply(t: &TileProduct) {
    // SAFETY: the tiles are configured for the shape, and its blocks, panels and sums are valid. The parts of a tile
    // are 1 KiB apart.
    unsafe {
        match t.shape {
            Shape::Narrow { .. } => tile_loop!(
                t,
                256usize,
                "128",
                "tileloadd tmm4, [{a0} + {s}*1]",
                "tileloadd tmm6, [{b0} + {s}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b1} + {s}*1]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm6, [{b2} + {s}*1]",
                "tdpbf16ps tmm2, tmm4, tmm6",
                "tileloadd tmm7, [{b3} + {s}*1]",
                "tdpbf16ps tmm3, tmm4, tmm7",
                "tileloadd tmm5, [{a0} + {s}*1 + 1024]",
                "tileloadd tmm6, [{b0} + {s}*1]",
                "tdpbf16ps tmm0, tmm5, tmm6",
                "tileloadd tmm7, [{b1} + {s}*1]",
                "tdpbf16ps tmm1, tmm5, tmm7",
                "tileloadd tmm6, [{b2} + {s}*1]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm7, [{b3} + {s}*1]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a0}, 2048",
                "add {b0}, 1024",
                "add {b1}, 1024",
                "add {b2}, 1024",
                "add {b3}, 1024",
                "/* {a1} {ahead} */",
            ),
            Shape::Wide => tile_loop!(
                t,
                128usize,
                "2048",
                wide_row_parts!(),
                "add {a0}, 2048",
                "add {a1}, 2048",
                "add {b0}, 1024",
                "add {b1}, 1024",
                "/* {b2} {b3} */",
            ),
        }
    }
}
