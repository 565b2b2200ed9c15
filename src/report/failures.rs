//! Failures and their reasons: items without an answer, timed cases without times.

use super::performance::Repetitions;
use crate::language::{Text, joined, text};
use crate::record::{AccuracyCase, RequestRecord, RunRecord, SampleRecord, SampleState, Status};

/// The failed items of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// The task.
    pub(super) task: String,
    /// The first failed item, in plan order.
    pub(super) item: String,
    /// Why that item failed.
    pub(super) reason: Text,
    /// Number of failed items.
    pub(super) failed: u64,
    /// Number of items with a line.
    pub(super) items: u64,
    /// Whether more items failed than the suite allows.
    pub(super) is_spoilt: bool,
}

/// Collects the failed items of a task. `None` if none failed.
pub(super) fn of_task(case: &AccuracyCase, samples: &[SampleRecord]) -> Option<Failure> {
    let own = || samples.iter().filter(|sample| sample.task == case.task);
    let failed = || own().filter(|sample| sample.state == SampleState::Failed);
    let (first, count) = (failed().next()?, failed().count() as u64);
    Some(Failure {
        task: case.task.clone(),
        item: first.doc_id.clone(),
        reason: first.error.as_ref().map_or_else(|| text!("no reason was recorded"), Text::from),
        failed: count,
        items: own().count() as u64,
        is_spoilt: case.is_spoilt_by(count),
    })
}

impl Failure {
    /// `logits not finite: … (from item 3 of boolq); 704 of 704 items failed`.
    pub(super) fn words(&self) -> Text {
        let Self { task, item, reason, failed, items, .. } = self;
        text!(
            "{reason} (from item {item} of {task}); {failed} of {items} item{items:s} failed",
            reason,
            item,
            task,
            failed,
            items
        )
    }
}

/// Timed cases that were run and may not be used, one sentence per reason.
pub(super) fn of_cases(run: &RunRecord, requests: &[RequestRecord]) -> Vec<Text> {
    let mut reasons: Vec<(Text, Vec<&str>)> = Vec::new();
    for case in &run.plan.performance {
        let repetitions = Repetitions::of(case, requests);
        // Cases that an unfinished run has not reached are missing, not wrong.
        let Some(reason) =
            repetitions.invalid.filter(|_| !repetitions.unrun || run.status == Status::Complete)
        else {
            continue;
        };
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, cases)) => cases.push(&case.case_id),
            None => reasons.push((reason, vec![&case.case_id])),
        }
    }
    let sentence = |(reason, cases): (Text, Vec<&str>)| {
        text!("Failed: {cases} ({reason}).", cases = joined(&cases, ", "), reason)
    };
    reasons.into_iter().map(sentence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn the_first_failure_and_the_count_are_told() {
        let run = fixture::run();
        let case = &run.plan.accuracy[1];
        let sample = |doc_id: &str, state, error: Option<&str>| SampleRecord {
            task: case.task.clone(),
            doc_id: doc_id.into(),
            state,
            error: error.map(str::to_owned),
            ..fixture::sample()
        };
        let samples = [
            sample("0", SampleState::Scored, None),
            sample("1", SampleState::Failed, Some("logits not finite")),
            sample("2", SampleState::Failed, Some("too long")),
        ];
        let failure = of_task(case, &samples).unwrap();
        assert_eq!(failure.words(), "logits not finite (from item 1 of boolq); 2 of 3 items failed");
        assert!(failure.is_spoilt);
        assert_eq!(of_task(case, &samples[..1]), None);
        // A share of the planned items: 2 of 120 are 1.7 %.
        let allows = |max_failed| AccuracyCase { max_failed: Some(max_failed), ..case.clone() };
        assert!(of_task(&allows(0.016), &samples).unwrap().is_spoilt);
        assert!(!of_task(&allows(0.017), &samples).unwrap().is_spoilt);
        let whole = AccuracyCase { items: 100, ..allows(0.29) };
        assert!(!whole.is_spoilt_by(29) && whole.is_spoilt_by(30));
    }
}
