//! Where lines may be broken, and how wide a text is.

/// Number of columns that a text takes. Characters past U+2E80 (Chinese and the like) take two.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().map(|c| if is_wide(c) { 2 } else { 1 }).sum()
}

fn is_wide(c: char) -> bool {
    c >= '\u{2e80}'
}

/// The parts of a text that are not broken, each with whether a space stands before it.
pub(crate) fn unbroken(text: &str) -> Vec<(String, bool)> {
    let mut words: Vec<(String, bool)> = Vec::new();
    for word in text.split(' ') {
        let mut before = None;
        for c in word.chars() {
            let last = words.last().and_then(|(word, _)| word.chars().last());
            let (joins, counts) = match before {
                Some(before) => (!may_break(before, c), false),
                // A number stays with the Chinese word that it counts.
                None => (false, is_wide(c) && last.is_some_and(|last| last.is_ascii_digit())),
            };
            match words.last_mut().filter(|_| joins || counts) {
                Some((last, _)) => last.extend(counts.then_some(' ').into_iter().chain([c])),
                None => words.push((c.to_string(), before.is_none() && !words.is_empty())),
            }
            before = Some(c);
        }
    }
    words
}

/// Whether a line may end between two characters.
fn may_break(before: char, after: char) -> bool {
    let opens = |c: char| "（“‘《".contains(c);
    let closes = |c: char| "，。；：、）”’》！？…%,.;:)".contains(c);
    (is_wide(before) || is_wide(after)) && !opens(before) && !closes(after)
}
