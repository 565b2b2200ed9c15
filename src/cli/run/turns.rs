//! Timing two configurations alternately: the leading process, and the child process of each block.
//!
//! The leading process does what is done once: it creates the run directories, runs the precision cases, and ends with
//! reports and comparison. For each block it starts the program again with the same arguments, the block's number and
//! the run directories. The child loads both engines, appends the block's lines and exits. It prints one line to
//! standard output per finished case. It stops when its standard input is closed, so it does not outlive the leading
//! process.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::cli::compare::compare_turns;
use crate::cli::progress::Bars;
use crate::cli::signals::{self, Watch};
use crate::cli::{Exit, emit, say};
use crate::record::{Group, Roofline, RunDir, RunRecord};
use crate::run::interleave::{self, Side, block, blocks_for, first_in, obstacle, open_blocks, spread};
use crate::run::plan::Plan;
use crate::run::{self, Ending, Observer, RunError, finished};
use crate::suite::Suite;

use super::setup::Setup;
use super::{Args, conclude, load, load_suite, prepare, wanted};

/// How often the leading process checks whether to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Returns the number of blocks, or `None` if the configurations are not timed alternately. Fails if they should be but
/// cannot.
pub(super) fn blocks(
    args: &Args,
    suite: &Suite,
    setups: &[Setup],
    plans: &[Plan<'_>],
) -> anyhow::Result<Option<u32>> {
    // `interleave` in a suite is dropped if its configurations are replaced; `--interleave` is not.
    if !args.interleave && (!suite.interleave || plans.len() < 2) {
        if args.blocks.is_some() {
            bail!("--blocks is of configurations that are timed in turns; give --interleave, too");
        }
        return Ok(None);
    }
    let [a, b] = plans else {
        bail!(
            "interleaving needs two configurations, there are {}; give --configuration twice (the same words twice time a \
             configuration against itself), or two [[configuration]] tables",
            plans.len()
        );
    };
    if let Some(why) = obstacle(a, b) {
        bail!("the configurations cannot be interleaved: {why}");
    }
    // A virtual clock gives the same times in every process.
    let modelled = setups.iter().any(|setup| setup.compute.emulation.emulate.is_some());
    let needed = blocks_for(a) as u32;
    let blocks = args.blocks.map_or(if modelled { 1 } else { needed }, u32::from);
    if blocks < needed && !modelled {
        say(&format!(
            "glmbench: {blocks} blocks cannot decide all phases of this comparison; at least {needed} are needed"
        ));
    }
    Ok(Some(blocks))
}

/// Distributes the repetitions of all cases over the blocks. On a virtual clock only if more than the default one block
/// was requested, so that each block has a repetition.
pub(super) fn lay_out(setups: &[Setup], plans: &mut [Plan<'_>], blocks: u32) {
    if blocks > 1 || setups.iter().all(|setup| setup.compute.emulation.emulate.is_none()) {
        plans.iter_mut().for_each(|plan| spread(plan, blocks as usize));
    }
}

/// Runs two configurations, from loading the engines to the reports.
pub(super) fn lead(
    args: &Args,
    setups: &[Setup],
    plans: &[Plan<'_>],
    shared: Vec<(Option<Group>, Option<Roofline>)>,
    blocks: u32,
) -> anyhow::Result<ExitCode> {
    let mut bars = Bars::default();
    let mut runs: Vec<(PathBuf, RunRecord)> = Vec::new();
    // Held from the first run on, because recordings must be finished.
    let mut watch = None;
    for ((setup, plan), (group, roofline)) in setups.iter().zip(plans).zip(shared) {
        if signals::asked() {
            return finish(runs, Ok(Ending::Interrupted));
        }
        let finished = group.as_ref().and_then(|g| finished(&args.out, g, &g.configuration, wanted(args)));
        let ready = prepare(args, setup, plan, (group, roofline), finished)?;
        let watch = watch.get_or_insert_with(Watch::new);
        let mut side = Side { plan, engine: ready.engine, dir: ready.dir, record: ready.record };
        let ending = interleave::accuracy(&mut side, &mut bars, watch.flag());
        if ending.is_err() {
            let ending = run::conclude(ending, &mut side.dir, &mut side.record);
            for (path, mut record) in runs {
                run::conclude(Ok(Ending::Interrupted), &mut RunDir::open(&path)?, &mut record)?;
            }
            return Ok(conclude(ending, &side.dir, &side.record)?.into());
        }
        let complete = matches!(ending, Ok(Ending::Complete));
        // The engine and the lock on the directory are released here, because the child processes take their own.
        runs.push((side.dir.path().to_owned(), side.record));
        if !complete {
            return finish(runs, Ok(Ending::Interrupted));
        }
    }
    let watch = watch.unwrap_or_else(Watch::new);
    let [a, b] = runs.as_slice() else { bail!("interleaving needs two configurations") };
    let dirs = [RunDir::open(&a.0)?, RunDir::open(&b.0)?];
    let open = || open_blocks([(&plans[0], &dirs[0]), (&plans[1], &dirs[1])], blocks);
    let cases = plans[0].performance.iter().filter(|case| case.unfit.is_none()).count() as u64;
    let done = (u64::from(blocks) - open()?.len() as u64) * cases;
    bars.begin(&format!("{blocks} blocks"), "cases", u64::from(blocks) * cases, done);
    let mut end = Ok(Ending::Complete);
    for number in 0..blocks {
        // Checked again for each block: a failed case in the last block may leave nothing to do.
        if !open()?.contains(&number) {
            continue;
        }
        end = in_a_process(number, [&a.0, &b.0], &mut bars, watch.flag());
        if !matches!(end, Ok(Ending::Complete)) {
            break;
        }
    }
    bars.end();
    finish(runs, end)
}

/// Records how the runs ended, renders their reports and compares them.
fn finish(runs: Vec<(PathBuf, RunRecord)>, end: Result<Ending, BlockError>) -> anyhow::Result<ExitCode> {
    let (ending, failed) = match end {
        Ok(ending) => (ending, None),
        Err(error) => (Ending::Interrupted, Some(error)),
    };
    // A signal may arrive before there is any run.
    let mut exit = if ending == Ending::Interrupted { Exit::Incomplete } else { Exit::Done };
    let mut paths = Vec::new();
    for (path, mut record) in runs {
        let mut dir = RunDir::open(&path)?;
        let written = dir.hold().map_err(RunError::from);
        let ending = written.and_then(|()| run::conclude(Ok(ending), &mut dir, &mut record));
        let code = conclude(ending, &dir, &record)?;
        exit = if exit == Exit::Done { code } else { exit };
        paths.push(path);
    }
    match failed {
        Some(BlockError::Start(error)) => return Err(error),
        Some(BlockError::Ended(code)) => return Ok(code),
        None => {}
    }
    if ending == Ending::Complete {
        // Timing two types or models alternately was requested, so they are compared despite their differences.
        compare_turns(&paths)?;
    }
    Ok(exit.into())
}

/// Why a block did not finish.
enum BlockError {
    /// Its process could not be started or monitored.
    Start(anyhow::Error),
    /// Its process reported an error and ended with this code.
    Ended(ExitCode),
}

/// Starts this program for one block and waits for it.
fn in_a_process(
    number: u32,
    dirs: [&Path; 2],
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Ending, BlockError> {
    let mut started = || {
        let program = std::env::current_exe().context("the program's own file cannot be found")?;
        let mut command = Command::new(program);
        // The verb, then the child's own arguments, then all arguments of this process.
        let mut words = std::env::args_os().skip(1);
        command.args(words.next()).arg("--block-of").arg(number.to_string()).args(dirs).args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().context("the process of a block cannot be started")?;
        follow(child, observer, stop).context("the process of a block cannot be followed")
    };
    if stop.load(Ordering::Relaxed) {
        return Ok(Ending::Interrupted);
    }
    let status = started().map_err(BlockError::Start)?;
    match status.code() {
        Some(0) => Ok(Ending::Complete),
        Some(code) if code == Exit::Incomplete as i32 => Ok(Ending::Interrupted),
        Some(code) => Err(BlockError::Ended(ExitCode::from(code as u8))),
        // Killed, for example when the system runs out of memory. Its lines are on disk, and --resume continues.
        None => {
            say(&format!("glmbench: the process of block {number} ended: {status}"));
            Ok(Ending::Interrupted)
        }
    }
}

/// Reports every finished case. Closes the child's standard input if this process is told to stop.
fn follow(mut child: Child, observer: &mut dyn Observer, stop: &AtomicBool) -> std::io::Result<ExitStatus> {
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) && !over.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
            }
            drop(input);
        });
        let lines = output.into_iter().flat_map(|output| BufReader::new(output).lines());
        // A broken pipe says nothing about the child. Its exit status does.
        lines.map_while(Result::ok).for_each(|_| observer.advance());
        let status = child.wait();
        over.store(true, Ordering::Relaxed);
        status
    })
}

