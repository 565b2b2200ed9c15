//! Finds code in a text that a model wrote.

/// Returns the content of the first block between lines of three backquotes. A block without end goes to the text's end.
pub(super) fn block(text: &str) -> Option<&str> {
    let (_, after) = text.split_once("```")?;
    let (_, code) = after.split_once('\n')?;
    Some(code.split_once("```").map_or(code, |(code, _)| code))
}

/// ModelTest's clean-up of HumanEval: the lines before the first that is neither blank nor indented. If all are, the text is cut
/// at the *last* occurrence of each end of a function. Of these, indented lines leave only three line ends possible.
pub(super) fn python_body(text: &str) -> &str {
    const ENDS: [&str; 8] = ["\ndef", "\nclass", "\n#", "\nassert", "\n\"\"\"", "\nprint", "\nif", "\n\n\n"];
    let mut start = 0;
    for line in text.split('\n') {
        if !line.trim().is_empty() && !line.starts_with([' ', '\t']) {
            return &text[..start];
        }
        start += line.len() + 1;
    }
    cut_at_last(text, &ENDS)
}

/// HumanEval-X's clean-up of Java. Returns the text before a `main` of its own, up to its last brace, and adds a brace for the
/// class if one is missing. (Its source counts one brace too many as one too few.)
pub(super) fn java_body(text: &str) -> String {
    let mut code = text.to_owned();
    if let Some(main) = code.find("public static void main") {
        code.truncate(main);
        code.push('}');
    }
    let mut code = to_last_brace(&code).to_owned();
    if code.matches('{').count() + 1 == code.matches('}').count() {
        code += "\n}";
    }
    code
}

/// HumanEval-X's ends of a function in Go: the last comment at a line's beginning, and a `main` of its own.
pub(super) fn go_ends(text: &str) -> &str {
    cut_at_last(text, &["\n//", "\nfunc main("])
}

/// Returns the text up to its last closing brace; all of it if there is none.
pub(super) fn to_last_brace(text: &str) -> &str {
    text.rfind('}').map_or(text, |at| &text[..=at])
}

/// Cuts a text at the last occurrence of each end in turn.
fn cut_at_last<'t>(text: &'t str, ends: &[&str]) -> &'t str {
    ends.iter().fold(text, |text, end| text.rfind(end).map_or(text, |at| &text[..at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_in_java_ends_before_its_main_with_a_brace_for_the_class() {
        assert_eq!(java_body("    return 1;\n    }\n}\nmore"), "    return 1;\n    }\n}");
        assert_eq!(java_body("  return 1;\n  }\n"), "  return 1;\n  }\n}");
        assert_eq!(
            java_body("  return 1;\n  }\n  public static void main(String[] a) { f(); }\n}"),
            "  return 1;\n  }\n  }"
        );
        assert_eq!(java_body("no code"), "no code");
    }

    #[test]
    fn a_body_in_go_ends_before_its_last_comment_and_its_main() {
        assert_eq!(go_ends("  return 1\n}\n// next\nfunc g() {}\n"), "  return 1\n}");
        assert_eq!(go_ends("  return 1\n}\nfunc main() {\n  // x\n}\n"), "  return 1\n}");
        assert_eq!(to_last_brace("a } b } c"), "a } b }");
        assert_eq!(to_last_brace("a"), "a");
    }
}
