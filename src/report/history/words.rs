//! The words of the page: values, changes, findings, definitions.

use super::figures::Kind;
use super::files::Tables;
use super::judged::{Against, Verdict};
use crate::language::Text;
use crate::report::format::{NONE, percent, significant};
use crate::report::tables::Table;
use std::collections::BTreeMap;

/// Most lines that the findings name.
const NAMED: usize = 4;

/// Returns the findings, the answer first.
pub(super) fn headline(tables: Tables<'_>) -> Vec<String> {
    let Tables { runs, lines, judged, changes, .. } = tables;
    if runs.is_empty() {
        let none = "No valid run here: nothing to follow.".to_owned();
        return std::iter::once(none).chain(left_out(tables)).collect();
    }
    let of = |verdict| {
        let is_so = |against: &Option<Against>| against.as_ref().is_some_and(|of| of.verdict == verdict);
        (0..lines.len()).filter(move |place| is_so(&judged[*place].previous)).collect::<Vec<_>>()
    };
    let (worse, better) = (of(Verdict::Worse), of(Verdict::Better));
    let comparable = judged.iter().filter(|judged| judged.previous.is_some()).count();
    let mut said = vec![match (worse.len(), better.len()) {
        _ if comparable == 0 => "No line has two runs yet: nothing to compare.".to_owned(),
        (0, 0) => format!(
            "No line is worse or better in its last run than in the one before ({}).",
            counted(comparable as u64, "line")
        ),
        (worse, better) => format!(
            "In their last run, {worse} of {} are worse than in the run before, and {better} better.",
            counted(comparable as u64, "line")
        ),
    }];
    for place in worse.iter().chain(&better).take(NAMED) {
        said.push(format!("{} ({}).", caption(tables, *place), lines[*place].place()));
    }
    let below = judged
        .iter()
        .filter(|judged| judged.best.as_ref().is_some_and(|of| of.verdict == Verdict::Worse))
        .count();
    if below > 0 {
        let lines = counted(below as u64, "line");
        said.push(format!("{lines} {} below the best level.", if below == 1 { "is" } else { "are" }));
    }
    if let Some(newest) = changes.first() {
        let line = &lines[newest.line];
        let date = &runs[line.points[newest.at].run].of.started[..10];
        said.push(format!(
            "{}; the newest on {date}: {}, {}, {}.",
            counted(changes.len() as u64, "change point"),
            line.name(),
            line.place(),
            relation(line.key.kind, ratio(line.key.kind, newest.levels), "the level before")
        ));
    }
    said.push(format!(
        "{} on {}, {} to {}.",
        counted(runs.len() as u64, "valid run"),
        counted(lines.len() as u64, "line"),
        &runs[0].of.started[..10],
        &runs[runs.len() - 1].of.started[..10]
    ));
    said.extend(left_out(tables));
    said
}

/// `1 line`, `2 lines`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// `Without lines: 2 broken, 1 incomplete.`
fn left_out(tables: Tables<'_>) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    tables.left_out.iter().for_each(|left| *counts.entry(left.standing).or_default() += 1);
    let words: Vec<String> = counts.iter().map(|(standing, count)| format!("{count} {standing}")).collect();
    (!words.is_empty()).then(|| format!("Without lines: {}.", words.join(", ")))
}

/// The answer of a chart: the last value, and how it stands.
pub(super) fn caption(tables: Tables<'_>, place: usize) -> String {
    let (line, judged) = (&tables.lines[place], &tables.judged[place]);
    let kind = line.key.kind;
    let previous = judged
        .previous
        .as_ref()
        .map(|of| format!(", {} ({})", relation(kind, of.change, "the previous run"), of.verdict.word(kind)));
    let best = judged.best.as_ref().filter(|best| best.verdict == Verdict::Worse);
    let best = best.map(|of| format!("; {}", relation(kind, of.change, "the best")));
    let now = value_words(kind, line.last().figure.value);
    format!("{}: {now}{}{}", line.key.case, previous.unwrap_or_default(), best.unwrap_or_default())
}

