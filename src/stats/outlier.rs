//! Outlier flags. Outliers are shown to the reader, never dropped.

use super::describe::{mean, median, quantile};

/// Position of a sample relative to Tukey's fences (quartiles ∓ 1.5 and 3 interquartile ranges).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// Within the inner fences.
    Inside,
    /// Between the inner and the outer fence.
    Mild,
    /// Beyond the outer fence.
    Severe,
}

/// The two outlier flags of one sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outlier {
    /// Position relative to Tukey's fences.
    pub fence: Fence,
    /// Iglewicz and Hoaglin's modified z-score (1993): 0.6745 (x − median) / MAD. Uses the mean absolute deviation if
    /// the MAD is 0. `None` if all samples are equal.
    pub modified_z: Option<f64>,
}

impl Outlier {
    /// Whether the sample is beyond a fence, or its modified z-score is past ±3.5, the bound its authors advise.
    pub fn stands_apart(&self) -> bool {
        self.fence != Fence::Inside || self.modified_z.is_some_and(|z| z.abs() > 3.5)
    }
}

/// Returns the flags of every sample, in order. `None` without samples or with a non-finite one.
pub fn outliers(samples: &[f64]) -> Option<Vec<Outlier>> {
    let centre = median(samples)?;
    let (first, third) = (quantile(samples, 0.25)?, quantile(samples, 0.75)?);
    let range = third - first;
    let deviations: Vec<f64> = samples.iter().map(|x| (x - centre).abs()).collect();
    // Both factors scale the deviation to a standard deviation for normal samples: 1/1.4826 and 1/1.2533.
    let scale = match (median(&deviations)?, mean(&deviations)?) {
        (mad, _) if mad > 0.0 => Some(mad / 0.6745),
        (_, mean) if mean > 0.0 => Some(mean * 1.253_314),
        _ => None,
    };
    let flag = |&x: &f64| {
        let beyond = (first - x).max(x - third);
        let fence = if beyond > 3.0 * range {
            Fence::Severe
        } else if beyond > 1.5 * range {
            Fence::Mild
        } else {
            Fence::Inside
        };
        Outlier { fence, modified_z: scale.map(|s| (x - centre) / s) }
    };
    Some(samples.iter().map(flag).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_first_repetition_is_flagged_and_the_rest_is_not() {
        let flags = outliers(&[190.0, 100.0, 101.0, 99.0, 100.5, 99.5, 107.0]).unwrap();
        assert_eq!(flags[0].fence, Fence::Severe);
        assert!(flags[0].modified_z.unwrap() > 3.5);
        assert!(flags[1..6].iter().all(|f| !f.stands_apart()));
        // Quartiles 99.75 and 104.0: the inner fence is at 110.4. The MAD of 1.0 is stricter.
        assert_eq!(flags[6].fence, Fence::Inside);
        assert!((flags[6].modified_z.unwrap() - 0.6745 * 6.5).abs() < 1e-12);
    }

    #[test]
    fn equal_samples_have_no_outlier_and_no_score() {
        let flags = outliers(&[5.0; 4]).unwrap();
        assert!(flags.iter().all(|f| f.fence == Fence::Inside && f.modified_z.is_none()));
        assert_eq!(outliers(&[]), None);
    }

    #[test]
    fn a_mad_of_zero_falls_back_to_the_mean_deviation() {
        let flags = outliers(&[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 9.0]).unwrap();
        assert!((flags[6].modified_z.unwrap() - 8.0 / (8.0 / 7.0 * 1.253_314)).abs() < 1e-12);
        assert_eq!(flags[6].fence, Fence::Severe);
    }
}
