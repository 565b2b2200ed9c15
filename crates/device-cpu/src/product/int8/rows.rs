//! Integer products with vectors, for rows stored one after the other.

use std::ops::Range;

use crate::buffer::{SharedSlice, Strided};
use crate::pack::int8::{Int8Linear, panel_stride};
use crate::pack::quantise::Quantise;
use crate::pack::{PANEL, Rows, TILE_K};
use crate::pool::{Pool, part};
use crate::product::Scratch;
use crate::simd::Vectors;

use super::gemm::{Int8Gemm, Product};
use super::layer::Int8Layer;

/// From this number of rows on, a product is computed in blocks.
const MANY_ROWS: usize = 24;
/// Depth of a block: sixteen columns fit L1 beside the rows.
const BLOCK_K: usize = 1024;
/// Tiles per block of depth, and panels that share its rows while they are in L2.
const MANY: (usize, usize) = (BLOCK_K / TILE_K, 8);
/// The weights of few rows stream from memory once. Their sums stay in L1.
const FEW: (usize, usize) = (usize::MAX, 32);

/// Pieces of the panels per thread, so that threads finish together even if one was delayed.
const PIECES_A_THREAD: usize = 4;

/// Returns the distance between rows, in numbers. It is an odd number of blocks of depth, which spreads a block of
/// several rows over the sets of a cache.
pub(crate) fn row_stride(k: usize) -> usize {
    (k.div_ceil(BLOCK_K) | 1) * BLOCK_K
}

/// Quantises rows for a weight.
pub(super) fn quantise(
    x: Rows<'_>,
    linear: &Int8Linear,
    vectors: Vectors,
    scratch: &mut Scratch,
    pool: &mut Pool,
) {
    let k = linear.k;
    let stride = row_stride(k);
    let data = SharedSlice::new(bytemuck::cast_slice_mut(&mut scratch.rows));
    let scaled = SharedSlice::new(&mut scratch.scaled);
    pool.split(x.rows, x.rows * k, &|rows| {
        for row in rows {
            // SAFETY: a row belongs to one thread.
            let (out, scaled) = unsafe {
                let out = data.range(row * stride..row * stride + k.next_multiple_of(TILE_K));
                (out, scaled.range(row..row + 1))
            };
            scaled[0] = vectors.run(Quantise { x: &x.data[row * x.stride..][..k], out, by: linear.input });
        }
    });
}

/// Multiplies a block of rows.
pub(super) fn multiply(layer: &Int8Layer<'_>, gemm: Int8Gemm, pool: &mut Pool) {
    let (depth, group) = if layer.rows < MANY_ROWS { FEW } else { MANY };
    let (outputs, group) = (layer.outputs(), group / layer.halves());
    let pieces = (pool.threads() * PIECES_A_THREAD).min(outputs);
    pool.each(pieces, layer.work(), &|thread, piece| {
        let mut room = layer.scratch.room(thread);
        let (sums, _) = room.parts::<i32>();
        let piece = part(outputs, piece, pieces);
        for first in piece.clone().step_by(group) {
            let outputs = first..piece.end.min(first + group);
            // An odd number of cache lines between rows keeps the sums of a panel apart in L1.
            let each = outputs.len() | 1;
            let numbers = layer.rows * layer.halves() * each * PANEL;
            let (sums, spare) = sums[..2 * numbers].split_at_mut(numbers);
            sums.fill(0);
            for begin in (0..layer.linear.depth()).step_by(depth) {
                let tiles = begin..begin.saturating_add(depth).min(layer.linear.depth());
                for half in 0..layer.halves() {
                    let c = &mut sums[half * each * PANEL..];
                    gemm.run(&product(layer, (layer.panel(half, first), outputs.len()), &tiles, (c, each)));
                }
            }
            layer.finish((sums, spare), 0, outputs, each);
        }
    });
}

/// Returns the product of all rows with `panels` panels over some tiles of depth. The sums of the halves are `each`
/// panels apart.
fn product<'a>(
    layer: &'a Int8Layer<'_>,
    (first, panels): (usize, usize),
    tiles: &Range<usize>,
    (sums, each): (&'a mut [i32], usize),
) -> Product<'a> {
    Product {
        a: bytemuck::cast_slice(&layer.scratch.rows[tiles.start * TILE_K..]),
        a_stride: row_stride(layer.linear.k),
        w: layer.linear.panels_from(first, tiles.start),
        panel_stride: panel_stride(layer.linear.k),
        k: tiles.len() * TILE_K,
        c: Strided::new(sums, layer.rows, panels * PANEL, layer.halves() * each * PANEL),
    }
}
