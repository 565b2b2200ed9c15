//! The tile kernels on Intel's AMX, with AVX-512 for the work around the tiles.
//!
//! The AMX intrinsics are not stable, but `asm!` is.

use std::arch::asm;
use std::arch::x86_64::{
    __m512i, _MM_HINT_T0, _mm_prefetch, _mm256_loadu_si256, _mm512_add_epi32, _mm512_and_si512,
    _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cvtph_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_maskz_loadu_ps, _mm512_permutex2var_epi16, _mm512_set1_epi32, _mm512_storeu_si512, _mm512_sub_ps,
};

use glmbench_device::DType;

use crate::amx;
use crate::amx::products::{tile_ahead, tile_loop, tile_product, wide_row_parts};

use super::{HALF, HIGH, Shape, TILE_BYTES, TILE_DEPTH, TileKernels, TileProduct, TileUnit, integers};

/// Returns whether the instructions are present and the operating system allows this process to use the tile registers.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && amx::found().is_ok_and(|amx| amx.bf16)
}

/// Returns the kernels for a storage type.
pub(super) fn kernels(dtype: DType) -> TileKernels {
    if dtype == DType::Bf16 {
        let unit = unit(multiply_bf16);
        TileKernels { parts: 1, pack_row: pack_row::<1>, split: None, unit, integers: integers::AMX }
    } else {
        let unit = unit(multiply_fp16);
        TileKernels { parts: 2, pack_row: pack_row::<2>, split: Some(split), unit, integers: integers::AMX }
    }
}

/// Wraps a product in the tile registers in a tile unit.
pub(crate) const fn unit<C>(multiply: unsafe fn(&TileProduct<C>)) -> TileUnit<C> {
    TileUnit { configure, multiply, release }
}

/// The memory operand of `LDTILECFG`.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Configures the registers: 0 to 3 hold sums, 4 and 5 rows, 6 and 7 weights.
///
/// # Safety
/// As [`TileUnit`].
pub(crate) unsafe fn configure(shape: Shape) {
    let rows = match shape {
        Shape::Narrow { rows } => rows as u8,
        Shape::Wide => 16,
    };
    let mut config =
        TileConfig { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    config.row_bytes[..8].fill(64);
    config.rows[..6].fill(rows);
    config.rows[6..8].fill(16);
    // SAFETY: a valid configuration of palette 1.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly, preserves_flags)) };
}

/// # Safety
/// As [`TileUnit`].
pub(crate) unsafe fn release() {
    // SAFETY: nothing is kept in the tiles between products.
    unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
}

/// Indices of the upper halves of the sixteen and sixteen lanes of two registers.
static UPPER_HALVES: [u16; 32] = {
    let mut index = [0; 32];
    let mut i = 0;
    while i < 32 {
        index[i] = 2 * i as u16 + 1;
        i += 1;
    }
    index
};

/// Splits thirty-two numbers into bf16 parts, in order: high, low.
///
/// # Safety
/// AVX-512F and BW must be present.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn parts(first: __m512i, second: __m512i) -> [__m512i; 2] {
    // SAFETY: register arithmetic; the table has the register's size.
    unsafe {
        let (half, mask) = (_mm512_set1_epi32(HALF as i32), _mm512_set1_epi32(HIGH as i32));
        let high = |x: __m512i| _mm512_and_si512(_mm512_add_epi32(x, half), mask);
        let low = |x: __m512i, high: __m512i| {
            _mm512_castps_si512(_mm512_sub_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(high)))
        };
        let upper = _mm512_loadu_si512(UPPER_HALVES.as_ptr().cast());
        let halves = [first, second].map(high);
        [
            _mm512_permutex2var_epi16(halves[0], upper, halves[1]),
            _mm512_permutex2var_epi16(low(first, halves[0]), upper, low(second, halves[1])),
        ]
    }
}

