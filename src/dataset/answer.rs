//! Answers: what a data set gives as right, and what a protocol reads from a model's output.

use std::fmt;

/// An answer to a question. Its words ([`fmt::Display`]) stand in records and tables. Two answers to one question are
/// the same exactly if their words are.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// An option of a multiple-choice question, counted from 0. In words: `A`, `B`…
    Choice(usize),
    /// The answer to a yes/no question. In words: `yes`, `no`.
    Boolean(bool),
    /// A text, compared character by character.
    Text(String),
    /// A number.
    Number(Number),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Choice(index) => match letter(*index) {
                Some(letter) => write!(f, "{letter}"),
                None => write!(f, "{}", index + 1),
            },
            Self::Boolean(true) => f.write_str("yes"),
            Self::Boolean(false) => f.write_str("no"),
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// Returns the letter of the option at `index`, or `None` after `Z`.
pub(in crate::dataset) fn letter(index: usize) -> Option<char> {
    let offset = u8::try_from(index).ok().filter(|offset| *offset < 26)?;
    Some(char::from(b'A' + offset))
}

/// A finite number. Equal numbers have equal words: `18` and `18.0` are both `18`, and zero has no sign.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Number(f64);

impl Number {
    /// Returns the number, or `None` for NaN and infinities.
    pub fn new(value: f64) -> Option<Self> {
        // The sum of -0.0 and 0.0 is 0.0.
        value.is_finite().then_some(Self(value + 0.0))
    }

    /// Returns the value.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_words() {
        let number = |value| Answer::Number(Number::new(value).unwrap());
        for (answer, words) in [
            (Answer::Choice(0), "A"),
            (Answer::Choice(25), "Z"),
            (Answer::Choice(26), "27"),
            (Answer::Boolean(true), "yes"),
            (Answer::Boolean(false), "no"),
            (Answer::Text("北京".into()), "北京"),
            (number(18.0), "18"),
            (number(-0.5), "-0.5"),
            (number(1e15), "1000000000000000"),
        ] {
            assert_eq!(answer.to_string(), words);
        }
    }

    #[test]
    fn equal_numbers_have_equal_words_and_only_finite_ones_exist() {
        let zeros = [0.0, -0.0].map(|zero| Number::new(zero).unwrap().to_string());
        assert_eq!(zeros, ["0", "0"]);
        assert_eq!([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(Number::new), [None; 3]);
    }
}
