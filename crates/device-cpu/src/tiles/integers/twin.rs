//! Weighted sums of integers in plain Rust: slow, with the same bits as the tile registers.

use crate::tiles::twin::{ROW, fastest, parts, unit};
use crate::tiles::{TILE_BYTES, TILE_DEPTH};

use super::{INTEGER_BYTES, IntegerKernels, WEIGHT_PARTS};

/// Returns the kernels.
pub(crate) fn kernels() -> IntegerKernels {
    IntegerKernels { pack_row, widen, unit: unit(fastest::<WEIGHT_PARTS, 1>()) }
}

/// # Safety
/// As [`IntegerKernels`].
unsafe fn pack_row(weights: *const f32, scales: *const f32, k: usize, block: *mut u8, row: usize) {
    for tile in 0..k / TILE_DEPTH {
        let mut rows = [[0u16; ROW]; WEIGHT_PARTS];
        for i in 0..TILE_DEPTH {
            let at = tile * TILE_DEPTH + i;
            // SAFETY: `k` weights and scales.
            let scaled = unsafe { *weights.add(at) * *scales.add(at) };
            [rows[0][i], rows[1][i]] = parts(scaled);
        }
        for (part, numbers) in rows.into_iter().enumerate() {
            let at = (tile * WEIGHT_PARTS + part) * TILE_BYTES + row * size_of::<[u16; ROW]>();
            // SAFETY: the block holds the row's tiles.
            unsafe { block.add(at).cast::<[u16; ROW]>().write_unaligned(numbers) };
        }
    }
}

/// # Safety
/// As [`IntegerKernels`].
unsafe fn widen(stored: *const u8, tiles: usize, out: *mut u8) {
    /// Two rows of depth: one after the other, and side by side.
    type Rows = [[i8; ROW / 2]; 2];
    type Pairs = [[[u8; 2]; 2]; ROW / 2];
    for pair in 0..tiles * INTEGER_BYTES / size_of::<Rows>() {
        // SAFETY: `tiles` tiles of integers in, as many of bf16 out; bytes have no alignment.
        let (rows, pairs) =
            unsafe { (&*stored.cast::<Rows>().add(pair), &mut *out.cast::<Pairs>().add(pair)) };
        for (column, pair) in pairs.iter_mut().enumerate() {
            *pair = rows.map(|row| parts(f32::from(row[column]))[0].to_le_bytes());
        }
    }
}
