//! The rank-sum test: whether one group's values tend to be larger than another's, whatever their distribution.
//!
//! F. Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bull. 1 (1945). Equal values share the mean of their
//! ranks. Up to [`COUNTED`] values, the p-value is exact, ties included: the choices of the first group are counted. Beyond, it
//! is from the normal distribution with the variance of tied ranks and a continuity correction (E. L. Lehmann,
//! *Nonparametrics*, 1975, ch. 1.4). Far from the middle that is too cautious for small groups, which are counted there as well.

use statrs::distribution::{ContinuousCDF, Normal};

/// Most values for which choices are always counted.
const COUNTED: usize = 40;
/// p-value of the normal distribution below which they are counted where that takes up to [`MOST_STEPS`] additions.
const FAR: f64 = 1e-3;
const MOST_STEPS: usize = 5_000_000;

/// Returns the two-sided p-value of "both groups have one distribution". `None` if one is empty or has a value that is not finite.
pub fn rank_sum(first: &[f64], second: &[f64]) -> Option<f64> {
    let some = !first.is_empty() && !second.is_empty();
    let ranked = Ranked::of(&[first, second].concat()).filter(|_| some)?;
    Some(ranked.p(first.len()))
}

/// The values of two groups together, ranked.
pub(super) struct Ranked {
    /// Twice the rank of each value: mean ranks are halves.
    doubled: Vec<u32>,
    /// Sum of t³ − t over the groups of t equal values.
    ties: f64,
}

