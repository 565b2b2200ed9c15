//! ModelTest's ladder of regular expressions: the first one that finds a letter in a free text wins.
//!
//! The order is ModelTest's. A mistake of ModelTest is kept because scores depend on it: rule 9 is two patterns
//! joined, as a comma is missing in the source. It therefore needs `故选…` directly followed by `只有…对`.

use std::sync::LazyLock;

use regex::Regex;

/// The letters of the four options.
pub const LETTERS: [&str; 4] = ["A", "B", "C", "D"];

/// Description of [`first_option`] in lists of protocols.
pub const LADDER_ABOUT: &str = "43 regular expressions in a fixed order (rule 9 is two run together, as in the source). The first whose match holds a letter decides. Its answer is the first of A, B, C, D that occurs in the whole match. No answer if none does";

/// The patterns in Python's syntax, as in the source. `$` also matches before a final line end.
pub const LADDER: [&str; 43] = [
    r"答案是?\s?([ABCD])",
    r"答案是?\s?：([ABCD])",
    r"答案是?\s?:([ABCD])",
    r"答案应该?是\s?([ABCD])",
    r"答案应该?选\s?([ABCD])",
    r"答案为\s?([ABCD])",
    r"答案选\s?([ABCD])",
    r"选择?\s?([ABCD])",
    r"故选?\s?([ABCD])只有选?项?\s?([ABCD])\s?是?对",
    r"只有选?项?\s?([ABCD])\s?是?错",
    r"只有选?项?\s?([ABCD])\s?不?正确",
    r"只有选?项?\s?([ABCD])\s?错误",
    r"说法不?对选?项?的?是\s?([ABCD])",
    r"说法不?正确选?项?的?是\s?([ABCD])",
    r"说法错误选?项?的?是\s?([ABCD])",
    r"([ABCD])\s?是正确的",
    r"([ABCD])\s?是正确答案",
    r"选项\s?([ABCD])\s?正确",
    r"所以答\s?([ABCD])",
    r"所以\s?([ABCD][.。$]?$)",
    r"所有\s?([ABCD][.。$]?$)",
    r"[\s，：:,]([ABCD])[。，,\.]?$",
    r"[\s，,：:][故即]([ABCD])[。\.]?$",
    r"[\s，,：:]因此([ABCD])[。\.]?$",
    r"[是为。]\s?([ABCD])[。\.]?$",
    r"因此\s?([ABCD])[。\.]?$",
    r"显然\s?([ABCD])[。\.]?$",
    r"答案是\s?(\S+)(?:。|$)",
    r"答案应该是\s?(\S+)(?:。|$)",
    r"答案为\s?(\S+)(?:。|$)",
    r"[Tt]he answer is \(?([ABCD])\)?",
    r"[Tt]he answer is option \(?([ABCD])\)?",
    r"[Tt]he correct answer is \(?([ABCD])\)?",
    r"[Tt]he correct answer is option \(?([ABCD])\)?",
    r"[Tt]he answer to the question is \(?([ABCD])\)?",
    r"^选项\s?([ABCD])",
    r"^([ABCD])\s?选?项",
    r"(\s|^)[ABCD][\s。，,：:\.$]",
    r"(\s|^)[ABCD](\s|$)",
    r"1.\s?(.*?)$",
    r"1.\s?([ABCD])[.。$]?$",
    r"([ABCD]):",
    r"[ABCD]",
];

/// Description of [`first_option_fixed`] in lists of protocols.
pub const FIXED_ABOUT: &str = "44 regular expressions in a fixed order (the two that the source runs together are apart); of the first whose match holds a letter, the first of A, B, C, D that occurs in the whole match; no answer if none does";

/// Place of the two patterns that are run together.
const JOINED: usize = 8;
/// These two.
const APART: [&str; 2] = [r"故选?\s?([ABCD])", r"只有选?项?\s?([ABCD])\s?是?对"];

/// Returns the ladder with the comma that the source lacks.
pub fn fixed_ladder() -> Vec<&'static str> {
    [&LADDER[..JOINED], &APART[..], &LADDER[JOINED + 1..]].concat()
}

/// A letter found in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extraction {
    /// Index into [`LETTERS`].
    pub letter: usize,
    /// Index into the ladder of the rule that found it.
    pub rule: usize,
}

/// Returns the first match of the ladder, as described in [`LADDER_ABOUT`].
pub fn first_option(text: &str) -> Option<Extraction> {
    static COMPILED: LazyLock<Vec<Regex>> = LazyLock::new(|| compile(&LADDER));
    first_of(&COMPILED, text)
}

/// Returns the first match of the [`fixed_ladder`], as described in [`FIXED_ABOUT`].
pub fn first_option_fixed(text: &str) -> Option<Extraction> {
    static COMPILED: LazyLock<Vec<Regex>> = LazyLock::new(|| compile(&fixed_ladder()));
    first_of(&COMPILED, text)
}

