//! The online softmax of attention, one block of the context at a time.
//!
//! The state of a row is relative to its largest score so far. If a block has a larger score, earlier results are
//! scaled down by the factor that [`Online`] returns. Scores are therefore stored for one block only, however long the
//! context.
//!
//! Cycle count for 128 scores with AVX-512: a row takes eight registers with some 24 arithmetic instructions each. At
//! two per cycle, that is about 100 cycles. Tiles take 64 cycles for the row's products in bf16. Everything else is
//! kept off
//! the critical path: the largest score is found without stores, and maxima and sums across a register stay in
//! registers.

use crate::pack::{PANEL, TILE_DEPTH};
use crate::simd::{Element, Isa, Kernel, Simd16, exp};

/// The state of a row after some of its scores.
#[derive(Debug, Clone, Copy, PartialEq)]
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

/// A row of scores, in strips as a product writes them.
#[derive(Debug)]
pub(super) struct Scores<'a> {
    /// The scores, from the row's first number to the end of its last strip.
    pub(super) numbers: &'a mut [f32],
    /// Binary logarithm of the strip width, which is at least sixteen numbers.
    pub(super) strip_log2: u32,
    /// Distance between strips, in numbers.
    pub(super) distance: usize,
}

impl Scores<'_> {
    /// Returns the sixteen scores that begin with score `i`, a multiple of sixteen.
    #[inline(always)]
    fn at(&mut self, i: usize) -> &mut [f32; PANEL] {
        let (strip, place) = (i >> self.strip_log2, i & ((1 << self.strip_log2) - 1));
        let at = strip * self.distance + place;
        self.numbers[at..at + PANEL].as_mut_array().expect("invariant: a slice of sixteen")
    }
}

/// Destination of the weights of a row.
#[derive(Debug)]
pub(super) enum Weights<'a> {
    /// In place of the scores, in fp32.
    InPlace,
    /// In tiles of sixteen rows, in the device's type: 32 numbers side by side, the next 32 in the next tile.
    Tiles {
        /// The tiles, from the row's first number.
        tiles: &'a mut [u8],
        /// Distance between tiles, in bytes.
        stride: usize,
    },
}

impl Weights<'_> {
    /// Writes sixteen weights starting at `i`, a multiple of sixteen, rounded to the type.
    #[inline(always)]
    fn put<V: Simd16, E: Element>(&mut self, row: &mut Scores<'_>, i: usize, weights: V) {
        match self {
            Self::InPlace => E::round(weights).store(row.at(i)),
            Self::Tiles { tiles, stride } => {
                let at = i / TILE_DEPTH * *stride + i % TILE_DEPTH * E::BYTES;
                let stored = &mut tiles[at..at + PANEL * E::BYTES];
                E::store(weights, bytemuck::from_bytes_mut(stored));
            }
        }
    }
}

/// Processes `n` more scores of a row. Each becomes a weight, `exp(score * scale - max)` rounded to the type; weights
/// from `n` to `padded` are zero. Returns the factor by which the caller must multiply earlier weighted sums.
///
/// The weights are rounded before they are multiplied with the values, as on NPUs and GPUs.
pub(super) struct Online<'a> {
    /// The scores, `padded` of them.
    pub(super) row: Scores<'a>,
    /// Factor of the scores; not negative.
    pub(super) scale: f32,
    /// Number of scores, at least one.
    pub(super) n: usize,
    /// Number of weights, a multiple of sixteen.
    pub(super) padded: usize,
    /// Destination of the weights.
    pub(super) to: Weights<'a>,
    /// The state of the row.
    pub(super) state: &'a mut RowState,
}

impl Kernel for Online<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, isa: I) -> f32 {
        let Self { mut row, scale, n, padded, mut to, state } = self;
        let whole = n / PANEL * PANEL;
        let mut max = isa.splat(f32::NEG_INFINITY);
        for i in (0..whole).step_by(PANEL) {
            max = max.max(isa.load(row.at(i)));
        }
        if whole < n {
            max = max.max(isa.load(row.at(whole)).first(n - whole, f32::NEG_INFINITY));
        }
        // Scaling the largest score gives the largest scaled score, because rounding is monotonic.
        let largest = state.max.max(max.max_lane() * scale);
        let (scale, shift) = (isa.splat(scale), isa.splat(largest));
        let mut sum = isa.splat(0.0);
        for i in (0..n).step_by(PANEL) {
            let mut e = exp(isa, isa.load(row.at(i)).mul(scale).sub(shift));
            if i == whole {
                e = e.first(n - whole, 0.0);
            }
            to.put::<_, E>(&mut row, i, e);
            sum = sum.add(e);
        }
        for i in (n.next_multiple_of(PANEL)..padded).step_by(PANEL) {
            to.put::<_, E>(&mut row, i, isa.splat(0.0));
        }
        let factor = decay(isa, state.max, largest);
        *state = RowState { max: largest, total: state.total * factor + sum.sum() };
        factor
    }
}

/// Returns `exp(before - now)`, which rescales numbers from maximum `before` to the larger maximum `now`. Returns one
/// if nothing came before, because there is nothing to scale.
#[inline(always)]
fn decay<I: Isa>(isa: I, before: f32, now: f32) -> f32 {
    if before == now || before == f32::NEG_INFINITY {
        return 1.0;
    }
    exp(isa, isa.splat(before - now)).lanes()[0]
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
        decay(isa, self.before, self.now)
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

/// `out = round(x / divisor)`. `x` has as many numbers as `out`, padded to sixteen.
pub(super) struct Divide<'a> {
    pub(super) x: &'a [f32],
    pub(super) divisor: f32,
    pub(super) out: &'a mut [f32],
}

impl Kernel for Divide<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, isa: I) {
        let divisor = isa.splat(self.divisor);
        for (x, out) in self.x.as_chunks().0.iter().zip(self.out.chunks_mut(PANEL)) {
            let quotients = E::round(isa.load(x).div(divisor));
            match out.as_mut_array() {
                Some(out) => quotients.store(out),
                None => out.copy_from_slice(&quotients.lanes()[..out.len()]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::simd::{InstructionSet, Vectors};
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
        let to = if tiles { Weights::Tiles { tiles: &mut stored, stride } } else { Weights::InPlace };
        let vectors = Vectors::detect(set, dtype).unwrap();
        let place = Scores { numbers: &mut scores, strip_log2: strip.ilog2(), distance };
        let factor =
            vectors.run(Online { row: place, scale: 0.25, n, padded: row.len(), to, state: &mut state });
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