impl Ranked {
    /// Ranks values. `None` if one is not finite.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        if values.iter().any(|x| !x.is_finite()) {
            return None;
        }
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
        let (mut doubled, mut ties) = (vec![0; values.len()], 0.0);
        let mut first = 0;
        for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
            let rank = (2 * first + equal.len() + 1) as u32;
            equal.iter().for_each(|&i| doubled[i] = rank);
            ties += (equal.len() as f64).powi(3) - equal.len() as f64;
            first += equal.len();
        }
        Some(Self { doubled, ties })
    }

    /// Returns the distance of the rank sum of the first `size` values from its mean, in standard deviations, for every
    /// `size` from 0 on. 0 where there is no variance.
    pub(super) fn distances(&self) -> Vec<f64> {
        let n = self.doubled.len();
        let mut sum = 0.0;
        let of = |(size, sum): (usize, f64)| {
            let deviation = self.variance(size).sqrt();
            if deviation > 0.0 { (sum - size as f64 * (n as f64 + 1.0) / 2.0) / deviation } else { 0.0 }
        };
        let sums = std::iter::once(0.0).chain(self.doubled.iter().map(|&rank| {
            sum += f64::from(rank) / 2.0;
            sum
        }));
        sums.enumerate().map(of).collect()
    }

    /// Returns the two-sided p-value of "the first `size` values are like the others".
    pub(super) fn p(&self, size: usize) -> f64 {
        if size == 0 || size >= self.doubled.len() || self.variance(size) <= 0.0 {
            return 1.0;
        }
        if self.doubled.len() <= COUNTED {
            return self.counted(size);
        }
        let near = self.normal(size);
        let (group, seen) = self.low_side(size);
        let is_quick = self.doubled.len().saturating_mul(group).saturating_mul(seen) <= MOST_STEPS;
        if near < FAR && is_quick { self.counted(size) } else { near }
    }

    /// Variance of the rank sum of `size` values.
    fn variance(&self, size: usize) -> f64 {
        let (n, m) = (self.doubled.len() as f64, size as f64);
        if n < 2.0 {
            return 0.0;
        }
        m * (n - m) / 12.0 * (n + 1.0 - self.ties / (n * (n - 1.0)))
    }

    fn normal(&self, size: usize) -> f64 {
        let n = self.doubled.len() as f64;
        let sum: f64 = self.doubled[..size].iter().map(|&rank| f64::from(rank) / 2.0).sum();
        let away = (sum - size as f64 * (n + 1.0) / 2.0).abs() - 0.5;
        let z = away.max(0.0) / self.variance(size).sqrt();
        (2.0 * Normal::standard().sf(z)).min(1.0)
    }

    /// Twice the rank from the other end.
    fn mirrored(&self, rank: u32) -> u32 {
        2 * (self.doubled.len() as u32 + 1) - rank
    }

    /// Returns the smaller of the two groups. It has fewer choices to build, and the same p-value.
    fn smaller(&self, size: usize) -> &[u32] {
        let (first, second) = self.doubled.split_at(size);
        if first.len() <= second.len() { first } else { second }
    }

    /// Returns the size of the smaller group and its doubled rank sum, counted from the end at which it is low.
    fn low_side(&self, size: usize) -> (usize, usize) {
        let group = self.smaller(size);
        let sum = |of: &dyn Fn(u32) -> u32| group.iter().map(|&rank| of(rank) as usize).sum::<usize>();
        (group.len(), sum(&|rank| rank).min(sum(&|rank| self.mirrored(rank))))
    }

    /// Counts the choices of as many ranks with a sum as low, or as high.
    fn counted(&self, size: usize) -> f64 {
        let (count, seen) = self.low_side(size);
        let is_low = self.smaller(size).iter().map(|&rank| rank as usize).sum::<usize>() == seen;
        // ways[k][s]: choices of k ranks with the sum s. Larger sums are not needed.
        let mut ways = vec![vec![0.0_f64; seen + 1]; count + 1];
        ways[0][0] = 1.0;
        for &rank in &self.doubled {
            let rank = if is_low { rank } else { self.mirrored(rank) } as usize;
            for k in (1..=count).rev() {
                let (fewer, more) = ways.split_at_mut(k);
                let (fewer, more) = (&fewer[k - 1], &mut more[0]);
                for sum in rank..=seen {
                    more[sum] += fewer[sum - rank];
                }
            }
        }
        let n = self.doubled.len();
        let all = (0..count).fold(1.0, |ways, i| ways * (n - i) as f64 / (i + 1) as f64);
        let up_to: f64 = ways[count].iter().sum();
        let from = all - up_to + ways[count][seen];
        (2.0 * up_to.min(from) / all).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Rng;
    use crate::stats::random::normal;

    /// The test by its definition: every choice of the first group.
    fn by_definition(values: &[f64], size: usize) -> f64 {
        let rank = |x: f64| {
            let below = values.iter().filter(|y| **y < x).count() as f64;
            below + f64::midpoint(values.iter().filter(|y| **y == x).count() as f64, 1.0)
        };
        let ranks: Vec<f64> = values.iter().map(|x| rank(*x)).collect();
        let seen: f64 = ranks[..size].iter().sum();
        let choices = (0..1_u32 << values.len()).filter(|bits| bits.count_ones() == size as u32);
        let sums: Vec<f64> = choices
            .map(|bits| ranks.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, r)| r).sum())
            .collect();
        let low = sums.iter().filter(|sum| **sum <= seen + 1e-9).count();
        let high = sums.iter().filter(|sum| **sum >= seen - 1e-9).count();
        (2.0 * low.min(high) as f64 / sums.len() as f64).min(1.0)
    }

    #[test]
    fn the_counted_test_is_that_of_its_definition_with_and_without_ties() {
        let mut rng = Rng::new(3);
        for n in [4, 7, 11, 13] {
            for levels in [2, 5, 1000] {
                let values: Vec<f64> = (0..n).map(|_| rng.below(levels) as f64).collect();
                for size in 1..n {
                    let found = Ranked::of(&values).unwrap().p(size);
                    let varies = values.iter().any(|x| *x != values[0]);
                    let expected = if varies { by_definition(&values, size) } else { 1.0 };
                    assert!((found - expected).abs() < 1e-12, "{values:?} {size}: {found} {expected}");
                }
            }
        }
        // Five at the end of three hundred: 2 of 300 over 5 choices, where the normal distribution gives 1e-4.
        let far: Vec<f64> = (0..300).map(|i| f64::from(i) + if i < 295 { 0.0 } else { 1e6 }).collect();
        let choices = 300.0 * 299.0 * 298.0 * 297.0 * 296.0 / 120.0;
        for side in [far.clone(), far.iter().map(|x| -x).collect()] {
            let found = Ranked::of(&side).unwrap().p(295);
            assert!((found / (2.0 / choices) - 1.0).abs() < 1e-9, "{found}");
        }
        // Five and five that do not overlap: 2 of 252 choices.
        let apart: Vec<f64> = (0..10).map(f64::from).collect();
        assert!((Ranked::of(&apart).unwrap().p(5) - 2.0 / 252.0).abs() < 1e-15);
    }

    #[test]
    fn the_normal_distribution_takes_over_where_it_is_close() {
        let mut rng = Rng::new(8);
        for levels in [6.0, 1e9] {
            for shift in [0.0, 0.8] {
                let value = |i: usize, rng: &mut Rng| {
                    ((normal(rng) + if i < 17 { 0.0 } else { shift }) * levels).round()
                };
                let values: Vec<f64> = (0..COUNTED).map(|i| value(i, &mut rng)).collect();
                let ranked = Ranked::of(&values).unwrap();
                let (exact, near) = (ranked.counted(17), ranked.normal(17));
                assert!((exact - near).abs() < 0.01 + 0.1 * exact, "{exact} {near}");
            }
        }
    }

    #[test]
    fn equal_values_tell_nothing() {
        assert_eq!(rank_sum(&[1.0], &[]), None);
        assert_eq!(rank_sum(&[1.0], &[f64::INFINITY]), None);
        assert!((rank_sum(&[1.0, 2.0], &[3.0, 4.0]).unwrap() - 2.0 / 6.0).abs() < 1e-15);
        let ranked = Ranked::of(&[2.0; 12]).unwrap();
        assert_eq!((ranked.p(6), ranked.distances()[6]), (1.0, 0.0));
        assert!(Ranked::of(&[1.0, f64::NAN]).is_none());
        assert_eq!(Ranked::of(&[]).unwrap().distances(), [0.0]);
    }
}
