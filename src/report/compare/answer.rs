//! The answer of a comparison in one sentence a pair, and what was compared in four lines.

use super::accuracy::{AccuracyVerdict, TaskComparison};
use super::headline::counts;
use super::speedup::{Grounds, Multiple, Speedups};
use super::{Comparison, Pair, Side, SpeedVerdict};
use crate::dataset::Benchmark;
use crate::language::{Text, ToText, joined, text};
use crate::record::{Clock, Phase};
use crate::report::format::times;
use crate::report::modelled::{self, RatioError};
use crate::stats::Estimate;
use std::collections::BTreeSet;

/// The phases of the answer, in its order.
pub(in crate::report) const PHASES: [Phase; 2] = [Phase::Decode, Phase::Prefill];

/// Returns the name of a run in a sentence: that of its card, or the letter with what tells it from the others.
pub(in crate::report) fn name(comparison: &Comparison, side: &Side) -> String {
    let card = |side: &Side| modelled::card_of(side.run()).map(|card| card.name);
    let others = comparison.sides.iter().filter(|other| other.letter != side.letter);
    match card(side).filter(|own| others.clone().all(|other| card(other) != Some(own))) {
        Some(name) => name.to_owned(),
        None => format!("{} {}", side.letter, side.name),
    }
}

/// Returns the answer on a pair: how many times as fast, and whether the answers are equal. Where the runs have neither
/// tasks nor timed cases in common, it is what searches and loads found.
pub(super) fn sentence(comparison: &Comparison, pair: &Pair) -> Text {
    let speed = speed(comparison, pair);
    // Without a multiple, nothing has named the runs yet.
    let is_named = speed.as_ref().is_some_and(|(_, is_named)| *is_named);
    let speed = speed.map(|(words, _)| words);
    let parts: Vec<Text> = speed
        .into_iter()
        .chain(accuracy(comparison, pair))
        .chain(pair.text_figures.iter().map(|of| of.words(comparison.base())))
        .collect();
    let (a, b) = (name(comparison, comparison.base()), name(comparison, comparison.other(pair)));
    if parts.is_empty() {
        let none = || text!("{b} and {a} have neither tasks nor timed cases in common.", b, a);
        return others(comparison, pair).unwrap_or_else(none);
    }
    let parts = joined(parts, "; ");
    if is_named { text!("{parts}.", parts) } else { text!("{b} against {a}: {parts}.", b, a, parts) }
}

/// Returns what the searches and loads found, in a sentence.
pub(super) fn others(comparison: &Comparison, pair: &Pair) -> Option<Text> {
    let parts: Vec<Text> =
        pair.workloads.iter().flat_map(|common| common.headline(comparison, pair)).collect();
    let (a, b) = (comparison.base(), comparison.other(pair));
    let names = [b, a].map(|side| name(comparison, side));
    (!parts.is_empty())
        .then(|| text!("{b} against {a}: {parts}.", b = names[0], a = names[1], parts = joined(parts, "; ")))
}

/// The sentence's part on speed, and whether it names the runs. `None` without timed cases.
fn speed(comparison: &Comparison, pair: &Pair) -> Option<(Text, bool)> {
    let (a, b) = (comparison.base(), comparison.other(pair));
    let verdicts: Vec<SpeedVerdict> =
        pair.cases.iter().flat_map(|case| &case.phases).map(|phase| phase.verdict).collect();
    if verdicts.is_empty() {
        return None;
    }
    if a.clock() != b.clock() {
        let words = text!(
            "Times are not compared: {b} is {clock_b}, {a} is {clock_a}",
            b = name(comparison, b),
            clock_b = b.clock(),
            a = name(comparison, a),
            clock_a = a.clock()
        );
        return Some((words, true));
    }
    let speedups = Speedups::of(comparison, pair);
    let means: Vec<(Phase, Multiple)> = speedups
        .iter()
        .flat_map(|speedups| PHASES.map(|phase| Some((phase, speedups.mean(phase, None)?))))
        .flatten()
        .collect();
    let (Some(speedups), false) = (&speedups, means.is_empty()) else {
        return Some((text!("No time can be compared: {counts}", counts = counts(&verdicts)), false));
    };
    let turned = speedups.favours_base();
    let (fast, slow) = if turned { (a, b) } else { (b, a) };
    let multiple = |of: &Multiple| times(if turned { 1.0 / of.times } else { of.times });
    let (fast, slow) = (name(comparison, fast), name(comparison, slow));
    let multiples: Vec<Multiple> = means.iter().map(|(_, of)| *of).collect();
    let how = how(speedups, &multiples, &verdicts);
    let words = match means.as_slice() {
        [(phase, of), (other_phase, other), ..] => text!(
            "{fast} is {times} as fast as {slow} in {phase} and {other} in {other_phase} ({how})",
            fast,
            times = multiple(of),
            slow,
            phase,
            other = multiple(other),
            other_phase,
            how
        ),
        [(phase, of)] => text!(
            "{fast} is {times} as fast as {slow} in {phase} ({how})",
            fast,
            times = multiple(of),
            slow,
            phase,
            how
        ),
        [] => return None,
    };
    Some((words, true))
}

