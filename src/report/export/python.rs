//! Formats values as Python does. ModelTest's cells are `str(…)` of floats, lists and booleans.

/// `str(round(value, 10))`.
pub(super) fn rounded(value: f64) -> String {
    float(format!("{value:.10}").parse().unwrap_or(value))
}

/// `str(value)` of a float: the shortest digits, always with a point or an exponent.
pub(super) fn float(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude != 0.0 && magnitude.is_finite() && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(("+", exponent), |e| ("-", e));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{value:?}")
}

/// `str(list)` of integers.
pub(super) fn list(values: &[u32]) -> String {
    let values: Vec<String> = values.iter().map(u32::to_string).collect();
    format!("[{}]", values.join(", "))
}

/// `text.ljust(width)`, counted in characters.
pub(super) fn ljust(text: &str, width: usize) -> String {
    format!("{text:<width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The right column is the output of `python3 -c 'print(round(X, 10))'`.
    #[test]
    fn floats_are_as_python_prints_them() {
        for (value, text) in [
            (1.0 / 3.0, "0.3333333333"),
            (5.0, "5.0"),
            (0.0, "0.0"),
            (1_234.567_890_123_45, "1234.5678901235"),
            (0.000_05, "5e-05"),
            (0.000_123, "0.000123"),
            (1e-11, "0.0"),
            (2.5e16, "2.5e+16"),
            (123_456_789_012_345.6, "123456789012345.6"),
        ] {
            assert_eq!(rounded(value), text);
        }
        assert_eq!(float(721.0 / 1346.0), "0.5356612184249628");
    }

    #[test]
    fn lists_and_padding_are_as_python_prints_them() {
        assert_eq!(list(&[]), "[]");
        assert_eq!(list(&[64790, 64792]), "[64790, 64792]");
        assert_eq!(ljust("题", 3), "题  ");
        assert_eq!(ljust("longer", 3), "longer");
    }
}
