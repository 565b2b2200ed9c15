//! Distance between two sets of logits, position by position.

/// Comparison of the logits at one position with those of the reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PositionParity {
    /// `KL(reference || other)` in nats, from the full distributions.
    pub kl: f64,
    /// Whether the largest logit is at the same token.
    pub top1_equal: bool,
    /// Jaccard overlap of the five most likely tokens.
    pub top5_overlap: f64,
    /// Largest absolute difference of a logit.
    pub max_abs: f32,
}

impl PositionParity {
    /// Compares two rows of logits of the same length. A NaN or infinite logit gives an infinite KL.
    pub fn new(reference: &[f32], other: &[f32]) -> Self {
        let finite = reference.iter().chain(other).all(|l| l.is_finite());
        let (top_reference, top_other) = (top::<5>(reference), top::<5>(other));
        let common = top_reference.iter().filter(|i| top_other.contains(i)).count() as f64;
        let union = (top_reference.len() + top_other.len()) as f64 - common;
        let max_abs = reference.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        Self {
            kl: if finite { kl_divergence(reference, other) } else { f64::INFINITY },
            top1_equal: top_reference.first() == top_other.first(),
            top5_overlap: if union > 0.0 { common / union } else { 1.0 },
            max_abs,
        }
    }
}

/// The first token at which two greedy continuations of one prompt differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Divergence {
    /// Index of the prompt.
    pub prompt: usize,
    /// Index of the generated token.
    pub step: usize,
    /// The reference's token.
    pub reference_token: u32,
    /// The other's token.
    pub token: u32,
    /// By how many nats the reference prefers its own token, teacher-forced at that position.
    pub margin: f64,
    /// The largest margin that counts as a tie, in nats.
    pub tie: f64,
}

impl Divergence {
    /// Describes a divergence. `reference` and `other` are both sides' logits at that position, teacher-forced over the same
    /// tokens.
    ///
    /// Two logits that each differ by up to `d` can change their order if they are at most `2 d` apart. A tie is therefore at
    /// most twice the largest difference of a logit at that position. A larger margin is not explained by the difference of
    /// the forward passes: generating took another course than reading the same tokens.
    pub fn new(
        prompt: usize,
        step: usize,
        [reference_token, token]: [u32; 2],
        reference: &[f32],
        other: &[f32],
    ) -> Self {
        let logit = |token: u32| f64::from(reference[token as usize]);
        let margin = logit(reference_token) - logit(token);
        let tie = 2.0 * f64::from(PositionParity::new(reference, other).max_abs);
        Self { prompt, step, reference_token, token, margin, tie }
    }

    /// Whether the two tokens are too close to tell apart.
    pub fn is_tie(&self) -> bool {
        self.margin <= self.tie
    }
}

/// Summary of KL values, one of each position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KlSummary {
    /// Positions.
    pub positions: usize,
    /// Mean, nats.
    pub mean: f64,
    /// 99 % quantile (type 7), nats.
    pub p99: f64,
    /// Maximum, nats.
    pub max: f64,
}

impl KlSummary {
    /// Summarises the values, in any order. `None` without any.
    pub fn new(mut kls: Vec<f64>) -> Option<Self> {
        kls.sort_by(f64::total_cmp);
        let max = *kls.last()?;
        Some(Self {
            positions: kls.len(),
            mean: kls.iter().sum::<f64>() / kls.len() as f64,
            p99: super::quantile(&kls, 0.99).unwrap_or(f64::NAN),
            max,
        })
    }
}

/// Summary over positions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParitySummary {
    /// Positions compared.
    pub positions: usize,
    /// Mean KL, nats.
    pub kl_mean: f64,
    /// 99 % quantile of KL (type 7), nats.
    pub kl_p99: f64,
    /// Largest KL, nats.
    pub kl_max: f64,
    /// Share of positions whose KL exceeds the threshold.
    pub share_above: f64,
    /// Share of positions with the same most likely token.
    pub top1_agreement: f64,
    /// Mean Jaccard overlap of the five most likely tokens.
    pub top5_overlap: f64,
    /// Largest absolute difference of a logit.
    pub max_abs: f32,
}

