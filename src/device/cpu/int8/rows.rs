//! Integer products by vectors, of rows that lie one after the other.

use std::ops::Range;

use crate::device::cpu::kernels::PANEL;
use crate::device::cpu::pool::Pool;

use super::kernels::{Int8Product, TILE_K};
use super::linear::{Layer, PIECES_A_THREAD, panel_stride, part};
use super::scratch::row_stride;

/// From so many rows on a product is done in blocks.
const MANY_ROWS: usize = 24;
/// Tiles of a block of depth, and panels that share its rows while they lie in L2: sixteen columns of it fit L1 beside the rows.
const MANY: (usize, usize) = (16, 8);
/// The weights of few rows stream by once, straight from memory. Their sums stay in L1.
const FEW: (usize, usize) = (usize::MAX, 32);

/// Multiplies a block of rows.
pub fn multiply(layer: &Layer<'_>, gemm: unsafe fn(&Int8Product), pool: &mut Pool) {
    let (depth, group) = if layer.rows < MANY_ROWS { FEW } else { MANY };
    let (outputs, each) = (layer.outputs(), group / layer.halves());
    let pieces = (pool.threads() * PIECES_A_THREAD).min(outputs);
    pool.each(pieces, layer.work(), &|thread, piece| {
        let mut sums = layer.x.sums(thread);
        let piece = part(outputs, piece, pieces);
        for first in piece.clone().step_by(each) {
            let outputs = first..piece.end.min(first + each);
            let numbers = layer.rows * layer.halves() * outputs.len() * PANEL;
            let (sums, spare) = sums[..2 * numbers].split_at_mut(numbers);
            sums.fill(0);
            for begin in (0..layer.linear.depth()).step_by(depth) {
                let tiles = begin..begin.saturating_add(depth).min(layer.linear.depth());
                for half in 0..layer.halves() {
                    let product = product(layer, half, &outputs, &tiles, sums);
                    // SAFETY: the product lies inside weights, activations and sums; the kernels belong to this machine.
                    unsafe { gemm(&product) };
                }
            }
            layer.finish((sums, spare), 0, outputs.clone(), outputs.len());
        }
    });
}

/// All rows by a half's panels of some outputs over some tiles of depth.
fn product(
    layer: &Layer<'_>,
    half: usize,
    outputs: &Range<usize>,
    tiles: &Range<usize>,
    sums: &mut [i32],
) -> Int8Product {
    Int8Product {
        a: layer.x.data()[tiles.start * TILE_K..].as_ptr(),
        a_stride: row_stride(layer.linear.k),
        rows: layer.rows,
        w: layer.linear.tiles(layer.panel(half, outputs.start), tiles).as_ptr(),
        panel_stride: panel_stride(layer.linear.k),
        panels: outputs.len(),
        k: tiles.len() * TILE_K,
        c: sums[half * outputs.len() * PANEL..].as_mut_ptr(),
        c_stride: layer.halves() * outputs.len() * PANEL,
    }
}
