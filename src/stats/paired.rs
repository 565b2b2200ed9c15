//! Two runs over the same items: exact McNemar test, interval of the accuracy difference, and required item counts.

use super::bootstrap::percentile_bounds;
use super::describe::mean;
use super::interval::Interval;
use super::random::binomial;
use super::rng::Rng;
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, Normal};

/// Fewest discordant items with which the exact test can get below 0.05. With five, the least p-value is 2 × 0.5⁵ =
/// 0.0625.
pub const LEAST_DISCORDANT: u64 = 6;

/// Strata with fewer items are pooled for the difference over all items: a stratum of one has no spread to draw from.
const LEAST_STRATUM: u64 = 5;

/// Exact McNemar test: the two-sided probability, for equally good runs, of a split of the discordant items as uneven
/// as `only_a` to `only_b`.
///
/// Q. McNemar, Psychometrika 12 (1947), with the binomial distribution of ½ instead of its approximation. Returns 1
/// without discordant items.
pub fn mcnemar_exact(only_a: u64, only_b: u64) -> f64 {
    let Ok(fair) = Binomial::new(0.5, only_a + only_b) else { return 1.0 };
    (2.0 * fair.cdf(only_a.min(only_b))).min(1.0)
}

/// Holm's step-down adjustment of p-values (Scand. J. Statist. 6, 1979), in input order. An adjusted value below α is
/// significant at a family-wise error rate of α.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&i, &j| p[i].total_cmp(&p[j]));
    let mut adjusted = vec![1.0; p.len()];
    let mut least = 0.0_f64;
    for (rank, &index) in order.iter().enumerate() {
        least = least.max(((p.len() - rank) as f64 * p[index]).min(1.0));
        adjusted[index] = least;
    }
    adjusted
}

/// Outcome counts of the items in one stratum, in two runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PairCounts {
    /// Items in both runs.
    pub n: u64,
    /// Right in the first only.
    pub only_a: u64,
    /// Right in the second only.
    pub only_b: u64,
}

impl PairCounts {
    /// Adds the counts of two strata.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { n: self.n + other.n, only_a: self.only_a + other.only_a, only_b: self.only_b + other.only_b }
    }

    /// Items that only one of the runs got right.
    pub fn discordant(self) -> u64 {
        self.only_a + self.only_b
    }

    /// Accuracy of the second run minus that of the first. `None` without items.
    pub fn difference(self) -> Option<f64> {
        (self.n > 0).then(|| (self.only_b as f64 - self.only_a as f64) / self.n as f64)
    }

    /// Returns the summed differences of a resample of `draws` items with replacement. Only discordant items
    /// contribute, so two binomial draws replace a draw per item.
    fn draw(self, draws: u64, rng: &mut Rng) -> f64 {
        let discordant = self.discordant();
        if discordant == 0 {
            return 0.0;
        }
        let drawn = binomial(draws, discordant as f64 / self.n as f64, rng);
        let for_b = binomial(drawn, self.only_b as f64 / discordant as f64, rng);
        2.0 * for_b as f64 - drawn as f64
    }
}

/// Percentile bootstrap interval of the accuracy difference over all items (micro), resampled within strata.
///
/// A stratum of n items is resampled with n − 1 draws (P. J. McCarthy and C. B. Snowden, "The bootstrap and finite
/// population sampling", 1985). Drawing n would understate the variance by (n − 1)/n, which with subjects of a dozen
/// items turns 95 % into 92. Strata with fewer than five items are pooled.
///
/// `None` without two items, without resamples, or with a confidence not strictly between 0 and 1. Without discordant
/// items the interval is a point; use [`score_interval`] there.
pub fn difference_interval(
    strata: &[PairCounts],
    confidence: f64,
    resamples: usize,
    seed: u64,
) -> Option<Interval> {
    let (small, mut strata): (Vec<PairCounts>, Vec<PairCounts>) =
        strata.iter().copied().partition(|s| s.n < LEAST_STRATUM);
    let pooled = small.into_iter().fold(PairCounts::default(), PairCounts::plus);
    if pooled.n == 1
        && let Some(first) = strata.first_mut()
    {
        *first = first.plus(pooled);
    } else if pooled.n > 0 {
        strata.push(pooled);
    }
    let n: u64 = strata.iter().map(|s| s.n).sum();
    if strata.iter().any(|s| s.n < 2) {
        return None;
    }
    // A stratum's resampled mean is weighted by its number of items.
    let estimate = |s: &PairCounts, rng: &mut Rng| s.draw(s.n - 1, rng) / (s.n - 1) as f64 * s.n as f64;
    resampled(confidence, resamples, seed, |rng| {
        (n > 0).then(|| strata.iter().map(|s| estimate(s, rng)).sum::<f64>() / n as f64)
    })
}