impl ParitySummary {
    /// Summarises the positions. `None` without any. `share_above` counts positions with a KL above `threshold`.
    pub fn new(positions: &[PositionParity], threshold: f64) -> Option<Self> {
        let KlSummary { mean: kl_mean, p99: kl_p99, max: kl_max, .. } =
            KlSummary::new(positions.iter().map(|p| p.kl).collect())?;
        let n = positions.len() as f64;
        Some(Self {
            positions: positions.len(),
            kl_mean,
            kl_p99,
            kl_max,
            share_above: positions.iter().filter(|p| p.kl > threshold).count() as f64 / n,
            top1_agreement: positions.iter().filter(|p| p.top1_equal).count() as f64 / n,
            top5_overlap: positions.iter().map(|p| p.top5_overlap).sum::<f64>() / n,
            max_abs: positions.iter().map(|p| p.max_abs).fold(0.0, f32::max),
        })
    }
}

/// `ln sum(e^l)`, in double precision.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // Subtract in double precision: rounding in fp32 alone would look like a KL of 1e-8.
    let sum: f64 = logits.iter().map(|&l| (f64::from(l) - f64::from(max)).exp()).sum();
    f64::from(max) + sum.ln()
}

/// `KL(reference || other)` in nats of the softmax of two rows of logits. Clamped at 0 against rounding.
pub fn kl_divergence(reference: &[f32], other: &[f32]) -> f64 {
    let (r, o) = (log_sum_exp(reference), log_sum_exp(other));
    let term = |(a, b): (&f32, &f32)| {
        let log_p = f64::from(*a) - r;
        log_p.exp() * (log_p - (f64::from(*b) - o))
    };
    reference.iter().zip(other).map(term).sum::<f64>().max(0.0)
}

/// Indices of the `N` largest values, largest first. Ties go to the lower index.
fn top<const N: usize>(logits: &[f32]) -> Vec<usize> {
    let mut best: Vec<usize> = Vec::with_capacity(N + 1);
    for (i, l) in logits.iter().enumerate() {
        let at = best.iter().position(|&j| *l > logits[j]).unwrap_or(best.len());
        if at < N {
            best.insert(at, i);
            best.truncate(N);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_and_shifted_logits_do_not_differ() {
        let a = [0.5f32, -1.0, 3.0, 2.0, 0.0, 7.0];
        let b = a.map(|l| l + 10.0);
        let p = PositionParity::new(&a, &b);
        assert!(p.kl.abs() < 1e-12 && p.top1_equal && p.top5_overlap == 1.0);
        assert_eq!(p.max_abs, 10.0);
    }

    #[test]
    fn kl_of_two_coins_is_the_textbook_value() {
        let logits = |p: f64| [(p.ln()) as f32, ((1.0 - p).ln()) as f32];
        let expected = 0.5 * (0.5f64 / 0.25).ln() + 0.5 * (0.5f64 / 0.75).ln();
        assert!((kl_divergence(&logits(0.5), &logits(0.25)) - expected).abs() < 1e-6);
    }

    #[test]
    fn a_broken_logit_is_infinitely_far() {
        assert_eq!(PositionParity::new(&[0.0, 1.0], &[f32::NAN, 1.0]).kl, f64::INFINITY);
    }

    #[test]
    fn overlap_counts_common_tokens_of_ten() {
        let a = [9.0f32, 8.0, 7.0, 6.0, 5.0, 0.0, 0.0];
        let b = [9.0f32, 8.0, 7.0, 6.0, 0.0, 5.0, 0.0];
        let p = PositionParity::new(&a, &b);
        assert!((p.top5_overlap - 4.0 / 6.0).abs() < 1e-12);
    }

    #[test]
    fn a_divergence_is_a_tie_if_the_difference_of_the_logits_explains_it() {
        let reference = [1.0, 1.25, 0.0, -3.0];
        let of = |token, other: [f32; 4]| Divergence::new(0, 2, [1, token], &reference, &other);
        // Within twice the largest difference, wherever in the vocabulary that is.
        assert!(of(0, [1.0, 1.25, 0.125, -3.0]).is_tie());
        let near = of(0, [1.0625, 1.25, 0.0, -3.0]);
        assert_eq!((near.margin, near.tie, near.is_tie()), (0.25, 0.125, false));
        assert!(!of(3, [1.0, 1.25, 0.125, -3.0]).is_tie());
        // Equal logits are a tie. A reference is a tie as well if its generated token is not its largest logit.
        assert!(of(1, reference).is_tie());
        assert!(Divergence::new(0, 0, [0, 1], &reference, &reference).is_tie());
    }
}
