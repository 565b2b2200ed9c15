//! The named functions of task files. Anything that a template cannot say is a small function here.

use std::sync::LazyLock;

use minijinja::value::Rest;
use minijinja::{Environment, Error, ErrorKind};
use regex::Regex;

use crate::dataset::answer;

/// Longest text that an expression may build, in bytes.
const MOST_BYTES: usize = 8 << 20;

/// Adds all functions.
pub(super) fn add(env: &mut Environment<'static>) {
    env.add_function("letter", |index: usize| {
        answer::letter(index)
            .map(String::from)
            .ok_or_else(|| refuse(format!("there is no letter for option {index}")))
    });
    env.add_filter("after", |text: String, mark: String| {
        text.rsplit_once(&mark)
            .map(|(_, end)| end.trim().to_owned())
            .ok_or_else(|| refuse(format!("found no {mark:?} in the text; expected the answer behind it")))
    });
    env.add_filter("parts", |text: String, mark: String| -> Vec<String> {
        text.split(&mark).map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    });
    env.add_filter("sentence", |text: String| sentence(&text));
    env.add_filter("words", |text: String| text.replace('_', " "));
    env.add_filter("hellaswag", |text: String| hellaswag(&text));
    env.add_filter("wikitext", |text: String| wikitext(&text));
    env.add_filter("sentences", |list: Vec<String>| {
        list.iter().map(|text| sentence(text)).collect::<Vec<_>>()
    });
    env.add_filter("rotated", |list: Vec<String>, by: usize| {
        let mut list = list;
        let by = by % list.len().max(1);
        list.rotate_left(by);
        list
    });
    env.add_filter("place_in", |word: String, list: Vec<String>| {
        list.iter()
            .position(|one| *one == word)
            .ok_or_else(|| refuse(format!("found {word:?}; expected one of {}", list.join(", "))))
    });
    env.add_filter("same", |list: Vec<String>, word: String| vec![word; list.len()]);
    env.add_function("lists", |all: Rest<Vec<String>>| all.0.concat());
    // Texts that double in a loop would fill the memory before the output's bound is reached.
    env.remove_global("namespace");
    env.add_filter("replace", |text: String, from: String, to: String| {
        let grown = text.matches(&from).count().saturating_mul(to.len());
        if from.is_empty() || grown > MOST_BYTES {
            return Err(refuse("the replaced text would be too long, or nothing is to be replaced".into()));
        }
        Ok(text.replace(&from, &to))
    });
}

/// Returns a text with a final dot.
fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() || text.ends_with('.') { text.to_owned() } else { format!("{text}.") }
}

fn refuse(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// lm-evaluation-harness's clean-up of HellaSwag's texts: ` [title]` becomes `. `, other brackets go, and double spaces
/// become single ones, in one pass.
fn hellaswag(text: &str) -> String {
    static BRACKETS: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\[.*?\]").expect("invariant: a constant pattern compiles"));
    let text = text.trim().replace(" [title]", ". ");
    BRACKETS.replace_all(&text, "").replace("  ", " ")
}

/// lm-evaluation-harness's `wikitext_detokenizer`, step by step.
fn wikitext(text: &str) -> String {
    static BRACKETS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let all = [
            (r"\(\s*([^\)]*?)\s*\)", "($1)"),
            (r"\[\s*([^\]]*?)\s*\]", "[$1]"),
            (r"\{\s*([^}]*?)\s*\}", "{$1}"),
            ("\"\\s*([^\"]*?)\\s*\"", "\"$1\""),
            (r"'\s*([^']*?)\s*'", "'$1'"),
        ];
        all.map(|(pattern, to)| (Regex::new(pattern).expect("invariant: a constant pattern compiles"), to))
            .into()
    });
    static DIGIT: LazyLock<Regex> =
        LazyLock::new(|| Regex::new("/' [0-9]/").expect("invariant: a constant pattern compiles"));
    let replaced = |text: String, pairs: &[(&str, &str)]| {
        pairs.iter().fold(text, |text, (from, to)| text.replace(from, to))
    };
    let text = DIGIT.replace_all(&text.replace("s '", "s'"), "/'[0-9]/").into_owned();
    let text = replaced(
        text,
        &[
            (" @-@ ", "-"),
            (" @,@ ", ","),
            (" @.@ ", "."),
            (" : ", ": "),
            (" ; ", "; "),
            (" . ", ". "),
            (" ! ", "! "),
            (" ? ", "? "),
            (" , ", ", "),
        ],
    );
    let text = BRACKETS.iter().fold(text, |text, (from, to)| from.replace_all(&text, *to).into_owned());
    replaced(
        text,
        &[
            ("= = = =", "===="),
            ("= = =", "==="),
            ("= =", "=="),
            (" \u{b0} ", "\u{b0}"),
            (" \n", "\n"),
            ("\n ", "\n"),
            (" N ", " 1 "),
            (" 's", "'s"),
        ],
    )
}
