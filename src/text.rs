//! Texts of strangers, made fit to be shown.
//!
//! A data set, a suite, a model or a record may hold any character: some move a terminal's cursor, recolour it, or turn the
//! reading order round, and some mean something to Markdown or to a spreadsheet. What is shown to people goes through here.
//! Files that other programs read (`.jsonl`, `run.json`, SQL, ModelTest's CSV) keep the texts as they are.

use std::borrow::Cow;

/// Whether a character acts on a terminal or on the reading order instead of being seen: C0, DEL, C1, line and paragraph
/// separators, and the marks, embeddings, overrides and isolates of bidirectional text.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with such characters escaped as Rust writes them (`\u{1b}`); lines and tabs stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |c| acts(c) && !matches!(c, '\n' | '\t'), |c| c.escape_default().to_string())
}

/// [`printable`] for a place of one line: line ends and tabs are escaped, too.
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, acts, |c| c.escape_default().to_string())
}

/// A JSON text that holds the same values and no such character; the line ends and tabs of its layout stay.
pub fn json(text: &str) -> Cow<'_, str> {
    // All of them are of the basic plane, which is what four digits reach.
    escaped(text, |c| acts(c) && !matches!(c, '\n' | '\t'), |c| format!("\\u{:04x}", u32::from(c)))
}

/// The text as one line of Markdown that shows it and nothing else: no markup, no HTML, no further cell of a table.
pub fn markdown(text: &str) -> String {
    let line = one_line(text);
    let mut out = String::with_capacity(line.len());
    let mut before = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let after = chars.peek().copied();
        match c {
            // Before a space they are letters to Markdown, too.
            '&' if after.is_some_and(|c| c.is_ascii_alphanumeric() || c == '#') => out += "&amp;",
            '<' if after.is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?')) => {
                out += "&lt;";
            }
            '\\' | '`' | '*' | '~' | '|' => out.extend(['\\', c]),
            // Between letters it marks nothing, and names are full of it.
            '_' if !(before.is_some_and(char::is_alphanumeric)
                && after.is_some_and(char::is_alphanumeric)) =>
            {
                out += "\\_";
            }
            // `[` alone marks nothing; what makes a link or a definition of it does.
            ']' if matches!(after, Some('(' | '[' | ':')) => out += "\\]",
            // At the beginning of a line: a heading, a quotation, a rule, a list.
            '#' | '=' | '>' if before.is_none() => out.extend(['\\', c]),
            '+' | '-' if before.is_none() && ends_marker(after) => out.extend(['\\', c]),
            '.' | ')' if is_number(&out) && ends_marker(after) => out.extend(['\\', c]),
            c => out.push(c),
        }
        before = Some(c);
    }
    out
}

/// A list's marker ends here, or a rule goes on.
fn ends_marker(after: Option<char>) -> bool {
    after.is_none_or(|c| c.is_whitespace() || matches!(c, '+' | '-'))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// The text as a code span of Markdown, whatever backticks it has.
pub fn markdown_code(text: &str) -> String {
    let line = one_line(text);
    let longest = line.split(|c: char| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let space = if line.starts_with('`') || line.ends_with('`') { " " } else { "" };
    format!("{fence}{space}{line}{space}{fence}")
}

/// A cell of a CSV file that a spreadsheet takes for a value, never for a formula: what begins like one gets an apostrophe in
/// front, as such programs write it themselves. Numbers stay.
pub fn cell(text: &str) -> Cow<'_, str> {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']) && text.parse::<f64>().is_err();
    if formula { Cow::Owned(format!("'{text}")) } else { Cow::Borrowed(text) }
}

/// The text with the characters that `is` picks replaced.
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

    /// Clear screen, window title, carriage return, C1's CSI, DEL, override, isolate, separator.
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
