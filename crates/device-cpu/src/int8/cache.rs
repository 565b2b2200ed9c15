//! The vector operations of an int8 KV cache, other than the quantisation of its keys and values.
//!
//! If tiles multiply the keys, queries are integers too, with two digits: `q = 256 high + low`. Both digits are 8-bit,
//! with one scale per row. The sums of each digit are exact, and so is their combination until it is rounded to fp32.
//!
//! The error of a query number is at most half a step and `2^-8` of a step; a step is about `2^-15` of the row's
//! largest number. The fp16 rounding of that largest number was at least 16 times as coarse. A key number is a whole
//! number of steps of `2^-7` of its token's largest number. The score error from the query is therefore about a
//! hundredth of that from the key.

use crate::kernels::PANEL;
use crate::tiles::{TILE_BYTES, TILE_ROWS};

use super::kernels::{TILE_K, largest};

/// The weight of the high digit.
const BASE: f32 = 256.0;
/// The largest number with two signed digits: 127 and 127.
const MOST: f32 = 127.0 * BASE + 127.0;

/// Number of tokens in a [`KeySums`].
pub(crate) const KEY_TOKENS: usize = 2 * PANEL;

/// The sums of the digits of sixteen queries with the keys of 32 tokens, and the data for the scores. A score is
/// `(256 high + low) * query * key`, each step rounded to fp32.
#[derive(Debug, Clone, Copy)]
pub struct KeySums {
    /// Sums `[2][16][32]`: of the high digits, then of the low digits.
    pub sums: *const i32,
    /// Number of rows in use.
    pub rows: usize,
    /// One scale per row.
    pub queries: *const f32,
    /// One scale per token.
    pub keys: *const f32,
    /// The scores of the first row.
    pub to: *mut f32,
    /// Distance between rows of scores, in numbers.
    pub to_stride: usize,
}

/// Writes a query's digits to a row of tiles, pads the last tile with zeros, and returns the scale: `(x, high,
/// distance)`. The row's pieces of [`TILE_K`] digits are one tile apart. The low digits are `distance` after the high
/// ones. A query with NaN or infinity gets the scale NaN and zero digits. A query too small for a normal scale gets the
/// scale zero and zero digits.
///
/// # Safety
/// There must be space for the digits, in whole tiles.
#[inline(always)]
pub(super) unsafe fn query(x: &[f32], high: *mut i8, distance: usize) -> f32 {
    let scale = largest(x) / MOST;
    let usable = scale >= f32::MIN_POSITIVE;
    let put = |i: usize, x: &[f32; TILE_K]| {
        let digits = if usable { digits_of(x, 1.0 / scale) } else { [[0; TILE_K]; 2] };
        for (digits, distance) in digits.into_iter().zip([0, distance]) {
            // SAFETY: the caller's promise; bytes have no alignment.
            unsafe { *high.add(i * TILE_BYTES + distance).cast() = digits };
        }
    };
    let (whole, rest) = x.as_chunks::<TILE_K>();
    whole.iter().enumerate().for_each(|(i, x)| put(i, x));
    if !rest.is_empty() {
        let mut padded = [0.0; TILE_K];
        padded[..rest.len()].copy_from_slice(rest);
        put(whole.len(), &padded);
    }
    if usable || scale.is_nan() { scale } else { 0.0 }
}

/// Returns the high and low digits of finite numbers that are at most [`MOST`] times the scale.
#[inline(always)]
fn digits_of(x: &[f32; TILE_K], inverse: f32) -> [[i8; TILE_K]; 2] {
    let mut digits = [[0; TILE_K]; 2];
    for (i, x) in x.iter().enumerate() {
        let whole = (x * inverse).round_ties_even().clamp(-MOST, MOST);
        // SAFETY: an integer within `MOST`; x and the inverse are finite.
        let whole = unsafe { whole.to_int_unchecked::<i32>() };
        // The low digit is the number's last eight bits as a signed number; the high digit is the rest.
        digits[0][i] = ((whole + 128) >> 8) as i8;
        digits[1][i] = whole as i8;
    }
    digits
}

/// Converts [`KeySums`] to scores.
///
/// # Safety
/// Sums, scales and scores must be valid for the shapes of [`KeySums`].
#[inline(always)]
pub(super) unsafe fn scores(t: &KeySums) {
    type Sixteen<T> = [T; PANEL];
    for row in 0..t.rows {
        for first in (0..KEY_TOKENS).step_by(PANEL) {
            // SAFETY: the caller's promise.
            unsafe {
                let query = *t.queries.add(row);
                let keys = t.keys.add(first).cast::<Sixteen<f32>>().read_unaligned();
                let of_digit = |digit: usize| {
                    let at = (digit * TILE_ROWS + row) * KEY_TOKENS + first;
                    t.sums.add(at).cast::<Sixteen<i32>>().read_unaligned()
                };
                let (high, low) = (of_digit(0), of_digit(1));
                // A power of two times a number is exact, so this rounds once, fused or not.
                let scores: Sixteen<f32> =
                    std::array::from_fn(|i| (high[i] as f32).mul_add(BASE, low[i] as f32) * query * keys[i]);
                t.to.add(row * t.to_stride + first).cast::<Sixteen<f32>>().write_unaligned(scores);
            }
        }
    }
}

/// Dequantises a panel `[rows][16]` of integers, with one scale per column.
#[inline(always)]
pub(super) fn widen_columns(q: &[i8], scales: &[f32], out: &mut [f32]) {
    let (scales, _) = scales.as_chunks::<PANEL>();
    let Some(scales) = scales.first() else { return };
    for (q, out) in q.as_chunks::<PANEL>().0.iter().zip(out.as_chunks_mut::<PANEL>().0) {
        *out = std::array::from_fn(|i| f32::from(q[i]) * scales[i]);
    }
}

