//! Counts and accuracies: per subject, per category, Hard, total.
//!
//! Accuracy is correct / (scored + unscorable): an answer that cannot be read is a wrong answer of the model.
//! Failed items got no answer; they are left out of it, shown, and make the run incomplete. (ModelTest divides
//! by all items, so that its own crashes count as wrong answers.)

use std::collections::BTreeMap;

use super::{Outcome, State};
use crate::dataset::{Category, Subject};

/// One item's part in a score; comes from an [`Outcome`] or from a record on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Scored, right.
    Correct,
    /// Scored, wrong.
    Wrong,
    /// No answer could be read.
    Unscorable,
    /// No answer was had.
    Failed,
}

impl Mark {
    /// The mark of an outcome.
    pub fn of(outcome: &Outcome) -> Self {
        match outcome.state {
            State::Scored if outcome.is_correct() => Self::Correct,
            State::Scored => Self::Wrong,
            State::Unscorable(_) => Self::Unscorable,
            State::Failed(_) => Self::Failed,
        }
    }
}

/// Counts of items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Items an answer was read from.
    pub scored: usize,
    /// Items whose answer could not be read.
    pub unscorable: usize,
    /// Items that got no answer.
    pub failed: usize,
    /// Right answers.
    pub correct: usize,
}

impl Tally {
    /// All items.
    pub const fn n(&self) -> usize {
        self.scored + self.unscorable + self.failed
    }

    /// Items that accuracy is over.
    pub const fn answered(&self) -> usize {
        self.scored + self.unscorable
    }

    /// correct / (scored + unscorable); `None` when there are none.
    pub fn accuracy(&self) -> Option<f64> {
        (self.answered() > 0).then(|| self.correct as f64 / self.answered() as f64)
    }

    /// Counts one item.
    pub fn add(&mut self, mark: Mark) {
        match mark {
            Mark::Correct => {
                self.scored += 1;
                self.correct += 1;
            }
            Mark::Wrong => self.scored += 1,
            Mark::Unscorable => self.unscorable += 1,
            Mark::Failed => self.failed += 1,
        }
    }

    fn merge(&mut self, other: &Self) {
        self.scored += other.scored;
        self.unscorable += other.unscorable;
        self.failed += other.failed;
        self.correct += other.correct;
    }
}

/// A set of subjects taken together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Group {
    /// All items pooled; [`Tally::accuracy`] is the micro average.
    pub tally: Tally,
    /// Subjects in it.
    pub subjects: usize,
    /// Mean of the subjects' accuracies; `None` while a subject has no answered item.
    pub macro_accuracy: Option<f64>,
}

/// The score of one task.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Summary {
    /// Everything.
    pub total: Group,
    /// By category, in the published order; empty for sets without categories.
    pub categories: Vec<(Category, Group)>,
    /// The eight subjects of C-Eval Hard; `None` when the set has none of them.
    pub hard: Option<Group>,
    /// By subject key.
    pub subjects: BTreeMap<String, Tally>,
}

/// Counts `marks` (subject key and mark of each item). Subjects that `subjects` does not have are counted in
/// the total and under their name, in no category.
pub fn summarize<'a>(
    subjects: &BTreeMap<String, Subject>,
    marks: impl IntoIterator<Item = (&'a str, Mark)>,
) -> Summary {
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    for (subject, mark) in marks {
        tallies.entry(subject.to_owned()).or_default().add(mark);
    }
    let group = |keep: &dyn Fn(&Subject) -> bool| {
        group(tallies.iter().filter(|(key, _)| subjects.get(*key).is_some_and(keep)).map(|(_, tally)| tally))
    };
    let categories = Category::ALL
        .into_iter()
        .map(|category| (category, group(&|s: &Subject| s.category == Some(category))))
        .filter(|(_, group)| group.subjects > 0)
        .collect();
    let hard = Some(group(&Subject::is_hard)).filter(|group| group.subjects > 0);
    Summary { total: self::group(tallies.values()), categories, hard, subjects: tallies }
}

fn group<'a>(tallies: impl Iterator<Item = &'a Tally>) -> Group {
    let mut group = Group::default();
    let mut sum = Some(0.0);
    for tally in tallies {
        group.tally.merge(tally);
        group.subjects += 1;
        sum = sum.zip(tally.accuracy()).map(|(sum, accuracy)| sum + accuracy);
    }
    group.macro_accuracy = sum.filter(|_| group.subjects > 0).map(|sum| sum / group.subjects as f64);
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects() -> BTreeMap<String, Subject> {
        [("college_physics", Category::Stem), ("logic", Category::Humanities), ("law", Category::Humanities)]
            .into_iter()
            .map(|(key, category)| {
                (key.into(), Subject { key: key.into(), chinese_name: None, category: Some(category) })
            })
            .collect()
    }

    #[test]
    fn states_are_kept_apart_and_failures_are_no_wrong_answers() {
        use Mark::{Correct, Failed, Unscorable, Wrong};
        let marks = [
            ("law", Correct),
            ("law", Wrong),
            ("law", Unscorable),
            ("law", Failed),
            ("logic", Correct),
            ("college_physics", Wrong),
            ("college_physics", Correct),
        ];
        let summary = summarize(&subjects(), marks);
        assert_eq!(summary.subjects["law"], Tally { scored: 2, unscorable: 1, failed: 1, correct: 1 });
        assert_eq!(summary.total.tally.n(), 7);
        // Micro 3/6; macro (1/3 + 1 + 1/2) / 3.
        assert_eq!(summary.total.tally.accuracy(), Some(0.5));
        assert!((summary.total.macro_accuracy.unwrap() - 11.0 / 18.0).abs() < 1e-12);
        let categories: Vec<_> =
            summary.categories.iter().map(|(c, g)| (*c, g.subjects, g.tally.correct)).collect();
        assert_eq!(categories, [(Category::Stem, 1, 1), (Category::Humanities, 2, 2)]);
        assert_eq!(summary.hard.unwrap().tally.accuracy(), Some(0.5));
    }

    #[test]
    fn nothing_answered_is_no_accuracy_rather_than_zero() {
        let summary = summarize(&subjects(), [("law", Mark::Failed)]);
        assert_eq!(summary.total.tally.accuracy(), None);
        assert_eq!(summary.total.macro_accuracy, None);
        assert_eq!(summarize(&subjects(), []).total, Group::default());
    }
}
