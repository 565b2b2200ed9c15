//! Whether one set of samples tends to be larger than another, by ranks alone.

use statrs::distribution::{ContinuousCDF, Normal};

/// Samples on either side up to which the exact distribution is counted out.
const EXACT_UP_TO: usize = 25;

/// Two-sided probability of the Mann–Whitney test: that two sets of samples of the same distribution interleave as
/// unevenly as these.
///
/// H. B. Mann and D. R. Whitney, Ann. Math. Statist. 18 (1947). Counted out exactly with at most 25 samples a side and
/// no ties; otherwise normal, corrected for ties and for continuity. `None` without samples on either side or with one
/// that is not finite; 1 where all samples are equal.
pub fn mann_whitney(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.is_empty() || b.is_empty() || a.iter().chain(b).any(|x| !x.is_finite()) {
        return None;
    }
    let ranking = Ranking::of(a, b);
    let small = a.len() <= EXACT_UP_TO && b.len() <= EXACT_UP_TO;
    Some(if small && ranking.tie_term == 0.0 {
        exact(ranking.u, a.len(), b.len())
    } else {
        approximate(&ranking, a.len() as f64, b.len() as f64)
    })
}

/// What the ranks say.
struct Ranking {
    /// Pairs in which the first set's sample is the larger, ties counting half.
    u: f64,
    /// Σ(t³ − t) over groups of t equal samples.
    tie_term: f64,
}

impl Ranking {
    fn of(a: &[f64], b: &[f64]) -> Self {
        let mut all: Vec<(f64, bool)> =
            a.iter().map(|&x| (x, true)).chain(b.iter().map(|&x| (x, false))).collect();
        all.sort_by(|x, y| x.0.total_cmp(&y.0));
        let (mut below, mut u, mut tie_term) = (0.0, 0.0, 0.0);
        // Not `==` of neighbours' bits: 0.0 and −0.0 are equal samples.
        for group in all.chunk_by(|x, y| x.0 == y.0) {
            let of_a = group.iter().filter(|(_, is_a)| *is_a).count() as f64;
            let of_b = group.len() as f64 - of_a;
            u += of_a * (below + 0.5 * of_b);
            below += of_b;
            let t = group.len() as f64;
            tie_term += t * t * t - t;
        }
        Self { u, tie_term }
    }
}

/// Counts the orders of `m` and `n` samples by their U: adding one sample of the first set at a time.
fn exact(u: f64, m: usize, n: usize) -> f64 {
    let most = m * n;
    let least = (u.min(most as f64 - u)) as usize;
    // ways[u] over growing m: the coefficients of the Gaussian binomial, made as a product of (1 − q^{n+i}) / (1 − q^i).
    let mut ways = vec![0.0_f64; most + 1];
    ways[0] = 1.0;
    for i in 1..=m {
        for u in (n + i..=most).rev() {
            ways[u] -= ways[u - n - i];
        }
        for u in i..=most {
            ways[u] += ways[u - i];
        }
    }
    let total: f64 = ways.iter().sum();
    (2.0 * ways[..=least].iter().sum::<f64>() / total).min(1.0)
}

fn approximate(ranking: &Ranking, m: f64, n: f64) -> f64 {
    let all = m + n;
    let variance = m * n / 12.0 * ((all + 1.0) - ranking.tie_term / (all * (all - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    let distance = ((ranking.u - m * n / 2.0).abs() - 0.5).max(0.0);
    (2.0 * Normal::standard().sf(distance / variance.sqrt())).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixtures::{assert_close, f64s, fixtures};
    use proptest::prelude::*;

    #[test]
    fn agrees_with_scipy_exactly_and_approximately() {
        for case in fixtures()["mann_whitney"].as_array().unwrap() {
            let (a, b) = (f64s(&case["a"]), f64s(&case["b"]));
            assert_close(mann_whitney(&a, &b), &case["p"], 1e-9);
        }
    }

    #[test]
    fn no_samples_no_answer_and_equal_samples_no_difference() {
        assert_eq!(mann_whitney(&[], &[1.0]), None);
        assert_eq!(mann_whitney(&[f64::NAN], &[1.0]), None);
        assert_eq!(mann_whitney(&[3.0; 8], &[3.0; 5]), Some(1.0));
        assert_eq!(mann_whitney(&[1.0], &[2.0]), Some(1.0));
    }

    proptest! {
        #[test]
        fn the_sides_may_change_places(
            a in prop::collection::vec(0.0f64..100.0, 1..40), b in prop::collection::vec(0.0f64..100.0, 1..40),
        ) {
            let (there, back) = (mann_whitney(&a, &b).unwrap(), mann_whitney(&b, &a).unwrap());
            prop_assert!((there - back).abs() < 1e-9 && (0.0..=1.0).contains(&there));
        }
    }
}
