//! Formats numbers for tables, charts and sentences. Files keep the exact values.

use crate::language::{Text, text};
use crate::stats::Interval;

/// Shown where there is no value.
pub(crate) const NONE: &str = "–";

/// Formats `value` with `digits` significant digits, never in scientific notation. Integers keep all their digits.
pub(crate) fn significant(value: f64, digits: i32) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let magnitude = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    let decimals = (digits - 1 - magnitude).clamp(0, 9) as usize;
    format!("{value:.decimals$}")
}

/// Decimals for a column of numbers, so that their points align: three significant digits for the smallest, but no
/// more than six for the largest.
pub(crate) fn decimals(values: impl IntoIterator<Item = f64>) -> usize {
    let size = |x: f64| x.abs().log10().floor() as i32;
    let sizes: Vec<i32> = values.into_iter().filter(|x| x.is_finite() && *x != 0.0).map(size).collect();
    let least = sizes.iter().min().copied().unwrap_or(0);
    let most = sizes.iter().max().copied().unwrap_or(0);
    (2 - least).min(5 - most).clamp(0, 9) as usize
}

/// Most digits of a figure, before and after the point.
const MOST_DIGITS: i32 = 7;

/// Formats `value` with `decimals` decimals, or a dash. A large number has fewer, such as the perplexity of a model that predicts
/// nothing: `4271953` instead of `4271953.182`.
pub(crate) fn fixed(value: Option<f64>, decimals: usize) -> String {
    let Some(value) = value.filter(|x| x.is_finite()) else { return NONE.to_owned() };
    let whole_digits = value.abs().max(1.0).log10().floor() as i32 + 1;
    let decimals = decimals.min((MOST_DIGITS - whole_digits).max(0) as usize);
    format!("{value:.decimals$}")
}

/// A share as a percentage with one decimal, without the percent sign: `53.6`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// A KL in nat: two digits and a power of ten, such as `2.7e-3`, or `0`.
pub(crate) fn nats(kl: f64) -> String {
    if kl == 0.0 { "0".to_owned() } else { format!("{kl:.1e}") }
}

/// `show(value)`, or a dash.
pub(crate) fn or_none<T, W: From<&'static str>>(value: Option<T>, show: impl FnOnce(T) -> W) -> W {
    value.map_or_else(|| W::from(NONE), show)
}

/// `[low, high]` with both ends formatted by `show`, or a dash.
pub(crate) fn interval(ends: Option<Interval>, show: impl Fn(f64) -> String) -> String {
    or_none(ends, |of| format!("[{}, {}]", show(of.low), show(of.high)))
}

/// Bytes in the largest binary unit in which the number is at least 1.
pub(crate) fn bytes(count: u64) -> String {
    let (unit, size) = [("GiB", 30), ("MiB", 20), ("KiB", 10)]
        .into_iter()
        .find(|(_, shift)| count >> shift > 0)
        .map_or(("B", 1.0), |(unit, shift)| (unit, f64::from(1 << shift)));
    format!("{} {unit}", significant(count as f64 / size, 3))
}

/// Milliseconds with three significant digits, from a thousand on as seconds: `58.1 ms`, `2.30 s`.
pub(crate) fn milliseconds(ms: f64) -> String {
    if ms < 1000.0 {
        format!("{} ms", significant(ms, 3))
    } else {
        format!("{} s", significant(ms / 1000.0, 3))
    }
}

/// A multiple: `4.1 ×`. Near 1 it has two decimals.
pub(crate) fn times(ratio: f64) -> Text {
    text!("{times} ×", times = times_number(ratio))
}

/// The number of a multiple: `4.1`.
pub(crate) fn times_number(ratio: f64) -> String {
    let decimals = match ratio {
        0.5..2.0 => 2,
        2.0..20.0 => 1,
        20.0.. => 0,
        _ => 2,
    };
    fixed(Some(ratio), decimals)
}

/// A command line, quoted for a shell.
pub(crate) fn command_line(words: &[String]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    let quoted = |word: &String| match word {
        word if !word.is_empty() && word.chars().all(plain) => word.clone(),
        word => format!("'{}'", word.replace('\'', r"'\''")),
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_figures_have_fewer_decimals() {
        let figures = [(19.178_54, 3), (0.000_5, 4), (-12_345.678, 3), (4_271_953.182, 3), (1e12, 4)];
        let shown = figures.map(|(value, decimals)| fixed(Some(value), decimals));
        assert_eq!(shown, ["19.179", "0.0005", "-12345.68", "4271953", "1000000000000"]);
        assert_eq!([fixed(None, 2), fixed(Some(f64::NAN), 2)], [NONE, NONE]);
    }

    #[test]
    fn numbers_keep_their_significant_digits() {
        for (value, text) in
            [(0.0, "0.000"), (0.012_344, "0.01234"), (1.0, "1.000"), (99.96, "99.96"), (12345.6, "12346")]
        {
            assert_eq!(significant(value, 4), text);
        }
        assert_eq!(significant(f64::NAN, 4), NONE);
        assert_eq!(bytes(0), "0.00 B");
        assert_eq!(bytes(1536), "1.50 KiB");
        assert_eq!(bytes(14 << 30), "14.0 GiB");
        assert_eq!([58.123, 2300.0].map(milliseconds), ["58.1 ms", "2.30 s"]);
        for (ratio, text) in [(0.25, "0.25 ×"), (1.004, "1.00 ×"), (4.06, "4.1 ×"), (93.7, "94 ×")] {
            assert_eq!(times(ratio), text);
        }
    }

    #[test]
    fn a_column_keeps_its_points_below_one_another() {
        for (values, digits) in [
            (vec![7.186, 774.0], 2),
            (vec![605.1, 2607.0], 0),
            (vec![0.0147, 7.73], 4),
            (vec![0.001, 123_456.0], 0),
            (vec![0.0, f64::NAN], 2),
        ] {
            assert_eq!(decimals(values.clone()), digits, "{values:?}");
        }
    }

    #[test]
    fn command_lines_can_be_pasted() {
        let words = ["glmbench", "run", "a b", "it's", ""].map(str::to_owned);
        assert_eq!(command_line(&words), r"glmbench run 'a b' 'it'\''s' ''");
    }
}
