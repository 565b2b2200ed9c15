//! Escaping untrusted text for display.
//!
//! A data set, suite, model or record may contain any character. Some move a terminal's cursor, change its colours, or
//! reverse the reading order. Others have a meaning in Markdown or in a spreadsheet. All text shown to people is
//! escaped here. Files for other programs (`.jsonl`, `run.json`, SQL, ModelTest's CSV) keep the text unchanged.

use std::borrow::Cow;

/// Whether a character affects a terminal or the reading order instead of being visible. These are C0, DEL, C1, line
/// and paragraph separators, and the marks, embeddings, overrides and isolates of bidirectional text.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes such characters as Rust does (`\u{1b}`), except line ends and tabs.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |c| acts(c) && !matches!(c, '\n' | '\t'), |c| c.escape_default().to_string())
}

/// Like [`printable`], but also escapes line ends and tabs, for text that must fit on one line.
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, acts, |c| c.escape_default().to_string())
}

/// Escapes such characters in a JSON text without changing its values. Line ends and tabs of its layout stay.
pub fn json(text: &str) -> Cow<'_, str> {
    // All of them are in the basic multilingual plane, so four digits are enough.
    escaped(text, |c| acts(c) && !matches!(c, '\n' | '\t'), |c| format!("\\u{:04x}", u32::from(c)))
}

/// Escapes text as one line of Markdown that shows it literally: no markup, no HTML, no additional table cell.
pub fn markdown(text: &str) -> String {
    let line = one_line(text);
    let mut out = String::with_capacity(line.len());
    let mut before = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let after = chars.peek().copied();
        match c {
            // Before a space they have no meaning in Markdown.
            '&' if after.is_some_and(|c| c.is_ascii_alphanumeric() || c == '#') => out += "&amp;",
            '<' if after.is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?')) => {
                out += "&lt;";
            }
            '\\' | '`' | '*' | '~' | '|' => out.extend(['\\', c]),
            // Between letters it has no meaning, and it is frequent in names.
            '_' if !(before.is_some_and(char::is_alphanumeric)
                && after.is_some_and(char::is_alphanumeric)) =>
            {
                out += "\\_";
            }
            // `[` alone has no meaning. Only the `]` of a link or link definition needs escaping.
            ']' if matches!(after, Some('(' | '[' | ':')) => out += "\\]",
            // At the start of a line, these begin a heading, a quotation, a rule or a list.
            '#' | '=' | '>' if before.is_none() => out.extend(['\\', c]),
            '+' | '-' if before.is_none() && ends_marker(after) => out.extend(['\\', c]),
            '.' | ')' if is_number(&out) && ends_marker(after) => out.extend(['\\', c]),
            c => out.push(c),
        }
        before = Some(c);
    }
    out
}

/// Whether a list marker ends here, or a rule continues.
fn ends_marker(after: Option<char>) -> bool {
    after.is_none_or(|c| c.is_whitespace() || matches!(c, '+' | '-'))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Formats text as a Markdown code span, even if it contains backticks.
pub fn markdown_code(text: &str) -> String {
    let line = one_line(text);
    let longest = line.split(|c: char| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let space = if line.starts_with('`') || line.ends_with('`') { " " } else { "" };
    format!("{fence}{space}{line}{space}{fence}")
}

/// Prepares a CSV cell so that a spreadsheet takes it for a value, never for a formula. Text that begins like a formula
/// gets an apostrophe in front, which is the spreadsheets' own escape. Numbers stay.
pub fn cell(text: &str) -> Cow<'_, str> {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']) && text.parse::<f64>().is_err();
    if formula { Cow::Owned(format!("'{text}")) } else { Cow::Borrowed(text) }
}

/// Replaces the characters that `is` selects.
fn escaped(text: &str, is: impl Fn(char) -> bool, by: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.contains(&is) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is(c) { out += &by(c) } else { out.push(c) }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contains clear screen, window title, carriage return, C1's CSI, DEL, override, isolate and separator.
    const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;x\u{7}a\rb\u{9b}31m\u{7f}\u{202e}gnp\u{2066}\u{2028}z\0";

    #[test]
    fn what_acts_is_escaped_and_what_is_seen_stays() {
        let seen = r"\u{1b}[2J\u{1b}]0;x\u{7}a\rb\u{9b}31m\u{7f}\u{202e}gnp\u{2066}\u{2028}z\u{0}";
        assert_eq!(printable(HOSTILE), seen);
        assert_eq!(one_line(HOSTILE), seen);
        assert_eq!(printable("a\tb\nc"), "a\tb\nc");
        assert_eq!(one_line("a\tb\nc"), r"a\tb\nc");
        for text in ["", "题 é — “x” 👩‍👩‍👧 עברית", "a\\u{1b}"] {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn json_keeps_its_values() {
        let value = serde_json::json!({"a": HOSTILE, "b": ["\n\t"]});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let shown = json(&text);
        assert!(shown.chars().all(|c| c == '\n' || !acts(c)), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn markdown_shows_marks_as_letters() {
        for (text, shown) in [
            ("high_school_physics", "high_school_physics"),
            ("_x_ **b** `c` ~~d~~", r"\_x\_ \*\*b\*\* \`c\` \~\~d\~\~"),
            ("<img src=x onerror=y></a> & |", r"&lt;img src=x onerror=y>&lt;/a> & \|"),
            ("&lt;b>", "&amp;lt;b>"),
            ("p < 0.001", "p < 0.001"),
            ("> 5", r"\> 5"),
            ("[a](http://x) ![b][c] [d]: x", r"[a\](http://x) ![b\][c] [d\]: x"),
            ("[88.5, 95.2]", "[88.5, 95.2]"),
            ("# head", r"\# head"),
            ("- point 1.5", r"\- point 1.5"),
            ("1. first", r"1\. first"),
            ("-1.5", "-1.5"),
            ("95.2", "95.2"),
            ("---", r"\---"),
            ("a\n\n# head", r"a\\n\\n# head"),
            ("\u{1b}[1m", r"\\u{1b}[1m"),
        ] {
            assert_eq!(markdown(text), shown, "{text}");
        }
        assert_eq!(markdown_code("glmbench run"), "`glmbench run`");
        assert_eq!(markdown_code("`` a ` b\n"), r"``` `` a ` b\n ```");
        assert_eq!(markdown_code(""), "``");
    }

    #[test]
    fn a_cell_that_begins_like_a_formula_is_defused() {
        for text in ["=1+1", "+x", "-x", "@SUM(A1)", "\tx", "\rx", "-1-1", "=", "-"] {
            assert_eq!(cell(text), format!("'{text}"));
        }
        for text in ["", "-1.5", "+3", "-2e-9", "a=b", "'x", "–", " =x"] {
            assert_eq!(cell(text), text);
        }
    }
}
