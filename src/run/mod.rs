//! Executes a plan: progress, journal, resume, provenance.
//!
//! [`plan::Plan`] is all that can be known and checked before a model is loaded; [`execute`] loads nothing and prints
//! nothing: it drives a loaded engine through the plan and leaves lines in the run directory. Lines are written in the
//! plan's order, so a run that was killed is a prefix of an undisturbed one, and going on with it gives the same files.

mod accuracy;
pub mod duration;
pub mod environment;
pub mod interleave;
pub mod limits;
pub mod load;
pub mod machine;
mod memory;
pub mod model;
pub mod noise;
mod performance;
pub mod plan;
pub mod prompts;
pub mod provenance;
mod published;
mod questions;
mod resume;
pub mod score;
pub mod search;
mod spots;
pub mod telemetry;
pub mod verify;
mod workload;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use crate::device::DeviceInfo;
use crate::engine::EngineError;
use crate::engine::scheduler::Scheduler;
use crate::record::{
    Clock, Mending, PlannedItem, RecordError, RunDir, RunRecord, Status, TelemetryRow, rfc3339_utc,
};
use crate::task::{Evaluation, TaskError};

use self::plan::Plan;
use self::spots::CaseGauge;

pub use self::resume::{
    Found, NOT_COMPARED, Wanted, comparison_folder, find, find_group, finished, group_id, unreadable,
};

/// Why a run cannot be done, or broke off.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The run directory; what was written before stays whole.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A data set, or a protocol that cannot be put to it.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The suite asks for what this run cannot do.
    #[error("{}: {problem}", suite.display())]
    Suite {
        /// The suite file.
        suite: PathBuf,
        /// What was asked for, and what is possible.
        problem: String,
    },
}

/// Hears how far a run is; the command line draws bars from it.
pub trait Observer {
    /// A case is taken up, or gone on with.
    fn case(&mut self, _name: &str) {}
    /// A phase of `total` units begins, of which `done` are there already.
    fn begin(&mut self, label: &str, unit: &'static str, total: u64, done: u64);
    /// One more unit is done.
    fn advance(&mut self);
    /// The phase ends.
    fn end(&mut self);
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Every case has its lines.
    Complete,
    /// Stopped by the person; can be resumed.
    Interrupted,
}

/// What the cases of one engine share.
struct Session<'a> {
    engine: &'a mut Scheduler,
    dir: &'a mut RunDir,
    observer: &'a mut dyn Observer,
    stop: &'a AtomicBool,
    /// Measures the machine's limits around repetitions, where targets want it.
    gauge: Option<&'a CaseGauge>,
    /// What the engine's clock lacks of the run's, modulo 2⁶⁴: the run's goes on where what was recorded before ended, whatever the
    /// engine's showed then.
    offset_ns: u64,
    /// Interrupted because the engine did not outlive an error, which has its line: a new one goes on.
    spent: bool,
}

impl<'a> Session<'a> {
    fn new(engine: &'a mut Scheduler, shared: &'a mut Shared<'_>) -> Result<Self, RunError> {
        let offset_ns = recorded_ns(shared.dir)?.wrapping_sub(engine.now_ns());
        Ok(Self {
            engine,
            dir: shared.dir,
            observer: shared.observer,
            stop: shared.stop,
            gauge: shared.gauge.as_ref(),
            offset_ns,
            spent: false,
        })
    }
}

impl Session<'_> {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A time of the engine's clock on the run's.
    fn run_ns(&self, engine_ns: u64) -> u64 {
        self.offset_ns.wrapping_add(engine_ns)
    }

    /// Peak memory of the process where that is what the engine takes: a card's memory is not the host's.
    fn peak_memory(&self) -> Option<u64> {
        let device = self.engine.device_info().name;
        matches!(device.as_str(), "cpu" | "reference").then(machine::peak_rss_bytes).flatten()
    }

    /// The clock that the engine keeps.
    fn clock(&self) -> Clock {
        clock_of(&self.engine.device_info())
    }

    /// What the process and the devices take, now.
    fn telemetry(&self) -> Vec<TelemetryRow> {
        telemetry::rows(self.engine, self.run_ns(self.engine.now_ns()))
    }

    /// Notes it.
    fn append_telemetry(&mut self, rows: &[TelemetryRow]) -> Result<(), RecordError> {
        rows.iter().try_for_each(|row| self.dir.append_telemetry(row))
    }

    /// Lets a modelled run's clock go on where its last line ended: what came since was to warm up, and how long that takes depends on
    /// what the process did before.
    fn go_on_from_lines(&mut self) -> Result<(), RecordError> {
        self.offset_ns = recorded_ns(self.dir)?.wrapping_sub(self.engine.now_ns());
        Ok(())
    }

    /// Before a case, a probe or a level of a modelled run: the engine is as in a process that did nothing before. A measured run
    /// keeps its plans, which its users would have, too.
    fn start_afresh(&mut self) -> Result<(), RunError> {
        if self.clock() == Clock::Modelled {
            self.engine.start_afresh()?;
            self.go_on_from_lines()?;
        }
        Ok(())
    }

    /// Notes what the process and the devices take.
    fn sample(&mut self) -> Result<(), RecordError> {
        let rows = self.telemetry();
        self.append_telemetry(&rows)
    }
}

