//! NeedleBench, single needle.

use crate::python::is_space;
use crate::{Undefined, lcs};

/// Scores a reply between 0 and 1, as OpenCompass's `NeedleBenchOriginEvaluator` with `use_trim` (there times 100).
///
/// 1 if the keyword is in the reply. Otherwise 0.2 · (1 − d / n) with the Levenshtein distance d and the longer length n of
/// reply and needle without white space. The reply is first cut to 1.2 times the needle's length. It is also cut after the
/// first occurrence of the last needle character beyond 0.8 times the needle's length.
pub fn needle_score(reply: &str, needle: &str, keyword: &str) -> Result<f64, Undefined> {
    if reply.contains(keyword) {
        return Ok(1.0);
    }
    let dense = |text: &str| text.chars().filter(|c| !is_space(*c)).collect::<Vec<char>>();
    let needle = dense(needle);
    let reply = trimmed(dense(reply), &needle);
    let longer = reply.len().max(needle.len());
    if longer == 0 {
        return Ok(0.2);
    }
    let distance = lcs::levenshtein_distance(&reply, &needle)?;
    Ok(0.2 * (1.0 - distance as f64 / longer as f64))
}

fn trimmed(mut reply: Vec<char>, needle: &[char]) -> Vec<char> {
    let part = |share: f64| (share * needle.len() as f64) as usize;
    reply.truncate(part(1.2));
    let from = part(0.8);
    if let (Some(last), Some(tail)) = (needle.last(), reply.get(from..))
        && let Some(at) = tail.iter().position(|c| c == last)
    {
        reply.truncate(from + at + 1);
    }
    reply
}
