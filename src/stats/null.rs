//! What a comparison of a thing with itself shows: the floor below which a difference means nothing.

use super::describe::{median, quantile_of_sorted};
use super::rng::Rng;

/// The difference that one in `1 / (1 - confidence)` null comparisons exceeds.
///
/// `pairs` are two times of the same thing, run next to each other. Which of the two is called A is arbitrary, so each of
/// `resamples` draws swaps every pair by a coin from the stream of `seed` (the sign-flip permutation of paired samples) and
/// takes `|median A / median B - 1|`; the floor is the `confidence` quantile (type 7) of these. `None` with fewer than six
/// pairs (fewer swaps than a 95 % quantile needs), a time that is not positive and finite, or a confidence outside 0 to 1.
pub fn null_floor(pairs: &[(f64, f64)], confidence: f64, resamples: usize, seed: u64) -> Option<f64> {
    let good = |x: f64| x.is_finite() && x > 0.0;
    let usable = pairs.len() >= 6 && pairs.iter().all(|&(a, b)| good(a) && good(b));
    if !usable || resamples == 0 || !(confidence > 0.0 && confidence < 1.0) {
        return None;
    }
    let mut rng = Rng::new(seed);
    let (mut a, mut b) = (vec![0.0; pairs.len()], vec![0.0; pairs.len()]);
    let mut differences = Vec::with_capacity(resamples);
    for _ in 0..resamples {
        for (i, &(x, y)) in pairs.iter().enumerate() {
            (a[i], b[i]) = if rng.below(2) == 0 { (x, y) } else { (y, x) };
        }
        differences.push((median(&a)? / median(&b)? - 1.0).abs());
    }
    differences.sort_unstable_by(f64::total_cmp);
    Some(quantile_of_sorted(&differences, confidence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_that_of_the_noise() {
        let mut rng = Rng::new(3);
        let mut noisy = |spread: f64| -> Vec<(f64, f64)> {
            (0..40).map(|_| (1.0 + spread * rng.unit_f64(), 1.0 + spread * rng.unit_f64())).collect()
        };
        let (quiet, loud) = (noisy(0.01), noisy(0.2));
        let floor = |pairs: &[(f64, f64)]| null_floor(pairs, 0.95, 2000, 1).unwrap();
        assert!(floor(&quiet) < 0.005 && floor(&loud) > 0.02, "{} {}", floor(&quiet), floor(&loud));
        // Equal times have no noise at all.
        assert_eq!(floor(&[(2.0, 2.0); 6]), 0.0);
    }

    #[test]
    fn a_share_of_comparisons_stays_below_it() {
        // The floor of one half of the pairs, held against fresh comparisons of the same kind.
        let mut rng = Rng::new(9);
        let mut pairs = |n: usize| -> Vec<(f64, f64)> {
            (0..n).map(|_| (1.0 + 0.1 * rng.unit_f64(), 1.0 + 0.1 * rng.unit_f64())).collect()
        };
        let (mut below, trials) = (0, 300);
        for _ in 0..trials {
            let floor = null_floor(&pairs(15), 0.95, 400, 1).unwrap();
            let (a, b): (Vec<f64>, Vec<f64>) = pairs(15).into_iter().unzip();
            below += usize::from((median(&a).unwrap() / median(&b).unwrap() - 1.0).abs() <= floor);
        }
        let share = below as f64 / trials as f64;
        assert!((0.88..=0.99).contains(&share), "{share}");
    }

    #[test]
    fn too_little_is_none() {
        assert_eq!(null_floor(&[(1.0, 1.0); 5], 0.95, 100, 1), None);
        assert_eq!(null_floor(&[(0.0, 1.0); 6], 0.95, 100, 1), None);
        assert_eq!(null_floor(&[(1.0, f64::NAN); 6], 0.95, 100, 1), None);
    }
}
