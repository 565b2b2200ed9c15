//! The life of a run: from a suite to a sealed record.
//!
//! [`RunRequest::run`] does everything: it finds the models of a suite's configurations, checks memory, measures the machine,
//! starts the backends, records, resumes, times configurations in turns, reports and compares. It prints nothing. An
//! [`Observer`] receives progress, messages and results. [`setup`] makes the plan of each configuration, [`turns`] leads
//! configurations that are timed alternately.
//!
//! ```
//! use std::path::Path;
//! use std::sync::atomic::AtomicBool;
//!
//! use glmbench::report::Verdict;
//! use glmbench::run::setup::Answering;
//! use glmbench::run::turns::InThisProcess;
//! use glmbench::run::{RunRequest, Silent};
//! use glmbench::suite::Suite;
//!
//! let text = r#"
//!     schema = 1
//!     name = "example"
//!     [[performance]]
//!     batch = [1, 2]
//!     lengths = [[32, 8]]
//! "#;
//! let out = std::env::temp_dir().join(format!("glmbench-example-{}", std::process::id()));
//! let suite = Suite::parse(Path::new("example.toml"), text, &[])?;
//! let mut request = RunRequest::new(suite, &out);
//! // Without this line, the demo model answers.
//! request.choice.answering = Answering::Scripted(Box::default());
//! let end = request.run(&mut InThisProcess(&request), &mut Silent, &AtomicBool::new(false))?;
//! assert_eq!((end.verdict, end.runs.len()), (Verdict::Valid, 1));
//! assert!(end.runs[0].join("report.html").is_file());
//! # std::fs::remove_dir_all(out)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`plan::Plan`] holds everything that can be known and checked before a model is loaded. [`execute`] loads nothing
//! and prints nothing: it drives a loaded engine through the plan and writes lines into the run directory. Lines are in
//! the plan's order, so a killed run is a prefix of an undisturbed one, and resuming it gives the same files.

mod accuracy;
mod budget;
pub(crate) mod case_probe;
pub(crate) mod cases;
mod compared;
pub mod duration;
pub mod endpoint;
pub mod environment;
pub mod found;
pub mod interleave;
pub mod machine;
pub(crate) mod memory;
pub mod model;
pub mod noise;
pub mod observer;
pub mod plan;
pub mod prompts;
pub mod provenance;
mod published;
pub(crate) mod questions;
mod request;
pub mod requests;
mod resume;
pub mod roofline;
pub mod score;
pub mod setup;
pub mod shard;
pub mod shard_choice;
mod shard_dir;
pub mod shard_status;
pub mod sharing;
pub mod telemetry;
pub mod turns;
pub mod verify;
mod weights_hash;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use glmbench_device::{DeviceInfo, DeviceName};

use glmbench_engine::{EngineError, Savings};
use glmbench_remote::RemoteError;

use crate::backend::{Backend, Capabilities};
use crate::record::{
    Clock, Mending, PlannedItem, RecordError, RunDir, RunRecord, ServerMetricRow, Status, TaskWork,
    TelemetryRow, WRITER, rfc3339_utc,
};
use crate::report::ReportError;
use crate::task::{Evaluation, TaskError};

use self::case_probe::CaseProbe;
use self::plan::Plan;

pub use self::observer::{Observer, Progress, Silent};
pub use self::request::{RunRequest, RunsEnd};
pub use self::resume::{
    Found, NOT_COMPARED, Wanted, comparison_folder, find, find_group, finished, finished_shard, group_id,
    unreadable,
};

/// Errors that prevent or end a run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The run directory cannot be read or written. Earlier lines stay intact.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A data set is unusable, or a protocol does not fit it.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The plan needs what the backend cannot do.
    #[error("backend {backend}: {problem}")]
    Backend {
        /// Its name.
        backend: String,
        /// What the plan needs, and what would do.
        problem: String,
    },
    /// A server cannot be reached or used.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// A report or a comparison cannot be made.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The folder of runs, or what stands beside them, cannot be created.
    #[error("cannot create {}: {cause}", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// The operating system's error.
        cause: io::Error,
    },
    /// The observer cannot show a result.
    #[error(transparent)]
    Output(#[from] io::Error),
    /// A block could not be timed. What timed it has told why.
    #[error("block {0} of the configurations in turns ended with an error")]
    Block(u32),
    /// The request contradicts itself or the suite.
    #[error("{0}")]
    Request(String),
    /// The suite requests what this run cannot do.
    #[error("{}: {problem}", suite.display())]
    Suite {
        /// The suite file.
        suite: PathBuf,
        /// What was requested and what is possible.
        problem: String,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Every case has its lines.
    Complete,
    /// Stopped by the user; can be resumed.
    Interrupted,
}

/// State shared by the cases of one engine.
pub(crate) struct Session<'a> {
    pub(crate) engine: &'a mut dyn Backend,
    pub(crate) dir: &'a mut RunDir,
    pub(crate) observer: &'a mut dyn Observer,
    pub(crate) stop: &'a AtomicBool,
    /// Measures the machine's limits around repetitions, if targets need them.
    pub(crate) probe: Option<&'a CaseProbe>,
    /// Offset from the engine's clock to the run's clock, modulo 2⁶⁴. The run's clock continues where the recorded
    /// lines ended, whatever the engine's clock shows.
    pub(crate) offset_ns: u64,
    /// The engine ended with an error that has its line. A new engine continues.
    pub(crate) spent: bool,
    /// What the engine computed for each accuracy task.
    pub(crate) work: &'a mut BTreeMap<String, TaskWork>,
}

