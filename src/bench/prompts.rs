//! Prompts for timing: random ordinary tokens, drawn from a seed.

use std::ops::Range;

use crate::stats::Rng;

use super::Shape;

/// The ids that prompts for timing may contain: ordinary text pieces, without special and byte pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrdinaryTokens {
    /// Ids at the start of every prompt (`[gMASK] sop`).
    pub prefix: Vec<u32>,
    /// The ids to draw from.
    pub range: Range<u32>,
}

impl OrdinaryTokens {
    /// Returns the tokens for a model without a tokenizer: the ids after the control and byte pieces of a SentencePiece
    /// vocabulary. A small vocabulary is used from its fourth id on.
    pub fn of_vocabulary(vocab: usize) -> Self {
        let vocab = vocab as u32;
        let first = if vocab > 2 * 259 { 259 } else { vocab.min(4) - 1 };
        Self { prefix: Vec::new(), range: first..vocab }
    }
}

/// Returns the prompts of a case, one per sequence, all different. Equal seed and shape give equal prompts.
pub fn prompts(shape: Shape, tokens: &OrdinaryTokens, seed: u64) -> Vec<Vec<u32>> {
    let count = u64::from(tokens.range.end - tokens.range.start);
    (0..shape.batch as u64)
        .map(|sequence| {
            let mut rng = Rng::new(seed ^ sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let mut prompt: Vec<u32> = tokens.prefix.iter().copied().take(shape.input_tokens).collect();
            while prompt.len() < shape.input_tokens {
                prompt.push(tokens.range.start + rng.below(count) as u32);
            }
            prompt
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_have_the_shape_and_only_ordinary_tokens() {
        let tokens = OrdinaryTokens { prefix: vec![7, 8], range: 10..20 };
        let shape = Shape { batch: 3, input_tokens: 50, output_tokens: 1 };
        let made = prompts(shape, &tokens, 1);
        assert_eq!(made.len(), 3);
        assert!(
            made.iter()
                .all(|p| p.len() == 50 && p[..2] == [7, 8] && p[2..].iter().all(|t| (10..20).contains(t)))
        );
        assert_ne!(made[0], made[1]);
        assert_eq!(made, prompts(shape, &tokens, 1));
        assert_ne!(made, prompts(shape, &tokens, 2));
        let one = Shape { input_tokens: 1, ..shape };
        assert!(prompts(one, &tokens, 1).iter().all(|p| p == &[7]));
    }

    #[test]
    fn every_vocabulary_has_ordinary_tokens() {
        for vocab in [1, 2, 96, 600, 65024] {
            let tokens = OrdinaryTokens::of_vocabulary(vocab);
            assert!(!tokens.range.is_empty() && tokens.range.end as usize == vocab, "{vocab}");
        }
    }
}
