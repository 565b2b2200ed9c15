//! The charts of a run's scores.

use super::scores::{Level, Score, ScoreChart};
use super::{Chart, plain_name};
use crate::record::{AccuracyRow, RunRecord};
use crate::report::accuracy::{ALL, part};
use crate::report::format::percent;

/// Returns the charts of the scores, by file name without extension: one of all tasks, and one for each task with more than one
/// row.
pub(in crate::report) fn of_scores(run: &RunRecord, rows: &[AccuracyRow]) -> Vec<(String, Chart)> {
    const SUBTITLE: &str = "percent with Wilson 95 % interval; dashed: by chance";
    let rows: Vec<&AccuracyRow> = rows.iter().filter(|row| row.acc.is_some()).collect();
    let chance =
        |row: &AccuracyRow| run.plan.accuracy.iter().find(|c| c.task == row.task).and_then(|c| c.chance);
    let wholes: Vec<&AccuracyRow> =
        rows.iter().copied().filter(|row| row.subject == ALL && row.category == ALL).collect();
    let all_tasks = ScoreChart {
        title: format!("Accuracy: {}", wholes_words(&wholes)),
        subtitle: SUBTITLE.to_owned(),
        scores: wholes.iter().map(|row| score(row, row.task.clone(), chance(row))).collect(),
    };
    let part_of = |task: &str| run.plan.accuracy.iter().find(|c| c.task == task).map_or("", part);
    let of_task = |task: &str| {
        let of_task: Vec<&AccuracyRow> = rows.iter().copied().filter(|row| row.task == task).collect();
        (of_task.len() > 1).then(|| ScoreChart {
            title: format!("{task}: {}", groups_words(&of_task, part_of(task))),
            subtitle: format!("{}; {SUBTITLE}", of_task[0].protocol),
            scores: of_task.iter().map(|row| score(row, group_name(row), chance(row))).collect(),
        })
    };
    let tasks = run.plan.accuracy.iter().filter_map(|case| {
        of_task(&case.task).map(|chart| (format!("accuracy-{}", plain_name(&case.task)), chart))
    });
    let first = (!all_tasks.scores.is_empty()).then(|| ("accuracy".to_owned(), all_tasks));
    first.into_iter().chain(tasks).map(|(name, chart)| (name, Chart::Scores(chart))).collect()
}

/// `ceval 53.6 %, boolq 66.7 %`, or the range of many tasks.
fn wholes_words(wholes: &[&AccuracyRow]) -> String {
    let share = |row: &&&AccuracyRow| row.acc.unwrap_or_default();
    let (low, high) = (
        wholes.iter().map(|row| share(&row)).fold(1.0, f64::min),
        wholes.iter().map(|row| share(&row)).fold(0.0, f64::max),
    );
    match wholes {
        wholes if wholes.len() > 3 => {
            format!("{} to {} % over {} tasks", percent(low), percent(high), wholes.len())
        }
        wholes => {
            let words = wholes.iter().map(|row| format!("{} {} %", row.task, percent(share(&row))));
            words.collect::<Vec<_>>().join(", ")
        }
    }
}

/// The whole, then the best and the worst group.
fn groups_words(rows: &[&AccuracyRow], part: &str) -> String {
    let share = |row: &AccuracyRow| row.acc.unwrap_or_default();
    let whole = rows.iter().find(|row| row.subject == ALL && row.category == ALL);
    let whole = whole.map_or_else(String::new, |row| format!("{} % right", percent(share(row))));
    // Items of the part across the categories belong to those as well.
    let groups =
        || rows.iter().filter(|row| row.subject == ALL && row.category != ALL && row.category != part);
    let best = groups().max_by(|a, b| share(a).total_cmp(&share(b)));
    let worst = groups().min_by(|a, b| share(a).total_cmp(&share(b)));
    match best.zip(worst).filter(|(best, worst)| best.category != worst.category) {
        None => whole,
        Some((best, worst)) => format!(
            "{whole}, {} {} %, {} {} %",
            best.category,
            percent(share(best)),
            worst.category,
            percent(share(worst))
        ),
    }
}

fn group_name(row: &AccuracyRow) -> String {
    match (row.subject.as_str(), row.category.as_str()) {
        (ALL, ALL) => "all items",
        (ALL, category) => category,
        (subject, _) => subject,
    }
    .to_owned()
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