/// Runs one block in a child process. `words` are the arguments of `--block-of`: the block's number and two run
/// directories.
pub(super) fn one_block(args: &Args, words: &[OsString]) -> anyhow::Result<ExitCode> {
    let [number, dirs @ ..] = words else { bail!("--block-of needs a block and two run directories") };
    let number: u32 = number.to_str().and_then(|n| n.parse().ok()).context("--block-of: no block number")?;
    let watch = Watch::new();
    stop_with_input(watch.flag());
    let mut suite = load_suite(args)?;
    let hash = suite.content_hash();
    // The leading process ran the precision cases, so their data need not be read again.
    suite.accuracy.clear();
    let setups = Setup::all(&args.setup, &suite)?;
    let mut plans = setups.iter().map(Setup::plan).collect::<Result<Vec<_>, _>>()?;
    let records = dirs.iter().map(|dir| RunDir::open(Path::new(dir))?.read_run());
    let records = records.collect::<Result<Vec<_>, _>>()?;
    let blocks = records.first().and_then(|record| record.provenance.group.as_ref()?.blocks);
    let blocks = blocks.context("--block-of: the runs are not of configurations timed in turns")?;
    lay_out(&setups, &mut plans, blocks);
    for (plan, record) in plans.iter_mut().zip(&records) {
        if record.provenance.group.as_ref().is_some_and(|group| group.suite != hash) {
            bail!("{}: the suite was changed while its blocks ran", args.suite.display());
        }
        as_recorded(plan, record)?;
    }
    let mut engines = [None, None];
    for side in [first_in(number), 1 - first_in(number)] {
        let (setup, plan) =
            setups.get(side).zip(plans.get(side)).context("--block-of: two configurations")?;
        engines[side] = Some(load(setup, plan, plan.worlds()[0])?);
    }
    let mut sides = Vec::new();
    for (((dir, record), engine), plan) in dirs.iter().zip(records).zip(engines).zip(&plans) {
        let mut dir = RunDir::open(Path::new(dir))?;
        dir.hold()?;
        let engine = engine.context("--block-of: two configurations")?;
        sides.push(Side { plan, engine, dir, record });
    }
    let Ok(mut sides) = <[Side<'_, '_>; 2]>::try_from(sides) else {
        bail!("--block-of needs two run directories")
    };
    match block(&mut sides, (number, blocks), &mut Told, watch.flag()) {
        Ok(Ending::Complete) => Ok(Exit::Done.into()),
        Ok(Ending::Interrupted) => Ok(Exit::Incomplete.into()),
        // A full disk can be fixed, as in a run of one process.
        Err(error @ RunError::Record(_)) => {
            say(&format!("glmbench: {error}"));
            Ok(Exit::Incomplete.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Applies the recorded plan: only the leading process measured which cases fit the budget and the memory.
fn as_recorded(plan: &mut Plan<'_>, record: &RunRecord) -> anyhow::Result<()> {
    let (ours, theirs) = (&mut plan.performance, &record.plan.performance);
    let same = ours.len() == theirs.len()
        && ours
            .iter()
            .zip(theirs)
            .all(|(a, b)| a.case_id() == b.case_id && a.repetitions == b.repetitions as usize);
    if !same {
        bail!("--block-of: run {} was planned otherwise", record.run_id);
    }
    for (case, recorded) in ours.iter_mut().zip(theirs) {
        case.unfit.clone_from(&recorded.unfit);
    }
    Ok(())
}

/// Sets `stop` when standard input ends.
fn stop_with_input(stop: &'static AtomicBool) {
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        while input.read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
        stop.store(true, Ordering::Relaxed);
    });
}

/// Prints a line for each finished case.
struct Told;

impl Observer for Told {
    fn begin(&mut self, _: &str, _: &'static str, _: u64, _: u64) {}
    fn advance(&mut self) {
        // If nobody reads the line, the process is about to be stopped.
        let _ = emit("through");
    }
    fn end(&mut self) {}
}
