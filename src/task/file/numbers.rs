//! ModelTest's regular expression for numbers, which needs look-ahead:
//! `([+-])?(?=([0-9]|\.[0-9]))(0|([1-9](\d{0,2}(,\d{3})*)|\d*))?(\.\d*)?(?=\D|$)`.
//!
//! The matches are those of Python's `re.finditer`, alternative by alternative. `\d` is an ASCII digit here; Python's also
//! matches digits of other scripts.

/// Returns the last match in `text`.
pub(super) fn last(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let (mut at, mut last) = (0, None);
    while at < bytes.len() {
        match match_at(bytes, at) {
            Some(end) => {
                last = Some(&text[at..end]);
                at = end;
            }
            None => at += 1,
        }
    }
    last
}

fn is_digit(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_some_and(u8::is_ascii_digit)
}

/// Returns the number of digits from `at` on.
fn digits(bytes: &[u8], at: usize) -> usize {
    bytes.iter().skip(at).take_while(|byte| byte.is_ascii_digit()).count()
}

/// Returns the end of the match that starts at `at`. Matches are ASCII, so `at` and the end are places between characters.
fn match_at(bytes: &[u8], at: usize) -> Option<usize> {
    let signed = bytes[at] == b'+' || bytes[at] == b'-';
    let start = at + usize::from(signed);
    let begins = is_digit(bytes, start) || (bytes.get(start) == Some(&b'.') && is_digit(bytes, start + 1));
    if !begins {
        return None;
    }
    whole_ends(bytes, start).into_iter().find_map(|end| {
        let fraction = (bytes.get(end) == Some(&b'.')).then(|| end + 1 + digits(bytes, end + 1));
        // Fewer digits of the fraction would be followed by a digit.
        fraction.into_iter().chain([end]).find(|&end| end > at && !is_digit(bytes, end))
    })
}

/// Returns the ends of the part before the point, in the order in which Python tries them.
fn whole_ends(bytes: &[u8], start: usize) -> Vec<usize> {
    let mut ends = Vec::new();
    if bytes.get(start) == Some(&b'0') {
        ends.push(start + 1);
    }
    if is_digit(bytes, start) && bytes[start] != b'0' {
        for more in (0..=digits(bytes, start + 1).min(2)).rev() {
            let mut groups = vec![start + 1 + more];
            while let Some(&end) = groups.last() {
                if bytes.get(end) != Some(&b',') || digits(bytes, end + 1) < 3 {
                    break;
                }
                groups.push(end + 4);
            }
            ends.extend(groups.into_iter().rev());
        }
    }
    let all = digits(bytes, start);
    // A shorter run of digits, or none, is followed by a digit: only the whole run can end a match.
    ends.push(start + all);
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_is_found_as_python_finds_it() {
        for (text, found) in [
            ("16 - 3 = 13", Some("13")),
            ("$1,204.50 in all", Some("1,204.50")),
            ("-5", Some("-5")),
            ("it is +7.", Some("+7.")),
            ("x .5", Some(".5")),
            ("007", Some("007")),
            ("12,34", Some("34")),
            ("1234567", Some("1234567")),
            ("no number", None),
            ("", None),
            ("答案是42。", Some("42")),
            ("1,234,567 and 8,90", Some("90")),
        ] {
            assert_eq!(last(text), found, "{text:?}");
        }
    }
}
