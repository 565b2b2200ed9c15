//! Layouts: weights in panels and tiles, rows of activations, and integers with their scales.

mod convert;
pub(crate) mod grouped;
pub(crate) mod int8;
mod linear;
mod matrix;
mod order;
pub(crate) mod quantise;

pub(crate) use self::convert::{Narrow, Widen};
pub(crate) use self::linear::{Linear, padded_vector};
pub(crate) use self::matrix::Matrix;
pub(crate) use self::matrix::{Rows, RowsMut, row_stride};
pub(crate) use self::order::Order;

/// Columns per weight panel.
pub(crate) const PANEL: usize = crate::simd::LANES;
/// Depth (`k`) of a tile of 16-bit numbers.
pub(crate) const TILE_DEPTH: usize = 32;
/// Rows of a tile, and columns of a product tile.
pub(crate) const TILE_ROWS: usize = 16;
/// Size of a tile in bytes.
pub(crate) const TILE_BYTES: usize = 1024;
/// Number of `k` stored side by side in a tile of 16-bit weights.
pub(crate) const PAIR: usize = 2;
/// Number of `k` stored side by side in a tile of integers.
pub(crate) const QUAD: usize = 4;
/// Depth of a tile of integers; integers are padded to a multiple of it.
pub(crate) const TILE_K: usize = 64;
