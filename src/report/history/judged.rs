//! The last run of a line against the one before it and against the best.
//!
//! A verdict must survive a repeat of the runs. Values of one run say nothing of that: repetitions share a process, a machine and an
//! hour. So times are judged by how much the runs of the present level differ among themselves ([`null_floor`]),
//! and levels by their runs ([`rank_sum`]). Answers are judged item by item, by McNemar's test.

use super::lines::Line;
use crate::language::{Text, text};
use crate::report::followed::{Kind, Marks};
use crate::report::format::percent;
use crate::stats::{
    Level, STEP_ALPHA, STEP_LEAST, holm, mcnemar_exact, null_floor, rank_sum, spread_between,
};
use std::collections::HashSet;

/// Probability of any wrong "better" or "worse" among all lines of a page: once for answers, once for other values.
const ALPHA: f64 = 0.05;

/// What the evidence says of the last run against another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Better,
    Worse,
    /// The difference is one that repeats show as well.
    WithinNoise,
    /// Every item has the same outcome, or every value is the same.
    Same,
    /// There is too little to go by.
    CannotTell,
}

impl Verdict {
    /// The verdict for a kind of figure.
    pub(super) fn word(self, kind: Kind) -> &'static str {
        match (self, kind) {
            (Self::Better, Kind::Prefill | Kind::Decode) => "faster",
            (Self::Worse, Kind::Prefill | Kind::Decode) => "slower",
            (Self::Better, Kind::LargestBatch) => "larger",
            (Self::Worse, Kind::LargestBatch) => "smaller",
            (Self::Better, _) => "better",
            (Self::Worse, _) => "worse",
            (Self::WithinNoise, _) => "within noise",
            (Self::Same, _) => "same",
            (Self::CannotTell, _) => "cannot tell",
        }
    }

    /// The same, for the page.
    pub(super) fn text(self, kind: Kind) -> Text {
        Text::term(self.word(kind))
    }
}

/// The last run against another.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Against {
    /// Place of the other point on the line.
    pub(super) other: usize,
    /// Last minus other in points for accuracy, last divided by other for other kinds.
    pub(super) change: f64,
    pub(super) verdict: Verdict,
    /// The evidence.
    pub(super) why: Text,
    /// The p-value, adjusted. `None` where the verdict rests on the spread of runs.
    pub(super) p: Option<f64>,
}

/// The verdicts on a line. `None` for a line of one run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judged {
    pub(super) previous: Option<Against>,
    pub(super) best: Option<Against>,
}

