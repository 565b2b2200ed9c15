//! Finds English words that a Chinese text has left. For tests.

/// Words that Chinese engineers write in Latin letters: units, formats, names of products and data sets, commands.
const PROPER: &str = include_str!("proper_terms.txt");

/// Returns the words of Latin letters alone that are no proper terms. A word with a digit, `_`, `/` or `.` is an identifier.
/// What stands in backquotes is a quotation or a command.
pub(crate) fn english_words(text: &str) -> Vec<String> {
    let outside = text.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    let proper = |word: &str| PROPER.lines().any(|term| term == word);
    let stops = |c: char| c.is_whitespace() || !c.is_ascii() || ",;()[]{}<>\"'|=±:?!".contains(c);
    let words = outside.split(stops).map(|word| word.trim_matches('.')).filter(|word| !proper(word));
    let parts = words
        .filter(|word| word.chars().all(|c| c.is_ascii_alphabetic() || c == '-'))
        .flat_map(|word| word.split('-'));
    parts.filter(|word| word.len() > 1 && !proper(word)).map(str::to_owned).collect()
}
