//! The parts of Python's text handling that differ from Rust's, so that metrics agree with their Python originals. Python's
//! `string.punctuation` is what Rust calls ASCII punctuation.

use std::sync::LazyLock;

use regex::Regex;

/// Returns what Python's `str.isspace` and its pattern `\s` accept: Unicode's white space and four control characters.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Splits at white space as Python's `str.split()` does.
pub(crate) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// A run of word characters of Python's patterns. Rust's `\w` has combining marks as well, Python's has not.
pub(crate) static WORD: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"[\p{L}\p{N}_]+").expect("a valid pattern"));

/// Decimal digits of any script, as `\d` in Python and in Rust.
pub(crate) static NUMBER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\d+").expect("a valid pattern"));

/// Rounds half to even, as Python's `round`.
pub(crate) fn round(value: f64) -> f64 {
    value.round_ties_even()
}
