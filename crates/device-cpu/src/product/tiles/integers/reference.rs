//! Weighted sums of integers in plain Rust: slow, with the same bits as the tile registers.

use crate::pack::{TILE_BYTES, TILE_DEPTH};
use crate::product::tiles::TileProduct;
use crate::product::tiles::reference::{AmxSummation, ROW, fastest, parts, put_row};

use super::{INTEGER_BYTES, WEIGHT_PARTS};

/// Returns the product.
pub(crate) fn product() -> unsafe fn(&TileProduct) {
    fastest::<AmxSummation, WEIGHT_PARTS, 1>()
}

/// Packs a row of weights times their scales.
pub(crate) fn pack_row(weights: &[f32], scales: &[f32], block: &mut [u8], row: usize) {
    let numbers = weights.as_chunks::<TILE_DEPTH>().0.iter().zip(scales.as_chunks::<TILE_DEPTH>().0);
    for ((weights, scales), tiles) in numbers.zip(block.chunks_exact_mut(WEIGHT_PARTS * TILE_BYTES)) {
        let mut rows = [[0u16; ROW]; WEIGHT_PARTS];
        for (i, (weight, scale)) in weights.iter().zip(scales).enumerate() {
            [rows[0][i], rows[1][i]] = parts(weight * scale);
        }
        for (numbers, tile) in rows.iter().zip(tiles.chunks_exact_mut(TILE_BYTES)) {
            put_row(tile, row, numbers);
        }
    }
}

/// Widens tiles of integers to tiles of bf16.
pub(crate) fn widen(stored: &[u8], out: &mut [u8]) {
    /// Two rows of depth in bf16, side by side.
    type Pairs = [[[u8; 2]; 2]; ROW / 2];
    let integers: &[[[i8; ROW / 2]; 2]] =
        bytemuck::cast_slice(&stored[..stored.len() / INTEGER_BYTES * INTEGER_BYTES]);
    let pairs: &mut [Pairs] = bytemuck::cast_slice_mut(out);
    for (rows, pairs) in integers.iter().zip(pairs) {
        for (column, pair) in pairs.iter_mut().enumerate() {
            *pair = rows.map(|row| parts(f32::from(row[column]))[0].to_le_bytes());
        }
    }
}
