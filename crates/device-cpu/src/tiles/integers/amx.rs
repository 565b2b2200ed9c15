//! Weighted sums of integers on Intel's AMX, with AVX-512 for the work around the tiles.

use std::arch::x86_64::{
    __m512i, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm512_castps_si512, _mm512_cvtepi8_epi32,
    _mm512_cvtepi32_ps, _mm512_loadu_ps, _mm512_mul_ps, _mm512_or_si512, _mm512_srli_epi32,
    _mm512_storeu_si512,
};

use crate::amx::products::{tile_loop, wide_row_parts};
use crate::kernels::PANEL;
use crate::tiles::amx::{AHEAD_BYTES, parts, unit};
use crate::tiles::{Shape, TILE_BYTES, TILE_DEPTH, TILE_ROWS, TileProduct};

use super::{INTEGER_BYTES, IntegerKernels, WEIGHT_PARTS};

/// The kernels.
pub(crate) const KERNELS: IntegerKernels = IntegerKernels { pack_row, widen, unit: unit(multiply) };

/// Size of a tile row in bytes.
const ROW_BYTES: usize = TILE_BYTES / TILE_ROWS;

/// # Safety
/// As [`IntegerKernels`].
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack_row(weights: *const f32, scales: *const f32, k: usize, block: *mut u8, row: usize) {
    for tile in 0..k / TILE_DEPTH {
        // SAFETY: weights, scales and the row's tiles are valid.
        unsafe {
            let [first, second] = [0, PANEL].map(|half| {
                let at = tile * TILE_DEPTH + half;
                let scaled = _mm512_mul_ps(_mm512_loadu_ps(weights.add(at)), _mm512_loadu_ps(scales.add(at)));
                _mm512_castps_si512(scaled)
            });
            let of_row = block.add(tile * WEIGHT_PARTS * TILE_BYTES + row * ROW_BYTES);
            let [high, low] = parts(first, second);
            _mm512_storeu_si512(of_row.cast(), high);
            _mm512_storeu_si512(of_row.add(TILE_BYTES).cast(), low);
        }
    }
}

/// Takes six instructions per line of two depth rows, besides load and store: three cycles.
///
/// # Safety
/// As [`IntegerKernels`].
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn widen(stored: *const u8, tiles: usize, out: *mut u8) {
    for line in 0..tiles * TILE_ROWS {
        // SAFETY: `tiles` tiles of integers in, as many of bf16 out; a prefetch may name any address.
        unsafe {
            let from = stored.add(line * INTEGER_BYTES / TILE_ROWS);
            _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD_BYTES).cast());
            // The lower halves of these numbers are zero.
            let (even, odd) = (sixteen(from), sixteen(from.add(PANEL)));
            let pairs = _mm512_or_si512(_mm512_srli_epi32::<16>(even), odd);
            _mm512_storeu_si512(out.add(line * ROW_BYTES).cast(), pairs);
        }
    }
}

/// Converts sixteen integers to fp32 bits.
///
/// # Safety
/// AVX-512F must be present, and `from` must point to sixteen integers.
#[target_feature(enable = "avx512f")]
unsafe fn sixteen(from: *const u8) -> __m512i {
    // SAFETY: the caller's promise.
    let integers = unsafe { _mm_loadu_si128(from.cast()) };
    _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(integers)))
}

/// A sum waits 52 cycles for the previous one, and a product takes 16 cycles, so four sums take turns. A narrow product
/// therefore loads its panels twice (10 KiB per step of 128 cycles).
///
/// # Safety
/// As [`IntegerKernels`].
unsafe fn multiply(t: &TileProduct) {
    if t.tiles == 0 {
        return;
    }
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
                "/* {b2} {b3} {ahead} */",
            ),
        }
    }
}
