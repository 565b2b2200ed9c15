//! The integer tile kernel in plain Rust: slow, with the same bits.

use crate::pack::{PANEL, QUAD, TILE_BYTES, TILE_K, TILE_ROWS};

use super::TileProduct;
use super::reference::extent;

/// # Safety
/// As [`TileUnit::multiply`](super::TileUnit::multiply).
pub(super) unsafe fn multiply(t: &TileProduct<i32>) {
    let (rows, blocks, panels) = extent(t.shape);
    for (block, a) in t.a.iter().enumerate().take(blocks) {
        for row in 0..rows {
            for (panel, b) in t.b.iter().enumerate().take(panels) {
                // SAFETY: the shape's rows, panels and sums are valid.
                unsafe {
                    let c = t.c.add(((block * TILE_ROWS + row) * panels + panel) * PANEL);
                    let c = c.cast::<[i32; PANEL]>();
                    let mut sums = if t.fresh { [0; PANEL] } else { c.read_unaligned() };
                    for tile in 0..t.tiles {
                        let a = a.add(tile * TILE_BYTES + row * TILE_K);
                        dot(&*a.cast(), &*b.add(tile * TILE_BYTES).cast(), &mut sums);
                    }
                    c.write_unaligned(sums);
                }
            }
        }
    }
}

/// Computes one row of `TDPBSSD`: sums wrap.
fn dot(a: &[[i8; QUAD]; TILE_K / QUAD], b: &[[[i8; QUAD]; PANEL]; TILE_K / QUAD], sums: &mut [i32; PANEL]) {
    for (x, row) in a.iter().zip(b) {
        for (sum, w) in sums.iter_mut().zip(row) {
            let products = x.iter().zip(w).map(|(&x, &w)| i32::from(x) * i32::from(w));
            *sum = sum.wrapping_add(products.sum());
        }
    }
}
