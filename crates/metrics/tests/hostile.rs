//! Texts that no one expects: nothing panics, time and memory are bounded, and scores stay between their bounds.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use glmbench_metrics::longbench::{self, CodeRatio};
use glmbench_metrics::{
    BleuTokenizer, Undefined, bleu, cl100k, count_words, gsm8k_flexible, gsm8k_normalise, gsm8k_strict,
    modeltest_number, modeltest_numbers_agree, needle_score, pass_at_k, rouge, segment, truthfulqa,
};
use proptest::prelude::*;

type Score = (&'static str, f64, fn(&str, &str) -> Result<f64, Undefined>);

/// Every score of two texts, with its largest value.
const SCORES: [Score; 18] = [
    ("f1", 1.0, |p, r| Ok(longbench::f1(p, r))),
    ("f1_chinese", 1.0, |p, r| Ok(longbench::f1_chinese(p, r))),
    ("rouge_l of LongBench", 1.0, longbench::rouge_l),
    ("rouge_l_chinese", 1.0, longbench::rouge_l_chinese),
    ("classification", 1.0, |p, r| Ok(longbench::classification(p, r, &[r, "a", "", p]))),
    ("count", 1.0, |p, r| Ok(longbench::count(p, r))),
    ("retrieval", 1.0, longbench::retrieval),
    ("retrieval_chinese", 1.0, longbench::retrieval_chinese),
    ("code by difflib", 1.0, |p, r| longbench::code_similarity(p, r, CodeRatio::Difflib)),
    ("code by indel", 1.0, |p, r| longbench::code_similarity(p, r, CodeRatio::Indel)),
    ("rouge_1", 1.0, |p, r| Ok(rouge::rouge_n(1, p, r))),
    ("rouge_2", 1.0, |p, r| Ok(rouge::rouge_n(2, p, r))),
    ("rouge_l", 1.0, rouge::rouge_l),
    ("rouge_l_sum", 1.0, rouge::rouge_l_sum),
    ("bleu 13a", 100.0, |p, r| Ok(bleu(p, &[r], BleuTokenizer::Mteval13a))),
    ("bleu intl", 100.0, |p, r| Ok(bleu(p, &[r], BleuTokenizer::International))),
    ("bleu zh", 100.0, |p, r| Ok(bleu(p, &[r], BleuTokenizer::Chinese))),
    ("needle", 1.0, |p, r| needle_score(p, r, "no such word")),
];

fn check(prediction: &str, reference: &str) {
    for (name, most, score) in SCORES {
        if let Ok(value) = score(prediction, reference) {
            assert!((0.0..=most * (1.0 + 1e-9)).contains(&value), "{name}: {value}");
        }
    }
    for text in [prediction, reference] {
        assert_eq!(segment(text).concat(), text);
        let _ = (gsm8k_strict(text), gsm8k_flexible(text), gsm8k_normalise(text), count_words(text));
        if let Ok(tokens) = cl100k(text) {
            assert_eq!(glmbench_metrics::cl100k_text(&tokens), text);
        }
        if modeltest_number(text).unwrap().is_some() {
            assert!(modeltest_numbers_agree(text, text).unwrap(), "{text:?}");
        }
    }
}

#[test]
fn texts_without_words_have_scores() {
    let texts = [
        "",
        " ",
        "\n",
        ".",
        "\u{301}",
        "\u{301}\u{302}",
        "🙂",
        "👩‍👩‍👧‍👦",
        "\u{0}",
        "\u{feff}",
        "\u{10ffff}",
        "…。，",
        "- - -",
        "\u{1c}",
        "a\u{301}",
    ];
    for prediction in texts {
        for reference in texts {
            check(prediction, reference);
        }
    }
    assert!(truthfulqa::mc2(&[-1e300, f64::NEG_INFINITY], &[-1e300]).is_finite());
    assert!(truthfulqa::mc2(&[], &[]).is_nan());
    assert!(glmbench_metrics::best(&[], |_| Ok(1.0)).unwrap().is_nan());
}

proptest! {
    #[test]
    fn any_texts_have_scores(prediction in "\\PC*|[a-c .,0-9\n中文一-]{0,60}", reference in "\\PC*|[a-c .,0-9\n中文一-]{0,60}") {
        check(&prediction, &reference);
    }

    #[test]
    fn a_text_equals_itself(text in "[a-z]{1,5}( [a-z]{1,5}){3,20}") {
        prop_assert!((rouge::rouge_l(&text, &text).unwrap() - 1.0).abs() < 1e-12);
        prop_assert!((rouge::rouge_l_sum(&text, &text).unwrap() - 1.0).abs() < 1e-12);
        prop_assert!((bleu(&text, &[&text], BleuTokenizer::Mteval13a) - 100.0).abs() < 1e-9);
        prop_assert_eq!(longbench::code_similarity(&text, &text, CodeRatio::Difflib), Ok(1.0));
    }

    #[test]
    fn both_roads_to_rouge_l_agree(words in proptest::collection::vec("[ab]{1,2}", 1..40), others in proptest::collection::vec("[ab]{1,2}", 1..40)) {
        // One sentence whose words are all counted once in both: the summary's score is that of the sentence.
        let (text, other) = (words.join(" "), others.join(" "));
        prop_assert!((rouge::rouge_l(&text, &other).unwrap() - rouge::rouge_l_sum(&text, &other).unwrap()).abs() < 1e-12);
    }

    #[test]
    fn pass_at_k_grows_with_k_and_with_passes(samples in 1_u64..300, passed in 0_u64..300, k in 1_u64..300) {
        let value = pass_at_k(samples, passed, k);
        prop_assert_eq!(value.is_some(), passed <= samples && k <= samples);
        if let Some(value) = value {
            prop_assert!((0.0..=1.0).contains(&value));
            prop_assert!(pass_at_k(samples, passed, k + 1).is_none_or(|more| more >= value - 1e-12));
            prop_assert!(pass_at_k(samples, passed + 1, k).is_none_or(|more| more >= value - 1e-12));
        }
    }
}

#[test]
fn large_texts_are_bounded() {
    check_texts_of(300_000);
}

/// Two minutes of a quiet machine.
#[test]
#[ignore = "slow"]
fn texts_of_10_mb_are_bounded() {
    check_texts_of(10_000_000);
}

/// Each metric has its value or says that the texts are too long, within a minute.
fn check_texts_of(size: usize) {
    for part in ["a", "a b ", "1,234.", "研究生命起源，", " ", "a.\n"] {
        let text = part.repeat(size / part.len());
        for (name, most, score) in SCORES {
            let start = Instant::now();
            for prediction in [text.as_str(), "a b 1 中"] {
                match score(prediction, &text) {
                    Ok(value) => assert!((0.0..=most * (1.0 + 1e-9)).contains(&value), "{name}: {value}"),
                    Err(error) => assert!(error.to_string().len() < 300, "{name}: {error}"),
                }
            }
            let time = start.elapsed();
            assert!(time < Duration::from_mins(1), "{name} of {part:?}: {time:?}");
        }
        let _ = (modeltest_number(&text), gsm8k_strict(&text), gsm8k_flexible(&text), cl100k(&text));
    }
}
