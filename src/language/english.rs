//! Finds English words that a Chinese text has left. For tests.

/// What Chinese engineers write in Latin letters: units and abbreviations, names of methods and products, keys of files.
const PROPER: &[&str] = &[
    // Units and abbreviations.
    "token",
    "tokens",
    "TTFT",
    "TPOT",
    "ITL",
    "MAD",
    "TP",
    "PP",
    "KL",
    "KV",
    "CPU",
    "NPU",
    "CSV",
    "TCP",
    "TLS",
    "ms",
    "GB",
    "GiB",
    "MiB",
    "FLOP",
    "GFLOP",
    "nat",
    "exp",
    "logits",
    "goodput",
    "ln",
    "softmax",
    // Methods and products.
    "glmbench",
    "ModelTest",
    "MindIE",
    "Ascend",
    "bootstrap",
    "Wilson",
    "Holm",
    "Tango",
    "McNemar",
    "Tukey",
    "Hyndman",
    "Fan",
    "Roofline",
    "STEM",
    "Hard",
    // Keys and values of files.
    "untimed",
    "DIR",
    "TASK",
    "ratio",
    "clock",
    "tp",
    // A command.
    "cpupower",
    "frequency-set",
    "performance",
];

/// Returns the words of Latin letters alone that are no proper terms. A word with a digit, `_`, `/` or `.` is an identifier, and one
/// that begins with `-` is a flag. What stands in backquotes is a quotation or a command.
pub(crate) fn english_words(text: &str) -> Vec<String> {
    let outside = text.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    let parts = |c: char| c.is_whitespace() || !c.is_ascii() || ",;()[]{}<>\"'|=:?!".contains(c);
    let words = outside.split(parts).map(|word| word.trim_end_matches('.'));
    let is_english = |word: &str| {
        let letters = word.chars().all(|c| c.is_ascii_alphabetic() || c == '-');
        letters && word.len() > 1 && !word.starts_with('-') && !PROPER.contains(&word)
    };
    words.filter(|word| is_english(word)).map(str::to_owned).collect()
}
