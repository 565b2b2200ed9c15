//! Tile products: the arithmetic of Intel's AMX for bf16, and for fp16 split into two bf16 parts.
//!
//! A tile has sixteen rows of 64 bytes. `TDPBF16PS` adds to `c[16, 16]` (fp32) the product of `a[16, 32]` and `b[32,
//! 16]` (bf16). `b` stores the two `k` of a pair side by side. For each output it sums the even `k` and the odd `k`
//! separately, by fused multiply-adds. Then it adds the two sums to each other and to `c`. Subnormal numbers count as
//! zero on input and output. Rounding is to nearest, whatever the control register says (Intel 64 and IA-32
//! Architectures Software Developer's Manual, volume 2, TDPBF16PS). A row of `c` depends only on the same row of `a`,
//! so the order of summation is the same for any number of rows. It differs from that of the vector kernels, so the
//! tiles are a kernel family of their own.
//!
//! fp16 has eleven significant bits and bf16 eight, so `x = high + low` with both parts in bf16 is exact. `high` is `x`
//! rounded to nearest; `low` is at most `2^-8 x`, of either sign. Products of the parts are exact in fp32. Three of
//! them are summed: high by high, low by high and high by low. The fourth is left out. It is at most `2^-16` of the
//! product, and its sign is as often positive as negative. Over thousands of products this loses as much as the fp32
//! sum loses by its own rounding. It is about a hundredth of what rounding the result to fp16 loses. (fp16's infinities
//! become NaN: `low` is infinity minus infinity.)
//!
//! [`twin`] computes the same bits in plain Rust. The tests of this family use it on machines without AMX.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) mod amx;
mod integers;
mod layer;
mod macro_kernel;
pub(crate) mod twin;

use glmbench_device::DType;

pub(crate) use self::integers::{INTEGER_BYTES, IntegerKernels, WEIGHT_PARTS};
pub(crate) use self::layer::{apply, row_bytes};
pub(crate) use self::macro_kernel::{
    BLOCK_BYTES, BLOCK_ROWS, Layer, Layout, MacroKernel, ROOM_SUMS, blocks_of_rows,
};

/// Depth (`k`) of a tile of 16-bit numbers.
pub(crate) const TILE_DEPTH: usize = 32;
/// Rows of a tile, and columns of a product tile.
pub(crate) const TILE_ROWS: usize = 16;
/// Size of a tile in bytes.
pub(crate) const TILE_BYTES: usize = 1024;
/// Number of `k` stored side by side in a tile of 16-bit weights.
pub(crate) const PAIR: usize = 2;
/// Panels of a [`Shape::Narrow`] product.
pub(crate) const NARROW: usize = 4;
/// Panels, and blocks of rows, of a [`Shape::Wide`] product.
pub(crate) const WIDE: usize = 2;

/// How a product uses the tile registers. The configuration is the same for [`Self::Narrow`] with sixteen rows and for
/// [`Self::Wide`], and for every number type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Up to sixteen rows by four panels; `c` is `[16, 64]`.
    Narrow {
        /// Rows in use.
        rows: usize,
    },
    /// Thirty-two rows by two panels; `c` is `[32, 32]`.
    Wide,
}

impl Shape {
    /// Returns the shape for a product of `rows` rows, or for part of it.
    pub fn of(rows: usize) -> Self {
        if rows <= TILE_ROWS { Self::Narrow { rows } } else { Self::Wide }
    }

    /// Returns the number of panels.
    pub fn panels(self) -> usize {
        match self {
            Self::Narrow { .. } => NARROW,
            Self::Wide => WIDE,
        }
    }

    /// Returns the number of rows of `c`.
    pub fn rows(self) -> usize {
        match self {
            Self::Narrow { .. } => TILE_ROWS,
            Self::Wide => WIDE * TILE_ROWS,
        }
    }
}

/// `c += a * b` over `tiles` tiles of depth. Each of them is stored as one tile per part of a number: high, low.
#[derive(Debug, Clone, Copy)]
pub struct TileProduct<C = f32> {
    /// The blocks of rows and the panels in use.
    pub shape: Shape,
    /// The blocks of rows, in tile order.
    pub a: [*const u8; WIDE],
    /// The panels, in tile order.
    pub b: [*const u8; NARROW],
    /// Number of tiles of depth.
    pub tiles: usize,
    /// Whether the sums begin at zero instead of at the contents of `c`.
    pub fresh: bool,
    /// The sums; integer sums wrap.
    pub c: *mut C,
}

/// The tile registers, with a product for one kind of numbers.
///
/// All functions are `unsafe`: the instructions must be present, and pointers must be valid for the given shapes.
#[derive(Debug, Clone, Copy)]
pub struct TileUnit<C = f32> {
    /// Configures the tile registers for a shape. The thread that multiplies must call this first.
    pub configure: unsafe fn(Shape),
    /// Computes a [`TileProduct`] of the shape configured last.
    pub multiply: unsafe fn(&TileProduct<C>),
    /// Releases the tile registers.
    pub release: unsafe fn(),
}

/// Splits stored tiles into parts: `(stored, tiles, out)`.
pub(crate) type Split = unsafe fn(*const u8, usize, *mut u8);

/// The tile kernels of one storage type.
///
/// All functions are `unsafe`: the instructions must be present, and pointers must be valid for the given lengths.
#[derive(Debug, Clone, Copy)]
pub struct TileKernels {
    /// Tiles per tile of numbers: 1 for bf16, 2 for fp16.
    pub parts: usize,
    /// Packs row `row` of a block of sixteen: `(x, k, block, row)`. Writes `k` fp32 numbers, which the storage type
    /// must be able to hold, to the tiles of the block, followed by zeros.
    pub pack_row: unsafe fn(*const f32, usize, *mut u8, usize),
    /// Splits stored weights into parts; `None` if they are multiplied as stored.
    pub split: Option<Split>,
    /// The tile unit and its product.
    pub unit: TileUnit,
    /// Weighted sums of integers, the same for every type.
    pub integers: IntegerKernels,
}

/// The implementation of the products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// The tile registers.
    Amx,
    /// A twin in plain Rust.
    Twin,
}

impl Family {
    /// Returns whether the machine has it and the operating system allows its use.
    pub(crate) fn available(self) -> bool {
        match self {
            Self::Twin => true,
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx => amx::available(),
            #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
            Self::Amx => false,
        }
    }

    /// Returns the kernels for a storage type; `None` for fp32, which tiles do not multiply, and if the family is not
    /// available.
    pub(crate) fn kernels(self, dtype: DType) -> Option<TileKernels> {
        if dtype == DType::Fp32 || !self.available() {
            return None;
        }
        match self {
            Self::Twin => Some(twin::kernels(dtype)),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx => Some(amx::kernels(dtype)),
            #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
            Self::Amx => None,
        }
    }
}

/// The bits of an fp32 that bf16 keeps.
const HIGH: u32 = 0xFFFF_0000;
/// Half of the last bit of [`HIGH`]. Adding it before truncation rounds to nearest, ties away from zero.
const HALF: u32 = 0x8000;

#[cfg(test)]
mod tests;
