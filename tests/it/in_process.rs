//! Runs inside the test process, without the command line.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{fs, io};

use glmbench::backend::Backend;
use glmbench::record::{RepetitionKind, RunDir, RunRecord};
use glmbench::report::ComparisonSummary;
use glmbench::report::{Summary, Verdict};
use glmbench::run::model::ModelFacts;
use glmbench::run::plan::Plan;
use glmbench::run::provenance::{Origin, record};
use glmbench::run::setup::Answering;
use glmbench::run::turns::InThisProcess;
use glmbench::run::{Ending, Observer, RunError, RunRequest, RunsEnd, Wanted, execute, open_dir, telemetry};
use glmbench::suite::Suite;
use glmbench_device::rotary::RotaryMode;
use glmbench_engine::EngineError;
use glmbench_engine::config::ModelConfig;

/// Stops the run after this number of units.
pub(crate) struct StopAfter<'a>(pub(crate) AtomicUsize, pub(crate) &'a AtomicBool);

impl Observer for StopAfter<'_> {
    fn begin(&mut self, _: &str, _: &str, _: u64, _: u64) {}
    fn advance(&mut self) {
        if self.0.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
    fn end(&mut self) {}
}

/// The origin of a run with a backend that reads no weights.
pub(crate) fn origin<'a>(suite: &'a Suite, config: &ModelConfig, backend: &dyn Backend) -> Origin<'a> {
    Origin {
        suite,
        model: "planted".into(),
        facts: ModelFacts::new(config, None, "none".into(), false),
        weights: "none".into(),
        tokenizer: None,
        rotary: RotaryMode::Model,
        device: backend.device_info(),
        telemetry: telemetry::methods(backend),
        roofline: None,
        load: None,
        weight_faults: None,
        command_line: Vec::new(),
        group: None,
    }
}

/// Executes a plan in the run `r` below `root`, or goes on with that run, until `units` units are done. The engine is never
/// loaded again.
pub(crate) fn execute_in(
    root: &Path,
    suite: &Suite,
    config: &ModelConfig,
    plan: &Plan<'_>,
    backend: Box<dyn Backend>,
    units: usize,
) -> Result<Ending, RunError> {
    let first = RunRecord { run_id: "r".into(), ..record(&origin(suite, config, &*backend), plan, config) };
    let path = root.join("r");
    let (mut dir, mut run) = if path.exists() {
        let mut dir = RunDir::open(&path)?;
        dir.hold()?;
        (dir, first)
    } else {
        open_dir(root, None, first)?
    };
    let stop = AtomicBool::new(false);
    let mut observer = StopAfter(AtomicUsize::new(units), &stop);
    let mut reload = |_: usize, _: &mut dyn Observer| {
        Err(RunError::Engine(EngineError::Option("one tensor-parallel size only".into())))
    };
    execute(plan, backend, &mut reload, &mut dir, &mut run, &mut observer, &stop)
}

/// A request for two shapes, answered by a script.
fn request(out: &Path, tables: &str) -> RunRequest {
    let text = format!(
        "schema = 1\nname = \"s\"\n{tables}[[performance]]\nbatch = [1, 2]\nlengths = [[32, 4]]\nrepetitions = 3\n"
    );
    let mut request = RunRequest::new(Suite::parse(Path::new("s.toml"), &text, &[]).unwrap(), out);
    request.choice.answering = Answering::Scripted(Box::default());
    request
}

/// Two configurations of a suite.
const TWO: &str = "[[configuration]]\nname = \"a\"\n[[configuration]]\nname = \"b\"\nthreads = 1\n";

/// Runs a request until the end, or until `units` units are done.
fn run(request: &RunRequest, units: usize) -> (RunsEnd, Heard<'static>) {
    try_run(request, units).unwrap()
}

/// The same for a request that may be refused.
pub(crate) fn try_run(request: &RunRequest, units: usize) -> Result<(RunsEnd, Heard<'static>), RunError> {
    let stop = AtomicBool::new(false);
    let mut heard = Heard { stop_after: StopAfter(AtomicUsize::new(units), &stop), ..Heard::new(&stop) };
    let end = request.run(&mut InThisProcess(request), &mut heard, &stop);
    assert!(!heard.is_recording, "a recording was left open");
    let Heard { messages, reports, comparisons, .. } = heard;
    Ok((end?, Heard { messages, reports, comparisons, ..Heard::new(&NEVER) }))
}

static NEVER: AtomicBool = AtomicBool::new(false);

/// Keeps what a run tells.
pub(crate) struct Heard<'a> {
    stop_after: StopAfter<'a>,
    pub(crate) messages: Vec<String>,
    reports: usize,
    comparisons: usize,
    is_recording: bool,
}

impl<'a> Heard<'a> {
    fn new(stop: &'a AtomicBool) -> Self {
        let stop_after = StopAfter(AtomicUsize::new(usize::MAX), stop);
        Self { stop_after, messages: Vec::new(), reports: 0, comparisons: 0, is_recording: false }
    }

    pub(crate) fn has_heard(&self, words: &str) -> bool {
        self.messages.iter().any(|message| message.contains(words))
    }
}

