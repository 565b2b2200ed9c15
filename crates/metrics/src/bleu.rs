//! BLEU as sacrebleu 2.6.0 computes it with its defaults: up to four words, smoothing `exp`, no effective order.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

use crate::lcs::Numbers;
use crate::python;

/// The longest n-grams that count.
const ORDERS: usize = 4;

/// How a line is cut into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BleuTokenizer {
    /// `13a`: mteval-v13a.pl of WMT. Sacrebleu's default.
    Mteval13a,
    /// `intl`: mteval-v14.pl with `--international-tokenization`, by Unicode's classes. TruthfulQA uses it.
    International,
    /// `zh`: Chinese characters apart, the rest as `13a`.
    Chinese,
}

/// One substitution after another, in the order of the original.
type Rules = Vec<(Regex, &'static str)>;

fn rules(rules: &[(&str, &'static str)]) -> Rules {
    rules.iter().map(|(pattern, to)| (Regex::new(pattern).expect("a valid pattern"), *to)).collect()
}

/// `tokenizer_re`, after which `13a` and `zh` end: ASCII symbols apart; full stop and comma apart unless between digits;
/// a dash after a digit apart.
static WESTERN: LazyLock<Rules> = LazyLock::new(|| {
    rules(&[
        (r"([\{-\~\[-\` -\&\(-\+\:-\@/])", " $1 "),
        (r"([^0-9])([\.,])", "$1 $2 "),
        (r"([\.,])([^0-9])", " $1 $2"),
        (r"([0-9])(-)", "$1 $2 "),
    ])
});

static INTERNATIONAL: LazyLock<Rules> = LazyLock::new(|| {
    rules(&[(r"(\P{N})(\p{P})", "$1 $2 "), (r"(\p{P})(\P{N})", " $1 $2"), (r"(\p{S})", " $1 ")])
});

impl BleuTokenizer {
    /// Returns the line with a blank between words.
    fn separated(self, line: &str) -> String {
        let line = line.trim_end_matches(python::is_space);
        match self {
            Self::Mteval13a => {
                let mut line = line.replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
                for (entity, character) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
                    line = line.replace(entity, character);
                }
                replaced(format!(" {line} "), &WESTERN)
            }
            Self::International => replaced(line.to_owned(), &INTERNATIONAL),
            Self::Chinese => {
                let mut separated = String::new();
                for c in line.trim_matches(python::is_space).chars() {
                    if is_chinese(c) {
                        separated.extend([' ', c, ' ']);
                    } else {
                        separated.push(c);
                    }
                }
                replaced(separated, &WESTERN)
            }
        }
    }

    /// Returns the words of a line.
    pub fn words(self, line: &str) -> Vec<String> {
        python::split(&self.separated(line)).map(str::to_owned).collect()
    }
}

fn replaced(line: String, rules: &Rules) -> String {
    rules.iter().fold(line, |line, (pattern, to)| pattern.replace_all(&line, *to).into_owned())
}

/// The ranges of sacrebleu's `zh`. Two of them are meant for planes beyond the first, but are written so that Python reads
/// the last digit as a character of its own. They hold what stands here: general punctuation and much between.
fn is_chinese(c: char) -> bool {
    matches!(c,
        '\u{3400}'..='\u{4db5}' | '\u{4e00}'..='\u{9fbb}' | '\u{f900}'..='\u{fa2d}' | '\u{fa30}'..='\u{fa6a}'
        | '\u{fa70}'..='\u{fad9}' | '\u{2001}'..='\u{2a6d}' | '\u{2f81}'..='\u{2fa1}' | '\u{ff00}'..='\u{ffef}'
        | '\u{2e80}'..='\u{2eff}' | '\u{3000}'..='\u{303f}' | '\u{31c0}'..='\u{31ef}' | '\u{2f00}'..='\u{2fdf}'
        | '\u{2ff0}'..='\u{2fff}' | '\u{3100}'..='\u{312f}' | '\u{31a0}'..='\u{31bf}' | '\u{fe10}'..='\u{fe1f}'
        | '\u{fe30}'..='\u{fe4f}' | '\u{3200}'..='\u{33ff}')
}

/// Counts of a corpus, from which its BLEU follows. A corpus of one segment is what TruthfulQA calls a sentence's BLEU.
#[derive(Debug, Clone, Default)]
pub struct Bleu {
    correct: [u64; ORDERS],
    total: [u64; ORDERS],
    prediction_words: u64,
    reference_words: u64,
}

impl Bleu {
    /// Adds a segment. An n-gram counts as correct as often as the reference that has it most often. The length is that of
    /// the reference nearest in length, the shorter of two.
    pub fn add(&mut self, prediction: &str, references: &[&str], tokenizer: BleuTokenizer) {
        let separated = |line: &str| tokenizer.separated(line);
        let (prediction, references) =
            (separated(prediction), references.iter().map(|line| separated(line)).collect::<Vec<_>>());
        let mut numbers = Numbers::default();
        let prediction = numbers.all(python::split(&prediction));
        let references: Vec<Vec<u32>> =
            references.iter().map(|line| numbers.all(python::split(line))).collect();
        let nearest =
            references.iter().map(Vec::len).min_by_key(|&length| (length.abs_diff(prediction.len()), length));
        self.prediction_words += prediction.len() as u64;
        self.reference_words += nearest.unwrap_or(0) as u64;
        for order in 1..=ORDERS {
            let mut most: HashMap<&[u32], u64> = HashMap::new();
            for reference in &references {
                for (gram, times) in counts(reference, order) {
                    let most = most.entry(gram).or_default();
                    *most = times.max(*most);
                }
            }
            for (gram, times) in counts(&prediction, order) {
                self.total[order - 1] += times;
                self.correct[order - 1] += times.min(most.get(gram).copied().unwrap_or(0));
            }
        }
    }

    /// Returns BLEU between 0 and 100: the brevity penalty times the geometric mean of the precisions of 1 to 4 words
    /// (Papineni et al., 2002). The k-th precision without a correct n-gram is 1 / (2^k · n-grams) (NIST's smoothing). 0 if
    /// no word is correct, or if all predictions are shorter than four words.
    pub fn score(&self) -> f64 {
        if self.correct == [0; ORDERS] {
            return 0.0;
        }
        let (own, other) = (self.prediction_words as f64, self.reference_words as f64);
        let brevity = if own < other { (1.0 - other / own).exp() } else { 1.0 };
        let mut smoothing = 1.0;
        let mut logarithms = 0.0;
        for (&correct, &total) in self.correct.iter().zip(&self.total) {
            if total == 0 {
                return 0.0;
            }
            let precision = if correct == 0 {
                smoothing *= 2.0;
                100.0 / (smoothing * total as f64)
            } else {
                100.0 * correct as f64 / total as f64
            };
            logarithms += precision.ln();
        }
        brevity * (logarithms / ORDERS as f64).exp()
    }
}

fn counts(words: &[u32], order: usize) -> HashMap<&[u32], u64> {
    let mut counts = HashMap::new();
    words.windows(order).for_each(|gram| *counts.entry(gram).or_default() += 1);
    counts
}

/// Returns the BLEU of one segment, between 0 and 100: sacrebleu's `corpus_bleu([prediction], [[r] for r in references])`.
pub fn bleu(prediction: &str, references: &[&str], tokenizer: BleuTokenizer) -> f64 {
    let mut bleu = Bleu::default();
    bleu.add(prediction, references, tokenizer);
    bleu.score()
}
