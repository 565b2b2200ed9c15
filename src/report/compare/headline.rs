//! The headline of a comparison.

use super::speed::SpeedVerdict;
use super::{Comparison, Pair};
use crate::report::Verdict;
use crate::report::format::counted;
use crate::report::modelled;

/// Returns the sentences of the headline. They say why a run's figures may not be used or are incomplete. For each
/// pair they give the verdicts on tasks and timed phases, and what would decide the rest.
pub(super) fn sentences(comparison: &Comparison) -> Vec<String> {
    let unsound = comparison.sides.iter().filter(|side| side.summary.verdict() != Verdict::Valid);
    let mut sentences: Vec<String> =
        unsound.map(|side| format!("{}: {}", side.label(), side.summary.verdict_sentence())).collect();
    let of_pair = |pair: &Pair| {
        let (a, b) = (&comparison.base().summary, &comparison.other(pair).summary);
        let cards = modelled::cards_sentence((&a.run, &a.performance), (&b.run, &b.performance));
        std::iter::once(sentence(comparison, pair))
            .chain(cards)
            .chain(pair.advice.clone())
            .collect::<Vec<_>>()
    };
    sentences.extend(comparison.pairs.iter().flat_map(of_pair));
    sentences
}

fn sentence(comparison: &Comparison, pair: &Pair) -> String {
    let mut parts = Vec::new();
    if !pair.tasks.is_empty() {
        let words = pair.tasks.iter().map(|task| {
            let word = task.verdict.to_string();
            format!("{} {}", task.task, word.split(" (").next().unwrap_or_default())
        });
        parts.push(format!("accuracy: {}", words.collect::<Vec<_>>().join(", ")));
    }
    let verdicts: Vec<SpeedVerdict> =
        pair.cases.iter().flat_map(|case| &case.phases).map(|phase| phase.verdict).collect();
    if !verdicts.is_empty() {
        parts.push(format!("speed: {}", counts(&verdicts)));
    }
    parts.extend(pair.workloads.iter().flat_map(|common| common.headline()));
    format!("{} against {}: {}.", comparison.other(pair).label(), comparison.base().label(), parts.join("; "))
}

/// `3 phases faster, 12 same, 1 cannot tell`.
fn counts(verdicts: &[SpeedVerdict]) -> String {
    let kinds = [
        SpeedVerdict::Faster,
        SpeedVerdict::Same,
        SpeedVerdict::Slower,
        SpeedVerdict::CannotTell,
        SpeedVerdict::NotInTurn,
        SpeedVerdict::Unstable,
        SpeedVerdict::ModelledRatio,
        SpeedVerdict::NotComparable,
        SpeedVerdict::Invalid,
    ];
    let seen = kinds.into_iter().map(|kind| (kind, verdicts.iter().filter(|v| **v == kind).count()));
    let mut seen = seen.filter(|(_, count)| *count > 0);
    let Some((first, count)) = seen.next() else { return String::new() };
    let first = match first {
        SpeedVerdict::ModelledRatio => format!("{count} modelled ratios, no verdicts"),
        kind => format!("{} {kind}", counted(count as u64, "timed phase")),
    };
    let rest = seen.map(|(kind, count)| format!("{count} {kind}"));
    std::iter::once(first).chain(rest).collect::<Vec<_>>().join(", ")
}
