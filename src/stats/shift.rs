//! Difference between two things that were each placed anew several times: exact tests and their confidence
//! intervals.
//!
//! The unit of evidence is a *unit* that was placed anew: a block or a run. A block times both things in turn in its own
//! process. Repetitions within a unit share its pages, its cores and its hour. They therefore count as one
//! value, however many there are.
//!
//! - Blocks: one log-ratio each. If the things are equal, the label A is arbitrary, so either sign of a block is
//!   equally likely. Uses the sign-flip test (R. A. Fisher, *The Design of Experiments*, 1935, ch. III).
//! - Runs: one log-time each, unpaired. If the things are equal, every choice of the runs labelled A is equally
//!   likely. Uses the permutation test (E. J. G. Pitman, J. R. Stat. Soc. Suppl. 4, 1937).
//!
//! Neither assumes a distribution of the noise. Both use the mean, so interval inversion has a closed form. For blocks, the means
//! of all subsets split the line into pieces. Each piece contains the true difference with equal probability (J. A. Hartigan,
//! "Using subsample values as typical values", J. Am. Stat. Assoc. 64, 1969). For runs, the differences of the means of equally
//! large subsets do the same.

use super::describe::{mean, median};
use super::interval::Interval;
use super::rng::Rng;

/// Largest number of blocks for which all subsets are enumerated. Beyond it, [`DRAWN`] subsets are drawn.
const BLOCKS_GONE_THROUGH: usize = 16;
/// Largest number of runs a side, and of exchanges, for which all exchanges are enumerated.
const RUNS_GONE_THROUGH: usize = 12;
const EXCHANGES_GONE_THROUGH: u64 = 1 << 16;
/// Number of subsets drawn where there are too many to enumerate.
const DRAWN: usize = (1 << 16) - 1;
/// Seed of the drawn subsets. Arbitrary but fixed.
const SEED: u64 = 1;
/// Family-wise error rate over all phases of a comparison.
const ALPHA: f64 = 0.05;

/// Difference of two things as the natural logarithm of second over first, with the values that its test needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Shift {
    /// The mean difference.
    pub estimate: f64,
    /// The typical values, ascending. The true difference falls between any two neighbours with equal probability.
    typical: Vec<f64>,
}

impl Shift {
    /// Builds a shift from one log-ratio per block. `None` without any or with a non-finite one.
    pub fn of_blocks(log_ratios: &[f64]) -> Option<Self> {
        let estimate = mean(log_ratios)?;
        let mut typical = if log_ratios.len() <= BLOCKS_GONE_THROUGH {
            all_subset_means(log_ratios)
        } else {
            let mut rng = Rng::new(SEED);
            (0..DRAWN).map(|_| drawn_subset_mean(log_ratios, &mut rng)).collect()
        };
        typical.sort_unstable_by(f64::total_cmp);
        Some(Self { estimate, typical })
    }

    /// Builds a shift from one log-time per run. `None` if a side has none or a non-finite one.
    pub fn of_runs(first: &[f64], second: &[f64]) -> Option<Self> {
        let estimate = mean(second)? - mean(first)?;
        let few = first.len().max(second.len()) <= RUNS_GONE_THROUGH
            && choices(first.len() + second.len(), first.len()) <= EXCHANGES_GONE_THROUGH;
        let mut typical = if few {
            all_exchanges(first, second)
        } else {
            let mut rng = Rng::new(SEED);
            (0..DRAWN).map(|_| drawn_exchange(first, second, &mut rng)).collect()
        };
        typical.sort_unstable_by(f64::total_cmp);
        Some(Self { estimate, typical })
    }

    /// Two-sided p-value of the hypothesis that the true difference is `at`.
    pub fn p(&self, at: f64) -> f64 {
        let up_to = self.typical.partition_point(|x| *x <= at);
        let from = self.typical.len() - self.typical.partition_point(|x| *x < at);
        // The observed arrangement counts as well.
        let least = 1 + up_to.min(from);
        (2.0 * least as f64 / self.arrangements()).min(1.0)
    }

    /// Returns the differences that the test at 1 − `confidence` does not reject. `None` if there are too few units
    /// to reject any.
    pub fn interval(&self, confidence: f64) -> Option<Interval> {
        let tail = 1.0 - confidence;
        // The extra 1e-12 keeps a count that is hit exactly: 0.05 is not a binary fraction and rounds.
        let outside = (0.5 * tail * self.arrangements() * (1.0 + 1e-12)).floor() as usize;
        let low = outside.checked_sub(1)?;
        let high = self.typical.len().checked_sub(outside)?;
        (low <= high).then(|| Interval { low: self.typical[low], high: self.typical[high] })
    }

