//! Two sets of times: the ratio of their medians, how sure it is, and whether it may be called a change.

use super::bootstrap::{ResampledMedian, median_in_place, percentile_bounds};
use super::describe::median;
use super::rng::Rng;
use std::collections::BTreeMap;

/// Samples a side below which no verdict is given.
pub const LEAST_SAMPLES: usize = 5;

/// Work, in drawn samples, that resampling whole blocks may take: above it fewer resamples are made, down to
/// [`LEAST_RESAMPLES`].
const BLOCK_DRAWS: usize = 20_000_000;
const LEAST_RESAMPLES: usize = 1000;

/// The ratio of two medians (second over first) with its intervals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MedianRatio {
    /// Median of the second over median of the first.
    pub ratio: f64,
    /// 95 % percentile bootstrap interval.
    pub interval: (f64, f64),
    /// 90 % interval: two one-sided tests at 5 % each, read off one interval (D. J. Schuirmann, J. Pharmacokin.
    /// Biopharm. 15, 1987).
    pub equivalence_interval: (f64, f64),
}

/// What a ratio of times says against a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The second takes less time, by more than the threshold: its whole 95 % interval is past it.
    Faster,
    /// They differ by less than the threshold: the whole 90 % interval lies within it. A claim, not want of proof.
    Same,
    /// The second takes more time, by more than the threshold.
    Slower,
    /// Neither can be claimed.
    CannotTell,
}

impl MedianRatio {
    /// Holds the ratio against `threshold` (0.03 for 3 %), which is meant on the logarithm: 1.03 up and 1/1.03 down.
    pub fn change(&self, threshold: f64) -> Change {
        let (low, high) = (1.0 / (1.0 + threshold), 1.0 + threshold);
        if self.interval.1 < low {
            Change::Faster
        } else if self.interval.0 > high {
            Change::Slower
        } else if low <= self.equivalence_interval.0 && self.equivalence_interval.1 <= high {
            Change::Same
        } else {
            Change::CannotTell
        }
    }
}

/// Bootstrap of the ratio of medians of two independent sets of times. `None` with fewer than two samples a side, a
/// sample that is not finite and positive, or no resamples.
pub fn ratio_of_medians(a: &[f64], b: &[f64], resamples: usize, seed: u64) -> Option<MedianRatio> {
    if a.len() < 2 || b.len() < 2 || !a.iter().chain(b).all(|x| *x > 0.0) {
        return None;
    }
    let (mut first, mut second) = (ResampledMedian::of(a)?, ResampledMedian::of(b)?);
    let mut rng = Rng::new(seed);
    let drawn = (0..resamples).map(|_| {
        let below = first.draw(&mut rng);
        second.draw(&mut rng) / below
    });
    summed_up(a, b, drawn.collect())
}

/// The same for repetitions that were run in turn: each sample with the block it belongs to, and whole blocks are drawn, so
/// that what slowed both sides at once stays with both. Blocks that only one side has are left out. `None` as above,
/// and with fewer than two common blocks.
pub fn ratio_of_medians_by_block(
    a: &[(u32, f64)],
    b: &[(u32, f64)],
    resamples: usize,
    seed: u64,
) -> Option<MedianRatio> {
    let blocks = common_blocks(a, b);
    let of = |side: fn(&Block) -> &Vec<f64>| -> Vec<f64> { blocks.iter().flat_map(side).copied().collect() };
    let (a, b) = (of(|block| &block.0), of(|block| &block.1));
    let usable = |x: &f64| x.is_finite() && *x > 0.0;
    if blocks.len() < 2 || a.len() < 2 || b.len() < 2 || !a.iter().chain(&b).all(usable) {
        return None;
    }
    let affordable = (BLOCK_DRAWS / (a.len() + b.len())).max(LEAST_RESAMPLES);
    let mut rng = Rng::new(seed);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let drawn = (0..resamples.min(affordable)).map(|_| {
        first.clear();
        second.clear();
        for _ in 0..blocks.len() {
            let (of_a, of_b) = &blocks[rng.below(blocks.len() as u64) as usize];
            first.extend_from_slice(of_a);
            second.extend_from_slice(of_b);
        }
        median_in_place(&mut second) / median_in_place(&mut first)
    });
    summed_up(&a, &b, drawn.collect())
}

/// The samples of either side in one block.
type Block = (Vec<f64>, Vec<f64>);

fn common_blocks(a: &[(u32, f64)], b: &[(u32, f64)]) -> Vec<Block> {
    let mut blocks: BTreeMap<u32, Block> = BTreeMap::new();
    for &(block, x) in a {
        blocks.entry(block).or_default().0.push(x);
    }
    for &(block, x) in b {
        blocks.entry(block).or_default().1.push(x);
    }
    blocks.into_values().filter(|(of_a, of_b)| !of_a.is_empty() && !of_b.is_empty()).collect()
}

