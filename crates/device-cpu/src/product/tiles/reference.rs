//! The tile kernels in plain Rust: slow, with the same bits as the tile registers.

use crate::pack::{PAIR, TILE_BYTES, TILE_DEPTH, TILE_ROWS};

use super::{HALF, HIGH, NARROW, Shape, TileProduct, WIDE};

/// Numbers per tile row: sixteen pairs.
pub(super) const ROW: usize = TILE_DEPTH;

/// Returns the product of numbers in `parts` parts, in the order of AMX.
pub(super) fn product(parts: usize) -> unsafe fn(&TileProduct) {
    if parts == 1 { fastest::<AmxSummation, 1, 1>() } else { fastest::<AmxSummation, 2, 2>() }
}

/// Returns the product of bf16 numbers in the order of AVX-512 BF16.
pub(super) fn product_of_pairs() -> unsafe fn(&TileProduct) {
    fastest::<PairSummation, 1, 1>()
}

/// Returns the bf16 bits of `x`'s parts, high first. A number that bf16 can hold is its own high part.
pub(super) fn parts(x: f32) -> [u16; 2] {
    let high = f32::from_bits(x.to_bits().wrapping_add(HALF) & HIGH);
    [high, x - high].map(|part| (part.to_bits() >> 16) as u16)
}

/// Packs a row of numbers in `PARTS` parts.
pub(super) fn pack_row<const PARTS: usize>(x: &[f32], block: &mut [u8], row: usize) {
    for (x, tiles) in x.chunks(TILE_DEPTH).zip(block.chunks_exact_mut(PARTS * TILE_BYTES)) {
        let mut rows = [[0u16; ROW]; 2];
        for (i, x) in x.iter().enumerate() {
            [rows[0][i], rows[1][i]] = parts(*x);
        }
        for (numbers, tile) in rows.iter().zip(tiles.chunks_exact_mut(TILE_BYTES)) {
            put_row(tile, row, numbers);
        }
    }
}

/// Writes a row of a tile.
pub(super) fn put_row(tile: &mut [u8], row: usize, numbers: &[u16; ROW]) {
    let numbers: &[u8] = bytemuck::cast_slice(numbers);
    tile[row * numbers.len()..][..numbers.len()].copy_from_slice(numbers);
}

/// Splits tiles of fp16 into twice as many of bf16.
pub(super) fn split(stored: &[u8], out: &mut [u8]) {
    for (from, to) in stored.chunks_exact(TILE_BYTES).zip(out.chunks_exact_mut(2 * TILE_BYTES)) {
        let (highs, lows) = to.split_at_mut(TILE_BYTES);
        let to = highs.as_chunks_mut::<2>().0.iter_mut().zip(lows.as_chunks_mut::<2>().0);
        for (number, to) in from.as_chunks::<2>().0.iter().zip(to) {
            let [high, low] = parts(half::f16::from_le_bytes(*number).to_f32());
            (*to.0, *to.1) = (high.to_le_bytes(), low.to_le_bytes());
        }
    }
}

/// PanelTile of a part of `a` and a part of `b`, in the order of summation.
const PARTS: [(usize, usize); 3] = [(0, 0), (1, 0), (0, 1)];

/// Returns [`multiply`], compiled for the machine's fused multiply-add if it has one. Otherwise each multiply-add is a
/// function call, with the same bits.
pub(super) fn fastest<S: Summation, const A: usize, const B: usize>() -> unsafe fn(&TileProduct) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        return with_fma::<S, A, B>;
    }
    multiply::<S, A, B>
}

/// # Safety
/// As [`TileUnit::multiply`](super::TileUnit::multiply); AVX2 and FMA must be present.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn with_fma<S: Summation, const A: usize, const B: usize>(t: &TileProduct) {
    // SAFETY: as above.
    unsafe { multiply::<S, A, B>(t) }
}

