//! The integer forms: linear layers with int8 weights and activations, and the needs of an int8 KV cache.
//!
//! Numbers are quantised symmetrically: `scale = max|x| / 127`, and `q = x / scale` rounded to the nearest integer,
//! ties to even, within ±127. A run that contains NaN or infinity has the scale NaN and only zeros. Results that use it
//! are NaN, so the fault is visible. Sums of products are exact, because 32 bits hold them. They are therefore the same
//! for every instruction set, batch, chunk and number of threads.
//!
//! A linear layer quantises its input one block of rows at a time. Vector kernels multiply rows stored one after the
//! other (`rows`); AMX tiles multiply rows in tiles (`tiles`). A twin of the tiles in plain Rust uses the same order.
//! The same tiles multiply the keys of the cache; `cache` has the rest.

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

pub(crate) use self::cache::{KEY_TOKENS, KeySums};
pub(crate) use self::kernels::{Int8Kernels, Multiply, QUAD, Scaled, TILE_K};
pub(crate) use self::linear::{Int8Linear, row_bytes};
