//! The headline of a comparison.

use super::speed::SpeedVerdict;
use super::{Comparison, Pair, answer};
use crate::language::{Text, joined, text};
use crate::report::Verdict;

/// Returns the sentences of the headline: the answer on each pair, what searches and loads found, and what would decide the rest.
/// They also say why a run's figures may not be used or are incomplete.
pub(super) fn sentences(comparison: &Comparison) -> Vec<Text> {
    let answers = comparison.pairs.iter().map(|pair| answer::sentence(comparison, pair));
    let unsound = comparison.sides.iter().filter(|side| side.summary.verdict() != Verdict::Valid);
    let unsound = unsound
        .map(|side| text!("{run}: {verdict}", run = side.label(), verdict = side.summary.verdict_sentence()));
    let rest = comparison
        .pairs
        .iter()
        .flat_map(|pair| others(comparison, pair).into_iter().chain(pair.advice.clone()));
    answers.chain(unsound).chain(rest).collect()
}

/// What the searches and loads found, in a sentence.
fn others(comparison: &Comparison, pair: &Pair) -> Option<Text> {
    let parts: Vec<Text> =
        pair.workloads.iter().flat_map(|common| common.headline(comparison, pair)).collect();
    let (a, b) = (comparison.base(), comparison.other(pair));
    let names = [b, a].map(|side| answer::name(comparison, side));
    (!parts.is_empty())
        .then(|| text!("{b} against {a}: {parts}.", b = names[0], a = names[1], parts = joined(&parts, "; ")))
}

/// `3 phases faster, 12 same, 1 cannot tell`.
pub(super) fn counts(verdicts: &[SpeedVerdict]) -> Text {
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
    let Some((first, count)) = seen.next() else { return Text::EMPTY };
    let first = match first {
        SpeedVerdict::ModelledRatio => text!("{count} modelled ratios, no verdicts", count),
        kind => text!("{count} timed phase{count:s} {verdict}", count, verdict = kind),
    };
    let rest = seen.map(|(kind, count)| text!("{count} {verdict}", count, verdict = kind));
    joined(std::iter::once(first).chain(rest), ", ")
}