/// Dequantises a panel `[rows][16]` of integers, with one scale per row.
#[inline(always)]
pub(super) fn widen_rows(q: &[i8], scales: &[f32], out: &mut [f32]) {
    let rows = q.as_chunks::<PANEL>().0.iter().zip(out.as_chunks_mut::<PANEL>().0);
    for ((q, out), scale) in rows.zip(scales) {
        *out = std::array::from_fn(|i| f32::from(q[i]) * scale);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::instruction_set::InstructionSet;
    use crate::int8::Int8Kernels;

    fn all() -> impl Iterator<Item = Int8Kernels> {
        InstructionSet::ALL.into_iter().filter(|set| set.available()).map(Int8Kernels::of)
    }

    /// Returns a query's scale and its digits in whole tiles: row `row` of a block of sixteen. Checks that other rows
    /// stay unchanged.
    fn digits(kernels: &Int8Kernels, x: &[f32], row: usize) -> (f32, [Vec<i8>; 2]) {
        let distance = x.len().div_ceil(TILE_K) * TILE_BYTES;
        let mut block = vec![99; 2 * distance];
        // SAFETY: the set is available; the block holds the tiles of both digits.
        let scale = unsafe { (kernels.query)(x, block[row * TILE_K..].as_mut_ptr(), distance) };
        let own = |i: usize| i % TILE_BYTES / TILE_K == row;
        assert!(block.iter().enumerate().all(|(i, digit)| own(i) || *digit == 99));
        let of = |digits: &[i8]| {
            let digits = digits.iter().enumerate().filter(|(i, _)| own(*i));
            digits.map(|(_, digit)| *digit).collect::<Vec<_>>()
        };
        (scale, [of(&block[..distance]), of(&block[distance..])])
    }

    proptest! {
        /// Two digits represent a number to half a step plus the rounding of the quotient. Zeros follow. Every set
        /// gives the same.
        #[test]
        fn queries_are_numbers_of_two_digits(
            x in prop::collection::vec(prop_oneof![4 => -1f32..1.0, 1 => Just(0.0), 1 => Just(-1.0)], 1..150),
            size in prop::sample::select(vec![1e-25f32, 6e-8, 1.0, 300.0, 1e30]), row in 0..TILE_ROWS,
        ) {
            let x: Vec<f32> = x.iter().map(|x| x * size).collect();
            let expected = digits(&Int8Kernels::of(InstructionSet::Portable), &x, row);
            for kernels in all() {
                prop_assert_eq!(&digits(&kernels, &x, row), &expected, "{}", kernels.name);
            }
            let (scale, [high, low]) = expected;
            prop_assert_eq!(scale, largest(&x) / MOST);
            let padded = x.iter().map(|x| f64::from(*x)).chain(std::iter::repeat(0.0));
            for ((high, low), x) in high.iter().zip(&low).zip(padded) {
                let number = f64::from(i32::from(*high) * 256 + i32::from(*low)) * f64::from(scale);
                prop_assert!((number - x).abs() <= (0.5 + 2f64.powi(-8)) * f64::from(scale), "{number} for {x}");
            }
        }

        /// Scores equal the formula on every set, and nothing else is written.
        #[test]
        fn sums_of_digits_become_scores(
            sums in prop::collection::vec(-3_000_000i32..3_000_000, 2 * TILE_ROWS * KEY_TOKENS), rows in 1..=TILE_ROWS,
            scales in prop::collection::vec(-1f32..1.0, TILE_ROWS + KEY_TOKENS),
        ) {
            let (queries, keys) = scales.split_at(TILE_ROWS);
            for kernels in all() {
                let mut scores = vec![7.0; TILE_ROWS * 40];
                let t = KeySums {
                    sums: sums.as_ptr(),
                    rows,
                    queries: queries.as_ptr(),
                    keys: keys.as_ptr(),
                    to: scores.as_mut_ptr(),
                    to_stride: 40,
                };
                // SAFETY: the set is available; sums, scales and scores are valid.
                unsafe { (kernels.scores)(&t) };
                for (i, score) in scores.iter().enumerate() {
                    let (row, token) = (i / 40, i % 40);
                    let expected = if row < rows && token < KEY_TOKENS {
                        let [high, low] = [0, TILE_ROWS].map(|of| sums[(of + row) * KEY_TOKENS + token] as f32);
                        (high * 256.0 + low) * queries[row] * keys[token]
                    } else {
                        7.0
                    };
                    prop_assert_eq!(score.to_bits(), expected.to_bits(), "{} row {} token {}", kernels.name, row, token);
                }
            }
        }
    }

    /// A query with NaN or infinity has the scale NaN. One of zeros, or of numbers too small for a normal scale, has
    /// the scale zero.
    #[test]
    fn queries_without_a_scale_are_zeros() {
        for kernels in all() {
            for (x, spoilt) in
                [(f32::NAN, true), (f32::INFINITY, true), (0.0, false), (-0.0, false), (1e-40, false)]
            {
                let (scale, digits) = digits(&kernels, &[x, 0.0, if spoilt { 3.0 } else { 0.0 }], 5);
                assert!(if spoilt { scale.is_nan() } else { scale == 0.0 }, "{} {x}: {scale}", kernels.name);
                assert!(digits.iter().flatten().all(|digit| *digit == 0), "{} {x}", kernels.name);
            }
        }
    }
}