/// Multiplies rows in `A` parts with panels in `B` parts.
///
/// # Safety
/// As [`TileUnit::multiply`](super::TileUnit::multiply).
#[inline(always)]
unsafe fn multiply<S: Summation, const A: usize, const B: usize>(t: &TileProduct) {
    let (rows, blocks, panels) = extent(t.shape);
    let parts = &PARTS[..A + B - 1];
    for block in 0..blocks {
        for row in 0..rows {
            for panel in 0..panels {
                // SAFETY: the shape's blocks, panels and sums are valid.
                unsafe {
                    let c = t.c.add(((block * TILE_ROWS + row) * panels + panel) * TILE_ROWS);
                    let c = &mut *c.cast::<[f32; TILE_ROWS]>();
                    if t.fresh {
                        c.fill(0.0);
                    }
                    for tile in 0..t.tiles {
                        for (of_a, of_b) in parts {
                            let a = t.a[block].add((tile * A + of_a) * TILE_BYTES + row * 2 * ROW);
                            let b = t.b[panel].add((tile * B + of_b) * TILE_BYTES);
                            let a = a.cast::<[u16; ROW]>().read_unaligned();
                            S::add(&a, &*b.cast::<[[u8; 2 * ROW]; TILE_ROWS]>(), c);
                        }
                    }
                }
            }
        }
    }
}

/// Returns a product's number of rows per block, blocks and panels.
pub(super) fn extent(shape: Shape) -> (usize, usize, usize) {
    match shape {
        Shape::Narrow { rows } => (rows, 1, NARROW),
        Shape::Wide => (TILE_ROWS, WIDE, WIDE),
    }
}

/// A tile of a panel: a row for each pair of its depth, with the pairs of sixteen columns.
type PanelTile = [[u8; 2 * ROW]; TILE_ROWS];

/// A way in which the products of one row with a tile of a panel are summed.
pub(super) trait Summation {
    /// Adds the products to `c`.
    fn add(a: &[u16; ROW], b: &PanelTile, c: &mut [f32; TILE_ROWS]);
}

/// The order of AMX: one row of `TDPBF16PS`.
pub(super) enum AmxSummation {}

impl Summation for AmxSummation {
    #[inline(always)]
    fn add(a: &[u16; ROW], b: &PanelTile, c: &mut [f32; TILE_ROWS]) {
        let mut sums = [[0.0f32; TILE_ROWS]; PAIR];
        for (pair, row) in b.iter().enumerate() {
            for (odd, sums) in sums.iter_mut().enumerate() {
                add_products(a[2 * pair + odd], row, odd, sums);
            }
        }
        for (column, c) in c.iter_mut().enumerate() {
            *c = flush(flush(*c) + flush(sums[0][column] + sums[1][column]));
        }
    }
}

/// The order of AVX-512 BF16: sixteen `VDPBF16PS`, one after the other.
enum PairSummation {}

impl Summation for PairSummation {
    #[inline(always)]
    fn add(a: &[u16; ROW], b: &PanelTile, c: &mut [f32; TILE_ROWS]) {
        c.iter_mut().for_each(|c| *c = flush(*c));
        for (pair, row) in b.iter().enumerate() {
            for odd in [1, 0] {
                add_products(a[2 * pair + odd], row, odd, c);
            }
        }
    }
}

/// Adds the products of one number with its number in each column, by fused multiply-adds. Results that are subnormal
/// become zero.
#[inline(always)]
fn add_products(a: u16, row: &[u8; 2 * ROW], odd: usize, sums: &mut [f32; TILE_ROWS]) {
    let x = widen(a);
    let of_column = |column: usize| {
        let at = 4 * column + 2 * odd;
        widen(u16::from_le_bytes([row[at], row[at + 1]]))
    };
    let (before, mut smallest) = (*sums, false);
    for (column, sum) in sums.iter_mut().enumerate() {
        *sum = flush(x.mul_add(of_column(column), *sum));
        smallest |= sum.abs() == f32::MIN_POSITIVE;
    }
    if smallest {
        for (column, sum) in sums.iter_mut().enumerate() {
            if is_rounded_up(x, of_column(column), before[column], *sum) {
                *sum = 0.0f32.copysign(*sum);
            }
        }
    }
}

/// Returns whether `sum` is the smallest normal number, but `x * w + c` rounded to 24 bits is below it. The processor
/// flushes such a result, because it rounds first (Intel 64 and IA-32 Architectures Software Developer's Manual, volume
/// 1, Numeric Underflow Exception).
#[cold]
fn is_rounded_up(x: f32, w: f32, c: f32, sum: f32) -> bool {
    /// Brings the result into the range where it has 24 bits.
    const SCALE: f32 = (1 << 24) as f32;
    let (small, large) = if x.abs() < w.abs() { (x, w) } else { (w, x) };
    sum.abs() == f32::MIN_POSITIVE
        && (small * SCALE).mul_add(large, c * SCALE).abs() < f32::MIN_POSITIVE * SCALE
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