/// As [`difference_interval`], for the mean difference of the strata (macro). Every stratum needs at least two items.
pub fn macro_difference_interval(
    strata: &[PairCounts],
    confidence: f64,
    resamples: usize,
    seed: u64,
) -> Option<Interval> {
    if strata.iter().any(|s| s.n < 2) {
        return None;
    }
    resampled(confidence, resamples, seed, |rng| {
        mean(&strata.iter().map(|s| s.draw(s.n - 1, rng) / (s.n - 1) as f64).collect::<Vec<_>>())
    })
}

fn resampled(
    confidence: f64,
    resamples: usize,
    seed: u64,
    mut draw: impl FnMut(&mut Rng) -> Option<f64>,
) -> Option<Interval> {
    let mut rng = Rng::new(seed);
    let drawn: Option<Vec<f64>> = (0..resamples).map(|_| draw(&mut rng)).collect();
    percentile_bounds(drawn?, confidence)
}

/// Score interval of the difference from the counts alone: all differences that the score test does not reject.
///
/// T. Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design",
/// Statist. Med. 17 (1998).
///
/// Unlike a bootstrap, it keeps a width with few or no discordant items: z²/(n + z²) to either side. The verdict
/// "same" therefore uses it. `None` without items, or with a confidence not strictly between 0 and 1.
pub fn score_interval(counts: PairCounts, confidence: f64) -> Option<Interval> {
    if counts.n == 0 || !(confidence > 0.0 && confidence < 1.0) {
        return None;
    }
    let z = Normal::standard().inverse_cdf(0.5 + confidence / 2.0);
    let seen = counts.difference()?;
    // The statistic falls as the assumed difference grows. Bisect from the observed one outwards to where it is `z`
    // from 0.
    let edge = |outermost: f64| {
        let (mut within, mut outside) = (seen, outermost);
        for _ in 0..60 {
            let middle = 0.5 * (within + outside);
            if score(counts, middle).abs() < z { within = middle } else { outside = middle }
        }
        0.5 * (within + outside)
    };
    Some(Interval { low: edge(-1.0), high: edge(1.0) })
}

/// Distance of the counts from an assumed `difference`, in standard errors under that assumption.
fn score(counts: PairCounts, difference: f64) -> f64 {
    let (n, a, b) = (counts.n as f64, counts.only_a as f64, counts.only_b as f64);
    // Maximum-likelihood share that only the first run gets right, given the assumed difference: a root of a
    // quadratic.
    let half_linear = 0.5 * ((2.0 * n - b + a) * difference - a - b);
    let constant = -a * difference * (1.0 - difference);
    let only_a = ((half_linear * half_linear - 2.0 * n * constant).max(0.0).sqrt() - half_linear) / (2.0 * n);
    let variance = n * (2.0 * only_a + difference * (1.0 - difference));
    let distance = b - a - n * difference;
    if variance > 0.0 { distance / variance.sqrt() } else { distance * f64::INFINITY }
}

/// Share of discordant items, with half an item added to each cell so that a count of 0 does not give a share of 0.
pub fn discordant_share(counts: PairCounts) -> Option<f64> {
    (counts.n > 0).then(|| (counts.discordant() + 1) as f64 / (counts.n + 2) as f64)
}

