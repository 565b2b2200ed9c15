//! The vector operations of an int8 KV cache, other than the quantisation of its values.
//!
//! A key is `(q - zero) * scale`, with a scale and a zero point from the range of its channels. A few channels of a key are far
//! larger than the others, and mostly of one sign. In SmolLM2, symmetric keys cost nearly twice the KL divergence.
//!
//! If tiles multiply the keys, queries are integers too, with two digits: `q = 256 high + low`. Both digits are 8-bit,
//! with one scale per row. The sums of each digit are exact, and so is their combination until it is rounded to fp32. That holds
//! for up to 514 channels, as a digit times a difference of integers is at most `128 * 255` and fp32 holds `2^24`.
//!
//! The error of a query number is at most half a step and `2^-8` of a step. A step is about `2^-15` of the row's
//! largest number. The fp16 rounding of that largest number was at least 16 times as coarse. A step of a key
//! is at least `2^-8` of the token's largest number. The score error from the query is therefore about a fiftieth of that from
//! the key.

use crate::pack::quantise::largest;
use crate::pack::{PANEL, TILE_BYTES, TILE_K, TILE_ROWS};
use crate::simd::{Element, Isa, Kernel, Simd16};

use super::kv::Steps;

/// The weight of the high digit.
const BASE: f32 = 256.0;
/// The largest number with two signed digits: 127 and 127.
const MOST: f32 = 127.0 * BASE + 127.0;

/// Number of tokens in a [`KeySums`].
pub(super) const KEY_TOKENS: usize = 2 * PANEL;

/// The scale and zero point of a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Step {
    pub(super) scale: f32,
    pub(super) zero: i8,
}

/// Quantises a key: `scale = (high - low) / 255` for its range, which includes 0, `zero = -128 - round(low / scale)` and
/// `q = round(x / scale) + zero`, rounded to the nearest integer, ties to even. A key with NaN or infinity gets the scale
/// NaN. A key of zeros, or of numbers too small for a normal scale, gets the scale 0. Both have the zero point 0 and integers of 0.
pub(super) struct QuantiseKey<'a> {
    pub(super) x: &'a [f32],
    pub(super) out: &'a mut [i8],
}

impl Kernel for QuantiseKey<'_> {
    type Output = Step;

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, _isa: I) -> Step {
        // Minima and maxima of integers are compiled to vectors. NaN is beyond infinity there.
        let ends = self.x.iter().map(|x| ordered(x.to_bits().cast_signed()));
        let [low, high] = ends.fold([0; 2], |[low, high], x| [low.min(x), high.max(x)]);
        let [low, high] = [low, high].map(|end| f32::from_bits(ordered(end).cast_unsigned()));
        // Both quotients first, as the difference of two fp32 numbers may be infinite.
        let scale = high / STEPS - low / STEPS;
        if !scale.is_normal() {
            self.out.fill(0);
            return Step { scale: if scale.is_finite() { 0.0 } else { f32::NAN }, zero: 0 };
        }
        let zero = -128.0 - (low / scale).round_ties_even();
        for (q, x) in self.out.iter_mut().zip(self.x) {
            let whole = ((x / scale).round_ties_even() + zero).clamp(-128.0, 127.0);
            // SAFETY: an integer from -128 to 127; x is finite and the scale is normal.
            *q = unsafe { whole.to_int_unchecked::<i32>() } as i8;
        }
        Step { scale, zero: zero as i8 }
    }
}

/// Turns the bits of fp32 numbers to integers of the same order, and back.
#[inline(always)]
fn ordered(bits: i32) -> i32 {
    bits ^ (bits >> 31 & i32::MAX)
}

/// Steps in the range of a key.
const STEPS: f32 = 255.0;

/// What a product needs of a query in digits.
#[derive(Debug, Clone, Copy, PartialEq, Default, bytemuck::Zeroable)]
pub(super) struct QueryStep {
    pub(super) scale: f32,
    /// Sums of the high and of the low digits.
    pub(super) sums: [i32; 2],
}

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
    type Output = QueryStep;

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, _isa: I) -> QueryStep {
        let Self { x, high, distance } = self;
        let scale = largest(x) / MOST;
        let usable = scale >= f32::MIN_POSITIVE;
        let mut sums = [0; 2];
        let mut put = |i: usize, x: &[f32; TILE_K]| {
            let digits = if usable { digits_of(x, 1.0 / scale) } else { [[0; TILE_K]; 2] };
            for ((digits, distance), sum) in digits.into_iter().zip([0, distance]).zip(&mut sums) {
                *sum += digits.iter().map(|&digit| i32::from(digit)).sum::<i32>();
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
        QueryStep { scale: if usable || scale.is_nan() { scale } else { 0.0 }, sums }
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
/// key`, each step rounded to fp32. Before that, the zero point times the sum of the query's digits is subtracted from each
/// sum, in integers.
pub(super) struct KeySums<'a> {
    /// Sums `[2][16][32]`: of the high digits, then of the low digits.
    pub(super) sums: &'a [i32],
    /// Number of rows in use.
    pub(super) rows: usize,
    /// One per row.
    pub(super) queries: &'a [QueryStep],
    /// One scale and zero point per token.
    pub(super) keys: Steps<'a>,
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
            let keys =
                self.keys.scales.as_chunks::<PANEL>().0.iter().zip(self.keys.zeros.as_chunks::<PANEL>().0);
            let [of_high, of_low] = query.sums;
            for (((high, low), (keys, zeros)), to) in digits.zip(keys).zip(to.as_chunks_mut::<PANEL>().0) {
                *to = std::array::from_fn(|i| {
                    let zero = i32::from(zeros[i]);
                    let (high, low) = (high[i] - zero * of_high, low[i] - zero * of_low);
                    // A power of two times a number is exact, so this rounds once, fused or not.
                    (high as f32).mul_add(BASE, low as f32) * query.scale * keys[i]
                });
            }
        }
    }
}

