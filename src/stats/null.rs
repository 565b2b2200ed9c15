//! The null floor: the difference between two runs of the same thing, below which a difference means nothing.

use super::describe::stddev;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Returns the spread between runs of the same thing: the standard deviation of the logarithms of their times, one
/// time per run. `None` with fewer than two times, or with one that is not positive and finite.
pub fn spread_between(times: &[f64]) -> Option<f64> {
    let good = |x: &f64| x.is_finite() && *x > 0.0;
    times.iter().all(good).then(|| stddev(&times.iter().map(|x| x.ln()).collect::<Vec<_>>())).flatten()
}

/// Returns the noise floor: the ratio of two runs, as a share above 1, that equal runs seldom exceed.
///
/// A share 1 − `confidence` of comparisons exceeds it in any of their `phases` phases.
///
/// The difference of two runs' logarithms has √2 times the spread of one. The spread is estimated from `runs` runs,
/// so the quantile is Student's t with `runs` − 1 degrees of freedom. Bonferroni's bound covers all phases. `None`
/// with fewer than two runs or a spread that is not a number.
pub fn null_floor(spread: f64, runs: usize, phases: usize, confidence: f64) -> Option<f64> {
    let usable = runs >= 2 && spread.is_finite() && spread >= 0.0 && confidence > 0.0 && confidence < 1.0;
    let t = StudentsT::new(0.0, 1.0, runs.checked_sub(1)? as f64).ok().filter(|_| usable)?;
    let tail = (1.0 - confidence) / (2.0 * phases.max(1) as f64);
    let floor = (t.inverse_cdf(1.0 - tail) * std::f64::consts::SQRT_2 * spread).exp_m1();
    floor.is_finite().then_some(floor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Rng;
    use crate::stats::random::normal;

    #[test]
    fn the_floor_is_students() {
        // From tables: t at 0.975 with 9 degrees of freedom is 2.262157; for 24 phases, at 1 − 0.05 / 48, it is
        // 4.257.
        let floor = null_floor(0.01, 10, 1, 0.95).unwrap();
        assert!((floor.ln_1p() - 2.262_157 * 0.01 * std::f64::consts::SQRT_2).abs() < 1e-7, "{floor}");
        assert!(null_floor(0.01, 10, 24, 0.95).unwrap() > 1.8 * floor);
        assert_eq!(null_floor(0.0, 10, 24, 0.95), Some(0.0));
        let spread = spread_between(&[1.0, 1.0_f64.exp()]).unwrap();
        assert!((spread - 0.5_f64.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn one_comparison_in_twenty_of_a_thing_with_itself_is_past_it() {
        let mut rng = Rng::new(9);
        let (phases, trials) = (12, 2000);
        let mut past = 0;
        for _ in 0..trials {
            let mut any = false;
            for phase in 0..phases {
                let centre = 1e6 * f64::from(phase + 1);
                let mut run = || centre * (0.04 * normal(&mut rng)).exp();
                let known: Vec<f64> = (0..8).map(|_| run()).collect();
                let floor = null_floor(spread_between(&known).unwrap(), 8, phases as usize, 0.95).unwrap();
                any |= (run() / run()).ln().abs() > floor.ln_1p();
            }
            past += u32::from(any);
        }
        let share = f64::from(past) / f64::from(trials);
        assert!((0.03..=0.06).contains(&share), "{share}");
    }

    #[test]
    fn too_little_is_none() {
        assert_eq!(spread_between(&[1.0]), None);
        assert_eq!(spread_between(&[1.0, 0.0]), None);
        assert_eq!(spread_between(&[1.0, f64::NAN]), None);
        assert_eq!(null_floor(0.1, 1, 1, 0.95), None);
        assert_eq!(null_floor(0.1, 0, 1, 0.95), None);
        assert_eq!(null_floor(f64::NAN, 9, 1, 0.95), None);
        assert_eq!(null_floor(1e6, 3, 1, 0.95), None);
    }
}