/// Returns the number of items that detect a true difference of `difference` with probability `power` at two-sided 5
/// %. `discordant` is the share of items that differ between the runs.
///
/// R. J. Connor, "Sample size for testing differences in proportions for the paired-sample design", Biometrics 43
/// (1987). `None` for a difference of 0 or larger than the discordant share.
pub fn items_needed(difference: f64, discordant: f64, power: f64) -> Option<u64> {
    let d = difference.abs();
    let sensible = d > 0.0 && discordant >= d && discordant <= 1.0 && power > 0.0 && power < 1.0;
    sensible.then(|| {
        let z = |p: f64| Normal::standard().inverse_cdf(p);
        let root = z(0.975) * discordant.sqrt() + z(power) * (discordant - d * d).sqrt();
        ((root / d).powi(2)).ceil() as u64
    })
}

/// Returns the number of items that show two equally good runs to be the same within `margin` with probability
/// `power`. `discordant` is the share of items that differ between them.
///
/// Two one-sided tests at 5 % (S. A. Julious, Statist. Med. 23, 2004, for a true difference of 0).
pub fn items_to_show_same(margin: f64, discordant: f64, power: f64) -> Option<u64> {
    let sensible = margin > 0.0 && (0.0..=1.0).contains(&discordant) && power > 0.0 && power < 1.0;
    let z = |p: f64| Normal::standard().inverse_cdf(p);
    sensible
        .then(|| ((z(0.95) + z(0.5 + power / 2.0)).powi(2) * discordant / (margin * margin)).ceil() as u64)
}

/// Returns the number of items that show two runs to be the same within `margin` if no item is discordant.
///
/// Two one-sided tests at 5 %: the count at which [`score_interval`] without discordant items lies within `margin`.
pub fn identical_items_to_show_same(margin: f64) -> Option<u64> {
    let z = Normal::standard().inverse_cdf(0.95);
    (margin > 0.0 && margin < 1.0).then(|| (z * z * (1.0 - margin) / margin) as u64 + 1)
}

