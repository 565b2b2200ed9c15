//! Turns samples into the rows of `accuracy.csv`.

use crate::dataset::recorded;
use crate::record::{AccuracyCase, AccuracyRow, RunRecord, SCHEMA, SampleRecord, SampleState};
use crate::stats::{mean, standard_error, wilson};
use std::collections::{BTreeMap, BTreeSet};

/// `subject` or `category` of a row that covers all of them.
pub const ALL: &str = "all";

/// Returns for each task with samples the rows of the whole, its categories, its hard part and its subjects.
pub fn accuracy_rows(run: &RunRecord, samples: &[SampleRecord]) -> Vec<AccuracyRow> {
    let keyed = run.plan.accuracy.iter().filter(|case| !case.keyless);
    keyed.flat_map(|case| task_rows(run, case, samples)).collect()
}

fn task_rows(run: &RunRecord, case: &AccuracyCase, samples: &[SampleRecord]) -> Vec<AccuracyRow> {
    let known = categories(case);
    // Group by subject once. The rows above the subjects combine these groups.
    let mut subjects: BTreeMap<(usize, &str, &str), Vec<&SampleRecord>> = BTreeMap::new();
    for sample in samples.iter().filter(|s| s.task == case.task) {
        let key = (category_rank(known, &sample.category), sample.category.as_str(), sample.subject.as_str());
        subjects.entry(key).or_default().push(sample);
    }
    if subjects.is_empty() {
        return Vec::new();
    }
    let row = |subject: &str, category: &str, group: &[&SampleRecord]| {
        group_row(run, case, (subject, category), group)
    };
    let all: Vec<&SampleRecord> = subjects.values().flatten().copied().collect();
    let mut rows = vec![row(ALL, ALL, &all)];
    let categories: BTreeSet<(usize, &str)> = subjects.keys().map(|(rank, name, _)| (*rank, *name)).collect();
    for (_, name) in categories.into_iter().filter(|(_, name)| !name.is_empty()) {
        let of_category = subjects.iter().filter(|((_, category, _), _)| *category == name);
        let group: Vec<&SampleRecord> = of_category.flat_map(|(_, group)| group).copied().collect();
        rows.push(row(ALL, name, &group));
    }
    let hard: Vec<&SampleRecord> = all.iter().copied().filter(|s| s.hard).collect();
    if !hard.is_empty() {
        rows.push(row(ALL, part(case), &hard));
    }
    for ((_, category, subject), group) in subjects.iter().filter(|((.., subject), _)| !subject.is_empty()) {
        rows.push(row(subject, if category.is_empty() { ALL } else { category }, group));
    }
    rows
}

/// Returns the benchmark categories of a case, in the order of published tables.
pub(super) fn categories(case: &AccuracyCase) -> &'static [&'static str] {
    let text = case.task_file.as_ref().map(|file| file.text.as_str());
    recorded(&case.benchmark, text).map_or(&[][..], |benchmark| benchmark.categories)
}

/// Returns the name of the benchmark part that cuts across the categories of a case: the `category` of its row.
pub(super) fn part(case: &AccuracyCase) -> &'static str {
    let text = case.task_file.as_ref().map(|file| file.text.as_str());
    // A record of hard items whose benchmark is not known is one of C-Eval's.
    recorded(&case.benchmark, text)
        .map(|benchmark| benchmark.part)
        .filter(|part| !part.is_empty())
        .unwrap_or("Hard")
}

/// Returns the place of a category among the `known` ones. Unknown categories come last.
pub(super) fn category_rank(known: &[&str], category: &str) -> usize {
    known.iter().position(|name| *name == category).unwrap_or(known.len())
}

/// Outcome counts of a group of items.
#[derive(Default)]
struct Tally {
    scored: u64,
    unscorable: u64,
    failed: u64,
    correct: u64,
}

impl Tally {
    fn of(group: &[&SampleRecord]) -> Self {
        let mut tally = Self::default();
        for sample in group {
            match sample.state {
                SampleState::Scored => tally.scored += 1,
                SampleState::Unscorable => tally.unscorable += 1,
                SampleState::Failed => tally.failed += 1,
            }
            tally.correct += u64::from(sample.state == SampleState::Scored && sample.correct);
        }
        tally
    }

    /// Items that the accuracy counts: an unscorable answer is wrong, a failed item is excluded.
    fn answered(&self) -> u64 {
        self.scored + self.unscorable
    }

    fn accuracy(&self) -> Option<f64> {
        (self.answered() > 0).then(|| self.correct as f64 / self.answered() as f64)
    }
}