/// The clock behind a device's times.
pub fn clock_of(device: &DeviceInfo) -> Clock {
    if device.modelled_by.is_some() { Clock::Modelled } else { Clock::Measured }
}

/// A run to go on with.
pub struct Resume<'a> {
    /// The run.
    pub found: &'a Found,
    /// What it was to do.
    pub plan: &'a Plan<'a>,
    /// What failed is done again.
    pub retry_failed: bool,
    /// Hears, a sentence each, what of the journals had to be mended.
    pub told: &'a mut Vec<String>,
}

/// Makes the run's directory with its first `run.json`, or opens the one to go on with, mends its journals and counts it as
/// resumed. Either way it is held: a second process is refused before it writes anything.
pub fn open_dir(
    root: &Path,
    resume: Option<Resume<'_>>,
    mut record: RunRecord,
) -> Result<(RunDir, RunRecord), RunError> {
    let mut dir = if let Some(Resume { found, plan, retry_failed, told }) = resume {
        record.run_id.clone_from(&found.record.run_id);
        record.provenance.started.clone_from(&found.record.provenance.started);
        record.provenance.resumed = found.record.provenance.resumed + 1;
        let mut dir = RunDir::open(&found.path)?;
        dir.lock()?;
        let items = plan.items();
        let mending = Mending { found: &found.record, plan: &record.plan, items: &items, retry_failed };
        *told = dir.mend(&mending)?;
        dir
    } else {
        let dir = RunDir::create(root, &record.run_id)?;
        // Another run of that name may have been there.
        record.run_id = dir.name();
        dir
    };
    dir.hold()?;
    dir.write_run(&record)?;
    Ok((dir, record))
}

/// Loads the model anew, for so many ranks: for another number, or because an out-of-memory has ended the engine.
pub type Reload<'a> = dyn FnMut(usize) -> Result<Scheduler, RunError> + 'a;

/// Runs what the directory does not have yet; `run.json` says at the end how far it came.
///
/// `engine` is loaded for the first of the plan's [worlds](Plan::worlds); for each other one that still has something to do
/// it is dropped, and `reload` makes the next. So it is where a max-batch search met the end of memory and the engine did not
/// outlive it: the lines that are there are not done again.
pub fn execute(
    plan: &Plan<'_>,
    engine: Scheduler,
    reload: &mut Reload<'_>,
    dir: &mut RunDir,
    record: &mut RunRecord,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Ending, RunError> {
    let gauge = CaseGauge::of(record);
    let result = run_worlds(plan, engine, reload, &mut Shared { dir, observer, stop, gauge });
    conclude(result, dir, record)
}

/// Writes down how a run ended. The first error counts: a full disk would fail these writes as well.
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
        // Last: until the record is sealed they are what a kill would be gone on with from.
        if complete { dir.forget_kept() } else { Ok(()) }
    };
    let written = write(record);
    let ending = result?;
    written?;
    Ok(ending)
}

/// What outlives an engine in a run.
struct Shared<'a> {
    dir: &'a mut RunDir,
    observer: &'a mut dyn Observer,
    stop: &'a AtomicBool,
    gauge: Option<CaseGauge>,
}

fn run_worlds(
    plan: &Plan<'_>,
    mut engine: Scheduler,
    reload: &mut Reload<'_>,
    shared: &mut Shared<'_>,
) -> Result<Ending, RunError> {
    for (index, world) in plan.worlds().into_iter().enumerate() {
        if index > 0 {
            if is_done(plan, world, shared.dir)? {
                continue;
            }
            // Two models need not fit at once.
            drop(engine);
            engine = reload(world)?;
        }
        loop {
            let mut session = Session::new(&mut engine, shared)?;
            if run_cases(plan, world, &mut session)? == Ending::Complete {
                break;
            }
            if !session.spent {
                return Ok(Ending::Interrupted);
            }
            if is_done(plan, world, shared.dir)? {
                break;
            }
            drop(engine);
            engine = reload(world)?;
        }
    }
    Ok(Ending::Complete)
}

