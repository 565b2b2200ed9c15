//! Telling the outcome of gates: sentences, the exit code, and the JUnit file.

use crate::language::{Language, Text, text};
use std::path::Path;

use anyhow::Context as _;

use crate::gate::junit;
use crate::record::write_whole;
use crate::report::Verdict;
use crate::report::compare::{GateOutcome, Judgement};
use crate::suite::gates::Gates;
use crate::text::one_line;

use super::Exit;

/// Returns the exit code. An invalid run decides no gate. A failed gate takes precedence over an incomplete run,
/// because gates are the question asked. An undecided gate of valid runs counts as an invalid measurement.
pub(super) fn exit(decision: GateOutcome, verdict: Verdict) -> Exit {
    match (verdict, decision) {
        (Verdict::Invalid, _) | (Verdict::Valid, GateOutcome::Undecided) => Exit::Invalid,
        (_, GateOutcome::Fail) => Exit::GateFailed,
        (Verdict::Incomplete, _) => Exit::Incomplete,
        (Verdict::Valid, GateOutcome::Pass) => Exit::Done,
    }
}

/// Writes the JUnit file of the judgements.
pub(super) fn write_junit(path: &Path, gates: &Gates, judgements: &[Judgement]) -> anyhow::Result<()> {
    let xml = junit::document(judgements, gates.undecided);
    write_whole(path, xml.as_bytes()).with_context(|| format!("--junit {}", path.display()))
}

/// Counts the gates by outcome.
pub(super) fn gate_sentence(judgements: &[Judgement]) -> Text {
    let count = |outcome| judgements.iter().filter(|j| j.outcome == outcome).count();
    text!(
        "gates: {passed} passed, {failed} failed, {undecided} undecided",
        passed = count(GateOutcome::Pass),
        failed = count(GateOutcome::Fail),
        undecided = count(GateOutcome::Undecided)
    )
}

/// Describes what would decide the undecided gates, one line per kind.
pub(super) fn deciding(judgements: &[Judgement], language: Language) -> Vec<String> {
    let mut lines: Vec<(&Text, Vec<&Text>)> = Vec::new();
    for judgement in judgements {
        let Some(decide) = &judgement.decide else { continue };
        match lines.iter_mut().find(|(known, _)| *known == decide) {
            Some((_, gates)) => gates.push(&judgement.gate),
            None => lines.push((decide, vec![&judgement.gate])),
        }
    }
    let words = |(decide, gates): (&Text, Vec<&Text>)| match gates.as_slice() {
        [one] => text!("{gate} is undecided: {decide}", gate = one, decide),
        [first, rest @ ..] => {
            text!("{first} and {more} more are undecided: {decide}", first, more = rest.len(), decide)
        }
        [] => decide.clone(),
    };
    lines.into_iter().map(|line| one_line(&words(line).in_language(language)).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_run_then_a_failed_gate_then_the_rest() {
        use GateOutcome::{Fail, Pass, Undecided};
        for (decision, verdict, code) in [
            (Fail, Verdict::Invalid, Exit::Invalid),
            (Pass, Verdict::Invalid, Exit::Invalid),
            (Fail, Verdict::Incomplete, Exit::GateFailed),
            (Fail, Verdict::Valid, Exit::GateFailed),
            (Pass, Verdict::Incomplete, Exit::Incomplete),
            (Undecided, Verdict::Incomplete, Exit::Incomplete),
            (Undecided, Verdict::Valid, Exit::Invalid),
            (Pass, Verdict::Valid, Exit::Done),
        ] {
            assert_eq!(exit(decision, verdict), code, "{decision:?} {verdict:?}");
        }
    }
}
