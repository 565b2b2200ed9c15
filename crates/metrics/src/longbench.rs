//! The scores of LongBench, between 0 and 1, as `metrics.py` of THUDM/LongBench computes them. LongBench reports the best
//! score over an item's references: [`best`](crate::best).

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use crate::lcs::{self, Budget, Numbers, Tie};
use crate::python::{self, NUMBER, WORD};
use crate::{Undefined, difflib, segment};

/// Punctuation that the Chinese normaliser drops besides ASCII's.
const CHINESE_PUNCTUATION: &str = "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏.";

/// F1 over English words (`qa_f1_score`): narrativeqa, qasper, multifieldqa_en, hotpotqa, 2wikimqa, musique, triviaqa.
///
/// Both texts are lowered, stripped of ASCII punctuation and of the words a, an, the, and split at white space. With the
/// bag of common words, F1 = 2 P R / (P + R); 0 without a common word.
pub fn f1(prediction: &str, reference: &str) -> f64 {
    let (prediction, reference) = (normalise(prediction), normalise(reference));
    f1_of(&python::split(&prediction).collect::<Vec<_>>(), &python::split(&reference).collect::<Vec<_>>())
}

/// F1 over Chinese words (`qa_f1_zh_score`): multifieldqa_zh. The words are jieba's ([`segment()`](crate::segment()));
/// each is lowered and stripped of punctuation and white space, and empty ones are dropped.
pub fn f1_chinese(prediction: &str, reference: &str) -> f64 {
    let words =
        |text| segment::segment(text).into_iter().map(normalise_chinese).filter(|word| !word.is_empty());
    f1_of(&words(prediction).collect::<Vec<_>>(), &words(reference).collect::<Vec<_>>())
}

/// ROUGE-L of summaries in English (`rouge_score`): gov_report, qmsum, multi_news, samsum.
///
/// It is `rouge-l` of the Python package rouge 1.0.1. Sentences end at full stops, words at white space. For every pair of
/// reference and prediction sentences, the *set* of words of one longest common subsequence is joined to a union U. With the
/// sets R and C of words of reference and prediction: recall |U| / |R|, precision |U| / |C|, F = 2 P R / (P + R + 1e-8). A
/// text without a sentence gives 0.
///
/// The original recurses once per word, and LongBench counts 0 where Python's limit of 1,000 is exceeded: sentences with
/// about 1,000 words together. Here they have their value.
pub fn rouge_l(prediction: &str, reference: &str) -> Result<f64, Undefined> {
    let mut numbers = Numbers::default();
    let (prediction, reference) = (sentences(prediction, &mut numbers), sentences(reference, &mut numbers));
    if prediction.is_empty() || reference.is_empty() {
        return Ok(0.0);
    }
    let mut budget = Budget::new();
    let mut union = HashSet::new();
    for sentence in &reference {
        for other in &prediction {
            let positions = lcs::positions(sentence, other, Tie::Second, &mut budget)?;
            union.extend(positions.into_iter().map(|at| sentence[at]));
        }
    }
    let distinct = |text: &[Vec<u32>]| text.iter().flatten().collect::<HashSet<_>>().len() as f64;
    let (recall, precision) =
        (union.len() as f64 / distinct(&reference), union.len() as f64 / distinct(&prediction));
    Ok(2.0 * ((precision * recall) / (precision + recall + 1e-8)))
}

/// ROUGE-L of summaries in Chinese (`rouge_zh_score`): dureader, vcsum. [`rouge_l`] over jieba's words.
pub fn rouge_l_chinese(prediction: &str, reference: &str) -> Result<f64, Undefined> {
    rouge_l(&segment::segment(prediction).join(" "), &segment::segment(reference).join(" "))
}

/// Classification (`classification_score`): trec, lsht. 1 / n if the reference is among the n classes named in the
/// prediction, else 0.
///
/// Classes that are a part of the reference name are not counted. The original removes them from the list that it walks
/// through, and so skips the class after each removed one. That is kept.
pub fn classification(prediction: &str, reference: &str, classes: &[&str]) -> f64 {
    let mut named: Vec<&str> = classes.iter().copied().filter(|class| prediction.contains(class)).collect();
    let mut at = 0;
    while at < named.len() {
        let class = named[at];
        if reference.contains(class) && class != reference {
            let first = named.iter().position(|other| *other == class).unwrap_or(at);
            named.remove(first);
        }
        at += 1;
    }
    if named.contains(&reference) { 1.0 / named.len() as f64 } else { 0.0 }
}

/// Counting (`count_score`): passage_count. The share of the numbers in the prediction that equal the reference; 0 without
/// a number.
pub fn count(prediction: &str, reference: &str) -> f64 {
    let (mut all, mut equal) = (0_u64, 0_u64);
    for number in NUMBER.find_iter(prediction) {
        all += 1;
        equal += u64::from(number.as_str() == reference);
    }
    if all == 0 { 0.0 } else { equal as f64 / all as f64 }
}

