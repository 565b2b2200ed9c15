//! The online softmax of attention, one block of the context at a time.
//!
//! The state of a row is relative to its largest score so far. If a block has a larger score, earlier results are
//! scaled down by the factor that [`online`] returns. Scores are therefore stored for one block only, however long the
//! context.
//!
//! Cycle count for 128 scores with AVX-512: a row takes eight registers with some 24 arithmetic instructions each, at
//! two per cycle, so about 100 cycles. Tiles take 64 cycles for the row's products in bf16. Everything else is kept off
//! the critical path: the largest score is found without stores, and maxima and sums across a register stay in
//! registers.

use super::kernels::{Element, PANEL, exp};
use super::simd::Simd16;
use super::tiles::TILE_DEPTH;

/// The state of a row after some of its scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowState {
    /// The largest score.
    pub max: f32,
    /// Sum of `exp(score - max)`, not rounded to the type.
    pub total: f32,
}

impl RowState {
    /// The state before any score.
    pub const EMPTY: Self = Self { max: f32::NEG_INFINITY, total: 0.0 };
}

/// A row of scores, in strips as a product writes them.
#[derive(Debug, Clone, Copy)]
pub struct Scores {
    /// The first strip.
    pub first: *mut f32,
    /// Binary logarithm of the strip width, which is at least sixteen numbers.
    pub strip_log2: u32,
    /// Distance between strips, in numbers.
    pub distance: usize,
}

impl Scores {
    /// Returns a pointer to score `i`.
    #[inline(always)]
    fn at(&self, i: usize) -> *mut f32 {
        let (strip, place) = (i >> self.strip_log2, i & ((1 << self.strip_log2) - 1));
        self.first.wrapping_add(strip * self.distance + place)
    }
}

/// Destination of a row's weights.
#[derive(Debug, Clone, Copy)]
pub enum Weights {
    /// In place of the scores, in fp32.
    InPlace,
    /// In tiles of sixteen rows, in the device's type: 32 numbers side by side, the next 32 in the next tile.
    Tiles {
        /// The row in the first tile.
        first: *mut u8,
        /// Distance between tiles, in bytes.
        stride: usize,
    },
}

impl Weights {
    /// Writes sixteen weights starting at `i`, a multiple of sixteen, rounded to the type.
    ///
    /// # Safety
    /// As [`online`].
    #[inline(always)]
    unsafe fn put<V: Simd16, E: Element>(self, row: &Scores, i: usize, weights: V) {
        // SAFETY: the row, or its tiles, hold sixteen numbers there by the caller's promise.
        unsafe {
            match self {
                Self::InPlace => E::round(weights).store(row.at(i)),
                Self::Tiles { first, stride } => {
                    E::store(weights, first.add(i / TILE_DEPTH * stride + i % TILE_DEPTH * E::BYTES));
                }
            }
        }
    }
}

/// Processes `n` more scores of a row. Each becomes a weight, `exp(score * scale - max)` rounded to the type; weights
/// from `n` to `padded` are zero. The caller must multiply earlier weighted sums by the returned factor.
///
/// The weights are rounded before they are multiplied with the values, as on NPUs and GPUs.
///
/// # Safety
/// As [`super::kernels::Kernels`]. Row and weights must hold `padded` numbers, a multiple of sixteen. `n` must be at
/// least one, and `scale` must not be negative.
#[inline(always)]
pub(crate) unsafe fn online<V: Simd16, E: Element>(
    row: &Scores,
    scale: f32,
    (n, padded): (usize, usize),
    to: Weights,
    state: &mut RowState,
) -> f32 {
    // SAFETY: the row is padded to sixteen numbers.
    unsafe {
        let whole = n / PANEL * PANEL;
        let mut max = V::splat(f32::NEG_INFINITY);
        for i in (0..whole).step_by(PANEL) {
            max = max.max(V::load(row.at(i)));
        }
        if whole < n {
            max = max.max(V::load(row.at(whole)).first(n - whole, f32::NEG_INFINITY));
        }
        // Scaling the largest score gives the largest scaled score, because rounding is monotonic.
        let largest = state.max.max(max.max_lane() * scale);
        let (scale, shift) = (V::splat(scale), V::splat(largest));
        let mut sum = V::splat(0.0);
        for i in (0..n).step_by(PANEL) {
            let mut e = exp(V::load(row.at(i)).mul(scale).sub(shift));
            if i == whole {
                e = e.first(n - whole, 0.0);
            }
            to.put::<V, E>(row, i, e);
            sum = sum.add(e);
        }
        for i in (n.next_multiple_of(PANEL)..padded).step_by(PANEL) {
            to.put::<V, E>(row, i, V::splat(0.0));
        }
        let factor = decay::<V>(state.max, largest);
        *state = RowState { max: largest, total: state.total * factor + sum.sum() };
        factor
    }
}

