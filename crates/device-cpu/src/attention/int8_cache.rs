//! The vector operations of an int8 KV cache, other than the quantisation of its keys and values.
//!
//! If tiles multiply the keys, queries are integers too, with two digits: `q = 256 high + low`. Both digits are 8-bit,
//! with one scale per row. The sums of each digit are exact, and so is their combination until it is rounded to fp32.
//!
//! The error of a query number is at most half a step and `2^-8` of a step. A step is about `2^-15` of the row's
//! largest number. The fp16 rounding of that largest number was at least 16 times as coarse. A key number is a whole
//! number of steps of `2^-7` of its token's largest number. The score error from the query is therefore about a
//! hundredth of that from the key.

use crate::pack::quantise::largest;
use crate::pack::{PANEL, TILE_BYTES, TILE_K, TILE_ROWS};
use crate::simd::{Element, Isa, Kernel, Simd16};

/// The weight of the high digit.
const BASE: f32 = 256.0;
/// The largest number with two signed digits: 127 and 127.
const MOST: f32 = 127.0 * BASE + 127.0;

/// Number of tokens in a [`KeySums`].
pub(super) const KEY_TOKENS: usize = 2 * PANEL;

/// Writes a query's digits to a row of tiles, pads the last tile with zeros, and returns the scale. The row's pieces of
/// [`TILE_K`] digits are one tile apart. A query with NaN or infinity gets the scale NaN and zero digits. A query too
/// small for a normal scale gets the scale zero and zero digits.
pub(super) struct Query<'a> {
    pub(super) x: &'a [f32],
    /// The tiles of both digits, from the row's first high digit.
    pub(super) high: &'a mut [i8],
    /// Distance from the high digits to the low digits.
    pub(super) distance: usize,
}

impl Kernel for Query<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, _isa: I) -> f32 {
        let Self { x, high, distance } = self;
        let scale = largest(x) / MOST;
        let usable = scale >= f32::MIN_POSITIVE;
        let mut put = |i: usize, x: &[f32; TILE_K]| {
            let digits = if usable { digits_of(x, 1.0 / scale) } else { [[0; TILE_K]; 2] };
            for (digits, distance) in digits.into_iter().zip([0, distance]) {
                high[i * TILE_BYTES + distance..][..TILE_K].copy_from_slice(&digits);
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

/// Converts the sums of the digits of sixteen queries with the keys of 32 tokens to scores: `(256 high + low) * query *
/// key`, each step rounded to fp32.
pub(super) struct KeySums<'a> {
    /// Sums `[2][16][32]`: of the high digits, then of the low digits.
    pub(super) sums: &'a [i32],
    /// Number of rows in use.
    pub(super) rows: usize,
    /// One scale per row.
    pub(super) queries: &'a [f32],
    /// One scale per token.
    pub(super) keys: &'a [f32],
    /// The scores, from the first of the first row.
    pub(super) to: &'a mut [f32],
    /// Distance between rows of scores, in numbers.
    pub(super) to_stride: usize,
}

impl Kernel for KeySums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, _isa: I) {
        let (high, low) = self.sums.split_at(TILE_ROWS * KEY_TOKENS);
        let sums = high.chunks_exact(KEY_TOKENS).zip(low.chunks_exact(KEY_TOKENS));
        let rows = self.queries.iter().zip(sums).zip(self.to.chunks_mut(self.to_stride));
        for ((query, (high, low)), to) in rows.take(self.rows) {
            let digits = high.as_chunks::<PANEL>().0.iter().zip(low.as_chunks::<PANEL>().0);
            let keys = self.keys.as_chunks::<PANEL>().0.iter().zip(to.as_chunks_mut::<PANEL>().0);
            for ((high, low), (keys, to)) in digits.zip(keys) {
                // A power of two times a number is exact, so this rounds once, fused or not.
                *to =
                    std::array::from_fn(|i| (high[i] as f32).mul_add(BASE, low[i] as f32) * query * keys[i]);
            }
        }
    }
}

