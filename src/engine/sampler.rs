//! Choosing the next token.

/// How the next token is chosen from the logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampling {
    /// The largest logit; the lowest id among equals.
    Greedy,
}
