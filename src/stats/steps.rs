//! Steps in a series: places where its level changed, found by rank sums and binary segmentation.
//!
//! The best place to split a series has the rank sum farthest from its mean, in standard deviations. It is a step if the
//! p-value of the [rank-sum test](super::rank_sum) there, times the number of places tried (Bonferroni), is below
//! [`STEP_ALPHA`]. The step is then placed where the values are closest to the medians of its two sides. Both parts are then
//! searched in the same way (A. J. Scott and M. Knott, Biometrics 30, 1974). At the end, each step is sought again between its
//! neighbours and dropped if it no longer holds.
//!
//! Ranks make no assumption on the distribution of the noise, and an outlier moves no level. The assumption is that values of
//! one level are exchangeable: a slow drift comes out as one or more steps.

use super::describe::median;
use super::rank_sum::Ranked;

/// Probability that a series without a step shows one, at most.
pub const STEP_ALPHA: f64 = 0.01;
/// How far the place of the greatest rank sum may be from the step.
const NEAR: usize = 10;
/// Fewest values on each side of a step.
pub const STEP_LEAST: usize = 5;

/// A step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Index of the first value after it.
    pub at: usize,
    /// p-value, times the number of places tried.
    pub p: f64,
}

/// Returns the steps of a series, in order. None if a value is not finite.
///
/// A series of fewer than twice [`STEP_LEAST`] values has none.
pub fn steps(values: &[f64]) -> Vec<Step> {
    if values.iter().any(|x| !x.is_finite()) {
        return Vec::new();
    }
    let mut found = Vec::new();
    // Begin and end of each part.
    let mut parts = vec![(0, values.len())];
    while let Some((begin, end)) = parts.pop() {
        if let Some(step) = best(values, begin, end) {
            parts.extend([(begin, step.at), (step.at, end)]);
            found.push(step);
        }
    }
    found.sort_by_key(|step| step.at);
    settled(values, found)
}

/// Seeks each step again between its neighbours, one after the other, until none moves or goes.
fn settled(values: &[f64], mut steps: Vec<Step>) -> Vec<Step> {
    // Two places may be equally good in turn. Then the last one stays.
    for _ in 0..16 {
        let before = steps.clone();
        let mut place = 0;
        while place < steps.len() {
            let start = place.checked_sub(1).map_or(0, |before| steps[before].at);
            let end = steps.get(place + 1).map_or(values.len(), |after| after.at);
            match best(values, start, end) {
                Some(step) => {
                    steps[place] = step;
                    place += 1;
                }
                // Without it, its neighbours have more values to rest on.
                None => drop(steps.remove(place)),
            }
        }
        if steps == before {
            break;
        }
    }
    steps
}

/// Returns the step between `start` and `end`, if there is one.
fn best(values: &[f64], start: usize, end: usize) -> Option<Step> {
    let part = &values[start..end];
    let places = (part.len() + 1).checked_sub(2 * STEP_LEAST).filter(|places| *places > 0)?;
    let ranked = Ranked::of(part)?;
    let distances = ranked.distances();
    let tried = STEP_LEAST..=part.len() - STEP_LEAST;
    // Of equally good places the first, so that the result does not depend on rounding.
    let size = tried.fold(None, |best: Option<usize>, size| match best {
        Some(best) if distances[size].abs() <= distances[best].abs() * (1.0 + 1e-12) => Some(best),
        _ => Some(size),
    })?;
    let p = ranked.p(size) * places as f64;
    (p < STEP_ALPHA).then(|| Step { at: start + placed(part, size), p })
}

/// Returns the place near `size` where the distances of the values from the medians of the two sides are least. Ranks tell that
/// there is a step, but not how far apart two neighbours in rank are. Their best place is therefore often one off.
fn placed(part: &[f64], size: usize) -> usize {
    let distance = |side: &[f64]| {
        let centre = median(side).unwrap_or_default();
        side.iter().map(|x| (x - centre).abs()).sum::<f64>()
    };
    let both = |size: usize| distance(&part[..size]) + distance(&part[size..]);
    let near = size.saturating_sub(NEAR).max(STEP_LEAST)..=(size + NEAR).min(part.len() - STEP_LEAST);
    let closest = |best: (usize, f64), size: usize| {
        let distance = both(size);
        if distance < best.1 { (size, distance) } else { best }
    };
    near.fold((size, both(size)), closest).0
}

/// The level of a series between two steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Index of the first value.
    pub start: usize,
    /// Index after the last value.
    pub end: usize,
    /// Median of the values.
    pub median: f64,
}