    fn arrangements(&self) -> f64 {
        self.typical.len() as f64 + 1.0
    }
}

/// Returns the value of a block: the median log-ratio of its pairs, second over first. A disturbance of one repetition in four
/// hardly moves the median. `None` without a pair or with a time that is not positive and finite.
pub fn block_log_ratio(pairs: &[(f64, f64)]) -> Option<f64> {
    let good = |x: f64| x.is_finite() && x > 0.0;
    let logs: Option<Vec<f64>> =
        pairs.iter().map(|&(a, b)| (good(a) && good(b)).then(|| (b / a).ln())).collect();
    median(&logs?)
}

/// Returns the fewest blocks that can decide anything with `phases` phases. The least p-value of the sign-flip test,
/// 2^(1−n), must pass Holm's first step, 0.05 ÷ `phases`.
pub fn blocks_needed(phases: usize) -> usize {
    let mut n = 1;
    while 2f64.powi(1 - n) * phases.max(1) as f64 >= ALPHA {
        n += 1;
    }
    n as usize
}

/// Returns the fewest runs a side that can decide anything with `phases` phases. The least p-value of the permutation
/// test, 2 ÷ (2n over n), must pass Holm's first step.
pub fn runs_needed(phases: usize) -> usize {
    let least = |n: usize| 2.0 / choices(2 * n, n) as f64;
    (1..=30).find(|&n| least(n) * (phases.max(1) as f64) < ALPHA).unwrap_or(31)
}

/// Binomial coefficient, `n` over `k`, saturating.
fn choices(n: usize, k: usize) -> u64 {
    (0..k.min(n - k) as u64).fold(1_u64, |ways, i| ways.saturating_mul(n as u64 - i) / (i + 1))
}

/// Returns the mean of every non-empty subset. Each sum is one addition away from another.
fn all_subset_means(values: &[f64]) -> Vec<f64> {
    let mut sums = vec![(0.0, 0_u32)];
    for value in values {
        let with: Vec<(f64, u32)> = sums.iter().map(|(sum, count)| (sum + value, count + 1)).collect();
        sums.extend(with);
    }
    sums.into_iter().skip(1).map(|(sum, count)| sum / f64::from(count)).collect()
}

/// Returns the mean of a random non-empty subset, uniformly distributed.
fn drawn_subset_mean(values: &[f64], rng: &mut Rng) -> f64 {
    loop {
        let (mut sum, mut count, mut bits) = (0.0, 0_u32, 0_u64);
        for (i, value) in values.iter().enumerate() {
            if i % 64 == 0 {
                bits = rng.next_u64();
            }
            if bits >> (i % 64) & 1 == 1 {
                sum += value;
                count += 1;
            }
        }
        if count > 0 {
            return sum / f64::from(count);
        }
    }
}

/// For every way to exchange equally many of the first and the second, at least one: mean of the second minus mean of the first.
fn all_exchanges(first: &[f64], second: &[f64]) -> Vec<f64> {
    let by_size = |values: &[f64]| {
        let mut sums: Vec<Vec<f64>> = vec![Vec::new(); values.len() + 1];
        for bits in 0..1_u32 << values.len() {
            let chosen = values.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1);
            sums[bits.count_ones() as usize].push(chosen.map(|(_, x)| x).sum());
        }
        sums
    };
    let (of_first, of_second) = (by_size(first), by_size(second));
    let mut differences = Vec::new();
    for (size, (a, b)) in of_first.iter().zip(&of_second).enumerate().skip(1) {
        differences.extend(b.iter().flat_map(|b| a.iter().map(move |a| (b - a) / size as f64)));
    }
    differences
}

