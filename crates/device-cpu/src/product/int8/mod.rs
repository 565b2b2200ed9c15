//! Products of int8 weights with int8 activations.
//!
//! Numbers are quantised ([`quantise`](crate::pack::quantise)) with one scale per token, or by the scale and the offset
//! that are stored beside the weight. Results that use a run with NaN are NaN, so the fault is visible. Sums of products
//! are exact, because 32 bits hold them. They are therefore the same for every instruction set, batch, chunk and number
//! of threads.
//!
//! A linear layer quantises its input one block of rows at a time. Vector kernels multiply rows stored one after the
//! other (`rows`); AMX tiles multiply rows in tiles (`tiles`). The reference kernel of the tiles in plain Rust uses the
//! same order. The same tiles multiply the keys of the KV cache.

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod gemm;
mod layer;
mod rows;
mod tiles;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests;

use crate::product::tiles::TileUnit;
use crate::simd::Vectors;

#[cfg(target_arch = "aarch64")]
pub(super) use self::aarch64::{Columns, PAIRS_OF_COLUMNS, pair, tiles_of_pairs, turn};
pub(crate) use self::gemm::Int8Gemm;
pub(crate) use self::layer::StaticKernels;
pub(crate) use self::rows::row_stride;

/// The implementation of the product, with the layout of activation rows that it needs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Multiply {
    /// Vectors, for rows stored one after the other.
    Rows(Int8Gemm),
    /// Tiles, for rows in tiles ([`TileRow`](crate::pack::quantise::TileRow)).
    Tiles(TileUnit<i32>),
}

/// Integer products with one instruction set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Int8Kernels {
    pub(crate) vectors: Vectors,
    pub(crate) multiply: Multiply,
    /// Name for the record.
    pub(crate) name: &'static str,
}

impl Int8Kernels {
    /// Returns the kernels without tiles.
    pub(crate) fn without_tiles(vectors: Vectors, gemm: Int8Gemm) -> Self {
        Self { vectors, multiply: Multiply::Rows(gemm), name: gemm.name() }
    }

    /// Returns what is added to every weight when it is packed.
    fn offset(self) -> i32 {
        if let Multiply::Rows(gemm) = self.multiply { gemm.offset() } else { 0 }
    }

    /// Returns the tile unit of integers, if tiles multiply.
    pub(crate) fn tiles(self) -> Option<TileUnit<i32>> {
        if let Multiply::Tiles(unit) = self.multiply { Some(unit) } else { None }
    }
}
