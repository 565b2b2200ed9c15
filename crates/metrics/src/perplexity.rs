//! Perplexity by word, byte and token.

use std::f64::consts::LN_2;

/// Sums of log-likelihoods, and what they are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Perplexity {
    log_likelihood: f64,
    units: u64,
}

impl Perplexity {
    /// Adds a text's log-likelihood (natural logarithm) and its length in the unit: words, bytes or tokens.
    pub fn add(&mut self, log_likelihood: f64, units: u64) {
        self.log_likelihood += log_likelihood;
        self.units += units;
    }

    /// exp(−Σ log-likelihood / Σ units). `None` without a unit. lm-evaluation-harness: `word_perplexity`, `byte_perplexity`;
    /// llama.cpp: by token.
    pub fn value(self) -> Option<f64> {
        self.mean().map(|mean| (-mean).exp())
    }

    /// −Σ log-likelihood / (Σ units · ln 2). With bytes as unit, lm-evaluation-harness's `bits_per_byte`.
    pub fn bits_per_unit(self) -> Option<f64> {
        self.mean().map(|mean| -mean / LN_2)
    }

    fn mean(self) -> Option<f64> {
        (self.units > 0).then(|| self.log_likelihood / self.units as f64)
    }
}

/// Counts words as lm-evaluation-harness does for WikiText: the parts of `re.split(r"\s+", text)`. White space at an end
/// makes one empty part more, which counts.
pub fn count_words(text: &str) -> u64 {
    let mut parts = 1;
    let mut was_space = false;
    for c in text.chars() {
        let is_space = crate::python::is_space(c);
        parts += u64::from(is_space && !was_space);
        was_space = is_space;
    }
    parts
}
