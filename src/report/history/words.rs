//! The words of the page: values, changes, findings, definitions.

use super::files::Tables;
use super::judged::{Against, Verdict};
use crate::language::{Text, cells, text, texts};
use crate::report::followed::Kind;
use crate::report::format::{NONE, percent, significant};
use crate::report::table::Table;
use std::collections::BTreeMap;

/// Most lines that the findings name.
const NAMED: usize = 4;

/// Returns the findings, the answer first.
pub(super) fn headline(tables: Tables<'_>) -> Vec<Text> {
    let Tables { runs, lines, judged, changes, .. } = tables;
    if runs.is_empty() {
        let none = text!("No valid run here: nothing to follow.");
        return std::iter::once(none).chain(left_out(tables)).collect();
    }
    let of = |verdict| {
        let is_so = |against: &Option<Against>| against.as_ref().is_some_and(|of| of.verdict == verdict);
        (0..lines.len()).filter(move |place| is_so(&judged[*place].previous)).collect::<Vec<_>>()
    };
    let (worse, better) = (of(Verdict::Worse), of(Verdict::Better));
    let comparable = judged.iter().filter(|judged| judged.previous.is_some()).count();
    let mut said = vec![match (worse.len(), better.len()) {
        _ if comparable == 0 => text!("No line has two runs yet: nothing to compare."),
        (0, 0) => text!(
            "No line is worse or better in its last run than in the one before ({comparable} line{comparable:s}).",
            comparable
        ),
        (worse, better) => text!(
            "In their last run, {worse} of {comparable} line{comparable:s} are worse than in the run before, and {better} better.",
            worse,
            comparable,
            better
        ),
    }];
    for place in worse.iter().chain(&better).take(NAMED) {
        said.push(text!(
            "{finding} ({place}).",
            finding = caption(tables, *place),
            place = lines[*place].place()
        ));
    }
    let below = judged
        .iter()
        .filter(|judged| judged.best.as_ref().is_some_and(|of| of.verdict == Verdict::Worse))
        .count();
    match below {
        0 => {}
        1 => said.push(text!("1 line is below the best level.")),
        lines => said.push(text!("{lines} lines are below the best level.", lines)),
    }
    if let Some(newest) = changes.first() {
        let line = &lines[newest.line];
        said.push(text!(
            "{changes} change point{changes:s}; the newest on {date}: {line}, {place}, {relation}.",
            changes = changes.len(),
            date = &runs[line.points[newest.at].run].of.started[..10],
            line = line.name(),
            place = line.place(),
            relation =
                relation(line.key.kind, ratio(line.key.kind, newest.levels), &text!("the level before"))
        ));
    }
    said.push(text!(
        "{runs} valid run{runs:s} on {lines} line{lines:s}, {first} to {last}.",
        runs = runs.len(),
        lines = lines.len(),
        first = &runs[0].of.started[..10],
        last = &runs[runs.len() - 1].of.started[..10]
    ));
    said.extend(left_out(tables));
    said
}

/// `Without lines: 2 broken, 1 incomplete.`
fn left_out(tables: Tables<'_>) -> Option<Text> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    tables.left_out.iter().for_each(|left| *counts.entry(left.standing).or_default() += 1);
    let words: Vec<Text> = counts
        .iter()
        .map(|(standing, count)| text!("{count} {standing}", count, standing = Text::term(*standing)))
        .collect();
    (!words.is_empty()).then(|| text!("Without lines: {counts}.", counts = Text::list(words, ", ")))
}

/// The answer of a chart: the last value, and how it stands.
pub(super) fn caption(tables: Tables<'_>, place: usize) -> Text {
    let (line, judged) = (&tables.lines[place], &tables.judged[place]);
    let kind = line.key.kind;
    let previous = judged.previous.as_ref().map(|of| {
        text!(
            ", {relation} ({verdict})",
            relation = relation(kind, of.change, &text!("the previous run")),
            verdict = of.verdict.text(kind)
        )
    });
    let best = judged.best.as_ref().filter(|best| best.verdict == Verdict::Worse);
    let best = best.map(|of| text!("; {relation}", relation = relation(kind, of.change, &text!("the best"))));
    text!(
        "{case}: {now}{previous}{best}",
        case = line.key.case,
        now = value_words(kind, line.last().figure.value),
        previous = previous.unwrap_or_default(),
        best = best.unwrap_or_default()
    )
}

pub(super) fn group_title(kind: Kind) -> Text {
    let title = Text::term(kind.title());
    match kind.unit() {
        "" => text!("{title} (lower is better)", title),
        unit => text!("{title}, {unit}", title, unit = Text::term(unit)),
    }
}

pub(super) fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "good",
        Verdict::Worse => "no",
        Verdict::Same | Verdict::WithinNoise | Verdict::CannotTell => "unknown",
    }
}

/// A value with its unit.
pub(super) fn value_words(kind: Kind, value: f64) -> Text {
    let number = match kind {
        Kind::Accuracy => percent(value),
        Kind::LargestBatch => format!("{value:.0}"),
        _ => significant(value, 4),
    };
    match kind.unit() {
        "" => Text::data(number),
        unit => text!("{number} {unit}", number, unit = Text::term(unit)),
    }
}

