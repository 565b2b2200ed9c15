//! Ranges of activations: from what a calibration saw to the input scale and offset of a layer.
//!
//! Formulas: `S = (high - low) / 255` and `Z = -128 - round(low / S)`, so that `low` becomes -128 and `high` 127. A range always
//! includes 0, which keeps `Z` an int8. The scale is stored in the model's type, and `Z` follows from the stored scale.

use glmbench_device::StaticInput;
use half::{bf16, f16};

use crate::weights::StorageType;

/// Bins of a histogram.
pub(super) const BINS: usize = 2048;
/// Steps between the lowest and the highest int8.
const STEPS: f64 = 255.0;

/// A range of numbers that includes 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The lowest number, at most 0.
    pub low: f32,
    /// The highest number, at least 0.
    pub high: f32,
}

impl Range {
    /// Returns the range of these extremes and 0.
    pub(super) fn new(low: f32, high: f32) -> Self {
        Self { low: low.min(0.0), high: high.max(0.0) }
    }

    /// Returns the scale, as `stored` represents it, and the offset that map the range to int8. An empty range, of inputs that
    /// are always 0, has scale 1.
    pub(super) fn input(self, stored: StorageType) -> StaticInput {
        let width = f64::from(self.high) - f64::from(self.low);
        let scale = if width > 0.0 { width / STEPS } else { 1.0 };
        let scale = round_scale(scale, stored);
        let offset = (-128.0 - (self.low / scale).round_ties_even()).clamp(-128.0, 127.0);
        StaticInput { scale, offset }
    }
}

/// Rounds a positive scale to the type that it is stored in. It never becomes 0, infinite, or imprecise below the normal numbers.
pub(super) fn round_scale(scale: f64, stored: StorageType) -> f32 {
    match stored {
        StorageType::F16 => f16::from_f64(scale).clamp(f16::MIN_POSITIVE, f16::MAX).to_f32(),
        StorageType::Bf16 => bf16::from_f64(scale).clamp(bf16::MIN_POSITIVE, bf16::MAX).to_f32(),
        StorageType::F32 => (scale as f32).clamp(f32::MIN_POSITIVE, f32::MAX),
    }
}

/// Counts of the inputs of a layer in [`BINS`] equal bins between the extremes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Histogram {
    pub(super) range: Range,
    pub(super) counts: Vec<u64>,
}

impl Histogram {
    /// Creates an empty histogram over a range.
    pub(super) fn new(range: Range) -> Self {
        Self { range, counts: vec![0; BINS] }
    }

    /// Counts a number. One outside the range counts in the outermost bin.
    pub(super) fn add(&mut self, x: f32) {
        let width = self.range.high - self.range.low;
        if width > 0.0 && x.is_finite() {
            let bin = ((x - self.range.low) / width * BINS as f32) as usize;
            self.counts[bin.min(BINS - 1)] += 1;
        }
    }

    /// Returns the range with the least expected error of quantisation.
    ///
    /// Every pair of bin edges around 0 is a candidate. Its error is a sum over all numbers. A number inside the range adds
    /// `step^2 / 12`, the mean square of rounding. One outside adds the square of its distance from the range. A bin's numbers
    /// count as its centre. Of equal candidates the widest is chosen. So the search is exact under this model, and depends on
    /// nothing but the counts.
    pub(super) fn best_range(&self) -> Range {
        let Range { low, high } = self.range;
        let width = (f64::from(high) - f64::from(low)) / BINS as f64;
        if width <= 0.0 {
            return self.range;
        }
        let edge = |bin: usize| f64::from(low) + width * bin as f64;
        let sums = Sums::of(&self.counts, |bin| edge(bin) + width / 2.0);
        // Bins before the one with 0 may be cut at the bottom, those behind it at the top.
        let zero = (-f64::from(low) / width).clamp(0.0, BINS as f64);
        let (mut best, mut range) = (f64::INFINITY, self.range);
        for from in 0..=zero.floor() as usize {
            for to in (zero.ceil() as usize..=BINS).rev() {
                let (a, b) = (edge(from), edge(to));
                let step = (b - a) / STEPS;
                let inside = sums.count(from, to) * step * step / 12.0;
                let error = inside + sums.squares(0, from, a) + sums.squares(to, BINS, b);
                if error < best {
                    best = error;
                    range = Range::new(a as f32, b as f32);
                }
            }
        }
        range
    }
}

/// Running sums of counts, numbers and squares, by which the error of a candidate takes a few operations.
struct Sums {
    count: Vec<f64>,
    number: Vec<f64>,
    square: Vec<f64>,
}

impl Sums {
    fn of(counts: &[u64], centre: impl Fn(usize) -> f64) -> Self {
        let running = |of: &dyn Fn(usize) -> f64| {
            let mut sum = 0.0;
            let behind = (0..counts.len()).map(|bin| {
                sum += counts[bin] as f64 * of(bin);
                sum
            });
            std::iter::once(0.0).chain(behind).collect()
        };
        Self {
            count: running(&|_| 1.0),
            number: running(&centre),
            square: running(&|bin| centre(bin) * centre(bin)),
        }
    }

    fn count(&self, from: usize, to: usize) -> f64 {
        self.count[to] - self.count[from]
    }

    /// Returns the sum of `(x - bound)^2` over the bins from `from` to `to`.
    fn squares(&self, from: usize, to: usize, bound: f64) -> f64 {
        let of = |sums: &[f64]| sums[to] - sums[from];
        (of(&self.square) - 2.0 * bound * of(&self.number) + bound * bound * of(&self.count)).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_become_the_extreme_integers() {
        for (low, high) in [(-1.0, 3.0), (0.0, 6.5), (-4.0, 0.0), (-0.01, 0.02), (-900.0, 12.0)] {
            for stored in [StorageType::F16, StorageType::F32] {
                let input = Range::new(low, high).input(stored);
                assert_eq!(input.quantise(low), -128, "{low} {high}");
                // The offset is rounded, so that the other end may fall half a step short.
                assert!(input.quantise(high) >= 126, "{low} {high}");
                assert_eq!(f32::from(input.quantise(0.0)), input.offset);
            }
        }
        assert_eq!(Range::new(2.0, 8.0), Range { low: 0.0, high: 8.0 });
        assert_eq!(Range::new(0.0, 0.0).input(StorageType::F16), StaticInput { scale: 1.0, offset: -128.0 });
        assert!(StaticInput::new(Range::new(-1e-9, 1e-9).input(StorageType::F16).scale, 0.0).is_ok());
    }

    /// Numbers close to 0 with a few far away: the range is cut. Numbers spread evenly: it is not.
    #[test]
    fn rare_outliers_are_cut_and_an_even_spread_is_not() {
        let mut histogram = Histogram::new(Range::new(-1.0, 100.0));
        (0..1_000_000).for_each(|i| histogram.add(((i % 2000) as f32 - 1000.0) / 1000.0));
        histogram.add(100.0);
        let cut = histogram.best_range();
        assert!(cut.high < 50.0 && cut.low < -0.9, "{cut:?}");
        let mut even = Histogram::new(Range::new(-10.0, 10.0));
        (0..100_000).for_each(|i| even.add((i % 2001) as f32 / 100.0 - 10.0));
        let kept = even.best_range();
        assert!(kept.low < -9.9 && kept.high > 9.9, "{kept:?}");
        assert_eq!(Histogram::new(Range::new(0.0, 0.0)).best_range(), Range { low: 0.0, high: 0.0 });
    }
}
