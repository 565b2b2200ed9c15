//! The tile kernels in plain Rust: slow, with the same bits as the tile registers.

use glmbench_device::DType;

use super::{
    HALF, HIGH, NARROW, PAIR, Shape, TILE_BYTES, TILE_DEPTH, TILE_ROWS, TileKernels, TileProduct, TileUnit,
    WIDE, integers,
};

/// Numbers per tile row: sixteen pairs.
pub(super) const ROW: usize = TILE_DEPTH;

/// Returns the twin's kernels.
pub(super) fn kernels(dtype: DType) -> TileKernels {
    let integers = integers::twin();
    if dtype == DType::Bf16 {
        TileKernels {
            parts: 1,
            pack_row: pack_row::<1>,
            split: None,
            unit: unit(fastest::<1, 1>()),
            integers,
        }
    } else {
        let unit = unit(fastest::<2, 2>());
        TileKernels { parts: 2, pack_row: pack_row::<2>, split: Some(split), unit, integers }
    }
}

/// Wraps a product that needs no registers in a tile unit.
pub(crate) const fn unit<C>(multiply: unsafe fn(&TileProduct<C>)) -> TileUnit<C> {
    TileUnit { configure: |_| {}, multiply, release: || {} }
}

/// Returns the bf16 bits of `x`'s parts, high first. A number that bf16 can hold is its own high part.
pub(super) fn parts(x: f32) -> [u16; 2] {
    let high = f32::from_bits(x.to_bits().wrapping_add(HALF) & HIGH);
    [high, x - high].map(|part| (part.to_bits() >> 16) as u16)
}

/// # Safety
/// As [`TileKernels`].
unsafe fn pack_row<const PARTS: usize>(x: *const f32, k: usize, block: *mut u8, row: usize) {
    for first in (0..k).step_by(TILE_DEPTH) {
        let tile = first / TILE_DEPTH * PARTS;
        let mut rows = [[0u16; ROW]; 2];
        for i in 0..TILE_DEPTH.min(k - first) {
            // SAFETY: `k` numbers.
            let [high, low] = parts(unsafe { *x.add(first + i) });
            rows[0][i] = high;
            rows[1][i] = low;
        }
        for part in 0..PARTS {
            let at = (tile + part) * TILE_BYTES + row * size_of::<[u16; ROW]>();
            // SAFETY: the block holds the row's tiles.
            unsafe { block.add(at).cast::<[u16; ROW]>().write_unaligned(rows[part]) };
        }
    }
}

/// # Safety
/// As [`TileKernels`].
unsafe fn split(stored: *const u8, tiles: usize, out: *mut u8) {
    type Tile = [[u8; 2]; TILE_BYTES / 2];
    for tile in 0..tiles {
        // SAFETY: `tiles` tiles of fp16 in, twice as many of bf16 out; bytes have no alignment.
        let (from, to) =
            unsafe { (&*stored.cast::<Tile>().add(tile), &mut *out.cast::<[Tile; 2]>().add(tile)) };
        for (i, number) in from.iter().enumerate() {
            let [high, low] = parts(half::f16::from_le_bytes(*number).to_f32());
            (to[0][i], to[1][i]) = (high.to_le_bytes(), low.to_le_bytes());
        }
    }
}

/// Pairs of a part of `a` and a part of `b`, in the order of summation.
const ORDER: [(usize, usize); 3] = [(0, 0), (1, 0), (0, 1)];

/// Returns [`multiply`], compiled for the machine's fused multiply-add if it has one. Otherwise each multiply-add is a
/// function call, with the same bits.
pub(super) fn fastest<const A: usize, const B: usize>() -> unsafe fn(&TileProduct) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        return with_fma::<A, B>;
    }
    multiply::<A, B>
}

/// # Safety
/// As [`TileKernels`]; AVX2 and FMA must be present.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn with_fma<const A: usize, const B: usize>(t: &TileProduct) {
    // SAFETY: the caller's promise.
    unsafe { multiply::<A, B>(t) }
}

/// Multiplies rows in `A` parts with panels in `B` parts.
///
/// # Safety
/// As [`TileKernels`].
#[inline(always)]
unsafe fn multiply<const A: usize, const B: usize>(t: &TileProduct) {
    let (rows, blocks, panels) = extent(t.shape);
    let order = &ORDER[..A + B - 1];
    for block in 0..blocks {
        for row in 0..rows {
            for panel in 0..panels {
                // SAFETY: the shape's blocks, panels and sums are valid by the caller's promise.
                unsafe {
                    let c = t.c.add(((block * TILE_ROWS + row) * panels + panel) * TILE_ROWS);
                    let c = &mut *c.cast::<[f32; TILE_ROWS]>();
                    if t.fresh {
                        c.fill(0.0);
                    }
                    for tile in 0..t.tiles {
                        for (of_a, of_b) in order {
                            let a = t.a[block].add((tile * A + of_a) * TILE_BYTES + row * 2 * ROW);
                            let b = t.b[panel].add((tile * B + of_b) * TILE_BYTES);
                            let a = a.cast::<[u16; ROW]>().read_unaligned();
                            dot(&a, &*b.cast::<[[u8; 2 * ROW]; TILE_ROWS]>(), c);
                        }
                    }
                }
            }
        }
    }
}

/// Returns a product's number of rows per block, blocks and panels.
pub(crate) fn extent(shape: Shape) -> (usize, usize, usize) {
    match shape {
        Shape::Narrow { rows } => (rows, 1, NARROW),
        Shape::Wide => (TILE_ROWS, WIDE, WIDE),
    }
}

/// Computes one row of `TDPBF16PS`.
#[inline(always)]
fn dot(a: &[u16; ROW], b: &[[u8; 2 * ROW]; TILE_ROWS], c: &mut [f32; TILE_ROWS]) {
    let mut sums = [[0.0f32; TILE_ROWS]; PAIR];
    for (pair, row) in b.iter().enumerate() {
        for (odd, sums) in sums.iter_mut().enumerate() {
            let x = widen(a[2 * pair + odd]);
            for (column, sum) in sums.iter_mut().enumerate() {
                let at = 4 * column + 2 * odd;
                let w = widen(u16::from_le_bytes([row[at], row[at + 1]]));
                *sum = flush(x.mul_add(w, *sum));
            }
        }
    }
    for (column, c) in c.iter_mut().enumerate() {
        *c = flush(flush(*c) + flush(sums[0][column] + sums[1][column]));
    }
}

/// Widens a bf16 to fp32. Subnormal numbers become zero.
#[inline(always)]
fn widen(bits: u16) -> f32 {
    flush(f32::from_bits(u32::from(bits) << 16))
}

/// Replaces a subnormal number by zero of the same sign.
#[inline(always)]
fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}