/// Retrieval in English (`retrieval_score`): [`count()`] with the number of the first `Paragraph 12` in the reference. An
/// error if the reference names no paragraph.
pub fn retrieval(prediction: &str, reference: &str) -> Result<f64, Undefined> {
    retrieval_after("Paragraph ", prediction, reference)
}

/// Retrieval in Chinese (`retrieval_zh_score`): as [`retrieval`], with `段落12`.
pub fn retrieval_chinese(prediction: &str, reference: &str) -> Result<f64, Undefined> {
    retrieval_after("段落", prediction, reference)
}

fn retrieval_after(word: &'static str, prediction: &str, reference: &str) -> Result<f64, Undefined> {
    let number = reference.match_indices(word).find_map(|(at, _)| {
        NUMBER.find_at(reference, at + word.len()).filter(|number| number.start() == at + word.len())
    });
    let shortened = || reference.chars().take(60).collect();
    let number = number.ok_or_else(|| Undefined::NoParagraph { word, reference: shortened() })?;
    Ok(count(prediction, number.as_str()))
}

/// Which of two programs computes the similarity of code: `fuzz.ratio` of fuzzywuzzy takes what is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeRatio {
    /// Python's `difflib`, with fuzzywuzzy alone: what LongBench's requirements install.
    Difflib,
    /// 1 − d / (n + m) with the distance d of insertions and deletions, where python-Levenshtein is installed as well.
    Indel,
}

/// Similarity of code (`code_sim_score`): lcc, repobench-p. The first line of the prediction without a backquote, `#` or
/// `//` is compared with the reference. The ratio is rounded to whole percents.
pub fn code_similarity(prediction: &str, reference: &str, ratio: CodeRatio) -> Result<f64, Undefined> {
    let is_code = |line: &&str| !line.contains(['`', '#']) && !line.contains("//");
    let line = prediction.trim_start_matches('\n').split('\n').find(is_code).unwrap_or("");
    if line == reference {
        return Ok(1.0);
    }
    if line.is_empty() || reference.is_empty() {
        return Ok(0.0);
    }
    let similarity = match ratio {
        CodeRatio::Difflib => difflib::ratio(line, reference)?,
        CodeRatio::Indel => {
            let total = line.chars().count() + reference.chars().count();
            let distance = total - 2 * lcs::length_of_characters(line, reference)?;
            1.0 - distance as f64 / total as f64
        }
    };
    Ok(python::round(100.0 * similarity) / 100.0)
}

/// `normalize_answer` of LongBench and SQuAD.
fn normalise(text: &str) -> String {
    let mut bare = text.to_lowercase();
    bare.retain(|c| !c.is_ascii_punctuation());
    let mut normal = String::with_capacity(bare.len());
    let mut end = 0;
    for word in WORD.find_iter(&bare).filter(|word| matches!(word.as_str(), "a" | "an" | "the")) {
        normal.push_str(&bare[end..word.start()]);
        normal.push(' ');
        end = word.end();
    }
    normal.push_str(&bare[end..]);
    normal
}

/// `normalize_zh_answer` of LongBench.
fn normalise_chinese(word: &str) -> Cow<'_, str> {
    let is_common = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '\u{4E00}'..='\u{9FFF}');
    if word.chars().all(is_common) {
        return Cow::Borrowed(word);
    }
    let mut normal = word.to_lowercase();
    normal.retain(|c| !c.is_ascii_punctuation() && !CHINESE_PUNCTUATION.contains(c) && !python::is_space(c));
    Cow::Owned(normal)
}

/// F1 of two bags of words.
fn f1_of<W: Eq + Hash>(prediction: &[W], reference: &[W]) -> f64 {
    let mut left: HashMap<&W, usize> = HashMap::new();
    reference.iter().for_each(|word| *left.entry(word).or_default() += 1);
    let mut same = 0;
    for word in prediction {
        if let Some(count) = left.get_mut(word).filter(|count| **count > 0) {
            *count -= 1;
            same += 1;
        }
    }
    if same == 0 {
        return 0.0;
    }
    let (precision, recall) =
        (f64::from(same) / prediction.len() as f64, f64::from(same) / reference.len() as f64);
    (2.0 * precision * recall) / (precision + recall)
}

/// Returns the words of each sentence. A sentence of white space has one empty word, as in the original.
fn sentences<'t>(text: &'t str, numbers: &mut Numbers<'t>) -> Vec<Vec<u32>> {
    let mut words = |sentence| {
        let words = numbers.all(python::split(sentence));
        if words.is_empty() { vec![numbers.of("")] } else { words }
    };
    text.split('.').filter(|sentence| !sentence.is_empty()).map(&mut words).collect()
}
