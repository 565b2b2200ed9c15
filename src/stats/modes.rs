//! Detects bimodal samples, which a single median does not describe.

use super::describe::sorted;

/// Fewest samples for a result.
const LEAST_SAMPLES: usize = 12;
/// A cluster with a smaller share of the samples is outliers, not a mode.
const LEAST_SHARE: f64 = 0.2;
/// Least distance of the cluster means, as Ashman's D. A normal sample cut in the middle gives about 3, a uniform one
/// 3.7. A few in a hundred sets of a dozen samples exceed 6 by chance.
const LEAST_DISTANCE: f64 = 6.0;
/// Clusters closer than this share of the lower mean change no conclusion.
const LEAST_GAP: f64 = 0.01;

/// The two clusters of a bimodal sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TwoModes {
    /// Mean of the lower cluster.
    pub low: f64,
    /// Mean of the upper cluster.
    pub high: f64,
    /// Share of the samples in the upper cluster.
    pub high_share: f64,
}

/// Returns the two clusters if the samples are bimodal.
///
/// The samples are cut where the within-cluster variance is least (N. Otsu, 1979). They count as bimodal under three
/// conditions:
///
/// - each cluster has at least a fifth of the samples;
/// - the means are more than 1 % apart;
/// - Ashman's D (K. M. Ashman, C. M. Bird and S. E. Zepf, Astron. J. 108, 1994) exceeds 6.
///
/// A hint for the reader, not a test: `None` also means fewer than 12 samples.
pub fn two_modes(samples: &[f64]) -> Option<TwoModes> {
    let samples = sorted(samples).filter(|s| s.len() >= LEAST_SAMPLES)?;
    let n = samples.len();
    let least = ((LEAST_SHARE * n as f64).ceil() as usize).max(2);
    let sums = Sums::of(&samples);
    let cuts = (least..=n - least).map(|cut| (sums.heap(0, cut), sums.heap(cut, n)));
    let inner = |(low, high): &(Heap, Heap)| low.squares + high.squares;
    let (low, high) = cuts.min_by(|x, y| inner(x).total_cmp(&inner(y)))?;
    let spread = (low.variance() + high.variance()).sqrt();
    let apart = high.mean - low.mean;
    let distinct = std::f64::consts::SQRT_2 * apart > LEAST_DISTANCE * spread;
    (distinct && apart > LEAST_GAP * low.mean.abs()).then_some(TwoModes {
        low: low.mean,
        high: high.mean,
        high_share: high.n / n as f64,
    })
}

/// Count, mean and sum of squared deviations.
struct Heap {
    n: f64,
    mean: f64,
    squares: f64,
}

/// Prefix sums, so that each cut takes constant time.
struct Sums {
    /// Subtracted from every sample to avoid cancellation in the squares. The middle sample.
    centre: f64,
    /// Prefix sums of the centred samples.
    first: Vec<f64>,
    /// Prefix sums of their squares.
    squared: Vec<f64>,
}

impl Sums {
    fn of(samples: &[f64]) -> Self {
        let centre = samples[samples.len() / 2];
        let running = |of: fn(f64) -> f64| {
            let mut sum = 0.0;
            let sums = samples.iter().map(|x| {
                sum += of(x - centre);
                sum
            });
            std::iter::once(0.0).chain(sums.collect::<Vec<_>>()).collect()
        };
        Self { centre, first: running(|x| x), squared: running(|x| x * x) }
    }

    fn heap(&self, from: usize, to: usize) -> Heap {
        let n = (to - from) as f64;
        let (sum, squared) = (self.first[to] - self.first[from], self.squared[to] - self.squared[from]);
        Heap { n, mean: self.centre + sum / n, squares: (squared - sum * sum / n).max(0.0) }
    }
}

impl Heap {
    fn variance(&self) -> f64 {
        self.squares / (self.n - 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Rng;
    use crate::stats::random::normal;

    #[test]
    fn two_speeds_are_seen_and_their_shares_told() {
        let mut rng = Rng::new(40);
        let samples: Vec<f64> =
            (0..30).map(|i| if i % 3 == 0 { 115.0 } else { 100.0 } + normal(&mut rng)).collect();
        let found = two_modes(&samples).unwrap();
        assert!((found.low - 100.0).abs() < 1.0 && (found.high - 115.0).abs() < 1.5, "{found:?}");
        assert!((found.high_share - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn one_heap_is_rarely_called_two() {
        let mut rng = Rng::new(41);
        for n in [12, 20, 50] {
            let mut called = [0; 3];
            for _ in 0..1000 {
                let bell: Vec<f64> = (0..n).map(|_| 100.0 + 5.0 * normal(&mut rng)).collect();
                let even: Vec<f64> = (0..n).map(|_| 100.0 + 10.0 * rng.unit_f64()).collect();
                let tailed: Vec<f64> = (0..n).map(|_| 100.0 * (0.1 * normal(&mut rng).abs()).exp()).collect();
                for (count, samples) in called.iter_mut().zip([bell, even, tailed]) {
                    *count += u32::from(two_modes(&samples).is_some());
                }
            }
            assert!(called.iter().all(|c| *c < 60), "{n} samples: {called:?}");
        }
    }

    #[test]
    fn few_equal_or_broken_samples_have_no_modes() {
        assert_eq!(two_modes(&[1.0, 1.0, 2.0, 2.0]), None);
        assert_eq!(two_modes(&[1.0; 30]), None);
        assert_eq!(two_modes(&[f64::NAN; 30]), None);
        // One stray repetition is an outlier.
        let mut samples = vec![1.0; 30];
        samples[3] = 9.0;
        assert_eq!(two_modes(&samples), None);
        // Two clusters with no spread are still two.
        assert!(two_modes(&[[1.0; 10], [2.0; 10]].concat()).is_some());
    }
}
