//! The online softmax of attention, one block of the context at a time.
//!
//! The state of a row is relative to its largest score so far. If a block has a larger score, earlier results are
//! scaled down by the factors of [`Online`]. Scores are therefore stored for one block only, however long the
//! context.
//!
//! Cycle count for 128 scores with AVX-512: a row takes eight registers with some 24 arithmetic instructions each. At
//! two per cycle, that is about 100 cycles. Tiles take 64 cycles for the row's products in bf16. The largest score is found
//! without stores, and maxima and sums across a register stay in registers.

use bytemuck::{Pod, Zeroable};

use crate::pack::quantise::largest;
use crate::pack::{PANEL, TILE_BYTES, TILE_DEPTH, TILE_ROWS};
use crate::simd::{Element, Isa, Kernel, Simd16, exp};

use super::products::Ahead;
use super::sums::Strips;

/// Bytes of a row of a tile.
const TILE_ROW_BYTES: usize = TILE_BYTES / TILE_ROWS;
/// Sixteen numbers each that are side by side in a tile.
const TILE_PANELS: usize = TILE_DEPTH / PANEL;

/// The state of a row after some of its scores.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct RowState {
    /// The largest score.
    pub(super) max: f32,
    /// Sum of `exp(score - max)`, not rounded to the type.
    pub(super) total: f32,
}

impl RowState {
    /// The state before any score.
    pub(super) const EMPTY: Self = Self { max: f32::NEG_INFINITY, total: 0.0 };
}

/// Destination of the weights of a group of rows.
#[derive(Debug)]
pub(super) enum Weights<'a> {
    /// In place of the scores, in fp32.
    InPlace,
    /// In tiles of sixteen rows, in the device's type: 32 numbers side by side, the next 32 in the next tile. The tiles are
    /// contiguous, and the group begins with the first row of a tile.
    Tiles(&'a mut [u8]),
}

/// Processes `seen` more scores of each row of a group. Each becomes a weight, `exp(score * scale - max)` rounded to the type;
/// weights from there to `padded` are zero. `factors` are what the caller must multiply earlier weighted sums by.
///
/// The weights are rounded before they are multiplied with the values, as on NPUs and GPUs.
///
/// All maxima are found before the first weight. The rows' weights then depend on nothing before them, so a processor works on
/// the next row while the long chain of one ends.
pub(super) struct Online<'a, 'b> {
    /// The scores, from the group's first number to the end of the last strip.
    pub(super) scores: &'a mut [f32],
    /// The layout of the scores.
    pub(super) strips: Strips,
    /// Factor of the scores; not negative.
    pub(super) scale: f32,
    /// Number of scores of each row, at least one.
    pub(super) seen: &'a [usize],
    /// Number of weights, a multiple of sixteen.
    pub(super) padded: usize,
    /// Destination of the weights.
    pub(super) to: Weights<'a>,
    /// The state of each row.
    pub(super) states: &'a mut [RowState],
    /// The factors.
    pub(super) factors: &'a mut [f32; PANEL],
    /// What is prefetched meanwhile.
    pub(super) ahead: &'a mut Ahead<'b>,
}

impl Kernel for Online<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, isa: I) {
        let Self { scores, strips, scale, seen, padded, mut to, states, factors, ahead } = self;
        let rows = seen.len();
        assert!(rows <= PANEL && states.len() == rows, "invariant: a state for each of at most sixteen rows");
        let mut largest = [f32::NEG_INFINITY; PANEL];
        for (row, seen) in seen.iter().enumerate() {
            largest[row] = max_score(isa, scores, (strips, row), *seen);
        }
        let mut decays = [0.0; PANEL];
        for (row, state) in states.iter_mut().enumerate() {
            // Scaling the largest score gives the largest scaled score, because rounding is monotonic.
            largest[row] = state.max.max(largest[row] * scale);
            decays[row] = decay(state.max, largest[row]);
            state.max = largest[row];
        }
        exp(isa, isa.load(&decays)).store(factors);
        let scale = isa.splat(scale);
        let mut sums = [0.0; PANEL];
        for row in 0..rows {
            let shift = isa.splat(largest[row]);
            let mut sum = isa.splat(0.0);
            for first in 0..padded.div_ceil(strips.width) {
                let mut left = seen[row].saturating_sub(first * strips.width);
                let strip = scores[strips.range(first, row)].as_chunks_mut().0;
                let first = first * strips.width / PANEL;
                for (i, x) in (first..padded / PANEL).zip(strip) {
                    let e = exp(isa, isa.load(x).mul(scale).sub(shift));
                    let e = if left < PANEL { e.first(left, 0.0) } else { e };
                    left = left.saturating_sub(PANEL);
                    sum = sum.add(e);
                    match &mut to {
                        Weights::InPlace => E::round(e).store(x),
                        Weights::Tiles(tiles) => {
                            let (tile, place) = (i / TILE_PANELS, i % TILE_PANELS);
                            let at = tile * TILE_BYTES + row * TILE_ROW_BYTES + place * PANEL * E::BYTES;
                            E::store(e, bytemuck::from_bytes_mut(&mut tiles[at..at + PANEL * E::BYTES]));
                        }
                    }
                }
            }
            sums[row] = sum.sum();
            ahead.fetch();
        }
        for (row, state) in states.iter_mut().enumerate() {
            state.total = state.total * factors[row] + sums[row];
        }
    }
}

