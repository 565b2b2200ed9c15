//! The headline of a comparison.

use super::speed::SpeedVerdict;
use super::{Comparison, Pair, answer};
use crate::report::Verdict;
use crate::report::format::counted;

/// Returns the sentences of the headline: the answer on each pair, what searches and loads found, and what would decide the rest.
/// They also say why a run's figures may not be used or are incomplete.
pub(super) fn sentences(comparison: &Comparison) -> Vec<String> {
    let answers = comparison.pairs.iter().map(|pair| answer::sentence(comparison, pair));
    let unsound = comparison.sides.iter().filter(|side| side.summary.verdict() != Verdict::Valid);
    let unsound = unsound.map(|side| format!("{}: {}", side.label(), side.summary.verdict_sentence()));
    let rest = comparison
        .pairs
        .iter()
        .flat_map(|pair| others(comparison, pair).into_iter().chain(pair.advice.clone()));
    answers.chain(unsound).chain(rest).collect()
}

/// What the searches and loads found, in a sentence.
fn others(comparison: &Comparison, pair: &Pair) -> Option<String> {
    let parts: Vec<String> =
        pair.workloads.iter().flat_map(|common| common.headline(comparison, pair)).collect();
    let (a, b) = (comparison.base(), comparison.other(pair));
    let names = [b, a].map(|side| answer::name(comparison, side));
    (!parts.is_empty()).then(|| format!("{} against {}: {}.", names[0], names[1], parts.join("; ")))
}

/// `3 phases faster, 12 same, 1 cannot tell`.
pub(super) fn counts(verdicts: &[SpeedVerdict]) -> String {
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