pub(super) fn interval_words(kind: Kind, ends: Option<(f64, f64)>) -> String {
    let show = |value: f64| if kind == Kind::Accuracy { percent(value) } else { significant(value, 4) };
    ends.map(|(low, high)| format!("[{}, {}]", show(low), show(high))).unwrap_or_default()
}

/// The change between two levels: points for accuracy, a ratio for others.
pub(super) fn ratio(kind: Kind, (before, after): (f64, f64)) -> f64 {
    if kind == Kind::Accuracy { after - before } else { after / before }
}

/// `+1.3 points`, or `0.912 ×`.
pub(super) fn change_words(kind: Kind, change: f64) -> Text {
    match kind {
        Kind::Accuracy if change == 0.0 => text!("{points} points", points = "0"),
        Kind::Accuracy => {
            text!("{points} points", points = format!("{:+.1}", 100.0 * change).replace('-', "−"))
        }
        _ if change.is_finite() => Text::data(format!("{change:.3} ×")),
        // Something divided by 0.
        _ => Text::data(NONE),
    }
}

/// `0.912 × as fast as the previous run`, `1.3 points above the previous run`.
pub(super) fn relation(kind: Kind, change: f64, other: &Text) -> Text {
    let times = || format!("{change:.3}");
    match kind {
        Kind::Accuracy if change == 0.0 => text!("as high as {other}", other),
        Kind::Accuracy if change > 0.0 => {
            text!("{points} points above {other}", points = percent(change), other)
        }
        Kind::Accuracy => text!("{points} points below {other}", points = percent(-change), other),
        _ if change == 1.0 => text!("the same as {other}", other),
        _ if !change.is_finite() => text!("more than {other}, which had 0", other),
        Kind::Prefill | Kind::Decode => text!("{times} × as fast as {other}", times = times(), other),
        _ => text!("{times} × that of {other}", times = times(), other),
    }
}

/// A folder's name in a link. Slashes are part of no name.
pub(super) fn link(folder: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    // `./` keeps a name with a colon from being read as another protocol.
    let coded = folder
        .bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") });
    std::iter::once("./".to_owned()).chain(coded).collect()
}

pub(super) fn p_words(p: f64) -> String {
    if p < 0.0001 { "< 0.0001".to_owned() } else { format!("{p:.4}") }
}

/// Definitions at the foot of the page.
pub(super) const DEFINITIONS: [(Text, Text); 6] = [
    (
        text!("Line"),
        text!(
            "values of one thing: kind, case, model, form, device, ranks and source. An accuracy needs the same items, prompts and scoring. \
         A measured time needs the same processor and threads, a modelled one the same profile. Measured, modelled and emulated \
         values are never on one line."
        ),
    ),
    (
        text!("Value, interval"),
        text!(
            "accuracy with Wilson's 95 % interval. Perplexity with that of a ratio estimator over texts. Prefill and decode: tokens ÷ median \
         time, with the bootstrap interval of the median. Load: generated tokens per second at the top rate, and requests per second that \
         keep their objectives. An interval is of one run: it does not say how much runs differ."
        ),
    ),
    (
        text!("Change point"),
        text!(
            "where the level of a line changed, by ranks and binary segmentation. At least 5 runs on each side. A line without a change shows \
         one with a probability of 1 % at most. Horizontal strokes are the medians of the levels."
        ),
    ),
    (
        text!("Against the previous run"),
        text!(
            "accuracy: McNemar's exact test over the items, adjusted by Holm for all lines. Others: worse or better if the change is more than \
         two runs of the present level differ by, at 5 % for all lines together. That needs 5 runs of the level before the last."
        ),
    ),
    (
        text!("Against the best"),
        text!(
            "accuracy: the best earlier run, with as many tests as there are different outcomes to choose from. Others: the level with the \
         best median. Its runs are compared with those of the present level by the rank-sum test at 1 %."
        ),
    ),
    (
        text!("Without lines"),
        text!(
            "invalid and incomplete runs, shards, copies of a run, and folders that cannot be read. They are listed and count for nothing."
        ),
    ),
];

/// Makes a table of few cells for the terminal.
pub(super) fn terminal(tables: Tables<'_>) -> Table {
    let mut out = Table::new(
        text!("Last run against the one before and the best"),
        &texts!["Line", "What"],
        &texts!["Runs", "Last", "Against previous", "Against best"],
    );
    for (line, judged) in tables.lines.iter().zip(tables.judged) {
        let kind = line.key.kind;
        let words = |of: &Option<Against>| {
            of.as_ref().map_or_else(
                || Text::data(NONE),
                |of| Text::list([change_words(kind, of.change), of.verdict.text(kind)], ", "),
            )
        };
        let is_news = |of: &Option<Against>| {
            of.as_ref().is_some_and(|of| matches!(of.verdict, Verdict::Worse | Verdict::Better))
        };
        let cells = cells![
            line.name(),
            line.place(),
            line.points.len(),
            value_words(kind, line.last().figure.value),
            words(&judged.previous),
            words(&judged.best),
        ];
        out.push(is_news(&judged.previous) || is_news(&judged.best), cells);
    }
    out
}
