//! ROUGE as the package rouge_score 0.1.2 computes it, without its stemmer: the scores of TruthfulQA.
//!
//! Source: C.-Y. Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004, and the package. Tokens are the runs of
//! a–z and 0–9 in the lowered text. Each function returns F = 2 P R / (P + R), between 0 and 1, and 0 for texts without
//! tokens. Chinese text has no tokens here.

use std::collections::HashMap;

use crate::Undefined;
use crate::lcs::{self, Budget, Numbers, Tie};

/// ROUGE-N: the common n-grams of both texts, each counted as often as in the text that has it less often.
pub fn rouge_n(order: usize, prediction: &str, reference: &str) -> f64 {
    let (prediction, reference) = (prediction.to_lowercase(), reference.to_lowercase());
    let mut numbers = Numbers::default();
    let (prediction, reference) = (numbers.all(tokens(&prediction)), numbers.all(tokens(&reference)));
    let count = |words: &[u32]| (words.len() + 1).saturating_sub(order.max(1));
    let mut left: HashMap<&[u32], usize> = HashMap::new();
    reference.windows(order.max(1)).for_each(|gram| *left.entry(gram).or_default() += 1);
    let mut common = 0;
    for gram in prediction.windows(order.max(1)) {
        if let Some(times) = left.get_mut(gram).filter(|times| **times > 0) {
            *times -= 1;
            common += 1;
        }
    }
    f_measure(common, count(&prediction), count(&reference))
}

/// ROUGE-L: the longest common subsequence of the tokens in both texts.
pub fn rouge_l(prediction: &str, reference: &str) -> Result<f64, Undefined> {
    let (prediction, reference) = (prediction.to_lowercase(), reference.to_lowercase());
    let mut numbers = Numbers::default();
    let (prediction, reference) = (numbers.all(tokens(&prediction)), numbers.all(tokens(&reference)));
    Ok(f_measure(lcs::length(&reference, &prediction)?, prediction.len(), reference.len()))
}

/// ROUGE-Lsum: sentences end at line ends. For each sentence of the reference, the positions of the longest common
/// subsequences with all sentences of the prediction are united. Their tokens are hits, each as often as both texts have it.
pub fn rouge_l_sum(prediction: &str, reference: &str) -> Result<f64, Undefined> {
    let (prediction, reference) = (prediction.to_lowercase(), reference.to_lowercase());
    let mut numbers = Numbers::default();
    let mut sentences = |text| lines(text).map(|line| numbers.all(tokens(line))).collect::<Vec<_>>();
    let (prediction, reference) = (sentences(&prediction), sentences(&reference));
    let total = |text: &[Vec<u32>]| text.iter().map(Vec::len).sum::<usize>();
    let mut left = [&prediction, &reference].map(|text| {
        let mut counts: HashMap<u32, usize> = HashMap::new();
        text.iter().flatten().for_each(|token| *counts.entry(*token).or_default() += 1);
        counts
    });
    let mut budget = Budget::new();
    let mut hits = 0;
    for sentence in &reference {
        let mut is_common = vec![false; sentence.len()];
        for other in &prediction {
            for at in lcs::positions(sentence, other, Tie::First, &mut budget)? {
                is_common[at] = true;
            }
        }
        for (token, _) in sentence.iter().zip(is_common).filter(|(_, is_common)| *is_common) {
            let counts = left.each_mut().map(|counts| counts.get_mut(token).filter(|count| **count > 0));
            if let [Some(first), Some(second)] = counts {
                *first -= 1;
                *second -= 1;
                hits += 1;
            }
        }
    }
    Ok(f_measure(hits, total(&prediction), total(&reference)))
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').filter(|line| !line.is_empty())
}

fn tokens(lowered: &str) -> impl Iterator<Item = &str> {
    let is_of_token = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    lowered.split(move |c| !is_of_token(c)).filter(|token| !token.is_empty())
}

fn f_measure(common: usize, in_prediction: usize, in_reference: usize) -> f64 {
    let share = |of: usize| if of == 0 { 0.0 } else { common as f64 / of as f64 };
    let (precision, recall) = (share(in_prediction), share(in_reference));
    if precision + recall > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 }
}
