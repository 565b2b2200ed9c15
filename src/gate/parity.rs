//! Parity gates: compare the output of `glmbench parity --json` with the limits of the gate file.

use super::GateError;
use crate::bounded;
use crate::language::{Text, text};
use crate::report::compare::{GateOutcome, Judgement};
use crate::suite::gates::{Gates, ParityGate};
use serde::Deserialize;

/// Largest size of the file in bytes. It holds a dozen numbers.
const MAX_BYTES: u64 = 1 << 20;

/// The fields needed from the JSON.
#[derive(Deserialize)]
struct Found {
    engine: String,
    reference: String,
    positions: u64,
    kl_max: Option<f64>,
    kl_threshold: f64,
    share_above_threshold: f64,
    /// Absent in files of versions that did not count it.
    divergences_beyond_ties: Option<u64>,
    #[serde(default)]
    continuations: u64,
}

/// Returns the judgements of the parity gates: two each, and a third if the file counts free divergences. They concern the
/// engine, not a run.
pub(super) fn judge(gates: &Gates) -> Result<Vec<Judgement>, GateError> {
    let judged: Result<Vec<_>, _> = gates.parity.iter().map(judge_one).collect();
    Ok(judged?.into_iter().flatten().collect())
}

fn judge_one(gate: &ParityGate) -> Result<Vec<Judgement>, GateError> {
    let wrong = |message: String| GateError::Parity { path: gate.file.clone(), message };
    let text = bounded::text(&gate.file, MAX_BYTES).map_err(|e| wrong(e.to_string()))?;
    let found: Found = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    if found.kl_threshold != gate.kl_threshold {
        return Err(wrong(format!(
            "found positions counted above a KL of {:e}; expected the gate's kl_threshold, {:e}",
            found.kl_threshold, gate.kl_threshold
        )));
    }
    let judgement = |what: Text, limit: Text, (kept, found_text): (bool, Text)| Judgement {
        gate: text!(
            "{what}, {engine} against {reference}",
            what,
            engine = found.engine,
            reference = found.reference
        ),
        run: "–".into(),
        limit,
        found: text!("{figure}, {positions} positions", figure = found_text, positions = found.positions),
        outcome: if kept && found.positions > 0 { GateOutcome::Pass } else { GateOutcome::Fail },
        decide: None,
    };
    // JSON has no infinity: an infinite KL is null.
    let largest = found.kl_max.map_or(text!("infinite"), |kl| format!("{kl:.2e} nat").into());
    let within = found.kl_max.is_some_and(|kl| kl <= gate.max_kl);
    let share = 100.0 * found.share_above_threshold;
    let mut judgements = vec![
        judgement(
            text!("largest KL"),
            text!("at most {limit} nat", limit = format!("{:e}", gate.max_kl)),
            (within, largest),
        ),
        judgement(
            text!("positions with KL above {threshold}", threshold = format!("{:e}", gate.kl_threshold)),
            text!("at most {share} %", share = 100.0 * gate.max_share),
            (found.share_above_threshold <= gate.max_share, format!("{share:.3} %").into()),
        ),
    ];
    if let Some(beyond) = found.divergences_beyond_ties {
        let words =
            text!("{beyond} of {continuations} continuations", beyond, continuations = found.continuations);
        judgements.push(judgement(
            text!("free divergences that are no ties"),
            text!("none"),
            (beyond == 0, words),
        ));
    }
    Ok(judgements)
}
