//! A performance case: warm-ups until times agree, then timed repetitions, a line each.

use crate::bench::{OrdinaryTokens, Repetition, Shape, WarmUp, WarmUpRule, prompts, repeat};
use crate::record::{RepetitionKind, RequestRecord};

use super::machine::{peak_rss_bytes, reset_peak_rss};
use super::{Ending, RunError, Session};

/// A performance case ready to run.
#[derive(Debug, Clone)]
pub struct PerformanceRun {
    /// The shape.
    pub shape: Shape,
    /// Tensor-parallel ranks.
    pub tp: usize,
    /// Timed repetitions.
    pub repetitions: usize,
    /// When warming up is enough.
    pub warm_up: WarmUpRule,
    /// Seed of the prompts.
    pub seed: u64,
}

impl PerformanceRun {
    /// Name within a run: the shape's, with the ranks where there are several: `b8-i128-o32-tp2`.
    pub fn case_id(&self) -> String {
        let shape = self.shape.case_id();
        if self.tp == 1 { shape } else { format!("{shape}-tp{}", self.tp) }
    }
}

/// Runs the repetitions that have no line yet; an interrupted case is warmed up again.
pub(super) fn run(
    case: &PerformanceRun,
    tokens: &OrdinaryTokens,
    session: &mut Session<'_>,
) -> Result<Ending, RunError> {
    let case_id = case.case_id();
    let (warm_ups, timed) = lines(session, &case_id)?;
    session.observer.begin(&case_id, "repetitions", case.repetitions as u64, timed as u64);
    let ending = repetitions(case, tokens, (warm_ups, timed), session);
    session.observer.end();
    session.engine.clear();
    ending
}

/// Warm-ups and timed repetitions of a case that are recorded already.
fn lines(session: &Session<'_>, case_id: &str) -> Result<(usize, usize), RunError> {
    let records = session.dir.read_requests()?;
    let of = |kind| records.iter().filter(|r| r.case_id == case_id && r.kind == kind).count();
    Ok((of(RepetitionKind::Warmup), of(RepetitionKind::Timed)))
}

fn repetitions(
    case: &PerformanceRun,
    tokens: &OrdinaryTokens,
    (warm_ups_before, timed_before): (usize, usize),
    session: &mut Session<'_>,
) -> Result<Ending, RunError> {
    if timed_before >= case.repetitions {
        return Ok(Ending::Complete);
    }
    reset_peak_rss();
    let prompts = prompts(case.shape, tokens, case.seed);
    let mut warm_up = WarmUp::default();
    while !warm_up.is_enough(&case.warm_up) {
        if session.stopped() {
            return Ok(Ending::Interrupted);
        }
        let times = repeat(session.engine, case.shape, &prompts)?;
        warm_up.add(times.total_ns());
        let number = warm_ups_before + warm_up.count() - 1;
        session.dir.append_request(&record(session, case, RepetitionKind::Warmup, number, times))?;
    }
    for number in timed_before..case.repetitions {
        if session.stopped() {
            return Ok(Ending::Interrupted);
        }
        let times = repeat(session.engine, case.shape, &prompts)?;
        session.dir.append_request(&record(session, case, RepetitionKind::Timed, number, times))?;
        session.sample_memory();
        session.observer.advance();
    }
    Ok(Ending::Complete)
}

fn record(
    session: &Session<'_>,
    case: &PerformanceRun,
    kind: RepetitionKind,
    number: usize,
    times: Repetition,
) -> RequestRecord {
    let shape = case.shape;
    RequestRecord {
        case_id: case.case_id(),
        kind,
        repetition: number as u32,
        clock: session.clock(),
        tp: case.tp as u32,
        block: None,
        batch: shape.batch as u32,
        input_tokens: shape.input_tokens as u32,
        output_tokens: shape.output_tokens as u32,
        start_ns: session.run_ns(times.start_ns),
        prefill_ns: times.prefill_ns,
        first_token_ns: session.run_ns(times.first_token_ns),
        step_ns: times.step_ns,
        end_ns: session.run_ns(times.end_ns),
        output_hash: times.output_hash,
        peak_rss_bytes: peak_rss_bytes(),
        error: None,
    }
}
