//! The headline of a comparison.

use super::speed::SpeedVerdict;
use super::{Comparison, answer};
use crate::language::{Text, joined, text};
use crate::report::Verdict;

/// Returns the sentences of the headline: the answer on each pair, what searches and loads found, and what would decide the rest.
/// They also say why a run's figures may not be used or are incomplete.
pub(in crate::report) fn sentences(comparison: &Comparison) -> Vec<Text> {
    let answers: Vec<Text> = comparison.pairs.iter().map(|pair| answer::sentence(comparison, pair)).collect();
    let unsound = comparison.sides.iter().filter(|side| side.summary.verdict() != Verdict::Valid);
    let unsound = unsound
        .map(|side| text!("{run}: {verdict}", run = side.label(), verdict = side.summary.verdict_sentence()));
    let rest = comparison.pairs.iter().zip(&answers).flat_map(|(pair, answer)| {
        let others = answer::others(comparison, pair).filter(|others| others != answer);
        others.into_iter().chain(pair.advice.clone())
    });
    let rest: Vec<Text> = unsound.chain(rest).collect();
    answers.into_iter().chain(rest).collect()
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
