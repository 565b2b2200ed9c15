//! Timing two configurations alternately: what is done once, around the blocks.
//!
//! The run directories are created, and the precision cases run, once. Then each block is timed by [`Blocks`], on two newly
//! loaded engines. Reports and comparison end the runs.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::record::{RunDir, RunRecord};
use crate::report::Verdict;

use super::compared::compare_all;
use super::error::RunError;
use super::execute::conclude;
use super::interleave::{self, Side, block, blocks_for, first_in, obstacle, open_blocks, spread};
use super::observer::Observer;
use super::plan::Plan;
use super::request::{RunRequest, RunsEnd};
use super::runner::{Ready, Runner, Share};
use super::session::Ending;
use super::setup::Setup;

/// Times the blocks of two configurations.
///
/// Two runs differ less by noise than by the placement of their processes, so each block should have a process of its own.
/// The command line starts itself once per block, which then calls [`time_block`].
pub trait Blocks {
    /// Times block `number` and appends its lines to the two run directories. `observer` advances per case.
    ///
    /// # Errors
    /// The block could not be timed. The runs end, and can be resumed.
    fn time(
        &mut self,
        number: u32,
        dirs: [&Path; 2],
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<Ending, RunError>;
}

/// Times every block in this process. The placement of memory is then the same for all, so the comparison sees less variation
/// than there is.
pub struct InThisProcess<'a>(pub &'a RunRequest);

impl Blocks for InThisProcess<'_> {
    fn time(
        &mut self,
        number: u32,
        dirs: [&Path; 2],
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<Ending, RunError> {
        time_block(self.0, number, dirs, observer, stop)
    }
}

