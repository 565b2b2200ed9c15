//! The integer tile kernels on Intel's AMX.

use crate::device::cpu::amx;
use crate::device::cpu::amx::products::{tile_ahead, tile_loop, tile_product};
use crate::device::cpu::tiles::Shape;
use crate::device::cpu::tiles::amx::{configure, release};

use super::tiles::{TileKernels, TileProduct};

/// This machine can run [`KERNELS`].
pub fn available() -> bool {
    amx::found().is_ok_and(|amx| amx.int8)
}

/// The kernels.
pub const KERNELS: TileKernels = TileKernels { configure, multiply, release };

/// # Safety
/// As [`TileKernels`].
unsafe fn multiply(t: &TileProduct) {
    if t.tiles == 0 {
        return;
    }
    // SAFETY: the tiles are configured for the shape, whose rows, panels and sums are there.
    unsafe { tile_product!(t, "tdpbssd") }
}
