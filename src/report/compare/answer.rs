//! The answer of a comparison in one sentence a pair, and what was compared in four lines.

use super::accuracy::{AccuracyVerdict, TaskComparison};
use super::headline::counts;
use super::speedup::{Grounds, Multiple, Speedups};
use super::{Comparison, Pair, Side, SpeedVerdict};
use crate::dataset::Benchmark;
use crate::record::{Clock, Phase};
use crate::report::format::{counted, times};
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

/// Returns the answer on a pair: how many times as fast, and whether the answers are equal.
pub(super) fn sentence(comparison: &Comparison, pair: &Pair) -> String {
    let parts: Vec<String> = speed(comparison, pair)
        .into_iter()
        .chain(accuracy(comparison, pair))
        .chain(pair.perplexities.iter().cloned())
        .collect();
    let (a, b) = (name(comparison, comparison.base()), name(comparison, comparison.other(pair)));
    if parts.is_empty() {
        return format!("{b} and {a} have neither tasks nor timed cases in common.");
    }
    let text = parts.join("; ");
    // Without a speed, nothing has named the runs yet.
    let text = if text.contains(&a) { text } else { format!("{b} against {a}: {text}") };
    format!("{text}.")
}

/// The sentence's part on speed. Empty without timed cases.
fn speed(comparison: &Comparison, pair: &Pair) -> Option<String> {
    let (a, b) = (comparison.base(), comparison.other(pair));
    let verdicts: Vec<SpeedVerdict> =
        pair.cases.iter().flat_map(|case| &case.phases).map(|phase| phase.verdict).collect();
    if verdicts.is_empty() {
        return None;
    }
    if a.clock() != b.clock() {
        return Some(format!(
            "Times are not compared: {} is {}, {} is {}",
            name(comparison, b),
            b.clock(),
            name(comparison, a),
            a.clock()
        ));
    }
    let speedups = Speedups::of(comparison, pair);
    let means: Vec<(Phase, Multiple)> = speedups
        .iter()
        .flat_map(|speedups| PHASES.map(|phase| Some((phase, speedups.mean(phase, None)?))))
        .flatten()
        .collect();
    let (Some(speedups), false) = (&speedups, means.is_empty()) else {
        return Some(format!("No time can be compared: {}", counts(&verdicts)));
    };
    let turned = speedups.favours_base();
    let (fast, slow) = if turned { (a, b) } else { (b, a) };
    let multiple = |of: &Multiple| if turned { 1.0 / of.times } else { of.times };
    let words = means.iter().enumerate().map(|(index, (phase, of))| {
        let than = if index == 0 { format!(" as fast as {}", name(comparison, slow)) } else { String::new() };
        format!("{}{than} in {phase}", times(multiple(of)))
    });
    let words = words.collect::<Vec<_>>().join(" and ");
    let means: Vec<Multiple> = means.into_iter().map(|(_, of)| of).collect();
    let how = how(speedups, &means, &verdicts);
    Some(format!("{} is {words} ({how})", name(comparison, fast)))
}

/// The clock with its error, what stands side by side, and the verdicts of measured times.
fn how(speedups: &Speedups, means: &[Multiple], verdicts: &[SpeedVerdict]) -> String {
    let count = means.iter().map(|of| of.shapes).max().unwrap_or(0);
    let shapes = match (speedups.grounds, count) {
        (grounds, 1) => format!("{}, 1 shape", grounds.words()),
        (Grounds::Cases, _) => format!("geometric mean of {}", counted(count as u64, "case")),
        (grounds, _) => format!("{}, geometric mean of {}", grounds.words(), counted(count as u64, "shape")),
    };
    match speedups.clock {
        Clock::Measured => format!("measured; {shapes}; {}", counts(verdicts)),
        Clock::Modelled => {
            let mut errors: Vec<String> = Vec::new();
            for error in means.iter().filter_map(|of| of.error) {
                let words = RatioError { is_beyond: false, ..error }.short();
                if !errors.contains(&words) {
                    errors.push(words);
                }
            }
            let error = if errors.is_empty() {
                ", error unknown".to_owned()
            } else {
                format!(" {}", errors.join(" and "))
            };
            let beyond = if means.iter().filter_map(|of| of.error).any(|of| of.is_beyond) {
                ", partly extrapolated"
            } else {
                ""
            };
            format!("modelled{error}{beyond}; {shapes}")
        }
    }
}