/// Least true difference that `n` items detect with probability `power`: the inverse of [`items_needed`].
pub fn detectable_difference(n: u64, discordant: f64, power: f64) -> Option<f64> {
    // The needed number falls as the difference grows, so bisect.
    let (mut too_small, mut enough) = (0.0, discordant);
    if items_needed(enough, discordant, power)? > n {
        return None;
    }
    for _ in 0..60 {
        let middle = 0.5 * (too_small + enough);
        match items_needed(middle, discordant, power) {
            Some(needed) if needed <= n => enough = middle,
            _ => too_small = middle,
        }
    }
    Some(enough)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::RESAMPLES;
    use crate::stats::Rng;
    use crate::stats::fixtures::{assert_close, f64s, fixtures};
    use proptest::prelude::*;

    #[test]
    fn mcnemar_agrees_with_statsmodels() {
        for case in fixtures()["mcnemar"].as_array().unwrap() {
            let (b, c) = (case["only_a"].as_u64().unwrap(), case["only_b"].as_u64().unwrap());
            assert_close(Some(mcnemar_exact(b, c)), &case["p"], 1e-9);
        }
        assert_eq!(mcnemar_exact(0, 0), 1.0);
    }

    #[test]
    fn the_score_interval_agrees_with_one_whose_likelihood_scipy_maximised() {
        for case in fixtures()["score_interval"].as_array().unwrap() {
            let [n, only_a, only_b] = ["n", "only_a", "only_b"].map(|key| case[key].as_u64().unwrap());
            let found =
                score_interval(PairCounts { n, only_a, only_b }, case["confidence"].as_f64().unwrap())
                    .unwrap();
            for (found, wanted) in [(found.low, "low"), (found.high, "high")] {
                assert!((found - case[wanted].as_f64().unwrap()).abs() < 1e-6, "{case}: {found}");
            }
        }
    }

    #[test]
    fn fewer_than_six_discordant_items_never_reach_five_percent() {
        for n in 0..LEAST_DISCORDANT {
            assert!((0..=n).all(|b| mcnemar_exact(b, n - b) > 0.05));
        }
        assert!(mcnemar_exact(0, LEAST_DISCORDANT) < 0.05);
    }

    #[test]
    fn holm_agrees_with_statsmodels() {
        for case in fixtures()["holm"].as_array().unwrap() {
            let adjusted = holm(&f64s(&case["p"]));
            for (found, wanted) in adjusted.iter().zip(case["adjusted"].as_array().unwrap()) {
                assert_close(Some(*found), wanted, 1e-12);
            }
        }
    }

    #[test]
    fn the_stratified_interval_is_near_numpys_item_by_item() {
        for case in fixtures()["paired_bootstrap"].as_array().unwrap() {
            let strata: Vec<PairCounts> = case["strata"]
                .as_array()
                .unwrap()
                .iter()
                .map(|s| PairCounts {
                    n: s[0].as_u64().unwrap(),
                    only_a: s[1].as_u64().unwrap(),
                    only_b: s[2].as_u64().unwrap(),
                })
                .collect();
            let near = |found: Option<Interval>, low: &str, high: &str| {
                let found = found.unwrap();
                let (low, high) = (case[low].as_f64().unwrap(), case[high].as_f64().unwrap());
                let slack = 0.05 * (high - low);
                assert!((found.low - low).abs() <= slack && (found.high - high).abs() <= slack, "{case}");
            };
            near(difference_interval(&strata, 0.95, RESAMPLES, 1), "low", "high");
            near(macro_difference_interval(&strata, 0.95, RESAMPLES, 1), "macro_low", "macro_high");
        }
    }

    /// Coverage of the true difference by simulation, with strata as small as C-Eval's: 93 to 97 % for a nominal 95
    /// %.
    #[test]
    fn ninety_five_percent_intervals_cover_ninety_five_percent() {
        let mut rng = Rng::new(20);
        for (items, share, bias) in [(26, 0.12, 0.5), (12, 0.2, 0.7), (120, 0.05, 0.4)] {
            let strata = 12;
            let truth = share * (2.0 * bias - 1.0);
            let simulations = 1500;
            let (mut covered, mut score_covered) = (0, 0);
            for seed in 0..simulations {
                let drawn: Vec<PairCounts> = (0..strata)
                    .map(|_| {
                        let discordant = binomial(items, share, &mut rng);
                        let only_b = binomial(discordant, bias, &mut rng);
                        PairCounts { n: items, only_a: discordant - only_b, only_b }
                    })
                    .collect();
                let drawn_interval = difference_interval(&drawn, 0.95, 500, seed).unwrap();
                covered += u32::from(drawn_interval.contains(truth));
                let whole = drawn.into_iter().fold(PairCounts::default(), PairCounts::plus);
                score_covered += u32::from(score_interval(whole, 0.95).unwrap().contains(truth));
            }
            for (name, covered) in [("bootstrap", covered), ("score", score_covered)] {
                let coverage = f64::from(covered) / simulations as f64;
                assert!((0.93..=0.97).contains(&coverage), "{name}, {items} items: {coverage}");
            }
        }
    }

    #[test]
    fn a_planted_loss_of_three_percent_is_found_and_equal_runs_are_not() {
        // 3,000 items with a discordant share of 8 %: enough by the formula.
        let needed = items_needed(0.03, 0.08, 0.8).unwrap();
        assert!((500..3000).contains(&needed), "{needed}");
        let mut rng = Rng::new(21);
        let mut draw = |bias: f64| {
            let discordant = binomial(3000, 0.08, &mut rng);
            let only_b = binomial(discordant, bias, &mut rng);
            (discordant - only_b, only_b)
        };
        // A difference of −0.03 at a discordant share of 0.08.
        let found = (0..100).filter(|_| {
            let (b, c) = draw(0.5 - 0.5 * 0.03 / 0.08);
            mcnemar_exact(b, c) < 0.05 && c < b
        });
        assert!(found.count() >= 99);
        let alarms = (0..1000).filter(|_| {
            let (b, c) = draw(0.5);
            mcnemar_exact(b, c) < 0.05
        });
        assert!(alarms.count() <= 65);
    }

    #[test]
    fn items_needed_gives_the_power_it_names() {
        let (difference, discordant) = (0.02, 0.1);
        let n = items_needed(difference, discordant, 0.8).unwrap();
        let mut rng = Rng::new(22);
        let found = (0..1000).filter(|_| {
            let drawn = binomial(n, discordant, &mut rng);
            let for_b = binomial(drawn, 0.5 + 0.5 * difference / discordant, &mut rng);
            mcnemar_exact(drawn - for_b, for_b) < 0.05
        });
        let power = found.count() as f64 / 1000.0;
        assert!((0.74..=0.84).contains(&power), "{power}");
        let back = detectable_difference(n, discordant, 0.8).unwrap();
        assert!((back / difference - 1.0).abs() < 0.01, "{back}");
        assert_eq!(items_needed(0.0, 0.1, 0.8), None);
        assert_eq!(items_needed(0.2, 0.1, 0.8), None);
        assert_eq!(detectable_difference(2, 0.1, 0.8), None);
    }

    #[test]
    fn items_to_show_same_give_the_power_they_name() {
        let (margin, discordant) = (0.02, 0.06);
        let n = items_to_show_same(margin, discordant, 0.8).unwrap();
        let mut rng = Rng::new(23);
        let shown = (0..1000).filter(|_| {
            let drawn = binomial(n, discordant, &mut rng);
            let only_b = binomial(drawn, 0.5, &mut rng);
            let counts = PairCounts { n, only_a: drawn - only_b, only_b };
            score_interval(counts, 0.9).is_some_and(|found| -margin < found.low && found.high < margin)
        });
        let power = shown.count() as f64 / 1000.0;
        assert!((0.76..=0.84).contains(&power), "{power}");
        assert_eq!(items_to_show_same(0.0, 0.1, 0.8), None);
    }

    #[test]
    fn nothing_seen_is_not_nothing_possible() {
        let none = PairCounts { n: 20, only_a: 0, only_b: 0 };
        assert_eq!(difference_interval(&[none], 0.95, 100, 1), Some(Interval::point(0.0)));
        let Interval { low, high } = score_interval(none, 0.9).unwrap();
        let wanted = 2.705_543 / (20.0 + 2.705_543);
        assert!((low + wanted).abs() < 1e-6 && (high - wanted).abs() < 1e-6, "{low} {high}");
        let needed = identical_items_to_show_same(0.01).unwrap();
        assert_eq!(needed, 268);
        let within = |n| score_interval(PairCounts { n, ..none }, 0.9).unwrap().high < 0.01;
        assert!(within(needed) && !within(needed - 1));
        assert_eq!(identical_items_to_show_same(0.0), None);
        let Interval { low, high } = score_interval(PairCounts { n: 5, only_a: 0, only_b: 5 }, 0.95).unwrap();
        assert!((low - 0.131_035).abs() < 1e-6 && high > 1.0 - 1e-9, "{low} {high}");
        assert_eq!(difference_interval(&[], 0.95, 100, 1), None);
        assert_eq!(difference_interval(&[PairCounts { n: 1, only_a: 1, only_b: 0 }], 0.95, 100, 1), None);
        assert_eq!(score_interval(PairCounts::default(), 0.95), None);
    }

    proptest! {
        #[test]
        fn the_interval_holds_the_difference_and_stays_within_possible_ones(
            strata in prop::collection::vec((2u64..60, 0u64..20, 0u64..20), 1..6), seed: u64,
        ) {
            let strata: Vec<PairCounts> = strata
                .into_iter()
                .map(|(n, a, b)| PairCounts { n: n.max(a + b), only_a: a, only_b: b })
                .collect();
            let whole = strata.iter().copied().fold(PairCounts::default(), PairCounts::plus);
            if let Some(Interval { low, high }) = difference_interval(&strata, 0.95, 300, seed) {
                prop_assert!(-1.0 <= low && low <= high && high <= 1.0);
            }
            let Interval { low, high } = score_interval(whole, 0.95).unwrap();
            let seen = whole.difference().unwrap();
            prop_assert!(-1.0 <= low && low <= seen && seen <= high && high <= 1.0 && low < high);
            let wider = score_interval(whole, 0.99).unwrap();
            prop_assert!(wider.contains(low) && wider.contains(high));
        }

        #[test]
        fn holm_never_lowers_and_keeps_the_order(p in prop::collection::vec(0.0f64..=1.0, 0..12)) {
            let adjusted = holm(&p);
            for i in 0..p.len() {
                prop_assert!(adjusted[i] >= p[i] && adjusted[i] <= 1.0);
                for j in 0..p.len() {
                    prop_assert!(p[i] > p[j] || adjusted[i] <= adjusted[j]);
                }
            }
        }
    }
}
