//! Drives an engine through a plan, case after case, and records how the run ended.

use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use crate::backend::Backend;
use crate::record::{RunDir, RunRecord, Status, rfc3339_utc};

use super::accuracy;
use super::case_probe::CaseProbe;
use super::error::RunError;
use super::observer::Observer;
use super::plan::Plan;
use super::session::{Ending, Session, Shared};

/// Reloads the model on the given number of ranks, for a new number or after an out-of-memory error ended the engine.
pub type Reload<'a> = dyn FnMut(usize, &mut dyn Observer) -> Result<Box<dyn Backend>, RunError> + 'a;

/// Runs what the directory does not contain yet. Afterwards, `run.json` holds the status.
///
/// `engine` is loaded for the first of the [sizes](Plan::tp_sizes) of the plan. For each other size with open cases, it is
/// dropped and `reload` creates the next. The same happens if a max-batch search runs out of memory and ends the
/// engine. Existing lines are not repeated.
pub fn execute(
    plan: &Plan<'_>,
    engine: Box<dyn Backend>,
    reload: &mut Reload<'_>,
    dir: &mut RunDir,
    record: &mut RunRecord,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Ending, RunError> {
    if let Some(problem) = plan.beyond(engine.capabilities()) {
        return Err(RunError::Backend { backend: engine.device_info().name, problem });
    }
    let probe = CaseProbe::of(record);
    let work = &mut record.provenance.work;
    let result = run_tp_sizes(plan, engine, reload, &mut Shared { dir, observer, stop, probe, work });
    conclude(result, dir, record)
}

/// Records how a run ended. A run's error takes precedence: its cause, such as a full disk, may fail these writes as
/// well.
pub fn conclude(
    result: Result<Ending, RunError>,
    dir: &mut RunDir,
    record: &mut RunRecord,
) -> Result<Ending, RunError> {
    let complete = matches!(result, Ok(Ending::Complete));
    record.status = if complete { Status::Complete } else { Status::Interrupted };
    record.provenance.finished = Some(rfc3339_utc(SystemTime::now()));
    let write = |record: &mut RunRecord| {
        record.seal = if complete { Some(dir.seal()?) } else { None };
        dir.write_run(record)?;
        // Last, because a killed run is resumed from these lines until the record is sealed.
        if complete { dir.forget_kept() } else { Ok(()) }
    };
    let written = write(record);
    let ending = result?;
    written?;
    Ok(ending)
}

fn run_tp_sizes(
    plan: &Plan<'_>,
    mut engine: Box<dyn Backend>,
    reload: &mut Reload<'_>,
    shared: &mut Shared<'_>,
) -> Result<Ending, RunError> {
    for (index, tp) in plan.tp_sizes().into_iter().enumerate() {
        if index > 0 {
            if is_done(plan, tp, shared.dir)? {
                continue;
            }
            // Two models may not fit into memory at once.
            drop(engine);
            engine = reload(tp, shared.observer)?;
        }
        loop {
            let mut session = Session::new(&mut *engine, shared)?;
            if run_cases(plan, tp, &mut session)? == Ending::Complete {
                break;
            }
            if !session.spent {
                return Ok(Ending::Interrupted);
            }
            if is_done(plan, tp, shared.dir)? {
                break;
            }
            drop(engine);
            engine = reload(tp, shared.observer)?;
        }
    }
    Ok(Ending::Complete)
}

/// Whether every case on `tp` ranks has all its lines.
fn is_done(plan: &Plan<'_>, tp: usize, dir: &RunDir) -> Result<bool, RunError> {
    let mut accuracy = plan.accuracy.iter().filter(|case| case.tp == tp);
    let samples = dir.read_samples()?;
    let items = |task: &str| samples.iter().filter(|s| s.task == task).count();
    let done = accuracy.all(|case| items(&case.task) >= case.own.len());
    Ok(done && plan.timed_are_done(tp, dir)?)
}

/// Runs the cases on `tp` ranks.
fn run_cases(plan: &Plan<'_>, tp: usize, session: &mut Session<'_>) -> Result<Ending, RunError> {
    if run_accuracy(plan, tp, session)? == Ending::Interrupted {
        return Ok(Ending::Interrupted);
    }
    plan.run_timed(tp, session)
}

/// Runs the accuracy cases on `tp` ranks.
pub(super) fn run_accuracy(
    plan: &Plan<'_>,
    tp: usize,
    session: &mut Session<'_>,
) -> Result<Ending, RunError> {
    for case in plan.accuracy.iter().filter(|case| case.tp == tp) {
        session.observer.case(&case.task);
        if accuracy::run(case, session)? == Ending::Interrupted {
            return Ok(Ending::Interrupted);
        }
    }
    Ok(Ending::Complete)
}
