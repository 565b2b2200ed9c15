//! Products by tiles: the arithmetic of Intel's AMX for bf16, and for fp16 cut into two bf16 parts.
//!
//! A tile is sixteen rows of 64 bytes. `TDPBF16PS` adds to `c[16, 16]` (fp32) the product of `a[16, 32]` and `b[32, 16]`
//! (bf16), `b` stored with the two `k` of a pair side by side. For each output it sums the even `k` and the odd `k`
//! apart, each by fused multiply-adds, then adds the two to each other and to `c`; subnormal numbers count as zero on the
//! way in and out, and rounding is to nearest whatever the control register says (Intel 64 and IA-32 Architectures
//! Software Developer's Manual, volume 2, TDPBF16PS). A row of `c` depends on the same row of `a` alone, so one order of
//! sums serves every number of rows; it is another order than the vector kernels', hence a kernel family of its own.
//!
//! fp16 has eleven significant bits and bf16 eight, so `x = high + low` with both in bf16 is exact: `high` is `x` rounded to
//! nearest, `low` at most `2^-8 x` and of either sign. Products of the parts are exact in fp32. Three of them are summed, high by high,
//! low by high and high by low; the fourth, at most `2^-16` of the product and as often above as below zero, is left out: over
//! thousands of products that is what their sum in fp32 loses by its own rounding, and some hundredth of what the result
//! loses when it is rounded to fp16. (fp16's infinities become NaN: `low` is infinity less infinity.)
//!
//! [`twin`] computes the same bits in plain Rust; it is what the tests of this family run on where there is no AMX.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod amx;
mod integers;
mod layer;
mod macro_kernel;
pub mod twin;

use crate::device::DType;

pub use self::integers::{INTEGER_BYTES, IntegerKernels, WEIGHT_PARTS};
pub use self::layer::{apply, row_bytes};
pub use self::macro_kernel::{
    BLOCK_BYTES, BLOCK_ROWS, Layer, Layout, MacroKernel, ROOM_SUMS, blocks_of_rows,
};

/// Numbers of `k` in a tile of 16-bit numbers.
pub const TILE_DEPTH: usize = 32;
/// Rows of a tile, and columns of a product's.
pub const TILE_ROWS: usize = 16;
/// Bytes of a tile.
pub const TILE_BYTES: usize = 1024;
/// `k` that lie side by side in a tile of 16-bit weights.
pub const PAIR: usize = 2;
/// Panels of a [`Shape::Narrow`] product.
pub const NARROW: usize = 4;
/// Panels, and blocks of rows, of a [`Shape::Wide`] product.
pub const WIDE: usize = 2;

/// How a product uses the tile registers. They are made ready alike for sixteen rows in [`Self::Narrow`] and for [`Self::Wide`], and
/// for numbers of any type.
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
    /// For a product of so many rows, or for part of it.
    pub fn of(rows: usize) -> Self {
        if rows <= TILE_ROWS { Self::Narrow { rows } } else { Self::Wide }
    }

    /// Panels.
    pub fn panels(self) -> usize {
        match self {
            Self::Narrow { .. } => NARROW,
            Self::Wide => WIDE,
        }
    }

    /// Rows of `c`.
    pub fn rows(self) -> usize {
        match self {
            Self::Narrow { .. } => TILE_ROWS,
            Self::Wide => WIDE * TILE_ROWS,
        }
    }
}

/// `c += a * b` over `tiles` tiles of depth, each of them as many tiles as a number has parts: high, low.
#[derive(Debug, Clone, Copy)]
pub struct TileProduct<C = f32> {
    /// Which blocks of rows and which panels there are.
    pub shape: Shape,
    /// The blocks of rows, tile after tile.
    pub a: [*const u8; WIDE],
    /// The panels, tile after tile.
    pub b: [*const u8; NARROW],
    /// Tiles of depth.
    pub tiles: usize,
    /// The sums begin at zero, whatever is there.
    pub fresh: bool,
    /// The sums; those of integers wrap.
    pub c: *mut C,
}

/// The tile registers, and what multiplies numbers of one kind in them.
///
/// All functions are `unsafe`: the instructions must be present, pointers valid for the shapes given.
#[derive(Debug, Clone, Copy)]
pub struct TileUnit<C = f32> {
    /// Makes the tile registers ready for a shape; to be called by the thread that multiplies, before it does.
    pub configure: unsafe fn(Shape),
    /// A [`TileProduct`] of the shape configured last.
    pub multiply: unsafe fn(&TileProduct<C>),
    /// Gives the tile registers back.
    pub release: unsafe fn(),
}

/// Cuts stored tiles into parts: `(stored, tiles, out)`.
pub type Split = unsafe fn(*const u8, usize, *mut u8);

/// The tile kernels of one storage type.
///
/// All functions are `unsafe`: the instructions must be present, pointers valid for the lengths given.
#[derive(Debug, Clone, Copy)]
pub struct TileKernels {
    /// Tiles that make one tile of numbers: 1 for bf16, 2 for fp16.
    pub parts: usize,
    /// Writes row `row` of a block of sixteen: `(x, k, block, row)`. `k` numbers of fp32 that the storage type can hold go to
    /// the block's tiles, zero after them.
    pub pack_row: unsafe fn(*const f32, usize, *mut u8, usize),
    /// Cuts stored weights into parts; `None` where they are multiplied as they are stored.
    pub split: Option<Split>,
    /// What multiplies.
    pub unit: TileUnit,
    /// Weighted sums of integers, which are the same for every type.
    pub integers: IntegerKernels,
}

/// Who computes the products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// The tile registers.
    Amx,
    /// Their twin in plain Rust.
    Twin,
}

impl Family {
    /// The machine has it, and the system lets this process use it.
    pub fn available(self) -> bool {
        match self {
            Self::Twin => true,
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx => amx::available(),
            #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
            Self::Amx => false,
        }
    }

    /// Its kernels for a storage type; `None` for fp32, which tiles do not multiply, and where it is not available.
    pub fn kernels(self, dtype: DType) -> Option<TileKernels> {
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

/// fp32 bits that bf16 has.
const HIGH: u32 = 0xFFFF_0000;
/// Half of the last of them: added before a number is cut, it rounds to nearest, ties away from zero.
const HALF: u32 = 0x8000;

#[cfg(test)]
mod tests;