/// Dequantises a panel `[rows][16]` of integers, with one scale per column.
pub(super) struct WidenColumns<'a> {
    pub(super) q: &'a [i8],
    pub(super) scales: &'a [f32],
    pub(super) out: &'a mut [f32],
}

impl Kernel for WidenColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, isa: I) {
        let (scales, _) = self.scales.as_chunks::<PANEL>();
        let Some(scales) = scales.first().map(|scales| isa.load(scales)) else { return };
        for (q, out) in self.q.as_chunks::<PANEL>().0.iter().zip(self.out.as_chunks_mut::<PANEL>().0) {
            isa.load_i8(q).mul(scales).store(out);
        }
    }
}

/// Dequantises a panel `[rows][16]` of integers, with one scale per row.
pub(super) struct WidenRows<'a> {
    pub(super) q: &'a [i8],
    pub(super) scales: &'a [f32],
    pub(super) out: &'a mut [f32],
}

impl Kernel for WidenRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, isa: I) {
        let rows = self.q.as_chunks::<PANEL>().0.iter().zip(self.out.as_chunks_mut::<PANEL>().0);
        for ((q, out), scale) in rows.zip(self.scales) {
            isa.load_i8(q).mul(isa.splat(*scale)).store(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::simd::{InstructionSet, Vectors};
    use glmbench_device::DType;

    fn all() -> impl Iterator<Item = Vectors> {
        InstructionSet::ALL.into_iter().filter_map(|set| Vectors::detect(set, DType::Fp16))
    }

    /// Returns a query's scale and its digits in whole tiles: row `row` of a block of sixteen. Checks that other rows
    /// stay unchanged.
    fn digits(vectors: Vectors, x: &[f32], row: usize) -> (f32, [Vec<i8>; 2]) {
        let distance = x.len().div_ceil(TILE_K) * TILE_BYTES;
        let mut block = vec![99; 2 * distance];
        let scale = vectors.run(Query { x, high: &mut block[row * TILE_K..], distance });
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
            let expected = digits(Vectors::detect(InstructionSet::Portable, DType::Fp16).unwrap(), &x, row);
            for vectors in all() {
                prop_assert_eq!(&digits(vectors, &x, row), &expected, "{:?}", vectors);
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
            for vectors in all() {
                let mut scores = vec![7.0; TILE_ROWS * 40];
                vectors.run(KeySums { sums: &sums, rows, queries, keys, to: &mut scores, to_stride: 40 });
                for (i, score) in scores.iter().enumerate() {
                    let (row, token) = (i / 40, i % 40);
                    let expected = if row < rows && token < KEY_TOKENS {
                        let [high, low] = [0, TILE_ROWS].map(|of| sums[(of + row) * KEY_TOKENS + token] as f32);
                        (high * 256.0 + low) * queries[row] * keys[token]
                    } else {
                        7.0
                    };
                    prop_assert_eq!(score.to_bits(), expected.to_bits(), "{:?} row {} token {}", vectors, row, token);
                }
            }
        }
    }

    /// A query with NaN or infinity has the scale NaN. One of zeros, or of numbers too small for a normal scale, has
    /// the scale zero.
    #[test]
    fn queries_without_a_scale_are_zeros() {
        for vectors in all() {
            for (x, spoilt) in
                [(f32::NAN, true), (f32::INFINITY, true), (0.0, false), (-0.0, false), (1e-40, false)]
            {
                let (scale, digits) = digits(vectors, &[x, 0.0, if spoilt { 3.0 } else { 0.0 }], 5);
                assert!(if spoilt { scale.is_nan() } else { scale == 0.0 }, "{vectors:?} {x}: {scale}");
                assert!(digits.iter().flatten().all(|digit| *digit == 0), "{vectors:?} {x}");
            }
        }
    }
}
