//! Words of Chinese text.

use std::sync::LazyLock;

use jieba_rs::Jieba;

/// The dictionary of jieba: 349,045 words. It is loaded at the first use, in about 0.2 s.
static JIEBA: LazyLock<Jieba> = LazyLock::new(Jieba::new);

/// Segments a text as `jieba.cut(text)` does, version 0.42.1 with its defaults: accurate mode, unknown words by the hidden
/// Markov model. The words, joined, are the text.
///
/// The crate jieba-rs has the same dictionary and model, but other borders in two places. They are drawn here as Python
/// draws them: which characters belong to a block, and how letters and digits that are no word are cut (`GPT-4.5` is `GPT`,
/// `-`, `4.5`).
pub fn segment(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_block = is_of_block(first);
        let end = rest.find(|c| is_of_block(c) != is_block).unwrap_or(rest.len());
        let (run, tail) = rest.split_at(end);
        if is_block {
            JIEBA.cut(run, true).iter().for_each(|token| push_word(token.word, &mut words));
        } else {
            push_characters(run, &mut words);
        }
        rest = tail;
    }
    words
}

/// The characters of Python jieba's `re_han_default`.
fn is_of_block(c: char) -> bool {
    matches!(c, '\u{4E00}'..='\u{9FD5}') || c.is_ascii_alphanumeric() || "+#&._%-".contains(c)
}

/// Outside of blocks every character is a word of its own. A line end of two characters is one.
fn push_characters<'t>(run: &'t str, words: &mut Vec<&'t str>) {
    let mut rest = run;
    while let Some(c) = rest.chars().next() {
        let length = if rest.starts_with("\r\n") { 2 } else { c.len_utf8() };
        let (word, tail) = rest.split_at(length);
        words.push(word);
        rest = tail;
    }
}

/// Pushes a word of jieba-rs, cut again if it joins letters and digits over `.`, `_` or `-` that Python would not join.
fn push_word<'t>(word: &'t str, words: &mut Vec<&'t str>) {
    let is_joined = word.is_ascii() && word.contains(['.', '_', '-']) && word.contains(is_alphanumeric);
    if !is_joined || JIEBA.has_word(word) {
        words.push(word);
        return;
    }
    let mut rest = word;
    while !rest.is_empty() {
        let length = match unknown_word_length(rest) {
            0 => rest.find(is_alphanumeric).unwrap_or(rest.len()),
            length => length,
        };
        let (part, tail) = rest.split_at(length);
        words.push(part);
        rest = tail;
    }
}

fn is_alphanumeric(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

/// Returns the length of the match of jieba's `[a-zA-Z0-9]+(?:\.\d+)?%?` at the start of ASCII text, 0 without a match.
fn unknown_word_length(text: &str) -> usize {
    let run =
        |at: usize, is_of: fn(&u8) -> bool| text.as_bytes()[at..].iter().take_while(|b| is_of(b)).count();
    let mut end = run(0, u8::is_ascii_alphanumeric);
    if end == 0 {
        return 0;
    }
    if text[end..].starts_with('.') {
        let digits = run(end + 1, u8::is_ascii_digit);
        end += if digits > 0 { 1 + digits } else { 0 };
    }
    end + usize::from(text[end..].starts_with('%'))
}