/// Every case of so many ranks has all its lines.
fn is_done(plan: &Plan<'_>, world: usize, dir: &RunDir) -> Result<bool, RunError> {
    let mut accuracy = plan.accuracy.iter().filter(|case| case.tp == world);
    let samples = dir.read_samples()?;
    let items = |task: &str| samples.iter().filter(|s| s.task == task).count();
    let done = accuracy.all(|case| items(&case.task) >= case.evaluation.len());
    Ok(done
        && performance::is_done(plan, world, dir)?
        && search::is_done(plan, world, dir)?
        && load::is_done(plan, world, dir)?)
}

/// The latest time in the journals; 0 in a new run.
fn recorded_ns(dir: &RunDir) -> Result<u64, RecordError> {
    let samples = dir.read_samples()?.into_iter().map(|s| s.t_end_ns);
    let requests = dir.read_requests()?.into_iter().map(|r| r.end_ns);
    let probes = dir.read_probes()?.into_iter().map(|p| p.end_ns);
    let loads = dir.read_loads()?.into_iter().map(|l| l.end_ns);
    let latest = samples.chain(requests).chain(probes).chain(loads).max().unwrap_or(0);
    Ok(latest.max(dir.kept_until_ns()?))
}

/// Runs the cases of so many ranks.
fn run_cases(plan: &Plan<'_>, world: usize, session: &mut Session<'_>) -> Result<Ending, RunError> {
    if run_accuracy(plan, world, session)? == Ending::Interrupted {
        return Ok(Ending::Interrupted);
    }
    for case in plan.performance.iter().filter(|case| case.tp == world && case.unfit.is_none()) {
        session.observer.case(&case.case_id());
        if performance::run(case, &plan.tokens, session)? == Ending::Interrupted {
            return Ok(Ending::Interrupted);
        }
    }
    for search in plan.searches.iter().filter(|search| search.tp == world) {
        session.observer.case(&search.search_id());
        if search::run(search, &plan.tokens, session)? == Ending::Interrupted {
            return Ok(Ending::Interrupted);
        }
    }
    for load in plan.loads.iter().filter(|load| load.tp == world) {
        session.observer.case(&load.load_id);
        if load::run(load, &plan.tokens, session)? == Ending::Interrupted {
            return Ok(Ending::Interrupted);
        }
    }
    Ok(Ending::Complete)
}

/// Runs the precision cases of so many ranks.
fn run_accuracy(plan: &Plan<'_>, world: usize, session: &mut Session<'_>) -> Result<Ending, RunError> {
    for case in plan.accuracy.iter().filter(|case| case.tp == world) {
        session.observer.case(&case.task);
        if accuracy::run(case, session)? == Ending::Interrupted {
            return Ok(Ending::Interrupted);
        }
    }
    Ok(Ending::Complete)
}

impl Plan<'_> {
    /// The items of all precision cases, in the order in which they are run.
    pub fn items(&self) -> Vec<PlannedItem<'_>> {
        let mut all = Vec::new();
        for world in self.worlds() {
            for case in self.accuracy.iter().filter(|case| case.tp == world) {
                let item = |(doc_id, doc_hash)| PlannedItem { task: &case.task, doc_id, doc_hash };
                all.extend(case.items().map(item));
            }
        }
        all
    }
}

/// An accuracy case ready to run.
pub struct AccuracyRun<'a> {
    /// Its name in the records.
    pub task: String,
    /// Items, protocol, tokenizer.
    pub evaluation: Evaluation<'a>,
    /// Sequences at once.
    pub batch: usize,
    /// Tensor-parallel ranks.
    pub tp: usize,
}

impl AccuracyRun<'_> {
    /// Name and content hash of each item, in the order in which their lines come.
    pub fn items(&self) -> impl Iterator<Item = (&str, &str)> {
        let plan = self.evaluation.plan();
        plan.chosen.iter().map(|&index| {
            let item = &plan.dataset.items[index];
            (item.doc_id.as_str(), item.doc_hash.as_str())
        })
    }
}