/// The sentence's part on accuracy. Empty without tasks.
fn accuracy(comparison: &Comparison, pair: &Pair) -> Option<String> {
    if pair.tasks.is_empty() {
        return None;
    }
    let (same, rest): (Vec<_>, Vec<_>) =
        pair.tasks.iter().partition(|task| task.verdict == AccuracyVerdict::Same);
    let mut parts = Vec::new();
    if !same.is_empty() {
        let margin = 100.0 * comparison.options.accuracy_margin;
        let points = if margin == 1.0 { "1 point".to_owned() } else { format!("{margin} points") };
        let titles: Vec<String> = same.iter().map(|task| title(comparison, task)).collect();
        parts.push(format!("answers equal within {points} ({})", titles.join(", ")));
    }
    parts.extend(rest.iter().map(|task| format!("{}: {}", title(comparison, task), verdict(task))));
    Some(parts.join("; "))
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

/// What is known of a task's difference. Without flips, that is the largest difference that the items exclude.
fn verdict(task: &TaskComparison) -> String {
    let whole = task.whole();
    let Estimate { value: difference, interval } = whole.difference;
    let points = |share: f64| format!("{:+.1}", 100.0 * share).replace('-', "−");
    let ends = interval.map_or_else(String::new, |of| format!(" [{}, {}]", points(of.low), points(of.high)));
    match task.verdict {
        AccuracyVerdict::Same => "same".to_owned(),
        AccuracyVerdict::Better | AccuracyVerdict::Worse => {
            format!("{}, {} points{ends}", task.verdict, points(difference))
        }
        AccuracyVerdict::CannotTell { .. } if whole.counts.discordant() == 0 => {
            let excluded = interval.map(|of| 100.0 * of.low.abs().max(of.high.abs()));
            let excluded = excluded.map_or_else(String::new, |points| {
                format!("; a difference above {points:.1} points is excluded")
            });
            format!("no flips in {}{excluded}", counted(whole.counts.n, "item"))
        }
        AccuracyVerdict::CannotTell { needs } => {
            let needs = needs.map_or_else(String::new, |n| format!(" (needs n = {n})"));
            format!("{} points{ends}, undecided{needs}", points(difference))
        }
    }
}

/// The verdict in a table, whose other columns have the difference and its interval.
pub(super) fn shown(task: &TaskComparison) -> String {
    let without_flips = task.whole().counts.discordant() == 0;
    match task.verdict {
        AccuracyVerdict::CannotTell { .. } if without_flips => verdict(task),
        other => other.to_string(),
    }
}

/// What was compared: model, cards, software, clock and date. Four lines of a name and a text.
pub(in crate::report) fn facts(comparison: &Comparison) -> Vec<(&'static str, String)> {
    let model = |side: &Side| {
        let from = &side.run().provenance;
        format!("{}, {}", from.model, from.dtype)
    };
    let software = |side: &Side| {
        let from = &side.run().provenance;
        // The engine stands before them.
        let is_engine = |name: &str, version: &str| format!("{name} {version}") == from.engine;
        let known =
            from.versions.iter().filter(|(name, version)| *name != "rustc" && !is_engine(name, version));
        let known = known.map(|(name, version)| format!(", {name} {version}")).collect::<String>();
        format!("{}, kernels {}{known}", from.engine, from.kernel)
    };
    let clock = |side: &Side| {
        let profile = side.run().provenance.clock_profile.as_deref().unwrap_or_default();
        let name = profile.split(' ').next().unwrap_or_default();
        let profile = if name.is_empty() { String::new() } else { format!(" by profile {name}") };
        let date = side.run().provenance.started.split('T').next().unwrap_or_default().to_owned();
        format!("{}{profile}, {date}", side.clock())
    };
    vec![
        ("Model and type", shared(comparison, &model)),
        ("Cards", shared(comparison, &hardware)),
        ("Software", shared(comparison, &software)),
        ("Clock and date", shared(comparison, &clock)),
    ]
}

/// The text once if it is that of every run, else after each run's letter.
fn shared(comparison: &Comparison, of: &dyn Fn(&Side) -> String) -> String {
    let texts: Vec<String> = comparison.sides.iter().map(of).collect();
    if texts.windows(2).all(|pair| pair[0] == pair[1]) {
        return texts.into_iter().next().unwrap_or_default();
    }
    let lettered = comparison.sides.iter().zip(texts).map(|(side, text)| format!("{}: {text}", side.letter));
    lettered.collect::<Vec<_>>().join(" · ")
}

/// The card with its chips, or the processor with its threads; the ranks of its cases.
fn hardware(side: &Side) -> String {
    let run = side.run();
    let from = &run.provenance;
    let device = from.device.known();
    let on_host = device.is_some_and(|device| device.kind.has_threads() && !device.emulated);
    let what = match modelled::card_of(run) {
        Some(card) => format!("{} ({}), emulated", card.name, counted(u64::from(card.chips), "chip")),
        None if on_host => format!("{}, {}", from.cpu_model, counted(u64::from(from.threads), "thread")),
        None => from.device.to_string(),
    };
    let ranks: BTreeSet<u32> = run.plan.performance.iter().map(|case| case.tp).collect();
    let ranks: Vec<String> = ranks.iter().map(u32::to_string).collect();
    if ranks.is_empty() || ranks == ["1"] { what } else { format!("{what}, TP {}", ranks.join(" and ")) }
}
