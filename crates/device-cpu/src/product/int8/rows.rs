//! Integer products with vectors, for rows stored one after the other.

use std::ops::Range;

use crate::buffer::{SharedSlice, Strided, fence_streams};
use crate::pack::int8::{Int8Linear, panel_stride};
use crate::pack::quantise::Quantise;
use crate::pack::{PANEL, Rows, TILE_K};
use crate::pool::{Pool, part};
use crate::product::Scratch;
use crate::simd::Vectors;

use super::gemm::{Int8Gemm, Product};
use super::layer::Int8Layer;

/// From this number of rows on, a product is computed in blocks.
pub(super) const MANY_ROWS: usize = 24;
/// Depth of a block: 32 columns and the rows of a tile fit 48 KiB of L1.
const BLOCK_K: usize = 1024;
/// Tiles per block of depth, and panels that share its rows. Rows and sums of 512 rows fit 1 MiB of L2.
const MANY: (usize, usize) = (BLOCK_K / TILE_K, 12);
/// The same with half the depth ([`Int8Gemm::shallow_below`]).
const SHALLOW: (usize, usize) = (MANY.0 / 2, MANY.1);
/// The weights of few rows stream from memory once. Their sums stay in L1.
const FEW: (usize, usize) = (usize::MAX, 32);

/// Pieces of the panels per thread, so that threads finish together even if one was delayed.
const PIECES_A_THREAD: usize = 4;

/// Returns the distance between rows, in numbers. It is an odd number of the largest blocks of depth, which spreads a block of
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
    let (depth, group) = match layer.rows {
        ..MANY_ROWS => FEW,
        rows if rows < gemm.shallow_below() => SHALLOW,
        _ => MANY,
    };
    let (outputs, group) = (layer.outputs(), group / layer.halves());
    let pieces = (pool.threads() * PIECES_A_THREAD).min(outputs);
    // The products of a group: every half over the first block of depth, then over the next block.
    let (halves, all) = (layer.halves(), layer.linear.depth());
    let turns = all.div_ceil(depth) * halves;
    let turn = |i: usize| {
        let begin = i / halves * depth;
        (i % halves, begin..begin.saturating_add(depth).min(all))
    };
    pool.each(pieces, layer.work(), &|thread, piece| {
        let mut room = layer.scratch.room(thread);
        let (sums, _) = room.parts::<i32>();
        let piece = part(outputs, piece, pieces);
        for first in piece.clone().step_by(group) {
            let outputs = first..piece.end.min(first + group);
            // An odd number of cache lines between rows keeps the sums of a panel apart in L1.
            let each = outputs.len() | 1;
            let numbers = layer.rows * layer.halves() * each * PANEL;
            let sums = &mut sums[..numbers];
            sums.fill(0);
            for i in 0..turns {
                let (half, tiles) = turn(i);
                let after = if i + 1 < turns { (first, i + 1) } else { (outputs.end, 0) };
                let next = Some(after).filter(|(first, _)| *first < piece.end).map(|(first, i)| {
                    let (half, tiles) = turn(i);
                    layer.linear.panels_from(layer.panel(half, first), tiles.start)
                });
                let (panels, c) =
                    ((layer.panel(half, first), outputs.len()), &mut sums[half * each * PANEL..]);
                gemm.run(&product(layer, panels, &tiles, (c, each), next.unwrap_or_default()));
            }
            layer.finish(sums, 0, outputs, each);
        }
        fence_streams();
    });
}

/// Returns the product of all rows with `panels` panels over some tiles of depth, with the panels that follow. The sums of the
/// halves are `each` panels apart.
fn product<'a>(
    layer: &'a Int8Layer<'_>,
    (first, panels): (usize, usize),
    tiles: &Range<usize>,
    (sums, each): (&'a mut [i32], usize),
    next: &'a [i8],
) -> Product<'a> {
    Product {
        a: bytemuck::cast_slice(&layer.scratch.rows[tiles.start * TILE_K..]),
        a_stride: row_stride(layer.linear.k),
        w: layer.linear.panels_from(first, tiles.start),
        panel_stride: panel_stride(layer.linear.k),
        k: tiles.len() * TILE_K,
        c: Strided::new(sums, layer.rows, panels * PANEL, layer.halves() * each * PANEL),
        next,
    }
}
