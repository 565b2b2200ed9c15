//! Log-probabilities of one position, from a softmax over the whole vocabulary.

use super::sampler::log_sum_exp;

/// Natural-log probabilities at one position, in double precision.
///
/// Every value is `logit - ln sum(e^logit)`, computed the same way. A token therefore has the same bits as the chosen
/// one, among the likeliest and among the named.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// Of the token at this position.
    pub token: f64,
    /// Number of tokens that are at least as likely and come first: 1 for the likeliest.
    pub rank: usize,
    /// The likeliest tokens, most likely first, the lower id first among equal ones.
    pub top: Vec<(u32, f64)>,
    /// Of the ids that were named, in their order.
    pub named: Vec<f64>,
}

impl TokenLogprobs {
    /// Returns the log-probabilities of `token`, of the `top` likeliest tokens and of the ids in `named`.
    pub fn of(logits: &[f32], token: u32, top: usize, named: &[u32]) -> Self {
        let total = log_sum_exp(logits);
        let logprob = |id: u32| f64::from(logits[id as usize]) - total;
        let before = |other: usize, id: usize| {
            logits[other] > logits[id] || (logits[other] == logits[id] && other < id)
        };
        Self {
            token: logprob(token),
            rank: 1 + (0..logits.len()).filter(|&other| before(other, token as usize)).count(),
            top: likeliest(logits, top).into_iter().map(|id| (id, logprob(id))).collect(),
            named: named.iter().map(|&id| logprob(id)).collect(),
        }
    }
}

/// Returns the ids of the `count` largest logits, largest first, the lower id first among equal ones.
fn likeliest(logits: &[f32], count: usize) -> Vec<u32> {
    let mut best: Vec<u32> = Vec::with_capacity(count + 1);
    if count == 0 {
        return best;
    }
    for (id, logit) in (0u32..).zip(logits) {
        if best.len() == count && *logit <= logits[best[count - 1] as usize] {
            continue;
        }
        let place = best.partition_point(|&other| logits[other as usize] >= *logit);
        best.insert(place, id);
        best.truncate(count);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_are_in_order_and_carry_the_same_bits() {
        let logits = [0.5f32, 2.0, 2.0, -1.0, 1.0];
        let logprobs = TokenLogprobs::of(&logits, 2, 3, &[3, 1]);
        assert_eq!(logprobs.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!((logprobs.rank, logprobs.token), (2, logprobs.top[1].1));
        assert_eq!(logprobs.named[1], logprobs.top[0].1);
        let all = TokenLogprobs::of(&logits, 0, 9, &[]);
        assert_eq!(all.top.len(), 5);
        assert!((all.top.iter().map(|(_, p)| p.exp()).sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
