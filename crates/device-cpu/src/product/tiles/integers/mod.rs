//! Weighted sums of integers: the products with the values of an int8 KV cache, whatever the device's type.
//!
//! An 8-bit integer is exact in bf16, so a stored tile becomes one tile in L1. A softmax weight, already rounded to the
//! type, times the value scale of its token is an fp32 number. It is split into two bf16 parts. The high part is
//! rounded to nearest, so the low part is at most `2^-8` of the number, of either sign. The low part loses what follows
//! its own eighth bit, less than `2^-16` of the number. The products of both parts with the one tile of integers are
//! summed: high, low, for one step of depth after the other.
//!
//! `TDPBF16PS` treats subnormal numbers as zero. In fp16 there are none: a weight is at least `2^-24` and a scale
//! `2^-31`. Their product is at least `2^-55`, and a nonzero low part is at least `2^-24` of that. In bf16, a weight
//! times a scale below `2^-126`, or such a low part, is lost. As the largest weight of a row is one, this matters only
//! if all its values are as small.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod reference;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(super) use self::amx::{PRODUCT as AMX_PRODUCT, pack_row as amx_pack_row, widen as amx_widen};
pub(super) use self::reference::{
    pack_row as reference_pack_row, product as reference_product, widen as reference_widen,
};

use crate::pack::TILE_BYTES;

/// Size of a stored tile of integers `[32][16]` (depth by columns), in bytes.
pub(crate) const INTEGER_BYTES: usize = TILE_BYTES / 2;
/// Parts of the product of a weight and its scale.
pub(crate) const WEIGHT_PARTS: usize = 2;

#[cfg(test)]
mod tests;