impl<'a> Session<'a> {
    fn new(engine: &'a mut dyn Backend, shared: &'a mut Shared<'_>) -> Result<Self, RunError> {
        let offset_ns = shared.dir.recorded_until_ns()?.wrapping_sub(engine.now_ns());
        Ok(Self {
            engine,
            dir: shared.dir,
            observer: shared.observer,
            stop: shared.stop,
            probe: shared.probe.as_ref(),
            offset_ns,
            spent: false,
            work: shared.work,
        })
    }
}

impl Session<'_> {
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Converts a time of the engine's clock to the run's clock.
    pub(crate) fn run_ns(&self, engine_ns: u64) -> u64 {
        self.offset_ns.wrapping_add(engine_ns)
    }

    /// Returns the process's peak memory if the engine uses host memory; a card's memory is not the host's.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        let device: Option<DeviceName> = self.engine.device_info().name.parse().ok();
        let on_host = device.is_some_and(DeviceName::is_in_process_memory);
        on_host.then(machine::peak_rss_bytes).flatten()
    }

    /// Returns the kind of the engine's clock.
    pub(crate) fn clock(&self) -> Clock {
        clock_of(&self.engine.device_info())
    }

    /// Returns the current use of resources by the process and the devices.
    pub(crate) fn telemetry(&self) -> Vec<TelemetryRow> {
        telemetry::rows(self.engine, self.run_ns(self.engine.now_ns()))
    }

    /// Appends rows of telemetry.
    pub(crate) fn append_telemetry(&mut self, rows: &[TelemetryRow]) -> Result<(), RecordError> {
        rows.iter().try_for_each(|row| self.dir.append_telemetry(row))
    }

    /// Sets a modelled run's clock to the end of its last line. Excludes warm-up time, which depends on what the
    /// process did before.
    pub(crate) fn go_on_from_lines(&mut self) -> Result<(), RecordError> {
        self.offset_ns = self.dir.recorded_until_ns()?.wrapping_sub(self.engine.now_ns());
        Ok(())
    }

    /// Before a case, probe or level of a modelled run, resets the engine to the state of a new process. A measured run
    /// keeps its plans, as its users' runs would.
    pub(crate) fn start_afresh(&mut self) -> Result<(), RunError> {
        if self.clock() == Clock::Modelled {
            self.engine.start_afresh()?;
            self.go_on_from_lines()?;
        }
        Ok(())
    }

    /// Appends the current use of resources.
    pub(crate) fn sample(&mut self) -> Result<(), RecordError> {
        let rows = self.telemetry();
        self.sample_server()?;
        self.append_telemetry(&rows)
    }

    /// Appends what a server said of itself.
    pub(crate) fn sample_server(&mut self) -> Result<(), RecordError> {
        let begin_ns = self.offset_ns.wrapping_neg();
        for (t_ns, series, value) in self.engine.take_server_metrics() {
            // A sample from before the run's clock began has no time on it.
            if self.offset_ns < u64::MAX / 2 || t_ns >= begin_ns {
                let row = ServerMetricRow { t_ns: self.run_ns(t_ns), series, value };
                self.dir.append_server_metric(&row)?;
            }
        }
        Ok(())
    }
}

/// Returns the kind of clock behind a device's times.
pub fn clock_of(device: &DeviceInfo) -> Clock {
    if device.modelled_by.is_some() { Clock::Modelled } else { Clock::Measured }
}

/// A run to resume.
pub struct Resume<'a> {
    /// The run.
    pub found: &'a Found,
    /// The plan of the run.
    pub plan: &'a Plan<'a>,
    /// Whether to repeat what failed.
    pub retry_failed: bool,
    /// Receives one sentence per repair of the journals.
    pub told: &'a mut Vec<String>,
}

/// Creates the run's directory with its first `run.json`, or opens the one to resume, repairs its journals and counts
/// it as resumed. In both cases the directory is locked, so that a second process is rejected before it writes
/// anything.
pub fn open_dir(
    root: &Path,
    resume: Option<Resume<'_>>,
    mut record: RunRecord,
) -> Result<(RunDir, RunRecord), RunError> {
    let mut dir = if let Some(Resume { found, plan, retry_failed, told }) = resume {
        record.run_id.clone_from(&found.record.run_id);
        record.provenance.started.clone_from(&found.record.provenance.started);
        record.provenance.work.clone_from(&found.record.provenance.work);
        record.provenance.resumed = found.record.provenance.resumed + 1;
        let mut dir = RunDir::open(&found.path)?;
        let stale = claim(&mut dir, &record)?;
        dir.lock()?;
        let items = plan.items();
        let mending = Mending { found: &found.record, plan: &record.plan, items: &items, retry_failed };
        *told = dir.mend(&mending)?;
        told.splice(0..0, stale);
        dir
    } else {
        let mut dir = RunDir::create(root, &record.run_id)?;
        claim(&mut dir, &record)?;
        // The name may differ, because a run of that name may exist.
        record.run_id = dir.name();
        dir
    };
    dir.hold()?;
    dir.write_run(&record)?;
    Ok((dir, record))
}

