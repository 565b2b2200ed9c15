//! Reading and comparing answers: GSM8K's numbers as ModelTest and lm-evaluation-harness read them, and exact match.

use std::sync::LazyLock;

use regex::Regex;

use crate::Undefined;

fn pattern(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a valid pattern")
}

/// ModelTest's pattern of a number, verbatim. It looks ahead.
static MODELTEST_NUMBER: LazyLock<fancy_regex::Regex> = LazyLock::new(|| {
    fancy_regex::Regex::new(r"([+-])?(?=([0-9]|\.[0-9]))(0|([1-9](\d{0,2}(,\d{3})*)|\d*))?(\.\d*)?(?=\D|$)")
        .expect("a valid pattern")
});

/// Returns the last number of a text by ModelTest's pattern, without `,` and `+`. `None` without a number.
pub fn modeltest_number(text: &str) -> Result<Option<String>, Undefined> {
    let mut last = None;
    for found in MODELTEST_NUMBER.find_iter(text) {
        last = Some(found.map_err(|_| Undefined::Pattern { length: text.chars().count() })?.as_str());
    }
    Ok(last.map(|number| number.replace([',', '+'], "")))
}

/// Whether the last numbers of two texts differ by at most 1e-4, in decimal arithmetic (GSM8K of ModelTest). A text without
/// a number equals nothing.
///
/// The pattern takes digits of other scripts into a number that begins with an ASCII digit. Such a number equals only itself
/// here; Python also knows its value.
pub fn modeltest_numbers_agree(prediction: &str, reference: &str) -> Result<bool, Undefined> {
    let (Some(first), Some(second)) = (modeltest_number(prediction)?, modeltest_number(reference)?) else {
        return Ok(false);
    };
    Ok(first == second
        || (first.is_ascii() && second.is_ascii() && Decimal::of(&first).is_near(&Decimal::of(&second))))
}

/// A decimal number of any length.
struct Decimal {
    is_negative: bool,
    whole: Vec<u8>,
    fraction: Vec<u8>,
}

impl Decimal {
    fn of(text: &str) -> Self {
        let digits = |part: &str| -> Vec<u8> {
            part.chars().filter_map(|c| c.to_digit(10)).map(|d| d as u8).collect()
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        Self { is_negative: text.starts_with('-'), whole: digits(whole), fraction: digits(fraction) }
    }

    /// Returns the digits with as many places before and after the point as asked for, one more before it.
    fn padded(&self, whole: usize, fraction: usize) -> Vec<u8> {
        let mut digits = vec![0; 1 + whole - self.whole.len()];
        digits.extend(&self.whole);
        digits.extend(&self.fraction);
        digits.resize(1 + whole + fraction, 0);
        digits
    }

    /// Whether two numbers differ by at most 0.0001.
    fn is_near(&self, other: &Self) -> bool {
        let whole = self.whole.len().max(other.whole.len());
        let fraction = self.fraction.len().max(other.fraction.len()).max(4);
        let (mut more, mut less) = (self.padded(whole, fraction), other.padded(whole, fraction));
        if more < less {
            std::mem::swap(&mut more, &mut less);
        }
        let mut limit = vec![0; more.len()];
        limit[whole + 4] = 1;
        // The difference of the amounts, or their sum if the signs differ, digit by digit from the right.
        let subtracts = self.is_negative == other.is_negative;
        let mut carry = 0;
        for (more, less) in more.iter_mut().zip(&less).rev() {
            let value = i16::from(*more)
                + if subtracts { -i16::from(*less) - carry } else { i16::from(*less) + carry };
            *more = value.rem_euclid(10) as u8;
            carry = i16::from(!(0..10).contains(&value));
        }
        more <= limit
    }
}

/// lm-evaluation-harness's reading `strict-match` of GSM8K: the first `#### number`. `[invalid]` without one.
pub fn gsm8k_strict(text: &str) -> &str {
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| pattern(r"#### (\-?[0-9\.\,]+)"));
    let number = NUMBER.captures(text).and_then(|found| found.get(1));
    number.map_or(INVALID, |number| number.as_str())
}

/// lm-evaluation-harness's reading `flexible-extract` of GSM8K: the last number. `[invalid]` without one.
pub fn gsm8k_flexible(text: &str) -> &str {
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| pattern(r"(-?[$0-9.,]{2,})|(-?[0-9]+)"));
    NUMBER.find_iter(text).last().map_or(INVALID, |number| number.as_str())
}

/// What lm-evaluation-harness takes for an answer that its filter does not find.
pub const INVALID: &str = "[invalid]";

/// How lm-evaluation-harness's `exact_match` changes both texts before it compares them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExactMatch {
    /// `ignore_case`: lower both.
    pub ignores_case: bool,
    /// `ignore_punctuation`: drop ASCII punctuation.
    pub ignores_punctuation: bool,
    /// `ignore_numbers`: drop ASCII digits.
    pub ignores_numbers: bool,
}

impl ExactMatch {
    /// Returns the text as it is compared. The order is the original's: case, punctuation, numbers.
    pub fn normalise(self, text: &str) -> String {
        let mut text = if self.ignores_case { text.to_lowercase() } else { text.to_owned() };
        if self.ignores_punctuation {
            text.retain(|c| !c.is_ascii_punctuation());
        }
        if self.ignores_numbers {
            text.retain(|c| !c.is_ascii_digit());
        }
        text
    }

    /// Whether both texts are the same after [`normalise`](Self::normalise).
    pub fn agree(self, prediction: &str, reference: &str) -> bool {
        self.normalise(prediction) == self.normalise(reference)
    }
}

/// Returns an answer as GSM8K of lm-evaluation-harness 0.4.13 compares it: without its `regexes_to_ignore`, then lowered. These are
/// `,`, `$`, everything up to the last `#### `, and a full stop at the end.
pub fn gsm8k_normalise(text: &str) -> String {
    without_gsm8k_marks(text).to_lowercase()
}

fn without_gsm8k_marks(text: &str) -> String {
    let text: String = text.chars().filter(|c| !matches!(c, ',' | '$')).collect();
    let text = text.rsplit_once("#### ").map_or(text.as_str(), |(_, rest)| rest);
    // A full stop at the end, or before the line end at the end.
    match text.strip_suffix('.').map(|text| (text, "")).or_else(|| Some((text.strip_suffix(".\n")?, "\n"))) {
        Some((text, end)) => format!("{text}{end}"),
        None => text.to_owned(),
    }
}