/// # Safety
/// As [`TileKernels`].
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack_row<const PARTS: usize>(x: *const f32, k: usize, block: *mut u8, row: usize) {
    for first in (0..k).step_by(TILE_DEPTH) {
        let n = TILE_DEPTH.min(k - first);
        // SAFETY: masked loads touch `n` numbers; the block holds the row's tiles.
        unsafe {
            let from = x.add(first);
            let numbers = if n == TILE_DEPTH {
                [_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16))]
            } else {
                let mask = (1u32 << n) - 1;
                [
                    _mm512_maskz_loadu_ps(mask as u16, from),
                    _mm512_maskz_loadu_ps((mask >> 16) as u16, from.wrapping_add(16)),
                ]
            };
            let [first_half, second_half] = numbers.map(|v| _mm512_castps_si512(v));
            let of_row = block.add(first / TILE_DEPTH * PARTS * TILE_BYTES + row * 64);
            for (part, bits) in parts(first_half, second_half).into_iter().enumerate().take(PARTS) {
                _mm512_storeu_si512(of_row.add(part * TILE_BYTES).cast(), bits);
            }
        }
    }
}

/// Prefetch distance of the weights in bytes.
pub(super) const AHEAD_BYTES: usize = 2048;

/// # Safety
/// As [`TileKernels`].
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn split(stored: *const u8, tiles: usize, out: *mut u8) {
    for line in 0..tiles * (TILE_BYTES / 64) {
        // SAFETY: `tiles` tiles of fp16 in, twice as many of bf16 out; a prefetch may name any address.
        unsafe {
            let from = stored.add(64 * line);
            _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD_BYTES).cast());
            let first = _mm512_cvtph_ps(_mm256_loadu_si256(from.cast()));
            let second = _mm512_cvtph_ps(_mm256_loadu_si256(from.add(32).cast()));
            let [high, low] = parts(_mm512_castps_si512(first), _mm512_castps_si512(second));
            let to = out.add(line / 16 * 2 * TILE_BYTES + line % 16 * 64);
            _mm512_storeu_si512(to.cast(), high);
            _mm512_storeu_si512(to.add(TILE_BYTES).cast(), low);
        }
    }
}

/// # Safety
/// As [`TileKernels`].
unsafe fn multiply_bf16(t: &TileProduct) {
    if t.tiles == 0 {
        return;
    }
    // SAFETY: the tiles are configured for the shape, and its blocks, panels and sums are valid.
    unsafe { tile_product!(t, "tdpbf16ps") }
}

/// # Safety
/// As [`TileKernels`].
unsafe fn multiply_fp16(t: &TileProduct) {
    if t.tiles == 0 {
        return;
    }
    // SAFETY: as in `multiply_bf16`. The parts of a tile are 1 KiB apart.
    unsafe {
        match t.shape {
            Shape::Narrow { .. } => tile_loop!(
                t,
                256usize,
                "128",
                "tileloadd tmm4, [{a0} + {s}*1]",
                "tileloadd tmm5, [{a0} + {s}*1 + 1024]",
                "tileloadd tmm6, [{b0} + {s}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b1} + {s}*1]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm0, tmm5, tmm6",
                "tdpbf16ps tmm1, tmm5, tmm7",
                "tileloadd tmm6, [{b2} + {s}*1]",
                "tdpbf16ps tmm2, tmm4, tmm6",
                "tileloadd tmm7, [{b3} + {s}*1]",
                "tdpbf16ps tmm3, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm6, [{b0} + {s}*1 + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b1} + {s}*1 + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm6, [{b2} + {s}*1 + 1024]",
                "tdpbf16ps tmm2, tmm4, tmm6",
                "tileloadd tmm7, [{b3} + {s}*1 + 1024]",
                "tdpbf16ps tmm3, tmm4, tmm7",
                "add {a0}, 2048",
                "add {b0}, 2048",
                "add {b1}, 2048",
                "add {b2}, 2048",
                "add {b3}, 2048",
                "/* {a1} {ahead} */",
            ),
            Shape::Wide => tile_loop!(
                t,
                128usize,
                "2048",
                wide_row_parts!(),
                "tileloadd tmm6, [{b0} + {s}*1 + 1024]",
                "tileloadd tmm4, [{a0} + {s}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b1} + {s}*1 + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a1} + {s}*1]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a0}, 2048",
                "add {a1}, 2048",
                "add {b0}, 2048",
                "add {b1}, 2048",
                "/* {b2} {b3} {ahead} */",
            ),
        }
    }
}