/// Dequantises a panel `[channels][16]` of keys.
pub(super) struct WidenColumns<'a> {
    pub(super) q: &'a [i8],
    /// Scales and zero points, of which the first sixteen count.
    pub(super) by: Steps<'a>,
    pub(super) out: &'a mut [f32],
}

impl Kernel for WidenColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, isa: I) {
        let (scales, zeros) = (self.by.scales.as_chunks().0, self.by.zeros.as_chunks().0);
        let (Some(scales), Some(zeros)) = (scales.first(), zeros.first()) else { return };
        let (scales, zeros) = (isa.load(scales), isa.load_i8(zeros));
        for (q, out) in self.q.as_chunks::<PANEL>().0.iter().zip(self.out.as_chunks_mut::<PANEL>().0) {
            isa.load_i8(q).sub(zeros).mul(scales).store(out);
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
        let QueryStep { scale, sums } = vectors.run(Query { x, high: &mut block[row * TILE_K..], distance });
        let own = |i: usize| i % TILE_BYTES / TILE_K == row;
        assert!(block.iter().enumerate().all(|(i, digit)| own(i) || *digit == 99));
        let of = |digits: &[i8]| {
            let digits = digits.iter().enumerate().filter(|(i, _)| own(*i));
            digits.map(|(_, digit)| *digit).collect::<Vec<_>>()
        };
        let digits = [of(&block[..distance]), of(&block[distance..])];
        let summed = |digits: &Vec<i8>| digits.iter().map(|&digit| i32::from(digit)).sum::<i32>();
        assert_eq!(sums, digits.each_ref().map(summed));
        (scale, digits)
    }

    fn key(vectors: Vectors, x: &[f32]) -> (Step, Vec<i8>) {
        let mut out = vec![99; x.len()];
        (vectors.run(QuantiseKey { x, out: &mut out }), out)
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

        /// A number is within half a step of the original, zero is zero, and every set gives the same.
        #[test]
        fn keys_are_numbers_of_a_range(
            x in prop::collection::vec(prop_oneof![4 => -1f32..1.0, 1 => Just(0.0), 1 => Just(-3.0)], 1..150),
            size in prop::sample::select(vec![1e-30f32, 6e-8, 1.0, 300.0, 3e37]), shift in -1f32..1.0,
        ) {
            let x: Vec<f32> = x.iter().map(|x| if *x == 0.0 { 0.0 } else { (x + shift) * size }).collect();
            let (step, integers) = key(Vectors::detect(InstructionSet::Portable, DType::Fp16).unwrap(), &x);
            for vectors in all() {
                prop_assert_eq!(&key(vectors, &x), &(step, integers.clone()), "{:?}", vectors);
            }
            for (q, x) in integers.iter().zip(&x) {
                let number = f64::from(i32::from(*q) - i32::from(step.zero)) * f64::from(step.scale);
                let off = (number - f64::from(*x)).abs();
                prop_assert!(off <= 0.501 * f64::from(step.scale), "{number} for {x}, {step:?}");
                prop_assert!(*x != 0.0 || number == 0.0);
            }
        }

        /// Scores equal the formula on every set, and nothing else is written.
        #[test]
        fn sums_of_digits_become_scores(
            sums in prop::collection::vec(-3_000_000i32..3_000_000, 2 * TILE_ROWS * KEY_TOKENS), rows in 1..=TILE_ROWS,
            scales in prop::collection::vec(-1f32..1.0, TILE_ROWS + KEY_TOKENS),
            zeros in prop::collection::vec(any::<i8>(), KEY_TOKENS), of_digits in -10_000i32..10_000,
        ) {
            let (queries, keys) = scales.split_at(TILE_ROWS);
            let sums_of = |row: usize| [of_digits - row as i32, row as i32 - of_digits / 3];
            let queries: Vec<_> =
                queries.iter().enumerate().map(|(row, &scale)| QueryStep { scale, sums: sums_of(row) }).collect();
            let keys = Steps { scales: keys, zeros: &zeros };
            for vectors in all() {
                let mut scores = vec![7.0; TILE_ROWS * 40];
                vectors.run(KeySums { sums: &sums, rows, queries: &queries, keys, to: &mut scores, to_stride: 40 });
                for (i, score) in scores.iter().enumerate() {
                    let (row, token) = (i / 40, i % 40);
                    let expected = if row < rows && token < KEY_TOKENS {
                        let QueryStep { scale, sums: of } = queries[row];
                        let [high, low] = [0, 1].map(|digit| {
                            let sum = sums[(digit * TILE_ROWS + row) * KEY_TOKENS + token];
                            (sum - of[digit] * i32::from(zeros[token])) as f32
                        });
                        (high * 256.0 + low) * scale * keys.scales[token]
                    } else {
                        7.0
                    };
                    prop_assert_eq!(score.to_bits(), expected.to_bits(), "{:?} row {} token {}", vectors, row, token);
                }
            }
        }
    }

    #[test]
    fn keys_without_a_range_are_zeros() {
        for vectors in all() {
            for (x, scale) in [
                ([f32::NAN, 1.0], f32::NAN),
                ([1.0, f32::NEG_INFINITY], f32::NAN),
                ([0.0, -0.0], 0.0),
                ([1e-40, 0.0], 0.0),
            ] {
                let (step, integers) = key(vectors, &x);
                assert!(step.scale.to_bits() == scale.to_bits() || step.scale.is_nan() && scale.is_nan());
                assert_eq!((step.zero, integers), (0, vec![0, 0]), "{vectors:?} {x:?}");
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