/// The clock with its error, what stands side by side, and the verdicts of measured times.
fn how(speedups: &Speedups, means: &[Multiple], verdicts: &[SpeedVerdict]) -> Text {
    let count = means.iter().map(|of| of.shapes).max().unwrap_or(0);
    let shapes = match (speedups.grounds, count) {
        (grounds, 1) => text!("{grounds}, 1 shape", grounds = grounds.words()),
        (Grounds::Cases, _) => text!("geometric mean of {count} case{count:s}", count),
        (grounds, _) => {
            text!("{grounds}, geometric mean of {count} shape{count:s}", grounds = grounds.words(), count)
        }
    };
    match speedups.clock {
        Clock::Measured => text!("measured; {shapes}; {counts}", shapes, counts = counts(verdicts)),
        Clock::Modelled => {
            let mut errors: Vec<String> = Vec::new();
            for error in means.iter().filter_map(|of| of.error) {
                let words = RatioError { is_beyond: false, ..error }.short();
                if !errors.contains(&words) {
                    errors.push(words);
                }
            }
            let error = if errors.is_empty() {
                text!(", error unknown")
            } else {
                text!(" {errors}", errors = joined(&errors, " and "))
            };
            let beyond = if means.iter().filter_map(|of| of.error).any(|of| of.is_beyond) {
                text!(", partly extrapolated")
            } else {
                Text::EMPTY
            };
            text!("modelled{error}{beyond}; {shapes}", error, beyond, shapes)
        }
    }
}

/// The sentence's part on accuracy. Empty without tasks.
fn accuracy(comparison: &Comparison, pair: &Pair) -> Option<Text> {
    if pair.tasks.is_empty() {
        return None;
    }
    let (same, rest): (Vec<_>, Vec<_>) =
        pair.tasks.iter().partition(|task| task.verdict == AccuracyVerdict::Same);
    let mut parts = Vec::new();
    if !same.is_empty() {
        let points = 100.0 * comparison.options.accuracy_margin;
        let titles = joined(same.iter().map(|task| title(comparison, task)), ", ");
        parts.push(text!("answers equal within {points} point{points:s} ({titles})", points, titles));
    }
    let verdict = |task: &&TaskComparison| {
        text!("{task}: {verdict}", task = title(comparison, task), verdict = verdict(task))
    };
    parts.extend(rest.iter().map(verdict));
    Some(joined(parts, "; "))
}

/// The benchmark's own name; with the task's, if two tasks are of one benchmark.
fn title(comparison: &Comparison, task: &TaskComparison) -> String {
    let cases = &comparison.base().run().plan.accuracy;
    let benchmark = cases.iter().find(|case| case.task == task.task).map(|case| case.benchmark.as_str());
    let alone = cases.iter().filter(|case| Some(case.benchmark.as_str()) == benchmark).count() == 1;
    match benchmark.and_then(Benchmark::from_name).filter(|_| alone) {
        Some(benchmark) => benchmark.title.to_owned(),
        None => task.task.clone(),
    }
}

