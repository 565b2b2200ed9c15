//! Integer products with tiles: `TDPBSSD` multiplies sixteen rows of 64 integers with a tile of a panel, exactly.

use std::ops::Range;

use crate::buffer::SharedSlice;
use crate::pack::int8::Int8Linear;
use crate::pack::quantise::{QuantiseTiles, Scaled, TileRow};
use crate::pack::{Rows, TILE_K, TILE_ROWS};
use crate::pool::Pool;
use crate::product::Scratch;
use crate::product::tiles::{Layer, Layout, MacroKernel, TileUnit, Unpack};
use crate::simd::Vectors;

use super::layer::Int8Layer;

/// Quantises rows for a weight into tiles.
pub(super) fn quantise(
    x: Rows<'_>,
    linear: &Int8Linear,
    unit: &TileUnit<i32>,
    vectors: Vectors,
    scratch: &mut Scratch,
    pool: &mut Pool,
) -> Layout {
    let k = linear.k;
    let layout = Layout::new(x.rows, k.div_ceil(TILE_K), unit);
    let (data, scaled) = (scratch.rows.shared(), SharedSlice::new(&mut scratch.scaled));
    pool.split(x.rows, x.rows * k, &|rows| {
        for row in rows {
            let first = layout.at(0, row / TILE_ROWS) + row % TILE_ROWS * TILE_K;
            // SAFETY: a row belongs to one thread.
            let (to, scaled) = unsafe {
                let to = TileRow::new(data, first, layout.block(), layout.block_stride());
                (to, scaled.range(row..row + 1))
            };
            let scale =
                vectors.run(QuantiseTiles { x: &x.data[row * x.stride..][..k], to, by: linear.input });
            scaled[0] = Scaled { scale, sum: 0 };
        }
    });
    layout
}

/// Multiplies a block of rows in tiles.
pub(super) fn multiply(layer: &Int8Layer<'_>, unit: TileUnit<i32>, layout: Layout, pool: &mut Pool) {
    let (halves, outputs, threads) = (layer.halves(), layer.outputs(), pool.threads());
    let (scratch, layer, work) = (layer.scratch, &Tiled { layer, unit }, layer.work());
    MacroKernel { layer, halves, outputs, layout, scratch, threads }.run(work, pool);
}

/// A layer that tiles multiply.
struct Tiled<'a> {
    layer: &'a Int8Layer<'a>,
    unit: TileUnit<i32>,
}

impl Layer for Tiled<'_> {
    type Sum = i32;

    fn unit(&self) -> TileUnit<i32> {
        self.unit
    }

    fn unpack(&self) -> Option<Unpack> {
        None
    }

    fn stored(&self, panel: usize, tiles: &Range<usize>) -> &[u8] {
        bytemuck::cast_slice(self.layer.linear.tiles(panel, tiles))
    }

    fn finish(&self, sums: &mut [i32], first: usize, outputs: Range<usize>, each: usize) {
        self.layer.finish(sums, first, outputs, each);
    }
}