/// Judges all lines of a page.
pub(super) fn judged(lines: &[Line<'_>]) -> Vec<Judged> {
    let timed = lines.iter().filter(|line| line.key.kind != Kind::Accuracy && line.points.len() > 1).count();
    let mut all: Vec<Judged> = lines
        .iter()
        .map(|line| match line.key.kind {
            _ if line.points.len() < 2 => Judged { previous: None, best: None },
            Kind::Accuracy => answers(line),
            _ => values(line, timed),
        })
        .collect();
    settle(lines, &mut all);
    all
}

/// Adjusts the p-values of answers for all that the page tests, and turns them into verdicts.
fn settle(lines: &[Line<'_>], all: &mut [Judged]) {
    let is_answers = |(line, _): &(&Line<'_>, &mut Judged)| line.key.kind == Kind::Accuracy;
    let of_answers = lines.iter().zip(all).filter(is_answers);
    let open = of_answers.flat_map(|(_, judged)| [&mut judged.previous, &mut judged.best]).flatten();
    let mut open: Vec<&mut Against> = open.filter(|against| against.p.is_some()).collect();
    let p: Vec<f64> = open.iter().filter_map(|against| against.p).collect();
    for (against, p) in open.iter_mut().zip(holm(&p)) {
        against.p = Some(p);
        against.verdict = match against.verdict {
            Verdict::Same => Verdict::Same,
            _ if p < ALPHA && against.change > 0.0 => Verdict::Better,
            _ if p < ALPHA => Verdict::Worse,
            _ => Verdict::WithinNoise,
        };
        if against.verdict != Verdict::Same {
            let why = std::mem::take(&mut against.why);
            against.why = if p < 0.0005 {
                text!("{why}, p < 0.001", why)
            } else {
                text!("{why}, p = {p}", why, p = format!("{p:.3}"))
            };
        }
    }
}

/// Answers, item by item.
fn answers(line: &Line<'_>) -> Judged {
    let last = line.points.len() - 1;
    let best = best_point(line, last);
    // The best of several was chosen for its score: as many tests as there are other outcomes to choose from.
    let earlier: HashSet<&Marks> =
        line.points[..last].iter().filter_map(|point| point.figure.marks.as_ref()).collect();
    Judged {
        previous: Some(by_item(line, last - 1, 1)),
        best: Some(by_item(line, best, earlier.len().max(1))),
    }
}

fn by_item(line: &Line<'_>, other: usize, choices: usize) -> Against {
    let (of_last, of_other) = (line.last().figure, line.points[other].figure);
    let change = of_last.value - of_other.value;
    let marks = of_other.marks.as_ref().zip(of_last.marks.as_ref());
    let Some(counts) = marks.and_then(|(a, b)| a.against(b)) else {
        let why = text!("the records do not tell which items were right");
        return Against { other, change, verdict: Verdict::CannotTell, why, p: None };
    };
    let p = (mcnemar_exact(counts.only_a, counts.only_b) * choices as f64).min(1.0);
    let same = counts.discordant() == 0;
    let why = if same {
        text!("all {items} items as before", items = counts.n)
    } else {
        text!(
            "{gained} gained, {lost} lost of {items} items",
            gained = counts.only_b,
            lost = counts.only_a,
            items = counts.n
        )
    };
    let verdict = if same { Verdict::Same } else { Verdict::CannotTell };
    Against { other, change, verdict, why, p: Some(p) }
}

/// Place of the best point before `last`: the latest of equally good ones.
fn best_point(line: &Line<'_>, last: usize) -> usize {
    let rises = line.key.kind.rises();
    let value = |place: usize| line.points[place].figure.value * if rises { 1.0 } else { -1.0 };
    (0..last).fold(0, |best, place| if value(place) >= value(best) { place } else { best })
}

/// Values with the spread of runs as their noise.
fn values(line: &Line<'_>, lines: usize) -> Judged {
    let values = line.values();
    let last = values.len() - 1;
    let present = line.levels.last().expect("invariant: a line has a level");
    let before = &values[present.start..last];
    // Two comparisons a line: with the previous run, and with the best level.
    let enough = before.len() >= STEP_LEAST;
    let floor = spread_between(before)
        .filter(|_| enough)
        .and_then(|spread| null_floor(spread, before.len(), 2 * lines, 1.0 - ALPHA));
    Judged {
        previous: Some(by_spread(line, last - 1, values[last - 1], floor)),
        best: Some(of_best(line, &values, floor)),
    }
}

/// The last value against another, or against the level around it, by the floor of the present level.
fn by_spread(line: &Line<'_>, other: usize, reference: f64, floor: Option<f64>) -> Against {
    let change = line.last().figure.value / reference;
    let (verdict, why) = match floor {
        _ if change == 1.0 => (Verdict::Same, text!("the same value")),
        None => {
            let needs = text!("needs {runs} runs of one level before the last", runs = STEP_LEAST);
            (Verdict::CannotTell, needs)
        }
        Some(floor) => {
            let is_past = change.ln().abs() > floor.ln_1p();
            let is_better = (change > 1.0) == line.key.kind.rises();
            let verdict = match (is_past, is_better) {
                (false, _) => Verdict::WithinNoise,
                (true, true) => Verdict::Better,
                (true, false) => Verdict::Worse,
            };
            (verdict, text!("repeats differ by up to {percent} %", percent = percent(floor)))
        }
    };
    Against { other, change, verdict, why, p: None }
}

/// The last run against the best level.
fn of_best(line: &Line<'_>, values: &[f64], floor: Option<f64>) -> Against {
    let rises = line.key.kind.rises();
    let last = values.len() - 1;
    let other = best_point(line, last);
    let goodness = |level: &Level| if rises { level.median } else { -level.median };
    let present = line.levels.len() - 1;
    let best = (0..line.levels.len())
        .max_by(|&a, &b| goodness(&line.levels[a]).total_cmp(&goodness(&line.levels[b])).then(a.cmp(&b)))
        .expect("invariant: a line has a level");
    let Level { start, end, median } = line.levels[best];
    if best == present {
        let mut against = by_spread(line, other, median, floor);
        let why = std::mem::take(&mut against.why);
        against.why = text!("{why}; against the median of its best level, the present one", why);
        return against;
    }
    // The steps between say that the levels differ. The two may not be neighbours, and one was chosen.
    let now = &values[line.levels[present].start..];
    let p = rank_sum(&values[start..end], now).map(|p| (p * present as f64).min(1.0));
    let verdict = match p {
        Some(p) if p < STEP_ALPHA => Verdict::Worse,
        Some(_) => Verdict::WithinNoise,
        None => Verdict::CannotTell,
    };
    let change = line.levels[present].median / median;
    let why = text!(
        "median of {now} runs now, of {then} runs at its best level",
        now = now.len(),
        then = end - start
    );
    Against { other, change, verdict, why, p }
}