pub(super) fn group_title(kind: Kind) -> String {
    match kind.unit() {
        "" => format!("{} (lower is better)", kind.title()),
        unit => format!("{}, {unit}", kind.title()),
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
pub(super) fn value_words(kind: Kind, value: f64) -> String {
    let number = match kind {
        Kind::Accuracy => percent(value),
        Kind::LargestBatch => format!("{value:.0}"),
        _ => significant(value, 4),
    };
    format!("{number} {}", kind.unit()).trim_end().to_owned()
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
pub(super) fn change_words(kind: Kind, change: f64) -> String {
    match kind {
        Kind::Accuracy => format!("{:+.1} points", 100.0 * change).replace('-', "−"),
        _ if change.is_finite() => format!("{change:.3} ×"),
        // Something divided by 0.
        _ => NONE.to_owned(),
    }
}

/// `0.912 × as fast as the previous run`, `1.3 points above the previous run`.
pub(super) fn relation(kind: Kind, change: f64, other: &str) -> String {
    match kind {
        Kind::Accuracy if change == 0.0 => format!("as high as {other}"),
        Kind::Accuracy => {
            let side = if change > 0.0 { "above" } else { "below" };
            format!("{} points {side} {other}", percent(change.abs()))
        }
        _ if change == 1.0 => format!("the same as {other}"),
        _ if !change.is_finite() => format!("more than {other}, which had 0"),
        Kind::Prefill | Kind::Decode => format!("{change:.3} × as fast as {other}"),
        _ => format!("{change:.3} × that of {other}"),
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
pub(super) const DEFINITIONS: [(&str, &str); 6] = [
    (
        "Line",
        "values of one thing: kind, case, model, form, device, ranks and source. An accuracy needs the same items, prompts and scoring. \
         A measured time needs the same processor and threads, a modelled one the same profile. Measured, modelled and emulated \
         values are never on one line.",
    ),
    (
        "Value, interval",
        "accuracy with Wilson's 95 % interval. Perplexity with that of a ratio estimator over texts. Prefill and decode: tokens ÷ median \
         time, with the bootstrap interval of the median. Load: generated tokens per second at the top rate, and requests per second that \
         keep their objectives. An interval is of one run: it does not say how much runs differ.",
    ),
    (
        "Change point",
        "where the level of a line changed, by ranks and binary segmentation. At least 5 runs on each side. A line without a change shows \
         one with a probability of 1 % at most. Horizontal strokes are the medians of the levels.",
    ),
    (
        "Against the previous run",
        "accuracy: McNemar's exact test over the items, adjusted by Holm for all lines. Others: worse or better if the change is more than \
         two runs of the present level differ by, at 5 % for all lines together. That needs 5 runs of the level before the last.",
    ),
    (
        "Against the best",
        "accuracy: the best earlier run, with as many tests as there are different outcomes to choose from. Others: the level with the \
         best median. Its runs are compared with those of the present level by the rank-sum test at 1 %.",
    ),
    (
        "Without lines",
        "invalid and incomplete runs, shards, copies of a run, and folders that cannot be read. They are listed and count for nothing.",
    ),
];

/// Makes a table of few cells for the terminal.
pub(super) fn terminal(tables: Tables<'_>) -> Table {
    let mut out = Table::new(
        Text::data("Last run against the one before and the best"),
        &["Line", "What"].map(Text::data),
        &["Runs", "Last", "Against previous", "Against best"].map(Text::data),
    );
    for (line, judged) in tables.lines.iter().zip(tables.judged) {
        let kind = line.key.kind;
        let words = |of: &Option<Against>| {
            of.as_ref().map_or_else(
                || NONE.to_owned(),
                |of| format!("{}, {}", change_words(kind, of.change), of.verdict.word(kind)),
            )
        };
        let is_news = |of: &Option<Against>| {
            of.as_ref().is_some_and(|of| matches!(of.verdict, Verdict::Worse | Verdict::Better))
        };
        let cells = vec![
            line.name(),
            line.place(),
            line.points.len().to_string(),
            value_words(kind, line.last().figure.value),
            words(&judged.previous),
            words(&judged.best),
        ];
        let cells = cells.into_iter().map(Text::data).collect();
        out.push(is_news(&judged.previous) || is_news(&judged.best), cells);
    }
    out
}
