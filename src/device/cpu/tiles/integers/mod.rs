//! Weighted sums of integers: the products of an int8 KV cache's values, whatever the type of the device.
//!
//! An integer of eight bits is exact in bf16: a stored tile becomes one tile in L1. A softmax weight, already rounded to the
//! type, times the scale of its token's value is an fp32 number; it is cut into two bf16 parts. The high part is rounded to
//! nearest, so the low part is at most `2^-8` of the number and of either sign; it loses what is behind its own eighth bit, less
//! than `2^-16` of the number. Both parts' products with the one tile of integers are summed: high, low, a step of depth after
//! the other.
//!
//! `TDPBF16PS` takes subnormal numbers for zero. In fp16 there are none: a weight is at least `2^-24` and a scale `2^-31`, so their
//! product is at least `2^-55`, and a low part that is not zero, `2^-24` of it. In bf16 a weight times a scale below `2^-126`, or a
//! low part there, is lost: as the largest weight of a row is one, that is nothing unless all its values are as small.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod twin;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(super) use self::amx::KERNELS as AMX;
pub(super) use self::twin::kernels as twin;

use super::{Split, TILE_BYTES, TileUnit};

/// Bytes of a tile of integers as it is stored, `[32][16]`: depth by columns.
pub const INTEGER_BYTES: usize = TILE_BYTES / 2;
/// Parts of a weight times its scale.
pub const WEIGHT_PARTS: usize = 2;

/// The kernels. All functions are `unsafe`, as those of [`super::TileKernels`].
#[derive(Debug, Clone, Copy)]
pub struct IntegerKernels {
    /// Writes row `row` of a block of sixteen, of tiles of [`WEIGHT_PARTS`] parts: `(weights, scales, k, block, row)`. `k` weights,
    /// a multiple of the depth of a tile, each by its scale.
    pub pack_row: unsafe fn(*const f32, *const f32, usize, *mut u8, usize),
    /// Makes tiles of integers tiles of bf16.
    pub widen: Split,
    /// What multiplies rows in [`WEIGHT_PARTS`] parts by panels in one.
    pub unit: TileUnit,
}

#[cfg(test)]
mod tests;
