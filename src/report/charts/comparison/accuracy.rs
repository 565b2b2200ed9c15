//! Differences in accuracy with their intervals.

use super::super::forest::{Difference, ForestChart};
use super::Look;
use crate::report::accuracy::ALL;
use crate::report::compare::answer::name;
use crate::report::compare::{AccuracyVerdict, Comparison, GroupComparison, TaskComparison};

/// Every task as a whole.
pub(super) fn tasks(comparison: &Comparison, looks: &[Look]) -> Option<ForestChart> {
    forest(comparison, looks, |task, prefix, series| vec![whole(task, prefix, series)])
}

/// Every task with its categories. `None` if no task has any.
pub(super) fn groups(comparison: &Comparison, looks: &[Look]) -> Option<ForestChart> {
    let mut with_groups = false;
    let chart = forest(comparison, looks, |task, prefix, series| {
        let categories = task.groups.iter().skip(1).filter(|group| group.subject == ALL);
        let rows = categories.map(|group| {
            let label = format!("{} (n {})", group.category, group.counts.n);
            row(group, label, String::new(), series)
        });
        let rows: Vec<Difference> = std::iter::once(whole(task, prefix, series)).chain(rows).collect();
        with_groups |= rows.len() > 1;
        rows
    });
    chart
        .filter(|_| with_groups)
        .map(|chart| ForestChart { title: format!("{}, by category", chart.title), ..chart })
}

fn forest(
    comparison: &Comparison,
    looks: &[Look],
    mut rows_of: impl FnMut(&TaskComparison, &str, usize) -> Vec<Difference>,
) -> Option<ForestChart> {
    let mut rows = Vec::new();
    for pair in &comparison.pairs {
        let several = comparison.pairs.len() > 1;
        let prefix = if several { format!("{}: ", comparison.other(pair).letter) } else { String::new() };
        for task in &pair.tasks {
            rows.extend(rows_of(task, &prefix, looks[pair.other].series));
        }
    }
    let margin = 100.0 * comparison.options.accuracy_margin;
    (!rows.is_empty()).then(|| ForestChart {
        title: title(comparison),
        subtitle: format!(
            "change in accuracy against {}, percentage points with 95 % interval; band: ± {margin:.1} points",
            name(comparison, comparison.base())
        ),
        rows,
        margin,
    })
}

/// How many tasks are better, worse, the same, without flips or undecided.
fn title(comparison: &Comparison) -> String {
    let all: Vec<&'static str> = comparison.pairs.iter().flat_map(|pair| &pair.tasks).map(word).collect();
    let kinds = ["worse", "better", "the same", "without flips", "undecided"];
    let counted = kinds.iter().map(|kind| (all.iter().filter(|word| *word == kind).count(), kind));
    let words: Vec<String> =
        counted.filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    let tasks = if all.len() == 1 { "task" } else { "tasks" };
    format!("Accuracy: of {} {tasks}, {}", all.len(), words.join(", "))
}

/// The verdict in a word or two. An undecided task without flips is told from others.
fn word(task: &TaskComparison) -> &'static str {
    match task.verdict {
        AccuracyVerdict::Worse => "worse",
        AccuracyVerdict::Better => "better",
        AccuracyVerdict::Same => "the same",
        AccuracyVerdict::CannotTell { .. } if task.whole().counts.discordant() == 0 => "without flips",
        AccuracyVerdict::CannotTell { .. } => "undecided",
    }
}

fn whole(task: &TaskComparison, prefix: &str, series: usize) -> Difference {
    let group = task.whole();
    row(group, format!("{prefix}{} (n {})", task.task, group.counts.n), word(task).to_owned(), series)
}

fn row(group: &GroupComparison, label: String, verdict: String, series: usize) -> Difference {
    Difference {
        label,
        strong: group.category == ALL,
        value: 100.0 * group.difference.value,
        interval: group.difference.interval.map(|of| of.map(|share| 100.0 * share)),
        verdict,
        series,
    }
}
