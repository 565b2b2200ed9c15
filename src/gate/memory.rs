//! Memory gates. Peaks have no noise, so a gate passes, fails, or lacks a recorded peak to judge.

use super::{Answer, Candidate, asked_for, at_most};
use crate::language::{Text, text, texts};
use crate::record::{Clock, PerfRow, Phase};
use crate::report::compare::{GateOutcome, Judgement, Pair};
use crate::report::tables;
use crate::stats::Interval;
use crate::suite::gates::MemoryGate;
use glmbench_device::DeviceName;

/// Returns a judgement for each matching case and limit.
pub(super) fn judge(gate: &MemoryGate, candidate: &Candidate<'_>) -> Vec<Judgement> {
    let rows: Vec<&PerfRow> = candidate
        .summary
        .performance
        .iter()
        .filter(|row| row.phase == Phase::E2e && asked_for(gate.case.as_ref(), &row.case_id))
        .collect();
    let pattern = gate.case.as_ref().map_or_else(|| text!("every case"), Text::from);
    let [peak, ratio] = texts!["peak memory", "peak memory ratio"];
    let named = |kind: &Text, case: &Text| text!("{kind} of {case}", kind, case);
    let no_case = candidate.no_case(gate.case.as_ref());
    let of_the_base: Vec<String> = candidate.cases_of_the_base();
    let lacking = |kind: &Text, limit: &Text| -> Vec<Judgement> {
        let asked = of_the_base.iter().filter(|id| asked_for(gate.case.as_ref(), id));
        let found = text!("run {letter} has no such case", letter = candidate.letter);
        asked.map(|id| candidate.missing(named(kind, &id.into()), limit.clone(), &found)).collect()
    };
    let mut judgements = Vec::new();
    if let Some(max) = gate.max_bytes {
        let limit = text!("at most {limit}", limit = tables::bytes_text(max as u64));
        judgements.extend(rows.iter().map(|row| {
            let verdict = match row.peak_memory_bytes() {
                _ if !own_memory(candidate, row) => Answer::of(GateOutcome::Undecided, NOT_ITS_MEMORY),
                Some(bytes) if bytes as f64 <= max => {
                    Answer::of(GateOutcome::Pass, tables::bytes_text(bytes))
                }
                Some(bytes) => Answer::of(GateOutcome::Fail, tables::bytes_text(bytes)),
                None => Answer::of(GateOutcome::Undecided, text!("peak memory was not recorded")),
            };
            candidate.judgement(named(&peak, &Text::from(&row.case_id)), limit.clone(), verdict)
        }));
        judgements.extend(lacking(&peak, &limit));
        if rows.is_empty() {
            judgements.push(candidate.missing(named(&peak, &pattern), limit, &no_case));
        }
    }
    if let (Some(max), Some((_, pair))) = (gate.max_ratio, candidate.against) {
        let limit = text!("at most {limit}", limit = max);
        judgements.extend(rows.iter().map(|row| {
            let gate = named(&ratio, &Text::from(&row.case_id));
            let verdict = if own_memory(candidate, row) {
                memory_ratio(pair, row, max)
            } else {
                Answer::of(GateOutcome::Undecided, NOT_ITS_MEMORY)
            };
            candidate.judgement(gate, limit.clone(), verdict)
        }));
        judgements.extend(lacking(&ratio, &limit));
        if rows.is_empty() {
            judgements.push(candidate.missing(named(&ratio, &pattern), limit, &no_case));
        }
    }
    judgements
}

/// Why a recorded peak decides nothing.
const NOT_ITS_MEMORY: Text =
    text!("the recorded peak is of the host process, not of a card or of one of two interleaved engines");

/// Whether the recorded peak is that of the case: a card's, or on the CPU the process's with a single engine in it.
fn own_memory(candidate: &Candidate<'_>, row: &PerfRow) -> bool {
    let in_turns = candidate.requests.iter().any(|r| r.case_id == row.case_id && r.block.is_some());
    if row.device_memory_bytes.is_some() {
        return !in_turns;
    }
    let in_process = row.device.known().is_some_and(DeviceName::is_in_process_memory);
    row.clock == Clock::Measured && in_process && !in_turns
}

fn memory_ratio(pair: &Pair, row: &PerfRow, max: f64) -> Answer {
    let base = pair
        .cases
        .iter()
        .find(|joined| joined.b.case_id == row.case_id)
        .and_then(|joined| joined.phases.last()?.a.peak_memories(row));
    match base {
        Some((a, b)) if a > 0 => {
            let ratio = b as f64 / a as f64;
            Answer::of(at_most(Interval::point(ratio), max), format!("{ratio:.3}"))
        }
        _ => {
            Answer::of(GateOutcome::Undecided, text!("the two runs recorded no peak memory of the same kind"))
        }
    }
}