fn group_row(
    run: &RunRecord,
    case: &AccuracyCase,
    (subject, category): (&str, &str),
    group: &[&SampleRecord],
) -> AccuracyRow {
    let tally = Tally::of(group);
    let interval = wilson(tally.correct, tally.answered(), 0.95);
    AccuracyRow {
        schema: SCHEMA,
        run_id: run.run_id.clone(),
        task: case.task.clone(),
        subject: subject.to_owned(),
        category: category.to_owned(),
        protocol: case.protocol.clone(),
        shots: case.shots,
        n: group.len() as u64,
        scored: tally.scored,
        unscorable: tally.unscorable,
        failed: tally.failed,
        correct: tally.correct,
        acc: tally.accuracy(),
        ci95_lo: interval.map(|i| i.low),
        ci95_hi: interval.map(|i| i.high),
        stderr: standard_error(tally.correct, tally.answered()),
        macro_acc: if subject == ALL { macro_accuracy(group) } else { None },
        duration_s: busy_ns(group) as f64 / 1e9,
        tokens_in: group.iter().fold(0, |sum, s| sum.saturating_add(s.input_tokens_n)),
        tokens_out: group.iter().map(|s| s.output_tokens.len() as u64).sum(),
        version_hash: case.version_hash.clone(),
    }
}

/// Mean of the subject accuracies, each with equal weight.
fn macro_accuracy(group: &[&SampleRecord]) -> Option<f64> {
    let mut subjects: BTreeMap<&str, Vec<&SampleRecord>> = BTreeMap::new();
    for sample in group.iter().filter(|s| !s.subject.is_empty()) {
        subjects.entry(&sample.subject).or_default().push(sample);
    }
    mean(&subjects.values().filter_map(|items| Tally::of(items).accuracy()).collect::<Vec<_>>())
}

/// Time during which at least one item was running. Overlapping items of a batch count once, and the pause of a
/// resumed run does not count.
fn busy_ns(group: &[&SampleRecord]) -> u64 {
    let mut spans: Vec<(u64, u64)> = group.iter().map(|s| (s.t_start_ns, s.t_end_ns)).collect();
    spans.sort_unstable();
    let mut counted_to = 0;
    let mut busy = 0;
    for (start, end) in spans {
        busy += end.saturating_sub(start.max(counted_to));
        counted_to = counted_to.max(end);
    }
    busy
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    fn item(
        subject: &str,
        category: &str,
        state: SampleState,
        correct: bool,
        span: (u64, u64),
    ) -> SampleRecord {
        SampleRecord {
            task: "ceval".into(),
            subject: subject.into(),
            category: category.into(),
            hard: subject == "physics",
            state,
            correct,
            t_start_ns: span.0,
            t_end_ns: span.1,
            ..fixture::sample()
        }
    }

    fn rows() -> Vec<AccuracyRow> {
        use SampleState::{Failed, Scored, Unscorable};
        accuracy_rows(
            &fixture::run(),
            &[
                item("law", "Social Science", Scored, true, (100, 200)),
                item("physics", "STEM", Scored, true, (0, 100)),
                item("physics", "STEM", Scored, false, (50, 150)),
                item("physics", "STEM", Unscorable, false, (1000, 1100)),
                item("physics", "STEM", Failed, false, (1100, 1100)),
                item("biology", "STEM", Scored, true, (0, 100)),
            ],
        )
    }

    #[test]
    fn a_failed_item_is_outside_and_an_unscorable_one_is_wrong() {
        let rows = rows();
        let all = &rows[0];
        assert_eq!((all.n, all.scored, all.unscorable, all.failed, all.correct), (6, 4, 1, 1, 3));
        assert_eq!(all.acc, Some(3.0 / 5.0));
        assert_eq!(
            (all.ci95_lo, all.ci95_hi),
            wilson(3, 5, 0.95).map_or((None, None), |i| (Some(i.low), Some(i.high)))
        );
        // Biology 1/1, law 1/1, physics 1/3.
        assert_eq!(all.macro_acc, Some((1.0 + 1.0 + 1.0 / 3.0) / 3.0));
    }

    #[test]
    fn rows_are_the_whole_then_categories_then_hard_then_subjects() {
        let found: Vec<(String, String)> = rows().into_iter().map(|r| (r.category, r.subject)).collect();
        let wanted = [
            ("all", "all"),
            ("STEM", "all"),
            ("Social Science", "all"),
            ("Hard", "all"),
            ("STEM", "biology"),
            ("STEM", "physics"),
            ("Social Science", "law"),
        ];
        assert_eq!(found, wanted.map(|(c, s)| (c.to_owned(), s.to_owned())));
    }

    #[test]
    fn a_set_without_subjects_has_one_row_and_no_macro_figure() {
        let rows = accuracy_rows(&fixture::run(), &[item("", "", SampleState::Scored, true, (0, 1))]);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].macro_acc, None);
    }

    #[test]
    fn time_is_counted_once_and_pauses_not_at_all() {
        // 0–200 is covered by overlapping items, then 1000–1100 after a pause.
        assert!((rows()[0].duration_s - 300e-9).abs() < 1e-15);
    }

    #[test]
    fn only_failures_leave_no_accuracy() {
        let rows =
            accuracy_rows(&fixture::run(), &[item("law", "Other", SampleState::Failed, false, (0, 0))]);
        assert_eq!(
            (rows[0].acc, rows[0].ci95_lo, rows[0].stderr, rows[0].macro_acc),
            (None, None, None, None)
        );
    }
}