/// Claims the directory of a shard, which several machines may see. Other runs keep their directory by a lock. Returns a
/// sentence about a stale writer before.
fn claim(dir: &mut RunDir, record: &RunRecord) -> Result<Option<String>, RecordError> {
    if record.shards.is_none() {
        return Ok(None);
    }
    dir.claim(&record.provenance.host)?
        .map_err(|found| RecordError::Busy { file: dir.file(WRITER), writer: found.words() })
}

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

/// The parts of a run that outlive an engine.
struct Shared<'a> {
    dir: &'a mut RunDir,
    observer: &'a mut dyn Observer,
    stop: &'a AtomicBool,
    probe: Option<CaseProbe>,
    work: &'a mut BTreeMap<String, TaskWork>,
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
fn run_accuracy(plan: &Plan<'_>, tp: usize, session: &mut Session<'_>) -> Result<Ending, RunError> {
    for case in plan.accuracy.iter().filter(|case| case.tp == tp) {
        session.observer.case(&case.task);
        if accuracy::run(case, session)? == Ending::Interrupted {
            return Ok(Ending::Interrupted);
        }
    }
    Ok(Ending::Complete)
}

impl Plan<'_> {
    /// Returns what the plan needs beyond a backend's capabilities; `None` if it needs nothing more.
    pub fn beyond(&self, can: Capabilities) -> Option<String> {
        let scored = || self.accuracy.iter().find(|case| !case.evaluation.choices().is_empty());
        if !can.choice_logprobs
            && let Some(case) = scored()
        {
            return Some(format!(
                "task {} compares log-probabilities of choices, which it does not return; a protocol that generates text would do",
                case.task
            ));
        }
        let scored = || self.accuracy.iter().find(|case| case.evaluation.plan().protocol.scores_prompts());
        if !can.prompt_logprobs
            && let Some(case) = scored()
        {
            return Some(format!(
                "task {} compares continuations by the log-probabilities of a prompt's tokens, which it does not return; a protocol that generates text would do",
                case.task
            ));
        }
        let timed = self.timed();
        let need =
            |what: fn(Capabilities) -> bool| !what(can) && timed.iter().any(|case| what(case.needs(can)));
        if need(|has| has.ignores_end) {
            return Some(
                "timed cases generate a fixed number of tokens, and it ends at the end-of-sequence token"
                    .into(),
            );
        }
        if need(|has| has.step_times) {
            return Some(
                "it reports no times of steps, so prefill and decode cannot be told apart; [[load]] would do"
                    .into(),
            );
        }
        need(|has| has.memory)
            .then(|| "it does not know its memory, which [[max_batch]] needs; [[load]] would do".into())
    }

    /// Returns the items of all accuracy cases, in the order in which they run.
    pub fn items(&self) -> Vec<PlannedItem<'_>> {
        let mut all = Vec::new();
        for tp in self.tp_sizes() {
            for case in self.accuracy.iter().filter(|case| case.tp == tp) {
                let item = |(doc_id, doc_hash)| PlannedItem { task: &case.task, doc_id, doc_hash };
                all.extend(case.items().map(item));
            }
        }
        all
    }
}

/// An accuracy case that is ready to run.
pub struct AccuracyRun<'a> {
    /// Name in the records.
    pub task: String,
    /// Items, protocol and tokenizer.
    pub evaluation: Evaluation<'a>,
    /// Number of concurrent sequences.
    pub batch: usize,
    /// Number of tensor-parallel ranks.
    pub tp: usize,
    /// What the engine may spare itself. The results are the same.
    pub savings: Savings,
    /// Indices in the evaluation of the items to run, in order: all, or those of a shard.
    pub own: Vec<usize>,
}

impl<'a> AccuracyRun<'a> {
    /// Returns the case with all items of the evaluation.
    pub fn new(task: String, evaluation: Evaluation<'a>, batch: usize, tp: usize) -> Self {
        let own = (0..evaluation.len()).collect();
        Self { task, evaluation, batch, tp, savings: Savings::ALL, own }
    }

    /// Returns name and content hash of each item to run, in the order of their lines.
    pub fn items(&self) -> impl Iterator<Item = (&str, &str)> {
        let plan = self.evaluation.plan();
        self.own.iter().map(|&index| {
            let item = plan.item(index);
            (item.doc_id.as_str(), item.doc_hash.as_str())
        })
    }
}
