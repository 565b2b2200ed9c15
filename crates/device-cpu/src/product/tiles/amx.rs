//! The tile kernels on Intel's AMX, with AVX-512 for the work around the tiles.
//!
//! The AMX intrinsics are not stable, but `asm!` is.

use std::arch::x86_64::{
    __m512i, _mm256_loadu_si256, _mm512_add_epi32, _mm512_and_si512, _mm512_castps_si512,
    _mm512_castsi512_ps, _mm512_cvtph_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_maskz_loadu_ps,
    _mm512_permutex2var_epi16, _mm512_set1_epi32, _mm512_storeu_si512, _mm512_sub_ps,
};

use crate::buffer::{LINE_BYTES, prefetch_line};
use crate::pack::{TILE_BYTES, TILE_DEPTH};
use crate::simd::Avx512;

use super::amx_loops::{next_sums, tile_ahead, tile_loop, tile_product, wide_row_parts};
use super::{HALF, HIGH, Shape, TileProduct};

/// Returns the product of numbers in `parts` parts.
pub(super) fn product(parts: usize) -> unsafe fn(&TileProduct) {
    if parts == 1 { multiply_bf16 } else { multiply_fp16 }
}

/// Returns the product of few rows with stored panels, for numbers in two parts.
pub(super) fn from_stored(_: Avx512, parts: usize) -> Option<unsafe fn(&TileProduct, &mut [u8])> {
    // SAFETY: the first argument proves that the machine has the instructions.
    (parts == 2).then_some(|t, workspace| unsafe { multiply_stored_fp16(t, workspace) })
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
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn parts(first: __m512i, second: __m512i) -> [__m512i; 2] {
    let (half, mask) = (_mm512_set1_epi32(HALF as i32), _mm512_set1_epi32(HIGH as i32));
    let high = |x: __m512i| _mm512_and_si512(_mm512_add_epi32(x, half), mask);
    let low = |x: __m512i, high: __m512i| {
        _mm512_castps_si512(_mm512_sub_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(high)))
    };
    // SAFETY: the table has the register's size.
    let upper = unsafe { _mm512_loadu_si512(UPPER_HALVES.as_ptr().cast()) };
    let halves = [high(first), high(second)];
    [
        _mm512_permutex2var_epi16(halves[0], upper, halves[1]),
        _mm512_permutex2var_epi16(low(first, halves[0]), upper, low(second, halves[1])),
    ]
}

/// Packs a row of numbers in `PARTS` parts.
pub(super) fn pack_row<const PARTS: usize>(_: Avx512, x: &[f32], block: &mut [u8], row: usize) {
    #[target_feature(enable = "avx512f,avx512bw")]
    fn compiled<const PARTS: usize>(x: &[f32], block: &mut [u8], row: usize) {
        for (x, tiles) in x.chunks(TILE_DEPTH).zip(block.chunks_exact_mut(PARTS * TILE_BYTES)) {
            let from = x.as_ptr();
            // SAFETY: masked loads touch the numbers of the chunk.
            let numbers = unsafe {
                if x.len() == TILE_DEPTH {
                    [_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16))]
                } else {
                    let mask = (1u32 << x.len()) - 1;
                    [
                        _mm512_maskz_loadu_ps(mask as u16, from),
                        _mm512_maskz_loadu_ps((mask >> 16) as u16, from.wrapping_add(16)),
                    ]
                }
            };
            let both = parts(_mm512_castps_si512(numbers[0]), _mm512_castps_si512(numbers[1]));
            for (bits, tile) in both.into_iter().zip(tiles.as_chunks_mut::<TILE_BYTES>().0) {
                store_row(tile, row, bits);
            }
        }
    }
    // SAFETY: the first argument proves that the machine has the instructions.
    unsafe { compiled::<PARTS>(x, block, row) }
}

/// Writes a row of a tile.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_row(tile: &mut [u8; TILE_BYTES], row: usize, bits: __m512i) {
    let line = &mut tile[row * LINE_BYTES..][..LINE_BYTES];
    // SAFETY: a line has the register's size.
    unsafe { _mm512_storeu_si512(line.as_mut_ptr().cast(), bits) };
}

