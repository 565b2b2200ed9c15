//! Compares a score with the published one.

use super::format::{percent, significant};
use crate::language::{Text, text};
use crate::record::{AccuracyCase, AccuracyRow, PublishedScore};
use crate::stats::binomial_exact;

/// p-value below which a count is called inconsistent with the published one.
const INCONSISTENT: f64 = 0.05;

/// Definition at the foot of a report with a published score.
pub(super) const DEFINITION: (Text, Text) = (
    text!("Consistent with the published count"),
    text!(
        "exact two-sided binomial test (the method of small probabilities) of the items right against the published share of as \
         many items, at 5 %. It takes the published share for exact. The same model on the same items should agree in all but a \
         few, so a count that is merely consistent is no proof. `glmbench compare` pairs items."
    ),
);

/// Compares a task's overall row with the published score. `None` if there is no published score, or nothing is
/// scored yet.
pub(super) fn sentence(case: &AccuracyCase, row: &AccuracyRow) -> Option<Text> {
    let published = case.published.as_ref()?;
    let PublishedScore { of, correct, items, source, unlike } = published;
    let of = if of.is_empty() { Text::EMPTY } else { text!(" for {model}", model = of) };
    let those =
        text!("the published {correct} of {items}{model} ({source})", correct, items, model = of, source);
    let put = row.scored + row.unscorable;
    let obstacle = match unlike {
        Some(why) => Some(why.into()),
        None if row.failed > 0 => {
            Some(text!("{failed} of {items} items failed", failed = row.failed, items = row.n))
        }
        None if put < *items => Some(text!("{put} of {items} items are done", put, items)),
        None => None,
    };
    if let Some(why) = obstacle {
        return Some(text!("{task}: not held against {those}: {why}.", task = case.task, those, why));
    }
    let p = binomial_exact(row.correct, put, *correct as f64 / *items as f64)?;
    let verdict = if p < INCONSISTENT { text!("NOT consistent") } else { text!("consistent") };
    Some(text!(
        "{task}: {correct} of {put} right is {verdict} with {those}: {found} % against {expected} %, exact binomial p {p}.",
        task = case.task,
        correct = row.correct,
        put,
        verdict,
        those,
        found = percent(row.correct as f64 / put as f64),
        expected = percent(*correct as f64 / *items as f64),
        p = if p < 0.001 { "< 0.001".to_owned() } else { format!("= {}", significant(p, 2)) },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{accuracy_rows, fixture};

    fn case() -> AccuracyCase {
        AccuracyCase {
            published: Some(PublishedScore {
                of: "chatglm2-6b in fp16".into(),
                correct: 719,
                items: 1346,
                source: "its makers".into(),
                unlike: None,
            }),
            ..fixture::run().plan.accuracy[0].clone()
        }
    }

    fn row(correct: u64) -> AccuracyRow {
        let fixture::Records { run, samples, .. } = fixture::quiet();
        let whole = accuracy_rows(&run, &samples).remove(0);
        AccuracyRow { n: 1346, scored: 1346, unscorable: 0, failed: 0, correct, ..whole }
    }

    #[test]
    fn counts_near_the_published_one_are_consistent_and_others_are_not() {
        assert_eq!(
            sentence(&case(), &row(721)).unwrap(),
            "ceval: 721 of 1346 right is consistent with the published 719 of 1346 for chatglm2-6b in fp16 (its makers): \
             53.6 % against 53.4 %, exact binomial p = 0.93."
        );
        assert!(sentence(&case(), &row(683)).unwrap().contains(" is consistent with "));
        assert!(sentence(&case(), &row(682)).unwrap().contains(" is NOT consistent with "));
        assert!(sentence(&case(), &row(500)).unwrap().to_string().ends_with("p < 0.001."));
    }

    #[test]
    fn a_score_of_something_else_is_not_held_against_it() {
        let failed = AccuracyRow { scored: 1345, failed: 1, ..row(719) };
        let said = sentence(&case(), &failed).unwrap();
        assert!(
            said.contains("not held against ") && said.to_string().ends_with(": 1 of 1346 items failed."),
            "{said}"
        );
        let part = AccuracyRow { scored: 100, n: 100, ..row(50) };
        assert!(sentence(&case(), &part).unwrap().to_string().ends_with(": 100 of 1346 items are done."));
        let mut other = case();
        other.published.as_mut().unwrap().unlike = Some("this run is in fp16+kv-int8".into());
        assert!(sentence(&other, &row(719)).unwrap().to_string().ends_with(": this run is in fp16+kv-int8."));
        other.published = None;
        assert_eq!(sentence(&other, &row(719)), None);
    }
}
