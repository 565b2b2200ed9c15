//! The score charts of a run.

use super::scores::{Level, Score, ScoreChart};
use super::{Chart, plain_name};
use crate::language::{Language, Text, joined, text};
use crate::record::{AccuracyRow, RunRecord};
use crate::report::accuracy::{ALL, part};
use crate::report::format::percent;

/// Returns the charts of the scores, by file name without extension: one of all tasks, and one for each task with more than one
/// row.
pub(in crate::report) fn of_scores(
    run: &RunRecord,
    rows: &[AccuracyRow],
    language: Language,
) -> Vec<(String, Chart)> {
    const SUBTITLE: Text = text!("percent with Wilson 95 % interval; dashed: by chance");
    let rows: Vec<&AccuracyRow> = rows.iter().filter(|row| row.acc.is_some()).collect();
    let chance =
        |row: &AccuracyRow| run.plan.accuracy.iter().find(|c| c.task == row.task).and_then(|c| c.chance);
    let wholes: Vec<&AccuracyRow> =
        rows.iter().copied().filter(|row| row.subject == ALL && row.category == ALL).collect();
    let all_tasks = ScoreChart {
        title: text!("Accuracy: {shares}", shares = wholes_words(&wholes)).in_language(language),
        subtitle: SUBTITLE.in_language(language),
        scores: wholes.iter().map(|row| score(row, row.task.clone(), chance(row))).collect(),
    };
    let part_of = |task: &str| run.plan.accuracy.iter().find(|c| c.task == task).map_or("", part);
    let of_task = |task: &str| {
        let of_task: Vec<&AccuracyRow> = rows.iter().copied().filter(|row| row.task == task).collect();
        (of_task.len() > 1).then(|| ScoreChart {
            title: text!("{task}: {shares}", task, shares = groups_words(&of_task, part_of(task)))
                .in_language(language),
            subtitle: text!("{protocol}; {what}", protocol = of_task[0].protocol, what = SUBTITLE)
                .in_language(language),
            scores: of_task
                .iter()
                .map(|row| score(row, group_name(row).in_language(language), chance(row)))
                .collect(),
        })
    };
    let tasks = run.plan.accuracy.iter().filter_map(|case| {
        of_task(&case.task).map(|chart| (format!("accuracy-{}", plain_name(&case.task)), chart))
    });
    let first = (!all_tasks.scores.is_empty()).then(|| ("accuracy".to_owned(), all_tasks));
    first.into_iter().chain(tasks).map(|(name, chart)| (name, Chart::Scores(chart))).collect()
}

/// `ceval 53.6 %, boolq 66.7 %`, or the range of many tasks.
fn wholes_words(wholes: &[&AccuracyRow]) -> Text {
    let share = |row: &&&AccuracyRow| row.acc.unwrap_or_default();
    let (low, high) = (
        wholes.iter().map(|row| share(&row)).fold(1.0, f64::min),
        wholes.iter().map(|row| share(&row)).fold(0.0, f64::max),
    );
    match wholes {
        wholes if wholes.len() > 3 => {
            text!(
                "{low} to {high} % over {tasks} tasks",
                low = percent(low),
                high = percent(high),
                tasks = wholes.len()
            )
        }
        wholes => {
            let words = wholes.iter().map(|row| format!("{} {} %", row.task, percent(share(&row))));
            joined(words, ", ")
        }
    }
}

/// The whole, then the best and the worst group.
fn groups_words(rows: &[&AccuracyRow], part: &str) -> Text {
    let share = |row: &AccuracyRow| row.acc.unwrap_or_default();
    let whole = rows.iter().find(|row| row.subject == ALL && row.category == ALL);
    let whole = whole.map_or(Text::EMPTY, |row| text!("{share} % right", share = percent(share(row))));
    // Items of the part across the categories belong to those as well.
    let groups =
        || rows.iter().filter(|row| row.subject == ALL && row.category != ALL && row.category != part);
    let best = groups().max_by(|a, b| share(a).total_cmp(&share(b)));
    let worst = groups().min_by(|a, b| share(a).total_cmp(&share(b)));
    match best.zip(worst).filter(|(best, worst)| best.category != worst.category) {
        None => whole,
        Some((best, worst)) => text!(
            "{whole}, {best} {most} %, {worst} {least} %",
            whole,
            best = Text::term(&best.category),
            most = percent(share(best)),
            worst = Text::term(&worst.category),
            least = percent(share(worst))
        ),
    }
}

fn group_name(row: &AccuracyRow) -> Text {
    match (row.subject.as_str(), row.category.as_str()) {
        (ALL, ALL) => text!("all items"),
        (ALL, category) => Text::term(category),
        (subject, _) => subject.into(),
    }
}

fn score(row: &AccuracyRow, label: String, chance: Option<f64>) -> Score {
    Score {
        label,
        level: match (row.subject.as_str(), row.category.as_str()) {
            (ALL, ALL) => Level::Whole,
            (ALL, _) => Level::Group,
            _ => Level::Subject,
        },
        share: row.acc.unwrap_or_default(),
        interval: row.interval(),
        items: row.scored + row.unscorable,
        chance,
    }
}