/// Prefetch distance of the weights in bytes.
pub(super) const AHEAD_BYTES: usize = 2048;

/// Splits tiles of fp16 into twice as many of bf16.
pub(super) fn split(_: Avx512, stored: &[u8], out: &mut [u8]) {
    #[target_feature(enable = "avx512f,avx512bw")]
    fn compiled(stored: &[u8], out: &mut [u8]) {
        let tiles = stored.as_chunks::<TILE_BYTES>().0.iter().zip(out.chunks_exact_mut(2 * TILE_BYTES));
        for (stored, out) in tiles {
            let (highs, lows) = out.split_at_mut(TILE_BYTES);
            let to = highs.as_chunks_mut::<LINE_BYTES>().0.iter_mut().zip(lows.as_chunks_mut().0);
            for (from, to) in stored.as_chunks::<LINE_BYTES>().0.iter().zip(to) {
                let to: (&mut [u8; LINE_BYTES], &mut [u8; LINE_BYTES]) = to;
                prefetch_line(from.as_ptr().wrapping_add(AHEAD_BYTES));
                // SAFETY: each register holds the numbers of half a line, or a line.
                unsafe {
                    let first = _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast()));
                    let second = _mm512_cvtph_ps(_mm256_loadu_si256(from[32..].as_ptr().cast()));
                    let [high, low] = parts(_mm512_castps_si512(first), _mm512_castps_si512(second));
                    _mm512_storeu_si512(to.0.as_mut_ptr().cast(), high);
                    _mm512_storeu_si512(to.1.as_mut_ptr().cast(), low);
                }
            }
        }
    }
    // SAFETY: the first argument proves that the machine has the instructions.
    unsafe { compiled(stored, out) }
}

/// The step of a narrow loop over two parts, 1 KiB apart: the rows times one tile of each of the four panels at these places.
macro_rules! narrow_parts {
    ($p0:literal, $p1:literal, $p2:literal, $p3:literal) => {
        concat!(
            "tileloadd tmm4, [{a0} + {s}*1]\n",
            "tileloadd tmm5, [{a0} + {s}*1 + 1024]\n",
            narrow_parts!(@load "tmm6", $p0, ""),
            "tdpbf16ps tmm0, tmm4, tmm6\n",
            narrow_parts!(@load "tmm7", $p1, ""),
            "tdpbf16ps tmm1, tmm4, tmm7\n",
            "tdpbf16ps tmm0, tmm5, tmm6\n",
            "tdpbf16ps tmm1, tmm5, tmm7\n",
            narrow_parts!(@load "tmm6", $p2, ""),
            "tdpbf16ps tmm2, tmm4, tmm6\n",
            narrow_parts!(@load "tmm7", $p3, ""),
            "tdpbf16ps tmm3, tmm4, tmm7\n",
            "tdpbf16ps tmm2, tmm5, tmm6\n",
            "tdpbf16ps tmm3, tmm5, tmm7\n",
            narrow_parts!(@load "tmm6", $p0, " + 1024"),
            "tdpbf16ps tmm0, tmm4, tmm6\n",
            narrow_parts!(@load "tmm7", $p1, " + 1024"),
            "tdpbf16ps tmm1, tmm4, tmm7\n",
            narrow_parts!(@load "tmm6", $p2, " + 1024"),
            "tdpbf16ps tmm2, tmm4, tmm6\n",
            narrow_parts!(@load "tmm7", $p3, " + 1024"),
            "tdpbf16ps tmm3, tmm4, tmm7\n",
        )
    };
    (@load $tile:literal, $place:literal, $part:literal) => {
        concat!("tileloadd ", $tile, ", [", $place, " + {s}*1", $part, "]\n")
    };
}

/// # Safety
/// As [`TileUnit::multiply`](super::TileUnit::multiply).
unsafe fn multiply_bf16(t: &TileProduct) {
    // SAFETY: the tiles are configured for the shape, and its blocks, panels and sums are valid.
    unsafe { tile_product!(t, "tdpbf16ps") }
}

