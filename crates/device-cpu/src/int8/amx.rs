//! The integer tile kernel on Intel's AMX.

use crate::amx;
use crate::amx::products::{tile_ahead, tile_loop, tile_product};
use crate::tiles::amx::unit;
use crate::tiles::{Shape, TileProduct, TileUnit};

/// Returns whether this machine can run [`UNIT`].
pub(super) fn available() -> bool {
    amx::found().is_ok_and(|amx| amx.int8)
}

/// The tile unit.
pub(super) const UNIT: TileUnit<i32> = unit(multiply);

/// # Safety
/// As [`TileUnit`].
unsafe fn multiply(t: &TileProduct<i32>) {
    if t.tiles == 0 {
        return;
    }
    // SAFETY: the tiles are configured for the shape, and its rows, panels and sums are valid.
    unsafe { tile_product!(t, "tdpbssd") }
}
