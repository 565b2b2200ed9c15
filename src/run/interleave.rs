//! Two configurations timed turn by turn, A B B A, so that a drift of the machine meets both alike.

use super::performance::Timing;
use super::plan::Plan;
use super::spots::CaseGauge;
use super::{Ending, Observer, RunError, Session, Shared, conclude, run_accuracy};
use crate::engine::scheduler::Scheduler;
use crate::record::{RunDir, RunRecord};
use std::sync::atomic::AtomicBool;

/// One of the two: a loaded engine and the directory for its lines.
pub struct Side<'a, 'b> {
    /// Its cases.
    pub plan: &'a Plan<'b>,
    /// The engine, loaded for all of them.
    pub engine: Scheduler,
    /// Where its lines go.
    pub dir: RunDir,
    /// Its record.
    pub record: RunRecord,
}

/// Why two plans cannot be interleaved, if so.
pub fn obstacle(a: &Plan<'_>, b: &Plan<'_>) -> Option<String> {
    let shapes = |plan: &Plan<'_>| plan.performance.iter().map(|run| run.shape).collect::<Vec<_>>();
    if shapes(a).is_empty() {
        return Some("there is no [[performance]] case to interleave".into());
    }
    if shapes(a) != shapes(b) {
        return Some("the two configurations have different [[performance]] cases".into());
    }
    if [a, b].into_iter().any(|plan| !plan.searches.is_empty() || !plan.loads.is_empty()) {
        return Some(
            "max-batch searches and loads cannot be interleaved; give them a suite of their own".into(),
        );
    }
    let one_sided =
        a.performance.iter().zip(&b.performance).find(|(a, b)| a.unfit.is_some() != b.unfit.is_some());
    if let Some((case, _)) = one_sided {
        return Some(format!("the memory of one of the two does not hold case {}", case.case_id()));
    }
    let several = [a, b].into_iter().any(|plan| plan.worlds().len() > 1);
    several.then(|| {
        "a configuration has several tensor-parallel sizes; both engines stay loaded, so it must be one"
            .into()
    })
}

/// Runs what the directories do not have yet: each side's precision cases, then the timed ones in turns.
pub fn interleave(
    sides: &mut [Side<'_, '_>; 2],
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Ending, RunError> {
    let result = run(sides, observer, stop);
    let ending = result.as_ref().copied().unwrap_or(Ending::Interrupted);
    for side in sides.iter_mut() {
        // The first error counts: a full disk would fail these writes as well.
        let written = conclude(Ok(ending), &mut side.dir, &mut side.record);
        if result.is_ok() {
            written?;
        }
    }
    result
}

fn run(
    sides: &mut [Side<'_, '_>; 2],
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Ending, RunError> {
    for side in sides.iter_mut() {
        let mut shared = Shared { dir: &mut side.dir, observer: &mut *observer, stop, gauge: None };
        let mut session = Session::new(&mut side.engine, &mut shared)?;
        if run_accuracy(side.plan, side.plan.worlds()[0], &mut session)? == Ending::Interrupted {
            return Ok(Ending::Interrupted);
        }
    }
    let [a, b] = sides;
    let (mut silent_a, mut silent_b) = (Silent, Silent);
    let [gauge_a, gauge_b] = [&a.record, &b.record].map(CaseGauge::of);
    let mut shared_a = Shared { dir: &mut a.dir, observer: &mut silent_a, stop, gauge: gauge_a };
    let mut shared_b = Shared { dir: &mut b.dir, observer: &mut silent_b, stop, gauge: gauge_b };
    let mut session_a = Session::new(&mut a.engine, &mut shared_a)?;
    let mut session_b = Session::new(&mut b.engine, &mut shared_b)?;
    let cases = a.plan.performance.iter().zip(&b.plan.performance);
    for (case_a, case_b) in cases.filter(|(a, b)| a.unfit.is_none() && b.unfit.is_none()) {
        let mut timings = [
            Timing::new(case_a, &a.plan.tokens, &session_a)?,
            Timing::new(case_b, &b.plan.tokens, &session_b)?,
        ];
        let done = timings[0].timed().min(timings[1].timed());
        observer.case(&case_a.case_id());
        observer.begin(&case_a.case_id(), "blocks", case_a.timed() as u64, done as u64);
        let ending = blocks(&mut timings, [&mut session_a, &mut session_b], observer);
        observer.end();
        session_a.engine.clear();
        session_b.engine.clear();
        if ending? == Ending::Interrupted {
            return Ok(Ending::Interrupted);
        }
    }
    Ok(Ending::Complete)
}

/// Block `k` is repetition `k` of both; who goes first changes with every block.
fn blocks(
    timings: &mut [Timing<'_>; 2],
    mut sessions: [&mut Session<'_>; 2],
    observer: &mut dyn Observer,
) -> Result<Ending, RunError> {
    if timings.iter().all(Timing::is_done) {
        return Ok(Ending::Complete);
    }
    for (timing, session) in timings.iter_mut().zip(sessions.iter_mut()) {
        if timing.warm_up(session)? == Ending::Interrupted {
            return Ok(Ending::Interrupted);
        }
    }
    // A case that fails on one side is at its end there; the other side's goes on alone.
    let next = |timings: &[Timing<'_>; 2]| {
        timings.iter().filter(|timing| !timing.is_done()).map(Timing::timed).min()
    };
    while let Some(block) = next(timings) {
        let order = if block.is_multiple_of(2) { [0, 1] } else { [1, 0] };
        // A run that was stopped within a block has one side of it already.
        let open = |side: &usize| !timings[*side].is_done() && timings[*side].timed() == block;
        for side in order.into_iter().filter(open).collect::<Vec<_>>() {
            if sessions[side].stopped() {
                return Ok(Ending::Interrupted);
            }
            timings[side].repeat(sessions[side], Some(block as u32))?;
        }
        observer.advance();
    }
    Ok(Ending::Complete)
}

/// The sides tell nothing; their blocks do.
struct Silent;

impl Observer for Silent {
    fn begin(&mut self, _: &str, _: &'static str, _: u64, _: u64) {}
    fn advance(&mut self) {}
    fn end(&mut self) {}
}