/// Returns `exp(before - now)`, which rescales numbers from maximum `before` to the larger maximum `now`. Returns one
/// if nothing came before, because there is nothing to scale.
///
/// # Safety
/// As [`super::kernels::Kernels`].
#[inline(always)]
pub(crate) unsafe fn decay<V: Simd16>(before: f32, now: f32) -> f32 {
    if before == now || before == f32::NEG_INFINITY {
        return 1.0;
    }
    // SAFETY: register arithmetic by the caller's promise.
    unsafe { exp(V::splat(before - now)).lanes()[0] }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::instruction_set::InstructionSet;
    use glmbench_device::{DType, HostTensor};

    /// Returns weights, new state and factor, as bits, for a `row` with `n` valid scores. Scores are in strips; weights
    /// are written in place or into tiles.
    fn soften(
        set: InstructionSet,
        dtype: DType,
        row: &[f32],
        (n, strip, tiles): (usize, usize, bool),
        mut state: RowState,
    ) -> Vec<u32> {
        // There are gaps between strips and between rows of tiles, which must stay untouched.
        let distance = 2 * strip;
        let mut scores = vec![7.0; row.len().div_ceil(strip) * distance];
        for (to, from) in scores.chunks_mut(distance).zip(row.chunks(strip)) {
            to[..from.len()].copy_from_slice(from);
        }
        let (bytes, stride) = (TILE_DEPTH * dtype.bytes(), 3 * TILE_DEPTH * dtype.bytes());
        let mut stored = vec![7; row.len() / TILE_DEPTH * stride];
        let to = if tiles { Weights::Tiles { first: stored.as_mut_ptr(), stride } } else { Weights::InPlace };
        let kernels = set.kernels(dtype).unwrap();
        let place = Scores { first: scores.as_mut_ptr(), strip_log2: strip.ilog2(), distance };
        // SAFETY: the set is available; the strips hold the row, the tiles its weights.
        let factor = unsafe { (kernels.softmax)(&place, 0.25, (n, row.len()), to, &mut state) };
        assert!(scores.chunks(distance).all(|strips| strips[strip..].iter().all(|x| *x == 7.0)));
        assert!(stored.chunks(stride).all(|tiles| tiles[bytes..].iter().all(|x| *x == 7)));
        let weights: Vec<f32> = if tiles {
            let data: Vec<u8> = stored.chunks(stride).flat_map(|tile| &tile[..bytes]).copied().collect();
            HostTensor { dtype, rows: 1, width: row.len(), data: &data }.to_f32()
        } else {
            let strips = scores.chunks(distance).zip(row.chunks(strip));
            strips.flat_map(|(to, from)| &to[..from.len()]).copied().collect()
        };
        weights.iter().chain([&state.max, &state.total, &factor]).map(|x| x.to_bits()).collect()
    }

    proptest! {
        /// Every instruction set and every layout gives the same bits for weights, maximum, total and factor, and the
        /// values are right.
        #[test]
        fn sets_and_strips_agree(
            row in prop::collection::vec(-400f32..400.0, 1..8), n in 1usize..=128, strip in 4u32..8,
            dtype in prop::sample::select(vec![DType::Fp32, DType::Fp16, DType::Bf16]),
            max in -100f32..100.0, begins: bool, tiles: bool,
        ) {
            let row: Vec<f32> = (0..128).map(|i| row[i % row.len()] * (i as f32 * 0.7).sin()).collect();
            let state = if begins { RowState::EMPTY } else { RowState { max, total: 3.0 } };
            let expected = soften(InstructionSet::Portable, dtype, &row, (n, 128, false), state);
            for set in InstructionSet::ALL.into_iter().filter(|set| set.available()) {
                prop_assert_eq!(&soften(set, dtype, &row, (n, 1 << strip, tiles), state), &expected, "{:?}", set);
            }
            let largest = row[..n].iter().fold(state.max, |max, x| max.max(x * 0.25));
            let numbers: Vec<f32> = expected.iter().map(|bits| f32::from_bits(*bits)).collect();
            prop_assert_eq!(numbers[128], largest);
            for (i, weight) in numbers[..128].iter().enumerate() {
                let exact = if i < n { f64::from(row[i] * 0.25 - largest).exp() } else { 0.0 };
                let of_type = [2f64.powi(-21), 2f64.powi(-10), 2f64.powi(-7)][dtype as usize];
                prop_assert!((f64::from(*weight) - exact).abs() <= exact * of_type + 2f64.powi(-24), "{weight} {exact}");
            }
        }
    }
}
