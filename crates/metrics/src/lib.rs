//! Metrics of accuracy tasks: pure functions from texts and numbers to scores.
//!
//! Each function names its formula and the Python original that it equals. `scripts/metrics_fixtures.py` runs the originals;
//! `tests/fixtures.rs` compares, to 1e-12. Where an original is at fault on purpose or by accident, the function does the
//! same and says so. Scores are between 0 and 1 unless stated otherwise.
//!
//! Texts are untrusted. Time and memory are bounded: what would compare too many pairs of words or characters has no value
//! ([`Undefined`]). Nothing panics.
//!
//! The crate holds two vocabularies of others: jieba's dictionary (MIT, 2.2 MB compressed, with the tables of its model) and
//! cl100k_base (MIT, 1.7 MB).
#![forbid(unsafe_code)]

mod answers;
mod bleu;
mod difflib;
mod lcs;
pub mod longbench;
mod needle;
mod perplexity;
mod python;
pub mod rouge;
mod sampling;
mod segment;
mod tokens;
pub mod truthfulqa;

pub use answers::{
    ExactMatch, INVALID, gsm8k_flexible, gsm8k_normalise, gsm8k_strict, modeltest_number,
    modeltest_numbers_agree,
};
pub use bleu::{Bleu, BleuTokenizer, bleu};
pub use needle::needle_score;
pub use perplexity::{Perplexity, count_words};
pub use sampling::pass_at_k;
pub use segment::segment;
pub use tokens::{cl100k, cl100k_text};

/// Why a metric has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undefined {
    /// A comparison that takes time or memory with the product of the lengths.
    #[error(
        "texts of {first} and {second} parts are too long to compare: expected at most {limit} pairs in all; shorten the answer or the reference"
    )]
    TooLong {
        /// Length of one text in words or characters.
        first: usize,
        /// Length of the other.
        second: usize,
        /// Pairs that may be compared.
        limit: u64,
    },
    /// A pattern that looks ahead gave up.
    #[error(
        "a text of {length} characters has too long a run of digits or white space for its pattern; shorten the text"
    )]
    Pattern {
        /// Length of the text in characters.
        length: usize,
    },
    /// A reference of a retrieval task without its paragraph.
    #[error(
        "the reference `{reference}` names no paragraph: expected `{word}` with a number; correct the data set"
    )]
    NoParagraph {
        /// What stands before the number.
        word: &'static str,
        /// The reference, at most 60 characters of it.
        reference: String,
    },
}

/// Returns the best score over the references, NaN without references.
pub fn best(references: &[&str], score: impl Fn(&str) -> Result<f64, Undefined>) -> Result<f64, Undefined> {
    references.iter().try_fold(f64::NAN, |best, reference| Ok(best.max(score(reference)?)))
}
