//! Differences in accuracy with their intervals.

use super::{Look, say};
use crate::language::{Text, joined, text, texts};
use crate::report::accuracy::ALL;
use crate::report::charts::forest::{Difference, ForestChart};
use crate::report::compare::answer::name;
use crate::report::compare::{AccuracyVerdict, Comparison, GroupComparison, TaskComparison};

/// Every task as a whole.
pub(super) fn tasks(comparison: &Comparison, looks: &[Look]) -> Option<ForestChart> {
    forest(comparison, looks, |task, prefix, series| vec![whole(comparison, task, prefix, series)])
}

/// Every task with its categories. `None` if no task has any.
pub(super) fn groups(comparison: &Comparison, looks: &[Look]) -> Option<ForestChart> {
    let mut with_groups = false;
    let chart = forest(comparison, looks, |task, prefix, series| {
        let categories = task.groups.iter().skip(1).filter(|group| group.subject == ALL);
        let rows = categories.map(|group| {
            let category = Text::term(&group.category);
            let label = text!("{group} (n {n})", group = category, n = group.counts.n);
            row(group, say(comparison, &label), String::new(), series)
        });
        let rows: Vec<Difference> =
            std::iter::once(whole(comparison, task, prefix, series)).chain(rows).collect();
        with_groups |= rows.len() > 1;
        rows
    });
    chart.filter(|_| with_groups).map(|chart| ForestChart {
        title: say(comparison, &text!("{title}, by category", title = title(comparison))),
        ..chart
    })
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
        title: say(comparison, &title(comparison)),
        subtitle: say(comparison, &text!("change in accuracy against {base}, percentage points with 95 % interval; band: ± {margin} points", base = name(comparison, comparison.base()), margin = format!("{margin:.1}"))),
        x_name: say(comparison, &text!("change in percentage points")),
        rows,
        margin,
    })
}

/// How many tasks are better, worse, the same, without flips or undecided.
fn title(comparison: &Comparison) -> Text {
    let all: Vec<Text> = comparison.pairs.iter().flat_map(|pair| &pair.tasks).map(word).collect();
    let kinds = texts!["worse", "better", "the same", "without flips", "undecided"];
    let counted = kinds.iter().map(|kind| (all.iter().filter(|word| *word == kind).count(), kind));
    let words = counted
        .filter(|(count, _)| *count > 0)
        .map(|(count, verdict)| text!("{count} {verdict}", count, verdict));
    text!("Accuracy: of {all} task{all:s}, {words}", all = all.len(), words = joined(words, ", "))
}

/// The verdict in a word or two. An undecided task without flips is told from others.
fn word(task: &TaskComparison) -> Text {
    match task.verdict {
        AccuracyVerdict::Worse => text!("worse"),
        AccuracyVerdict::Better => text!("better"),
        AccuracyVerdict::Same => text!("the same"),
        AccuracyVerdict::CannotTell { .. } if task.whole().counts.discordant() == 0 => {
            text!("without flips")
        }
        AccuracyVerdict::CannotTell { .. } => text!("undecided"),
    }
}

fn whole(comparison: &Comparison, task: &TaskComparison, prefix: &str, series: usize) -> Difference {
    let group = task.whole();
    let label = format!("{prefix}{} (n {})", task.task, group.counts.n);
    row(group, label, say(comparison, &word(task)), series)
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
