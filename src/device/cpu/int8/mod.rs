//! The integer forms: linear layers of int8 weights and activations, and what an int8 KV cache needs.
//!
//! Numbers are quantised symmetrically: `scale = max|x| / 127`, `q = x / scale` to the nearest whole number, ties to even,
//! within ±127. A run of numbers with a NaN or an infinity among them has the scale NaN and nothing but zeros, so that what is
//! made of it is NaN: the fault is seen. Sums of products are exact (32 bits hold them), hence the same for every instruction
//! set, batch, chunk and number of threads.
//!
//! A linear layer quantises its input a block of rows at a time and multiplies it by vectors, where rows lie one after the other
//! (`rows`), or by the tiles of AMX, where they lie in tiles (`tiles`). A twin of these in plain Rust has the same order.
//! Keys of the cache are multiplied by the same tiles; what else the cache needs is in `cache`.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod cache;
mod kernels;
mod linear;
mod rows;
mod tiles;
mod twin;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests;

pub use self::cache::{KEY_TOKENS, KeySums};
pub use self::kernels::{Int8Kernels, Multiply, QUAD, Scaled, TILE_K};
pub use self::linear::{Int8Linear, row_bytes};