fn first_of(ladder: &[Regex], text: &str) -> Option<Extraction> {
    ladder.iter().enumerate().find_map(|(rule, pattern)| {
        let found = pattern.find(text)?.as_str();
        let letter = LETTERS.iter().position(|letter| found.contains(letter))?;
        Some(Extraction { letter, rule })
    })
}

fn compile(ladder: &[&str]) -> Vec<Regex> {
    let one = |pattern: &&str| {
        Regex::new(&from_python(pattern)).expect("invariant: the ladder is tested to compile")
    };
    ladder.iter().map(one).collect()
}

/// Converts a pattern from Python: there, `$` outside a class also matches before a final line end; in Rust it does
/// not.
fn from_python(pattern: &str) -> String {
    let mut rust = String::new();
    let mut in_class = false;
    for c in pattern.chars() {
        match c {
            '[' => in_class = true,
            ']' => in_class = false,
            '$' if !in_class => {
                rust.push_str(r"(?:\n?\z)");
                continue;
            }
            _ => {}
        }
        rust.push(c);
    }
    rust
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The letter and the number of the rule (from 1), determined by reading the patterns.
    fn found(text: &str) -> Option<(&'static str, usize)> {
        first_option(text).map(|e| (LETTERS[e.letter], e.rule + 1))
    }

    #[test]
    fn each_rule_finds_what_it_is_for() {
        for (text, letter, rule) in [
            ("答案B", "B", 1),
            ("因此答案是 C。", "C", 1),
            ("答案是：D", "D", 2),
            ("答案:A", "A", 3),
            ("答案应是B", "B", 4),
            ("答案应该选 C", "C", 5),
            ("答案为D", "D", 6),
            ("答案选A", "A", 7),
            ("我选择 B", "B", 8),
            ("故A只有选项B是对", "A", 9),
            ("只有C是错的", "C", 10),
            ("只有选项D不正确", "D", 11),
            ("只有A错误", "A", 10),
            ("说法不对的是B", "B", 13),
            ("说法正确的是 C", "C", 14),
            ("说法错误的是D", "D", 15),
            ("A 是正确的", "A", 16),
            ("B是正确答案", "B", 17),
            ("选项 C 正确", "C", 18),
            ("所以答D", "D", 19),
            ("所以A。", "A", 20),
            ("所有 B.", "B", 21),
            ("综上，C。", "C", 22),
            ("综上，故D", "D", 23),
            ("综上：因此A。", "A", 24),
            ("正确的是B。", "B", 25),
            ("因此C.", "C", 26),
            ("显然D", "D", 27),
            ("答案是：“A”。", "A", 28),
            ("The answer is (B) here", "B", 31),
            ("the answer is option C here", "C", 32),
            ("The correct answer is D here", "D", 33),
            ("The correct answer is option (A)x", "A", 34),
            ("the answer to the question is Bx", "B", 35),
            ("C项不对", "C", 37),
            ("就是 D, x", "D", 38),
            ("x A\n\n", "A", 38),
            ("1.即A选", "A", 40),
            ("xB:x", "B", 42),
            ("xCx", "C", 43),
        ] {
            assert_eq!(found(text), Some((letter, rule)), "{text:?}");
        }
        assert_eq!(found("没有"), None);
        assert_eq!(found(""), None);
    }

    #[test]
    fn the_run_together_pattern_needs_both_halves() {
        // Alone, `故选B` matches rule 8 (`选`), and `故B。` matches only the last rule.
        assert_eq!(found("故选B"), Some(("B", 8)));
        assert_eq!(found("x故B。x"), Some(("B", 43)));
    }

    #[test]
    fn the_fixed_ladder_has_them_apart_and_the_rest_as_it_is() {
        let fixed = |text| first_option_fixed(text).map(|e| (LETTERS[e.letter], e.rule + 1));
        assert_eq!((fixed_ladder().len(), fixed_ladder()[44 - 1]), (44, LADDER[42]));
        assert_eq!(fixed("x故B。x"), Some(("B", 9)));
        assert_eq!((fixed("只有C是对的"), found("只有C是对的")), (Some(("C", 10)), Some(("C", 43))));
        assert_eq!(
            (fixed("答案B"), fixed("只有D错误"), fixed("没有")),
            (Some(("B", 1)), Some(("D", 11)), None)
        );
    }

    #[test]
    fn of_a_match_with_several_letters_the_first_of_the_alphabet_is_taken() {
        assert_eq!(found("答案是：“D或B”。"), Some(("B", 28)));
    }

    #[test]
    fn a_match_without_a_letter_gives_the_turn_to_the_next_rule() {
        assert_eq!(found("答案是不能确定。\n但 C, x"), Some(("C", 38)));
    }

    #[test]
    fn a_line_end_after_the_last_word_does_not_hide_it() {
        assert_eq!(found("综上，C。\n"), Some(("C", 22)));
        assert_eq!(found("综上，C。\n\n"), Some(("C", 43)));
    }
}