/// Returns one random value of [`all_exchanges`], uniformly distributed.
fn drawn_exchange(first: &[f64], second: &[f64], rng: &mut Rng) -> f64 {
    let all: Vec<(bool, f64)> =
        first.iter().map(|x| (true, *x)).chain(second.iter().map(|x| (false, *x))).collect();
    loop {
        let mut order: Vec<usize> = (0..all.len()).collect();
        let (mut a, mut b, mut moved) = (0.0, 0.0, 0_u32);
        for place in 0..all.len() {
            let other = place + rng.below((all.len() - place) as u64) as usize;
            order.swap(place, other);
            let (of_first, value) = all[order[place]];
            match (place < first.len(), of_first) {
                (true, false) => {
                    b += value;
                    moved += 1;
                }
                (false, true) => a += value,
                _ => {}
            }
        }
        if moved > 0 {
            return (b - a) / f64::from(moved);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Rng;
    use crate::stats::random::normal;
    use proptest::prelude::*;

    /// The sign-flip test by its definition.
    fn by_definition(log_ratios: &[f64], at: f64) -> f64 {
        let sum = |bits: u32| -> f64 {
            let signed = log_ratios.iter().enumerate();
            signed.map(|(i, x)| if bits >> i & 1 == 1 { at - x } else { x - at }).sum()
        };
        let all = 1_u32 << log_ratios.len();
        let seen = sum(0).abs() * (1.0 - 1e-12);
        (0..all).filter(|&bits| sum(bits).abs() >= seen).count() as f64 / f64::from(all)
    }

    /// The permutation test by its definition.
    fn permuted(first: &[f64], second: &[f64], at: f64) -> f64 {
        let moved: Vec<f64> = first.iter().copied().chain(second.iter().map(|x| x - at)).collect();
        let difference = |bits: u32| {
            let (mut a, mut b) = (0.0, 0.0);
            for (i, x) in moved.iter().enumerate() {
                if bits >> i & 1 == 1 { a += x / first.len() as f64 } else { b += x / second.len() as f64 }
            }
            b - a
        };
        let choices: Vec<u32> =
            (0..1_u32 << moved.len()).filter(|b| b.count_ones() == first.len() as u32).collect();
        let seen = difference((1 << first.len()) - 1);
        let beyond = |side: f64| {
            choices
                .iter()
                .filter(|&&bits| side * difference(bits) >= side * seen - 1e-12 * seen.abs())
                .count()
        };
        (2.0 * beyond(1.0).min(beyond(-1.0)) as f64 / choices.len() as f64).min(1.0)
    }

    #[test]
    fn the_sign_flip_test_is_that_of_its_definition() {
        let blocks = [0.031, 0.052, -0.013, 0.044, 0.027, 0.061, 0.018];
        let shift = Shift::of_blocks(&blocks).unwrap();
        for at in [-0.1, -0.011, 0.0, 0.01, 0.03, 0.04, 0.09] {
            assert!((shift.p(at) - by_definition(&blocks, at)).abs() < 1e-12, "{at}");
        }
        // Seven values on one side: 2 of 128 arrangements.
        assert_eq!(
            Shift::of_blocks(&[0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07]).unwrap().p(0.0),
            2.0 / 128.0
        );
        assert_eq!(Shift::of_blocks(&[0.0; 9]).unwrap().p(0.0), 1.0);
    }

    #[test]
    fn the_permutation_test_is_that_of_its_definition() {
        let (first, second) = ([1.0, 1.02, 0.97, 1.01], [1.06, 1.03, 1.11, 1.005]);
        let shift = Shift::of_runs(&first, &second).unwrap();
        for at in [-0.1, 0.0, 0.021, 0.054, 0.2] {
            assert!((shift.p(at) - permuted(&first, &second, at)).abs() < 1e-12, "{at}");
        }
        // Four and four values that do not overlap: 2 of 70.
        assert!(
            (Shift::of_runs(&[1.0, 1.1, 1.2, 1.3], &[2.0, 2.1, 2.2, 2.3]).unwrap().p(0.0) - 2.0 / 70.0).abs()
                < 1e-15
        );
        let uneven = Shift::of_runs(&[1.0, 1.1], &[2.0, 2.1, 2.2, 2.3, 2.4]).unwrap();
        assert!((uneven.p(0.0) - 2.0 / 21.0).abs() < 1e-15);
    }

    #[test]
    fn an_interval_holds_what_the_test_does_not_reject() {
        let mut rng = Rng::new(5);
        for n in [6, 8, 11] {
            let blocks: Vec<f64> = (0..n).map(|_| 0.02 + 0.01 * normal(&mut rng)).collect();
            let shift = Shift::of_blocks(&blocks).unwrap();
            let Interval { low, high } = shift.interval(0.95).unwrap();
            assert!(shift.p(low) > 0.05 && shift.p(high) > 0.05, "{n}");
            assert!(shift.p(low - 1e-9) <= 0.05 && shift.p(high + 1e-9) <= 0.05, "{n}");
            assert!(low < shift.estimate && shift.estimate < high);
        }
        // The fewest that give an interval: six blocks, with their range as interval, and four runs a side.
        let six = [0.01, 0.05, 0.02, 0.04, 0.03, 0.06];
        assert_eq!(Shift::of_blocks(&six).unwrap().interval(0.95), Some(Interval { low: 0.01, high: 0.06 }));
        assert_eq!(Shift::of_blocks(&six[..5]).unwrap().interval(0.95), None);
        assert!(Shift::of_runs(&six[..4], &six[..4]).unwrap().interval(0.95).is_some());
        assert_eq!(Shift::of_runs(&six[..3], &six[..3]).unwrap().interval(0.95), None);
    }

    #[test]
    fn many_units_are_drawn_from_and_come_out_as_all_of_them() {
        let mut rng = Rng::new(6);
        let blocks: Vec<f64> = (0..BLOCKS_GONE_THROUGH).map(|_| 0.01 + 0.02 * normal(&mut rng)).collect();
        let all = Shift::of_blocks(&blocks).unwrap();
        let mut typical: Vec<f64> = (0..DRAWN).map(|_| drawn_subset_mean(&blocks, &mut rng)).collect();
        typical.sort_by(f64::total_cmp);
        let drawn = Shift { typical, ..all.clone() };
        let runs: (Vec<f64>, Vec<f64>) =
            blocks.iter().map(|x| (*x, x + 0.01 + 0.004 * normal(&mut rng))).unzip();
        let few = Shift::of_runs(&runs.0[..6], &runs.1[..6]).unwrap();
        let mut typical: Vec<f64> =
            (0..DRAWN).map(|_| drawn_exchange(&runs.0[..6], &runs.1[..6], &mut rng)).collect();
        typical.sort_by(f64::total_cmp);
        let exchanged = Shift { typical, ..few.clone() };
        for (exact, drawn) in [(all, drawn), (few, exchanged)] {
            for at in [-0.02, 0.0, 0.01, 0.02, 0.03] {
                assert!((exact.p(at) - drawn.p(at)).abs() < 0.01, "{at}: {} {}", exact.p(at), drawn.p(at));
            }
            let (a, b) = (exact.interval(0.95).unwrap(), drawn.interval(0.95).unwrap());
            assert!((a.low - b.low).abs() < 0.001 && (a.high - b.high).abs() < 0.001, "{a:?} {b:?}");
        }
        let thirty: Vec<f64> = (0..30).map(|_| 0.05 + 0.01 * normal(&mut rng)).collect();
        assert!(Shift::of_blocks(&thirty).unwrap().p(0.0) < 1e-4);
        assert!(Shift::of_runs(&thirty, &thirty).unwrap().p(0.0) > 0.9);
    }

    #[test]
    fn the_number_that_would_do_follows_from_the_phases() {
        assert_eq!([1, 3, 6, 24, 45, 96].map(blocks_needed), [6, 7, 8, 10, 11, 12]);
        assert_eq!([1, 3, 6, 24, 45, 96].map(runs_needed), [4, 5, 5, 7, 7, 8]);
        assert_eq!((blocks_needed(0), runs_needed(0)), (6, 4));
        for phases in 1..200_usize {
            let n = blocks_needed(phases) as i32;
            let least = |n: i32| 2f64.powi(1 - n) * phases as f64;
            assert!(least(n) < ALPHA && least(n - 1) >= ALPHA, "{phases}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_none() {
        assert_eq!(Shift::of_blocks(&[]), None);
        assert_eq!(Shift::of_blocks(&[f64::NAN]), None);
        assert_eq!(Shift::of_runs(&[1.0], &[]), None);
        assert_eq!(Shift::of_runs(&[1.0], &[f64::INFINITY]), None);
        assert_eq!(Shift::of_blocks(&[0.5]).unwrap().interval(0.95), None);
        assert_eq!(Shift::of_blocks(&[0.5]).unwrap().p(0.0), 1.0);
        assert_eq!(block_log_ratio(&[]), None);
        assert_eq!(block_log_ratio(&[(1.0, 2.0), (0.0, 1.0)]), None);
        // Three pairs with a ratio of 1.1, and one disturbed pair.
        let pairs = [(10.0, 11.0), (20.0, 22.0), (10.0, 25.0), (30.0, 33.0)];
        assert!((block_log_ratio(&pairs).unwrap() - 1.1_f64.ln()).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn turned_round_it_is_the_same(blocks in prop::collection::vec(-0.2f64..0.2, 1..12)) {
            let there = Shift::of_blocks(&blocks).unwrap();
            let back = Shift::of_blocks(&blocks.iter().map(|x| -x).collect::<Vec<_>>()).unwrap();
            prop_assert_eq!(there.p(0.0), back.p(0.0));
            prop_assert_eq!(there.interval(0.95), back.interval(0.95).map(|interval| interval.map_decreasing(|x| -x)));
        }
    }
}
