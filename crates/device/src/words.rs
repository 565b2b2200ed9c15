//! Lists of words, as messages and help texts show them.

/// Joins words as a sentence lists them: `a`, `a or b`, `a, b or c`.
pub fn one_of<W: AsRef<str>>(words: impl IntoIterator<Item = W>) -> String {
    let words: Vec<W> = words.into_iter().collect();
    let mut text = String::new();
    for (i, word) in words.iter().enumerate() {
        match words.len() - i {
            _ if i == 0 => {}
            1 => text += " or ",
            _ => text += ", ",
        }
        text += word.as_ref();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_follows_or() {
        assert_eq!(one_of::<&str>([]), "");
        assert_eq!(one_of(["a"]), "a");
        assert_eq!(one_of(["a", "b"]), "a or b");
        assert_eq!(one_of(["a", "b", "c"]), "a, b or c");
    }
}