/// Returns the largest of the first `seen` scores of a row.
#[inline(always)]
fn max_score<I: Isa>(isa: I, scores: &[f32], (strips, row): (Strips, usize), seen: usize) -> f32 {
    let mut max = isa.splat(f32::NEG_INFINITY);
    for strip in 0..seen.div_ceil(strips.width) {
        let mut left = seen - strip * strips.width;
        for x in scores[strips.range(strip, row)].as_chunks().0.iter().take(left.div_ceil(PANEL)) {
            let x = isa.load(x);
            max = max.max(if left < PANEL { x.first(left, f32::NEG_INFINITY) } else { x });
            left = left.saturating_sub(PANEL);
        }
    }
    max.max_lane()
}

/// Returns the logarithm of the factor that rescales numbers from maximum `before` to the larger maximum `now`. Returns zero if
/// nothing came before, because there is nothing to scale.
#[inline(always)]
fn decay(before: f32, now: f32) -> f32 {
    if before == now || before == f32::NEG_INFINITY { 0.0 } else { before - now }
}

/// The factor that rescales numbers from maximum `before` to the larger maximum `now`.
pub(super) struct Decay {
    pub(super) before: f32,
    pub(super) now: f32,
}

impl Kernel for Decay {
    type Output = f32;

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, isa: I) -> f32 {
        exp(isa, isa.splat(decay(self.before, self.now))).lanes()[0]
    }
}

/// `x = x * a + y * b`, each step rounded to fp32. Lengths are multiples of sixteen.
pub(super) struct Mix<'a> {
    pub(super) x: &'a mut [f32],
    pub(super) a: f32,
    pub(super) y: &'a [f32],
    pub(super) b: f32,
}

impl Kernel for Mix<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, isa: I) {
        let (a, b) = (isa.splat(self.a), isa.splat(self.b));
        for (x, y) in self.x.as_chunks_mut().0.iter_mut().zip(self.y.as_chunks().0) {
            isa.load(x).mul(a).add(isa.load(y).mul(b)).store(x);
        }
    }
}

/// `out = round(x / divisor)`. `x` has as many numbers as `out`, padded to sixteen. Returns whether all of `out` are finite.
///
/// A sum of minus zero counts as zero. Its sign depends on the values after a row's context, which have a weight of zero.
pub(super) struct Divide<'a> {
    pub(super) x: &'a [f32],
    pub(super) divisor: f32,
    pub(super) out: &'a mut [f32],
}

impl Kernel for Divide<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, isa: I) -> bool {
        let (zero, divisor) = (isa.splat(0.0), isa.splat(self.divisor));
        for (x, out) in self.x.as_chunks().0.iter().zip(self.out.chunks_mut(PANEL)) {
            // The addition changes only minus zero.
            let quotients = E::round(isa.load(x).add(zero).div(divisor));
            match out.as_mut_array() {
                Some(out) => quotients.store(out),
                None => out.copy_from_slice(&quotients.lanes()[..out.len()]),
            }
        }
        largest(self.out).is_finite()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::simd::{InstructionSet, Vectors};
    use glmbench_device::{DType, HostTensor};