/// Returns the level of each part between steps.
pub fn levels(values: &[f64], steps: &[Step]) -> Vec<Level> {
    let starts = std::iter::once(0).chain(steps.iter().map(|step| step.at));
    let ends = steps.iter().map(|step| step.at).chain([values.len()]);
    let level =
        |(start, end): (usize, usize)| Some(Level { start, end, median: median(&values[start..end])? });
    starts.zip(ends).filter_map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Rng;
    use crate::stats::random::normal;
    use proptest::prelude::*;

    /// Noise of several kinds: even, with outliers, coarse, skewed.
    fn noise(kind: u64, rng: &mut Rng) -> f64 {
        match kind {
            1 if rng.unit_f64() < 0.05 => 30.0 * normal(rng),
            0 | 1 => normal(rng),
            2 => rng.below(3) as f64,
            _ => normal(rng).exp(),
        }
    }

    #[test]
    fn a_series_without_a_step_shows_one_in_a_hundred_times_at_most() {
        let mut rng = Rng::new(21);
        for kind in 0..4 {
            for length in [10, 24, 40, 41, 120, 400] {
                let trials = 1200;
                let shown = (0..trials)
                    .filter(|_| {
                        let values: Vec<f64> = (0..length).map(|_| noise(kind, &mut rng)).collect();
                        !steps(&values).is_empty()
                    })
                    .count();
                // Three standard errors above 1 %.
                assert!(shown <= 12 + 11, "kind {kind}, {length} values: {shown} of {trials}");
            }
        }
    }

    #[test]
    fn a_planted_step_is_found_at_its_place() {
        let mut rng = Rng::new(4);
        for (length, at, shift) in
            [(12, 6, 6.0), (30, 8, 4.0), (60, 40, 3.0), (300, 12, 4.0), (300, 295, 6.0)]
        {
            let trials = 200;
            let mut near = 0;
            for _ in 0..trials {
                let value = |i| normal(&mut rng) + if i < at { 0.0 } else { shift };
                let values: Vec<f64> = (0..length).map(value).collect();
                let found = steps(&values);
                near += usize::from(found.iter().any(|step| step.at.abs_diff(at) <= 1));
            }
            assert!(near * 100 >= 95 * trials, "{length} values, step at {at}: {near} of {trials}");
        }
    }

    #[test]
    fn several_steps_are_found_and_a_lone_outlier_is_none() {
        let level = |i: usize| [100.0, 90.0, 95.0, 120.0][i / 15];
        let mut rng = Rng::new(6);
        let mut values: Vec<f64> = (0..60).map(|i| level(i) + 0.5 * normal(&mut rng)).collect();
        values[20] = 400.0;
        let places: Vec<usize> = steps(&values).iter().map(|step| step.at).collect();
        assert_eq!(places, [15, 30, 45]);
        let medians: Vec<f64> =
            levels(&values, &steps(&values)).iter().map(|level| level.median.round()).collect();
        assert_eq!(medians, [100.0, 90.0, 95.0, 120.0]);
    }

    #[test]
    fn too_few_values_have_no_step() {
        let nine = [1.0, 1.1, 1.2, 1.0, 9.0, 9.1, 9.2, 9.0, 9.1];
        assert_eq!(steps(&nine), []);
        let ten = [1.0, 1.1, 1.2, 1.0, 1.1, 9.0, 9.1, 9.2, 9.0, 9.1];
        assert_eq!(steps(&ten).iter().map(|step| step.at).collect::<Vec<_>>(), [5]);
        assert_eq!(steps(&[f64::NAN; 20]), []);
        assert_eq!(steps(&[3.0; 200]), []);
        assert_eq!(levels(&[], &[]), []);
    }

    proptest! {
        #[test]
        fn every_side_has_enough_values_and_a_larger_unit_changes_nothing(
            values in prop::collection::vec(0u8..9, 0..90), scale in 1u8..50,
        ) {
            let of = |scale: f64| -> Vec<f64> { values.iter().map(|x| f64::from(*x) * scale).collect() };
            let found = steps(&of(1.0));
            let mut edges = vec![0];
            edges.extend(found.iter().map(|step| step.at));
            edges.push(values.len());
            prop_assert!(found.is_empty() || edges.windows(2).all(|w| w[1] - w[0] >= STEP_LEAST));
            prop_assert_eq!(found, steps(&of(f64::from(scale))));
        }
    }
}
