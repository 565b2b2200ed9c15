//! Parity gates: compare the output of `glmbench parity --json` with the limits of the gate file.

use super::GateError;
use crate::bounded;
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
}

/// Returns two judgements per parity gate. They concern the engine, not a run.
pub(super) fn judge(gates: &Gates) -> Result<Vec<Judgement>, GateError> {
    let judged: Result<Vec<_>, _> = gates.parity.iter().map(judge_one).collect();
    Ok(judged?.into_iter().flatten().collect())
}

fn judge_one(gate: &ParityGate) -> Result<[Judgement; 2], GateError> {
    let wrong = |message: String| GateError::Parity { path: gate.file.clone(), message };
    let text = bounded::text(&gate.file, MAX_BYTES).map_err(|e| wrong(e.to_string()))?;
    let found: Found = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    if found.kl_threshold != gate.kl_threshold {
        return Err(wrong(format!(
            "found positions counted above a KL of {:e}; expected the gate's kl_threshold, {:e}",
            found.kl_threshold, gate.kl_threshold
        )));
    }
    let judgement = |what: &str, limit: String, (kept, found_text): (bool, String)| Judgement {
        gate: format!("{what}, {} against {}", found.engine, found.reference),
        run: "–".into(),
        limit,
        found: format!("{found_text}, {} positions", found.positions),
        outcome: if kept && found.positions > 0 { GateOutcome::Pass } else { GateOutcome::Fail },
        decide: None,
    };
    // JSON has no infinity: an infinite KL is null.
    let largest = found.kl_max.map_or("infinite".to_owned(), |kl| format!("{kl:.2e} nat"));
    let within = found.kl_max.is_some_and(|kl| kl <= gate.max_kl);
    let share = 100.0 * found.share_above_threshold;
    Ok([
        judgement("largest KL", format!("at most {:e} nat", gate.max_kl), (within, largest)),
        judgement(
            &format!("positions with KL above {:e}", gate.kl_threshold),
            format!("at most {} %", 100.0 * gate.max_share),
            (found.share_above_threshold <= gate.max_share, format!("{share:.3} %")),
        ),
    ])
}
