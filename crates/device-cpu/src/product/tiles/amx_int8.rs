//! The integer tile kernel on Intel's AMX.

use super::amx_loops::{next_sums, tile_ahead, tile_loop, tile_product};
use super::{Shape, TileProduct};

/// # Safety
/// As [`TileUnit::multiply`](super::TileUnit::multiply).
pub(super) unsafe fn multiply(t: &TileProduct<i32>) {
    // SAFETY: the tiles are configured for the shape, and its rows, panels and sums are valid.
    unsafe { tile_product!(t, "tdpbssd") }
}