    /// Some rows with their numbers of valid scores and their states.
    type Group<'a> = (&'a [Vec<f32>], &'a [usize], &'a [RowState]);

    /// Returns weights, new state and factor of each row, as bits. Scores are in strips of `width` numbers; weights are
    /// written in place or into tiles.
    fn soften(
        set: InstructionSet,
        dtype: DType,
        (rows, seen, states): Group<'_>,
        (width, tiles): (usize, bool),
    ) -> Vec<Vec<u32>> {
        let padded = rows[0].len();
        // There is room for one more row, which must stay untouched.
        let strips = Strips { rows: rows.len() + 1, width };
        let mut scores = vec![7.0; padded.div_ceil(width) * strips.distance()];
        let place = |row: usize, i: usize| i / width * strips.distance() + row * width + i % width;
        for (row, numbers) in rows.iter().enumerate() {
            numbers.iter().enumerate().for_each(|(i, x)| scores[place(row, i)] = *x);
        }
        let mut stored = vec![7; padded / TILE_DEPTH * TILE_BYTES];
        let (mut states, mut factors) = (states.to_vec(), [f32::NAN; PANEL]);
        Vectors::detect(set, dtype).unwrap().run(Online {
            scores: &mut scores,
            strips,
            scale: 0.25,
            seen,
            padded,
            to: if tiles { Weights::Tiles(&mut stored) } else { Weights::InPlace },
            states: &mut states,
            factors: &mut factors,
            ahead: &mut Ahead::new(None, 1),
        });
        assert!((0..padded).all(|i| scores[place(rows.len(), i)] == 7.0));
        assert!(
            stored.chunks(TILE_BYTES).all(|tile| tile[rows.len() * TILE_ROW_BYTES..].iter().all(|x| *x == 7))
        );
        let weights = |row: usize| -> Vec<f32> {
            if !tiles {
                return (0..padded).map(|i| scores[place(row, i)]).collect();
            }
            let of_row = |tile: &'_ [u8]| tile[row * TILE_ROW_BYTES..][..TILE_ROW_BYTES].to_vec();
            let data: Vec<u8> = stored.chunks(TILE_BYTES).flat_map(of_row).collect();
            HostTensor { dtype, rows: 1, width: padded, data: &data }.to_f32()
        };
        let bits = |row: usize| {
            let RowState { max, total } = states[row];
            weights(row).iter().chain(&[max, total, factors[row]]).map(|x| x.to_bits()).collect()
        };
        (0..rows.len()).map(bits).collect()
    }

    proptest! {
        /// Every instruction set, every layout and every group of rows gives the same bits for weights, maximum, total and
        /// factor, and the values are right.
        #[test]
        fn sets_strips_and_groups_agree(
            numbers in prop::collection::vec(-400f32..400.0, 1..8),
            seen in prop::collection::vec(1usize..=128, 1..=PANEL), width in 4u32..8,
            dtype in prop::sample::select(vec![DType::Fp32, DType::Fp16, DType::Bf16]),
            max in -100f32..100.0, begins in 0usize..4, tiles: bool,
        ) {
            let score = |row: usize, i: usize| numbers[(i + row) % numbers.len()] * ((i + 31 * row) as f32 * 0.7).sin();
            let rows: Vec<Vec<f32>> =
                (0..seen.len()).map(|row| (0..128).map(|i| score(row, i)).collect()).collect();
            let state = |row: usize| {
                if row % 4 == begins { RowState::EMPTY } else { RowState { max: max + row as f32, total: 3.0 } }
            };
            let states: Vec<RowState> = (0..seen.len()).map(state).collect();
            let alone = |row: usize| {
                let one = row..row + 1;
                let group = (&rows[one.clone()], &seen[one.clone()], &states[one]);
                soften(InstructionSet::Portable, dtype, group, (128, false)).remove(0)
            };
            let expected: Vec<Vec<u32>> = (0..seen.len()).map(alone).collect();
            // Tiles hold numbers of two bytes.
            let layout = (1 << width, tiles && dtype != DType::Fp32);
            for set in InstructionSet::ALL.into_iter().filter(|set| set.available()) {
                prop_assert_eq!(&soften(set, dtype, (&rows, &seen, &states), layout), &expected, "{:?}", set);
            }
            for (((row, n), before), bits) in rows.iter().zip(seen).zip(states).zip(expected) {
                let largest = row[..n].iter().fold(before.max, |max, x| max.max(x * 0.25));
                let found: Vec<f32> = bits.iter().map(|bits| f32::from_bits(*bits)).collect();
                prop_assert_eq!(found[128], largest);
                for (i, weight) in found[..128].iter().enumerate() {
                    let exact = if i < n { f64::from(row[i] * 0.25 - largest).exp() } else { 0.0 };
                    let of_type = [2f64.powi(-21), 2f64.powi(-10), 2f64.powi(-7)][dtype as usize];
                    let allowed = exact * of_type + 2f64.powi(-24);
                    prop_assert!((f64::from(*weight) - exact).abs() <= allowed, "{weight} {exact}");
                }
                let factor = if before == RowState::EMPTY { 1.0 } else { f64::from(before.max - largest).exp() };
                prop_assert!((f64::from(found[130]) - factor).abs() <= factor * 2f64.powi(-21) + 2f64.powi(-24));
            }
        }
    }
}