impl Observer for Heard<'_> {
    fn begin(&mut self, _: &str, _: &'static str, _: u64, _: u64) {}
    fn advance(&mut self) {
        self.stop_after.advance();
    }
    fn end(&mut self) {}
    fn say(&mut self, message: &str) {
        self.messages.push(message.to_owned());
    }
    fn recording(&mut self, is_open: bool) {
        self.is_recording = is_open;
    }
    fn reported(&mut self, _: &Summary, dir: &Path) -> io::Result<()> {
        assert!(self.is_recording && dir.join("report.html").is_file());
        self.reports += 1;
        Ok(())
    }
    fn compared(&mut self, summary: &ComparisonSummary) -> io::Result<()> {
        assert!(summary.folder.join("report.html").is_file());
        self.comparisons += 1;
        Ok(())
    }
}

/// Returns the timed repetitions without their places on the clock. A resumed case warms up again.
fn timed(run: &Path) -> Vec<(String, u32, String, Vec<u64>)> {
    let lines = RunDir::open(run).unwrap().read_requests().unwrap();
    let timed = lines.into_iter().filter(|line| line.kind == RepetitionKind::Timed);
    timed.map(|l| (l.case_id, l.repetition, l.output_hash, l.step_ns)).collect()
}

#[test]
fn a_suite_runs_stops_and_goes_on_without_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let straight = request(&folder.path().join("straight"), "");
    let (end, heard) = run(&straight, usize::MAX);
    assert_eq!((end.verdict, end.runs.len(), heard.reports), (Verdict::Valid, 1, 1));
    let record = RunDir::open(&end.runs[0]).unwrap().read_run().unwrap();
    assert!(record.seal.is_some() && *record.provenance.device == *"scripted");
    assert_eq!(record.identity.get("weights"), Some("none"));
    // A case is begun, and stopped.
    let mut again = request(&folder.path().join("again"), "");
    let (stopped, heard) = run(&again, 1);
    assert_eq!((stopped.verdict, heard.reports), (Verdict::Incomplete, 0));
    assert!(heard.has_heard("--resume continues"), "{:?}", heard.messages);
    again.resume = Some(Wanted::Missing);
    let (resumed, heard) = run(&again, usize::MAX);
    assert_eq!((resumed.verdict, &resumed.runs, heard.reports), (Verdict::Valid, &stopped.runs, 1));
    assert_eq!(timed(&resumed.runs[0]), timed(&end.runs[0]));
    // Nothing is left: the next one is new.
    let (fresh, heard) = run(&again, usize::MAX);
    assert!(fresh.runs != resumed.runs && heard.has_heard("a new one begins"), "{:?}", heard.messages);
}

#[test]
fn configurations_are_runs_of_a_group_and_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let mut two = request(folder.path(), TWO);
    let (end, heard) = run(&two, usize::MAX);
    assert_eq!((end.runs.len(), heard.reports, heard.comparisons), (2, 2, 1));
    two.resume = Some(Wanted::Missing);
    // One of the two lost its report: it alone is made again.
    fs::remove_file(end.runs[1].join("report.html")).unwrap();
    let (resumed, heard) = run(&two, usize::MAX);
    assert_eq!((resumed.runs, heard.reports, heard.comparisons), (end.runs, 1, 1));
    assert!(heard.has_heard("is already finished"), "{:?}", heard.messages);
}

#[test]
fn configurations_in_turns_stop_and_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut turns = request(folder.path(), TWO);
    (turns.interleave, turns.blocks) = (true, Some(2));
    let (stopped, heard) = run(&turns, 1);
    assert_eq!((stopped.verdict, stopped.runs.len(), heard.comparisons), (Verdict::Incomplete, 2, 0));
    assert!(heard.has_heard("2 blocks cannot decide all phases"), "{:?}", heard.messages);
    turns.resume = Some(Wanted::Missing);
    let (end, heard) = run(&turns, usize::MAX);
    assert_eq!((end.runs.clone(), heard.reports, heard.comparisons), (stopped.runs, 2, 1));
    for dir in &end.runs {
        let lines = RunDir::open(dir).unwrap().read_requests().unwrap();
        let timed = |block| {
            lines.iter().filter(|l| l.kind == RepetitionKind::Timed && l.block == Some(block)).count()
        };
        // Two cases, A B B A in each block.
        assert_eq!((timed(0), timed(1)), (4, 4));
    }
}

#[test]
fn a_request_that_contradicts_itself_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let refused = |change: &dyn Fn(&mut RunRequest), says: &str| {
        let mut request = request(&out, "");
        change(&mut request);
        let error = request
            .run(&mut InThisProcess(&request), &mut Heard::new(&NEVER), &NEVER)
            .unwrap_err()
            .to_string();
        assert!(error.contains(says), "{error}");
        assert!(!out.exists(), "{says}");
    };
    refused(&|r| r.blocks = Some(3), "give --interleave, too");
    refused(&|r| r.interleave = true, "interleaving needs two configurations, there are 1");
    refused(&|r| r.choice.only = vec!["x".into()], "it has none");
    refused(&|r| r.choice.compute.profile = Some("p".into()), "give --emulate, too");
    refused(&|r| r.choice.model = Some("nowhere".into()), "is not there; expected a model folder");
    refused(&|r| r.suite.performance.clear(), "the suite has no cases");
    refused(&|r| r.choice.compute.ranks = Some(7), "7");
}