/// Returns the number of blocks, or `None` if the configurations are not timed alternately.
///
/// # Errors
/// They should be but cannot.
pub fn blocks(
    request: &RunRequest,
    setups: &[Setup],
    plans: &[Plan<'_>],
    observer: &mut dyn Observer,
) -> Result<Option<u32>, RunError> {
    let refused = |problem: String| Err(RunError::Request(problem));
    // `interleave` in a suite is dropped if its configurations are replaced; `--interleave` is not.
    if !request.interleave && (!request.suite.interleave || plans.len() < 2) {
        if request.blocks.is_some() {
            return refused(
                "--blocks is of configurations that are timed in turns; give --interleave, too".into(),
            );
        }
        return Ok(None);
    }
    let [a, b] = plans else {
        return refused(format!(
            "interleaving needs two configurations, there are {}; give --configuration twice (the same words twice time a \
             configuration against itself), or two [[configuration]] tables",
            plans.len()
        ));
    };
    if let Some(why) = obstacle(a, b) {
        return refused(format!("the configurations cannot be interleaved: {why}"));
    }
    // A virtual clock gives the same times in every process.
    let modelled = setups.iter().any(|setup| setup.compute.is_modelled());
    let needed = blocks_for(a) as u32;
    let blocks = request.blocks.unwrap_or(if modelled { 1 } else { needed });
    if blocks < needed && !modelled {
        observer.say(&format!(
            "{blocks} blocks cannot decide all phases of this comparison; at least {needed} are needed"
        ));
    }
    Ok(Some(blocks))
}

/// Distributes the repetitions of all cases over the blocks. On a virtual clock only if more than the default one block
/// was requested, so that each block has a repetition.
pub fn lay_out(setups: &[Setup], plans: &mut [Plan<'_>], blocks: u32) {
    if blocks > 1 || setups.iter().all(|setup| !setup.compute.is_modelled()) {
        plans.iter_mut().for_each(|plan| spread(plan, blocks as usize));
    }
}

/// A run with its engine and lock released, because a block takes its own.
struct Led {
    path: PathBuf,
    record: RunRecord,
}

impl Runner<'_> {
    /// Runs two configurations, from starting the engines to the reports.
    pub(super) fn lead(
        &mut self,
        setups: &[Setup],
        plans: &[Plan<'_>],
        shares: Vec<Share>,
        blocks: u32,
        how: &mut dyn Blocks,
    ) -> Result<RunsEnd, RunError> {
        let mut runs: Vec<Led> = Vec::new();
        for ((setup, plan), share) in setups.iter().zip(plans).zip(shares) {
            if self.stopped() {
                return self.finish(runs, Ok(Ending::Interrupted));
            }
            let finished = self.finished(share.group.as_ref());
            let Ready { backend, dir, record } = self.prepare(setup, plan, share, finished)?;
            let mut side = Side { plan, engine: backend, dir, record };
            let ending = interleave::accuracy(&mut side, self.observer, self.stop);
            if ending.is_err() {
                let ending = conclude(ending, &mut side.dir, &mut side.record);
                for Led { path, mut record } in runs {
                    conclude(Ok(Ending::Interrupted), &mut RunDir::open(&path)?, &mut record)?;
                }
                let path = side.dir.path().to_owned();
                let verdict = self.conclude(ending, &path, &side.record)?;
                return Ok(RunsEnd { runs: vec![path], verdict });
            }
            let complete = matches!(ending, Ok(Ending::Complete));
            runs.push(Led { path: side.dir.path().to_owned(), record: side.record });
            if !complete {
                return self.finish(runs, Ok(Ending::Interrupted));
            }
        }
        let ending = self.time_blocks(plans, &runs, blocks, how);
        self.finish(runs, ending)
    }

    fn time_blocks(
        &mut self,
        plans: &[Plan<'_>],
        runs: &[Led],
        blocks: u32,
        how: &mut dyn Blocks,
    ) -> Result<Ending, RunError> {
        let [a, b] = runs else { return Err(RunError::Request("two configurations are needed".into())) };
        let dirs = [RunDir::open(&a.path)?, RunDir::open(&b.path)?];
        let open = || open_blocks([(&plans[0], &dirs[0]), (&plans[1], &dirs[1])], blocks);
        let cases = plans[0].performance.iter().filter(|case| case.unfit.is_none()).count() as u64;
        let done = (u64::from(blocks) - open()?.len() as u64) * cases;
        self.observer.begin(&format!("{blocks} blocks"), "cases", u64::from(blocks) * cases, done);
        let mut end = Ok(Ending::Complete);
        for number in 0..blocks {
            // Checked again for each block: a failed case in the last block may leave nothing to do.
            if !open()?.contains(&number) {
                continue;
            }
            end = if self.stopped() {
                Ok(Ending::Interrupted)
            } else {
                how.time(number, [&a.path, &b.path], self.observer, self.stop)
            };
            if !matches!(end, Ok(Ending::Complete)) {
                break;
            }
        }
        self.observer.end();
        end
    }

    /// Records how the runs ended, renders their reports and compares them.
    fn finish(&mut self, runs: Vec<Led>, end: Result<Ending, RunError>) -> Result<RunsEnd, RunError> {
        let (ending, failed) = match end {
            Ok(ending) => (ending, None),
            Err(error) => (Ending::Interrupted, Some(error)),
        };
        let mut all = RunsEnd::new();
        if ending == Ending::Interrupted {
            // A stop may come before there is any run.
            all.note(Verdict::Incomplete);
        }
        for Led { path, mut record } in runs {
            let mut dir = RunDir::open(&path)?;
            let written = dir.hold().map_err(RunError::from);
            let ending = written.and_then(|()| conclude(Ok(ending), &mut dir, &mut record));
            let verdict = self.conclude(ending, &path, &record)?;
            all.add(path, verdict);
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if ending == Ending::Complete {
            compare_all(&all.runs, self.request.language, self.observer)?;
        }
        Ok(all)
    }
}

/// Times one block of two runs that a request has begun, on two newly loaded engines.
///
/// # Errors
/// The runs are not those of the request, or the block fails.
pub fn time_block(
    request: &RunRequest,
    number: u32,
    dirs: [&Path; 2],
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Ending, RunError> {
    let refused = |problem: &str| RunError::Request(problem.to_owned());
    let hash = request.suite.content_hash();
    // The precision cases have run, so their data need not be read again.
    let mut suite = request.suite.clone();
    suite.accuracy.clear();
    let setups = Setup::all(&request.choice, &suite)?;
    let mut plans = setups.iter().map(Setup::plan).collect::<Result<Vec<_>, _>>()?;
    let [first, second] = dirs.map(|dir| RunDir::open(dir)?.read_run());
    let records = [first?, second?];
    let blocks = records[0].provenance.group.as_ref().and_then(|group| group.blocks);
    let blocks = blocks.ok_or_else(|| refused("the runs are not of configurations timed in turns"))?;
    lay_out(&setups, &mut plans, blocks);
    for (plan, record) in plans.iter_mut().zip(&records) {
        if record.provenance.group.as_ref().is_some_and(|group| group.suite != hash) {
            let path = request.suite.path.display();
            return Err(RunError::Request(format!("{path}: the suite was changed while its blocks ran")));
        }
        as_recorded(plan, record)?;
    }
    let two = || refused("blocks are of two configurations");
    let mut backends = [None, None];
    for side in [first_in(number), 1 - first_in(number)] {
        let (setup, plan) = setups.get(side).zip(plans.get(side)).ok_or_else(two)?;
        backends[side] = Some(setup.start(plan, plan.tp_sizes()[0], observer)?.backend);
    }
    let mut sides = Vec::new();
    for (((dir, record), backend), plan) in dirs.iter().zip(records).zip(backends).zip(&plans) {
        let mut dir = RunDir::open(dir)?;
        dir.hold()?;
        sides.push(Side { plan, engine: backend.ok_or_else(two)?, dir, record });
    }
    let mut sides = <[Side<'_, '_>; 2]>::try_from(sides).map_err(|_| two())?;
    block(&mut sides, number, blocks, observer, stop)
}

/// Applies the recorded plan: which cases fit the budget and the memory was decided once.
fn as_recorded(plan: &mut Plan<'_>, record: &RunRecord) -> Result<(), RunError> {
    let (ours, theirs) = (&mut plan.performance, &record.plan.performance);
    let same = ours.len() == theirs.len()
        && ours
            .iter()
            .zip(theirs)
            .all(|(a, b)| a.case_id() == b.case_id && a.repetitions == b.repetitions as usize);
    if !same {
        return Err(RunError::Request(format!("run {} was planned otherwise", record.run_id)));
    }
    for (case, recorded) in ours.iter_mut().zip(theirs) {
        case.unfit.clone_from(&recorded.unfit);
    }
    Ok(())
}