/// # Safety
/// As [`TileUnit::multiply`](super::TileUnit::multiply).
unsafe fn multiply_fp16(t: &TileProduct) {
    // SAFETY: as in `multiply_bf16`. The parts of a tile are 1 KiB apart.
    unsafe {
        match t.shape {
            Shape::Narrow { .. } => tile_loop!(
                t,
                256usize,
                "128",
                narrow_parts!("{b0}", "{b1}", "{b2}", "{b3}"),
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
                "/* {b2} {b3} */",
            ),
        }
    }
}

/// Splits one line of a panel, at `{j}`, into both parts, and prefetches the line two tiles ahead.
macro_rules! split_line {
    ($panel:literal, $high:literal, $low:literal) => {
        concat!(
            "prefetcht0 [{",
            $panel,
            "} + {j} + 2048]\n",
            "vcvtph2ps zmm0, ymmword ptr [{",
            $panel,
            "} + {j}]\n",
            "vcvtph2ps zmm1, ymmword ptr [{",
            $panel,
            "} + {j} + 32]\n",
            "vpaddd zmm2, zmm0, zmm28\n",
            "vpandd zmm2, zmm2, zmm29\n",
            "vpaddd zmm3, zmm1, zmm28\n",
            "vpandd zmm3, zmm3, zmm29\n",
            "vsubps zmm0, zmm0, zmm2\n",
            "vsubps zmm1, zmm1, zmm3\n",
            "vpermt2w zmm2, zmm30, zmm3\n",
            "vpermt2w zmm0, zmm30, zmm1\n",
            "vmovdqu64 [{parts} + {j} + ",
            $high,
            "], zmm2\n",
            "vmovdqu64 [{parts} + {j} + ",
            $low,
            "], zmm0\n",
        )
    };
}

/// Multiplies few rows by four panels of fp16. A tile of each panel is split into the workspace, as [`split`] does, while
/// the registers multiply the previous ones. So memory is read all the time, and the sums stay in the registers.
///
/// # Safety
/// As [`TileUnit::multiply_stored`](super::TileUnit::multiply_stored).
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn multiply_stored_fp16(t: &TileProduct, workspace: &mut [u8]) {
    // SAFETY: the tiles are configured for the shape, and its blocks, panels and sums are valid. The workspace has a tile
    // in two parts, 1 KiB apart, for each of the four panels.
    unsafe {
        std::arch::asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "xor {j:e}, {j:e}",
            "3:",
            split_line!("b0", "0", "1024"),
            split_line!("b1", "2048", "3072"),
            split_line!("b2", "4096", "5120"),
            split_line!("b3", "6144", "7168"),
            "add {j:e}, 64",
            "cmp {j:e}, 1024",
            "jne 3b",
            narrow_parts!("{parts}", "{parts} + 2048", "{parts} + 4096", "{parts} + 6144"),
            "add {a0}, 2048",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "add {b2}, 1024",
            "add {b3}, 1024",
            "dec {n}",
            "jnz 2b",
            "tilestored [{c} + {s}*4], tmm0",
            "tilestored [{c} + {s}*4 + 64], tmm1",
            "tilestored [{c} + {s}*4 + 128], tmm2",
            "tilestored [{c} + {s}*4 + 192], tmm3",
            j = out(reg) _,
            parts = in(reg) workspace.as_mut_ptr(),
            c = in(reg) t.c,
            s = in(reg) LINE_BYTES,
            n = inout(reg) t.tiles => _,
            a0 = inout(reg) t.a[0] => _,
            b0 = inout(reg) t.b[0] => _,
            b1 = inout(reg) t.b[1] => _,
            b2 = inout(reg) t.b[2] => _,
            b3 = inout(reg) t.b[3] => _,
            in("zmm28") _mm512_set1_epi32(HALF as i32),
            in("zmm29") _mm512_set1_epi32(HIGH as i32),
            in("zmm30") _mm512_loadu_si512(UPPER_HALVES.as_ptr().cast()),
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