fn summed_up(a: &[f64], b: &[f64], drawn: Vec<f64>) -> Option<MedianRatio> {
    Some(MedianRatio {
        ratio: median(b)? / median(a)?,
        interval: percentile_bounds(drawn.clone(), 0.95)?,
        equivalence_interval: percentile_bounds(drawn, 0.90)?,
    })
}

/// The geometric mean of ratios; `None` without any or with one that is not finite and positive.
///
/// It weighs every case alike, however little time it takes or matters; a report that prints it says so.
pub fn geometric_mean(ratios: &[f64]) -> Option<f64> {
    let usable = !ratios.is_empty() && ratios.iter().all(|r| r.is_finite() && *r > 0.0);
    usable.then(|| (ratios.iter().map(|r| r.ln()).sum::<f64>() / ratios.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::RESAMPLES;
    use crate::stats::Rng;
    use crate::stats::fixtures::{assert_close, f64s, fixtures};
    use crate::stats::random::normal;
    use proptest::prelude::*;

    /// Times as they come: log-normal, with now and then a repetition that something else slowed.
    fn times(n: usize, centre: f64, spread: f64, rng: &mut Rng) -> Vec<f64> {
        let one = |rng: &mut Rng| {
            let hit = if rng.unit_f64() < 0.05 { 1.0 + 3.0 * spread } else { 1.0 };
            centre * (spread * normal(rng)).exp() * hit
        };
        (0..n).map(|_| one(rng)).collect()
    }

    #[test]
    fn agrees_with_the_same_draws_in_numpy_and_decides_as_statsmodels() {
        for case in fixtures()["ratio"].as_array().unwrap() {
            let (a, b) = (f64s(&case["a"]), f64s(&case["b"]));
            let found = ratio_of_medians(&a, &b, RESAMPLES, case["seed"].as_u64().unwrap()).unwrap();
            assert_close(Some(found.ratio), &case["ratio"], 1e-14);
            for (found, wanted) in [
                (found.interval.0, "low"),
                (found.interval.1, "high"),
                (found.equivalence_interval.0, "equivalence_low"),
                (found.equivalence_interval.1, "equivalence_high"),
            ] {
                assert_close(Some(found), &case[wanted], 1e-13);
            }
            // Schuirmann's tests by Welch's t on the logarithms, at 5 % each.
            let same = case["ttost_p"].as_f64().unwrap() < 0.05;
            assert_eq!(found.change(0.03) == Change::Same, same, "{case}");
        }
    }

    #[test]
    fn ninety_five_percent_intervals_cover_ninety_five_percent() {
        let mut rng = Rng::new(30);
        // With five, the fewest that get a verdict, it is 97.0: a median of five has few values to be resampled to.
        for n in [6, 7, 10, 20, 65] {
            let simulations = 3000;
            let covered = (0..simulations).filter(|&seed| {
                // Both sides are of one distribution, so the true ratio of medians is the planted one.
                let (a, b) = (times(n, 1.0, 0.05, &mut rng), times(n, 1.1, 0.05, &mut rng));
                let (low, high) = ratio_of_medians(&a, &b, 400, seed).unwrap().interval;
                low <= 1.1 && 1.1 <= high
            });
            let coverage = covered.count() as f64 / simulations as f64;
            assert!((0.93..=0.97).contains(&coverage), "{n} samples: {coverage}");
        }
    }

    #[test]
    fn a_planted_slowdown_of_five_percent_is_found() {
        let mut rng = Rng::new(31);
        let found = (0..50).filter(|&seed| {
            let (a, b) = (times(30, 1.0, 0.01, &mut rng), times(30, 1.05, 0.01, &mut rng));
            let there = ratio_of_medians(&a, &b, 2000, seed).unwrap().change(0.03);
            let back = ratio_of_medians(&b, &a, 2000, seed).unwrap().change(0.03);
            (there, back) == (Change::Slower, Change::Faster)
        });
        assert_eq!(found.count(), 50);
    }

    /// Repetitions of one configuration, recorded on a busy machine, as blocks of A B B A.
    fn recorded() -> Vec<[f64; 4]> {
        let json: serde_json::Value = serde_json::from_str(include_str!("recorded_noise.json")).unwrap();
        f64s(&json["e2e_ns"]).chunks_exact(4).map(|block| [block[0], block[1], block[2], block[3]]).collect()
    }

    /// The verdict on B, slowed by `factor`, over some blocks.
    fn interleaved_change(blocks: &[[f64; 4]], factor: f64) -> Change {
        let numbered = || (0..).zip(blocks);
        let a: Vec<(u32, f64)> = numbered().flat_map(|(i, block)| [(i, block[0]), (i, block[3])]).collect();
        let b: Vec<(u32, f64)> =
            numbered().flat_map(|(i, block)| [(i, factor * block[1]), (i, factor * block[2])]).collect();
        ratio_of_medians_by_block(&a, &b, 1000, 1).unwrap().change(0.03)
    }

    #[test]
    fn fifty_of_fifty_null_comparisons_on_recorded_noise_are_called_the_same() {
        let blocks = recorded();
        // On noise like this it takes 400 repetitions a side.
        let starts = (0..50).map(|i| i * (blocks.len() - 200) / 49);
        let same =
            starts.filter(|&start| interleaved_change(&blocks[start..start + 200], 1.0) == Change::Same);
        assert_eq!(same.count(), 50);
    }

    #[test]
    fn few_repetitions_on_recorded_noise_are_never_called_a_change() {
        let blocks = recorded();
        let changes: Vec<Change> = blocks.chunks_exact(10).map(|few| interleaved_change(few, 1.0)).collect();
        assert_eq!(changes.len(), 100);
        assert!(changes.iter().all(|change| matches!(change, Change::Same | Change::CannotTell)));
        assert!(changes.iter().filter(|change| **change == Change::Same).count() >= 50);
    }

    #[test]
    fn a_planted_slowdown_is_found_in_recorded_noise() {
        let blocks = recorded();
        assert_eq!(interleaved_change(&blocks, 1.05), Change::Slower);
        assert_eq!(interleaved_change(&blocks, 1.0 / 1.05), Change::Faster);
        assert_eq!(interleaved_change(&blocks, 1.01), Change::Same);
    }

    #[test]
    fn blocks_cancel_what_slows_both_sides() {
        // Each block has its own pace, ± 10 %; within it both sides agree to 0.2 %.
        let mut rng = Rng::new(32);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for block in 0..15 {
            let pace = (0.1 * normal(&mut rng)).exp();
            for first in [true, false, false, true] {
                let side = if first { &mut a } else { &mut b };
                side.push((block, pace * (0.002 * normal(&mut rng)).exp()));
            }
        }
        let paired = ratio_of_medians_by_block(&a, &b, 2000, 1).unwrap();
        let plain = |side: &[(u32, f64)]| side.iter().map(|(_, x)| *x).collect::<Vec<_>>();
        let loose = ratio_of_medians(&plain(&a), &plain(&b), 2000, 1).unwrap();
        assert_eq!(paired.change(0.03), Change::Same, "{paired:?}");
        assert_eq!(loose.change(0.03), Change::CannotTell, "{loose:?}");
        // What only one side has is no pair.
        b.retain(|(block, _)| *block < 1);
        assert_eq!(ratio_of_medians_by_block(&a, &b, 2000, 1), None);
    }

    #[test]
    fn a_verdict_is_about_the_interval_not_the_point() {
        let ratio = |low: f64, high: f64| MedianRatio {
            ratio: (low * high).sqrt(),
            interval: (low, high),
            equivalence_interval: (low, high),
        };
        assert_eq!(ratio(1.04, 1.10).change(0.03), Change::Slower);
        assert_eq!(ratio(1.01, 1.10).change(0.03), Change::CannotTell);
        assert_eq!(ratio(0.98, 1.02).change(0.03), Change::Same);
        assert_eq!(ratio(0.90, 0.96).change(0.03), Change::Faster);
        assert_eq!(ratio(0.90, 1.20).change(0.03), Change::CannotTell);
    }

    #[test]
    fn what_cannot_be_had_is_none() {
        assert_eq!(ratio_of_medians(&[1.0], &[1.0, 2.0], 100, 1), None);
        assert_eq!(ratio_of_medians(&[1.0, 0.0], &[1.0, 2.0], 100, 1), None);
        assert_eq!(ratio_of_medians(&[1.0, f64::NAN], &[1.0, 2.0], 100, 1), None);
        assert_eq!(ratio_of_medians(&[1.0, 2.0], &[1.0, 2.0], 0, 1), None);
        assert_eq!(geometric_mean(&[]), None);
        assert_eq!(geometric_mean(&[1.0, 0.0]), None);
        assert!((geometric_mean(&[0.5, 2.0]).unwrap() - 1.0).abs() < 1e-15);
    }

    proptest! {
        #[test]
        fn the_unit_does_not_matter(
            a in prop::collection::vec(1.0f64..2.0, 2..12), b in prop::collection::vec(1.0f64..2.0, 2..12), seed: u64,
        ) {
            let found = ratio_of_medians(&a, &b, 200, seed).unwrap();
            let scaled = |x: &[f64]| x.iter().map(|x| x * 1024.0).collect::<Vec<_>>();
            prop_assert_eq!(found, ratio_of_medians(&scaled(&a), &scaled(&b), 200, seed).unwrap());
            prop_assert!(found.interval.0 <= found.equivalence_interval.0);
            prop_assert!(found.equivalence_interval.1 <= found.interval.1);
        }
    }
}
