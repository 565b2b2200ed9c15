//! Every metric against its Python original: `scripts/metrics_fixtures.py` made the values.
#![allow(clippy::unwrap_used, reason = "a test")]

use glmbench_metrics::longbench::{self, CodeRatio};
use glmbench_metrics::{
    Bleu, BleuTokenizer, ExactMatch, Perplexity, Undefined, bleu, cl100k, cl100k_text, count_words,
    gsm8k_flexible, gsm8k_normalise, gsm8k_strict, modeltest_number, modeltest_numbers_agree, needle_score,
    pass_at_k, rouge, segment, truthfulqa,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Reads a file of cases.
fn read<T: DeserializeOwned>(name: &str) -> T {
    let path = format!("{}/tests/fixtures/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The largest difference that the order of sums explains.
#[track_caller]
fn assert_near(value: f64, expected: f64, case: &impl std::fmt::Debug) {
    assert!(
        (value - expected).abs() <= 1e-12 * expected.abs().max(1.0),
        "{value} is not {expected}: {case:?}"
    );
}

#[derive(Debug, Deserialize)]
struct Pair {
    prediction: String,
    reference: String,
    value: f64,
}

#[track_caller]
fn check(cases: &[Pair], score: impl Fn(&str, &str) -> Result<f64, Undefined>) {
    assert!(cases.len() >= 50, "only {} cases", cases.len());
    assert!(cases.iter().any(|case| case.value > 0.0 && case.value < 1.0), "no case between 0 and 1");
    for case in cases {
        assert_near(score(&case.prediction, &case.reference).unwrap(), case.value, case);
    }
}

#[derive(Deserialize)]
struct LongBench {
    f1: Vec<Pair>,
    f1_chinese: Vec<Pair>,
    rouge_l: Vec<Pair>,
    rouge_l_chinese: Vec<Pair>,
    count: Vec<Pair>,
    retrieval: Vec<Pair>,
    retrieval_chinese: Vec<Pair>,
    code_indel: Vec<Pair>,
    code_difflib: Vec<Pair>,
    classification: Vec<Classified>,
}

#[derive(Debug, Deserialize)]
struct Classified {
    prediction: String,
    reference: String,
    classes: Vec<String>,
    value: f64,
}

#[test]
fn longbench_equals_its_metrics_py() {
    let all: LongBench = read("longbench");
    check(&all.f1, |p, r| Ok(longbench::f1(p, r)));
    check(&all.f1_chinese, |p, r| Ok(longbench::f1_chinese(p, r)));
    check(&all.rouge_l, longbench::rouge_l);
    check(&all.rouge_l_chinese, longbench::rouge_l_chinese);
    check(&all.count, |p, r| Ok(longbench::count(p, r)));
    check(&all.retrieval, longbench::retrieval);
    check(&all.retrieval_chinese, longbench::retrieval_chinese);
    check(&all.code_indel, |p, r| longbench::code_similarity(p, r, CodeRatio::Indel));
    check(&all.code_difflib, |p, r| longbench::code_similarity(p, r, CodeRatio::Difflib));
    assert!(all.classification.len() >= 50);
    for case in &all.classification {
        let classes: Vec<&str> = case.classes.iter().map(String::as_str).collect();
        assert_near(longbench::classification(&case.prediction, &case.reference, &classes), case.value, case);
    }
}

#[derive(Deserialize)]
struct Words {
    text: String,
    words: Vec<String>,
}

#[test]
fn words_are_those_of_jieba() {
    let cases: Vec<Words> = read("jieba");
    assert!(cases.len() >= 50);
    let wrong: Vec<_> = cases.iter().filter(|case| segment(&case.text) != case.words).collect();
    let shown: Vec<_> =
        wrong.iter().take(10).map(|case| (&case.text, segment(&case.text), &case.words)).collect();
    assert!(wrong.is_empty(), "{} of {} differ: {shown:#?}", wrong.len(), cases.len());
}

#[derive(Debug, Deserialize)]
#[allow(non_snake_case, reason = "names of rouge_score")]
struct Rouge {
    prediction: String,
    reference: String,
    rouge1: f64,
    rouge2: f64,
    rouge3: f64,
    rougeL: f64,
    rougeLsum: f64,
}

#[test]
fn rouge_equals_rouge_score() {
    let cases: Vec<Rouge> = read("rouge");
    assert!(cases.len() >= 50);
    for case in &cases {
        let (prediction, reference) = (&case.prediction, &case.reference);
        for (order, expected) in [(1, case.rouge1), (2, case.rouge2), (3, case.rouge3)] {
            assert_near(rouge::rouge_n(order, prediction, reference), expected, case);
        }
        assert_near(rouge::rouge_l(prediction, reference).unwrap(), case.rougeL, case);
        assert_near(rouge::rouge_l_sum(prediction, reference).unwrap(), case.rougeLsum, case);
    }
}

#[derive(Deserialize)]
struct BleuCases {
    tokens: std::collections::BTreeMap<String, Vec<Line>>,
    scores: Vec<Score>,
    corpora: Vec<Corpus>,
}

#[derive(Deserialize)]
struct Line {
    line: String,
    words: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Score {
    prediction: String,
    references: Vec<String>,
    tokenizer: String,
    value: f64,
}

#[derive(Debug, Deserialize)]
struct Corpus {
    pairs: Vec<(String, String)>,
    value: f64,
}

fn tokenizer(name: &str) -> BleuTokenizer {
    match name {
        "13a" => BleuTokenizer::Mteval13a,
        "intl" => BleuTokenizer::International,
        "zh" => BleuTokenizer::Chinese,
        other => panic!("{other}"),
    }
}

#[test]
fn bleu_equals_sacrebleu() {
    let all: BleuCases = read("bleu");
    assert_eq!(all.tokens.len(), 3);
    for (name, lines) in &all.tokens {
        assert!(lines.len() >= 50);
        for Line { line, words } in lines {
            assert_eq!(tokenizer(name).words(line), *words, "{name}: {line:?}");
        }
    }
    assert!(all.scores.len() >= 150 && all.corpora.len() >= 50);
    for case in &all.scores {
        let references: Vec<&str> = case.references.iter().map(String::as_str).collect();
        assert_near(bleu(&case.prediction, &references, tokenizer(&case.tokenizer)), case.value, case);
    }
    for case in &all.corpora {
        let mut corpus = Bleu::default();
        case.pairs.iter().for_each(|(p, r)| corpus.add(p, &[r], BleuTokenizer::Mteval13a));
        assert_near(corpus.score(), case.value, case);
    }
}

#[derive(Deserialize)]
struct TruthfulQa {
    choices: Vec<Choices>,
    generations: Vec<Generation>,
}

#[derive(Debug, Deserialize)]
struct Choices {
    right: Vec<f64>,
    wrong: Vec<f64>,
    mc1: bool,
    mc2: f64,
    mc3: f64,
}

#[derive(Debug, Deserialize)]
#[allow(non_snake_case, reason = "names of rouge_score")]
struct Generation {
    reply: String,
    right: Vec<String>,
    wrong: Vec<String>,
    bleu_right: f64,
    bleu_wrong: f64,
    rouge1_right: f64,
    rouge1_wrong: f64,
    rouge2_right: f64,
    rouge2_wrong: f64,
    rougeLsum_right: f64,
    rougeLsum_wrong: f64,
}

#[test]
fn truthfulqa_equals_its_originals() {
    let all: TruthfulQa = read("truthfulqa");
    assert!(all.choices.len() >= 50 && all.generations.len() >= 50);
    for case in &all.choices {
        assert_eq!(truthfulqa::mc1(case.right[0], &case.wrong), case.mc1, "{case:?}");
        assert_near(truthfulqa::mc2(&case.right, &case.wrong), case.mc2, case);
        assert_near(truthfulqa::mc3(&case.right, &case.wrong), case.mc3, case);
    }
    for case in &all.generations {
        let right: Vec<&str> = case.right.iter().map(String::as_str).collect();
        let wrong: Vec<&str> = case.wrong.iter().map(String::as_str).collect();
        let scores = truthfulqa::generation(&case.reply, &right, &wrong).unwrap();
        for (score, right, wrong) in [
            (scores.bleu, case.bleu_right, case.bleu_wrong),
            (scores.rouge1, case.rouge1_right, case.rouge1_wrong),
            (scores.rouge2, case.rouge2_right, case.rouge2_wrong),
            (scores.rouge_l, case.rougeLsum_right, case.rougeLsum_wrong),
        ] {
            assert_near(score.right, right, case);
            assert_near(score.wrong, wrong, case);
            assert_near(score.difference(), right - wrong, case);
            assert_eq!(score.is_right(), right > wrong, "{case:?}");
        }
    }
}

#[derive(Debug, Deserialize)]
struct PassAtK {
    samples: u64,
    passed: u64,
    k: u64,
    value: f64,
}

#[test]
fn pass_at_k_is_the_unbiased_estimate() {
    let cases: Vec<PassAtK> = read("pass_at_k");
    assert!(cases.len() >= 50);
    for case in &cases {
        assert_near(pass_at_k(case.samples, case.passed, case.k).unwrap(), case.value, case);
    }
    for (samples, passed, k) in [(0, 0, 1), (5, 0, 0), (5, 6, 1), (5, 5, 6)] {
        assert_eq!(pass_at_k(samples, passed, k), None);
    }
}

#[derive(Deserialize)]
struct Answers {
    modeltest_number: Vec<Read<Option<String>>>,
    modeltest_agree: Vec<Agree>,
    strict: Vec<Read<String>>,
    flexible: Vec<Read<String>>,
    normalised: Vec<Read<String>>,
}

#[derive(Deserialize)]
struct Read<T> {
    text: String,
    value: T,
}

#[derive(Debug, Deserialize)]
struct Agree {
    prediction: String,
    reference: String,
    value: bool,
}

#[test]
fn answers_are_read_as_the_originals_read_them() {
    let all: Answers = read("answers");
    assert!(all.modeltest_number.len() >= 50 && all.modeltest_agree.len() >= 50);
    for Read { text, value } in &all.modeltest_number {
        assert_eq!(modeltest_number(text).unwrap(), *value, "{text:?}");
    }
    for case in &all.modeltest_agree {
        assert_eq!(
            modeltest_numbers_agree(&case.prediction, &case.reference).unwrap(),
            case.value,
            "{case:?}"
        );
    }
    for Read { text, value } in &all.strict {
        assert_eq!(gsm8k_strict(text), value, "{text:?}");
    }
    for Read { text, value } in &all.flexible {
        assert_eq!(gsm8k_flexible(text), value, "{text:?}");
    }
    let bare = ExactMatch { ignores_case: true, ignores_punctuation: true, ignores_numbers: true };
    assert!(bare.agree("Yes, 12!", "yes ") && !ExactMatch::default().agree("Yes", "yes"));
    for Read { text, value } in &all.normalised {
        assert_eq!(gsm8k_normalise(text), *value, "{text:?}");
    }
}

#[derive(Debug, Deserialize)]
struct Pages {
    pages: Vec<String>,
    log_likelihoods: Vec<f64>,
    words: Vec<u64>,
    word_perplexity: f64,
    byte_perplexity: f64,
    bits_per_byte: f64,
}

#[test]
fn perplexities_are_those_of_lm_eval() {
    let cases: Vec<Pages> = read("perplexity");
    assert!(cases.len() >= 50);
    for case in &cases {
        let (mut by_word, mut by_byte) = (Perplexity::default(), Perplexity::default());
        for ((page, sum), words) in case.pages.iter().zip(&case.log_likelihoods).zip(&case.words) {
            assert_eq!(count_words(page), *words, "{page:?}");
            by_word.add(*sum, *words);
            by_byte.add(*sum, page.len() as u64);
        }
        assert_near(by_word.value().unwrap(), case.word_perplexity, case);
        assert_near(by_byte.value().unwrap(), case.byte_perplexity, case);
        assert_near(by_byte.bits_per_unit().unwrap(), case.bits_per_byte, case);
    }
    assert_eq!(Perplexity::default().value(), None);
}

#[derive(Deserialize)]
struct Tokens {
    encode: Vec<Tokenized>,
    decode: Vec<Tokenized>,
}

#[derive(Deserialize)]
struct Tokenized {
    text: String,
    tokens: Vec<u32>,
}

#[test]
fn tokens_are_those_of_tiktoken() {
    let all: Tokens = read("tokens");
    assert!(all.encode.len() >= 50 && all.decode.len() >= 50);
    for Tokenized { text, tokens } in &all.encode {
        assert_eq!(cl100k(text).unwrap(), *tokens, "{text:?}");
        assert_eq!(cl100k_text(tokens), *text);
    }
    for Tokenized { text, tokens } in &all.decode {
        assert_eq!(cl100k_text(tokens), *text, "{tokens:?}");
    }
}

#[derive(Debug, Deserialize)]
struct Needle {
    reply: String,
    needle: String,
    keyword: String,
    value: f64,
}

#[test]
fn needles_are_scored_as_by_opencompass() {
    let cases: Vec<Needle> = read("needle");
    assert!(cases.len() >= 50);
    for case in &cases {
        assert_near(needle_score(&case.reply, &case.needle, &case.keyword).unwrap(), case.value, case);
    }
}