/// What is known of the difference in a task. Without flips, that is the largest difference that the items exclude.
fn verdict(task: &TaskComparison) -> Text {
    let whole = task.whole();
    let Estimate { value: difference, interval } = whole.difference;
    let points = |share: f64| format!("{:+.1}", 100.0 * share).replace('-', "−");
    let ends = interval.map_or_else(String::new, |of| format!(" [{}, {}]", points(of.low), points(of.high)));
    match task.verdict {
        AccuracyVerdict::Same => text!("same"),
        AccuracyVerdict::Better | AccuracyVerdict::Worse => text!(
            "{verdict}, {difference} points{ends}",
            verdict = task.verdict,
            difference = points(difference),
            ends
        ),
        AccuracyVerdict::CannotTell { .. } if whole.counts.discordant() == 0 => {
            let excluded = interval.map(|of| 100.0 * of.low.abs().max(of.high.abs()));
            let excluded = excluded.map_or(Text::EMPTY, |points| {
                text!("; a difference above {points} points is excluded", points = format!("{points:.1}"))
            });
            text!("no flips in {items} item{items:s}{excluded}", items = whole.counts.n, excluded)
        }
        AccuracyVerdict::CannotTell { needs } => {
            let needs = needs.map_or(Text::EMPTY, |n| text!(" (needs n = {n})", n));
            text!("{difference} points{ends}, undecided{needs}", difference = points(difference), ends, needs)
        }
    }
}

/// The verdict in a table. Other columns of the table have the difference and its interval.
pub(super) fn shown(task: &TaskComparison) -> Text {
    let without_flips = task.whole().counts.discordant() == 0;
    match task.verdict {
        AccuracyVerdict::CannotTell { .. } if without_flips => verdict(task),
        other => other.to_text(),
    }
}

/// What was compared: model, cards, software, clock and date. Four lines of a name and a text.
pub(in crate::report) fn facts(comparison: &Comparison) -> Vec<(Text, Text)> {
    let model = |side: &Side| {
        let from = &side.run().provenance;
        format!("{}, {}", from.model, from.dtype).into()
    };
    let software = |side: &Side| {
        let from = &side.run().provenance;
        // The engine stands before them.
        let is_engine = |name: &str, version: &str| format!("{name} {version}") == from.engine;
        let known =
            from.versions.iter().filter(|(name, version)| *name != "rustc" && !is_engine(name, version));
        let known = known.map(|(name, version)| format!(", {name} {version}")).collect::<String>();
        text!("{engine}, kernels {kernel}{known}", engine = from.engine, kernel = from.kernel, known)
    };
    let clock = |side: &Side| {
        let profile = side.run().provenance.clock_profile.as_deref().unwrap_or_default();
        let name = profile.split(' ').next().unwrap_or_default();
        let date = side.run().provenance.started.split('T').next().unwrap_or_default();
        if name.is_empty() {
            text!("{clock}, {date}", clock = side.clock(), date)
        } else {
            text!("{clock} by profile {name}, {date}", clock = side.clock(), name, date)
        }
    };
    vec![
        (text!("Model and type"), shared(comparison, &model)),
        (text!("Cards"), shared(comparison, &hardware)),
        (text!("Software"), shared(comparison, &software)),
        (text!("Clock and date"), shared(comparison, &clock)),
    ]
}

/// The text once if it is that of every run, else after each run's letter.
fn shared(comparison: &Comparison, of: &dyn Fn(&Side) -> Text) -> Text {
    let texts: Vec<Text> = comparison.sides.iter().map(of).collect();
    if texts.windows(2).all(|pair| pair[0] == pair[1]) {
        return texts.into_iter().next().unwrap_or_default();
    }
    let lettered = comparison.sides.iter().zip(texts);
    joined(lettered.map(|(side, words)| text!("{letter}: {words}", letter = side.letter, words)), " · ")
}

/// The card with its chips, or the processor with its threads; the ranks of its cases.
fn hardware(side: &Side) -> Text {
    let run = side.run();
    let from = &run.provenance;
    let device = from.device.known();
    let on_host = device.is_some_and(|device| device.kind.has_threads() && !device.emulated);
    let what = match modelled::card_of(run) {
        Some(card) => text!("{card} ({chips} chip{chips:s}), emulated", card = card.name, chips = card.chips),
        None if on_host => {
            text!("{cpu}, {threads} thread{threads:s}", cpu = from.cpu_model, threads = from.threads)
        }
        None => from.device.to_text(),
    };
    let ranks: BTreeSet<u32> = run.plan.performance.iter().map(|case| case.tp).collect();
    if ranks.is_empty() || ranks == BTreeSet::from([1]) {
        what
    } else {
        text!("{what}, TP {ranks}", what, ranks = joined(&ranks, " and "))
    }
}
