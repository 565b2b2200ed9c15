//! The life of a run: from a suite to a sealed, reported and compared record.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use glmbench_cpu::measure_roofline;
use glmbench_device::DeviceInfo;

use glmbench_engine::EngineError;

use crate::backend::Backend;
use crate::record::{Group, Roofline, RunDir, RunRecord};
use crate::report::{Verdict, render};
use crate::suite::Suite;

use super::compared::{compare_group, compare_turns};
use super::endpoint::{self, EndpointChoice, Target};
use super::observer::Observer;
use super::plan::Plan;
use super::provenance::{Origin, record};
use super::setup::{Answering, Setup, SetupChoice, Started};
use super::shard::Shard;
use super::turns::{self, Blocks};
use super::{
    Ending, Found, Resume, RunError, Wanted, execute, find, find_group, finished, finished_shard, group_id,
    open_dir, roofline, shard_dir, telemetry, unreadable,
};

/// What to run, and where to record it.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// The suite.
    pub suite: Suite,
    /// Which model, and what computes.
    pub choice: SetupChoice,
    /// A server that answers instead of this program's engine. It gets the cases of the suite's first configuration; of
    /// [`RunRequest::choice`], only the model counts, for its tokenizer.
    pub endpoint: Option<EndpointChoice>,
    /// Folder of run directories. It is created.
    pub out: PathBuf,
    /// Whether to go on with an unfinished run, and what counts as unfinished; `None` for a new run.
    pub resume: Option<Wanted>,
    /// Whether to run also the cases that take longer on this machine than the suite's budget.
    pub over_budget: bool,
    /// Whether to time two configurations alternately, even if the suite does not ask for it.
    pub interleave: bool,
    /// Number of blocks for that; `None` for the fewest that can decide every phase.
    pub blocks: Option<u32>,
    /// The shard of the plan to run; `None` for the whole plan.
    pub shard: Option<Shard>,
    /// The command line, for the record.
    pub command_line: Vec<String>,
}

impl RunRequest {
    /// Returns the request for a new run of a suite as it is, recorded under `out`.
    pub fn new(suite: Suite, out: impl Into<PathBuf>) -> Self {
        Self {
            suite,
            choice: SetupChoice::default(),
            endpoint: None,
            out: out.into(),
            resume: None,
            over_budget: false,
            interleave: false,
            blocks: None,
            shard: None,
            command_line: Vec::new(),
        }
    }

    /// Keeps the request's shard of the plan, if it has one.
    ///
    /// # Errors
    /// Several configurations, or blocks, cannot be cut into shards.
    pub fn keep_shard(&self, setups: &[Setup], plans: &mut [Plan<'_>]) -> Result<(), RunError> {
        let Some(shard) = self.shard else { return Ok(()) };
        let names: Vec<&str> = setups.iter().filter_map(|setup| setup.name.as_deref()).collect();
        refuse_shard(shard, (setups.len(), &names), self.interleave)?;
        match (setups, plans) {
            ([setup], [plan]) => setup.keep_shard(plan, shard),
            _ => Ok(()),
        }
    }

    /// Checks that the request can be cut into shards, without reading models.
    ///
    /// # Errors
    /// Those of [`RunRequest::keep_shard`] about configurations and blocks, and those of the suite's configurations.
    pub fn check_shard(
        suite: &Suite,
        choice: &SetupChoice,
        interleave: bool,
        shard: Shard,
    ) -> Result<(), RunError> {
        let configured = choice.configurations(suite)?;
        let names: Vec<&str> = configured.iter().filter_map(|one| one.name.as_deref()).collect();
        refuse_shard(shard, (configured.len(), &names), interleave)
    }

    /// Runs the suite to its end: finds the models, checks memory, loads, records, reports, and compares the runs of several
    /// configurations.
    ///
    /// `stop` ends the runs at their next step, and they can be resumed. `blocks` times two configurations alternately
    /// ([`Blocks`]).
    ///
    /// # Errors
    /// What prevents or ends a run. Lines that were recorded stay, and the observer has been told how to go on.
    pub fn run(
        &self,
        blocks: &mut dyn Blocks,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<RunsEnd, RunError> {
        let ended = Life { request: self, observer: &mut *observer, stop }.live(blocks);
        observer.recording(false);
        ended
    }
}

/// Refuses a shard of several configurations, or of blocks.
fn refuse_shard(shard: Shard, (count, names): (usize, &[&str]), interleave: bool) -> Result<(), RunError> {
    if count != 1 {
        return Err(RunError::Request(format!(
            "--shard {shard}: the suite has {count} configurations ({}), and a shard is of one; give --only NAME, or --shard none",
            names.join(", ")
        )));
    }
    if interleave {
        return Err(RunError::Request(format!(
            "--shard {shard}: --interleave times on one machine; give one of them, or --shard none"
        )));
    }
    Ok(())
}

/// How the runs of a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunsEnd {
    /// Directories of the runs that were begun or found finished, in the order of the configurations.
    pub runs: Vec<PathBuf>,
    /// The first verdict that is not [`Verdict::Valid`], in that order. Stopped runs are [`Verdict::Incomplete`].
    pub verdict: Verdict,
}

impl RunsEnd {
    pub(super) fn new() -> Self {
        Self { runs: Vec::new(), verdict: Verdict::Valid }
    }

    pub(super) fn add(&mut self, run: PathBuf, verdict: Verdict) {
        self.runs.push(run);
        self.note(verdict);
    }

    pub(super) fn note(&mut self, verdict: Verdict) {
        if self.verdict == Verdict::Valid {
            self.verdict = verdict;
        }
    }
}

/// What the runs of one configuration share with the others of the request.
pub(super) struct Share {
    pub(super) group: Option<Group>,
    pub(super) roofline: Option<Roofline>,
}

/// A started backend and the directory to record in.
pub(super) struct Ready {
    pub(super) backend: Box<dyn Backend>,
    pub(super) dir: RunDir,
    pub(super) record: RunRecord,
}

/// A request that is being run.
pub(super) struct Life<'a> {
    pub(super) request: &'a RunRequest,
    pub(super) observer: &'a mut dyn Observer,
    pub(super) stop: &'a AtomicBool,
}

impl Life<'_> {
    fn live(&mut self, how: &mut dyn Blocks) -> Result<RunsEnd, RunError> {
        let request = self.request;
        if let Some(endpoint) = &request.endpoint {
            return self.on_endpoint(endpoint);
        }
        let setups = Setup::all(&request.choice, &request.suite)?;
        let mut plans = setups.iter().map(Setup::plan).collect::<Result<Vec<_>, _>>()?;
        request.keep_shard(&setups, &mut plans)?;
        plans.iter().filter_map(Plan::share_words).for_each(|words| self.observer.say(&words));
        let rooflines = self.rooflines(&setups, &mut plans)?;
        let blocks = turns::blocks(request, &setups, &plans, self.observer)?;
        if let Some(blocks) = blocks {
            turns::lay_out(&setups, &mut plans, blocks);
        }
        setups.iter().zip(&plans).try_for_each(|(setup, plan)| setup.check(plan))?;
        // Check that the folder is writable before gigabytes are read.
        self.create_out()?;
        let groups = self.groups(&setups, blocks);
        let is_group = groups.iter().any(Option::is_some);
        let there: Vec<Option<Found>> = groups.iter().map(|group| self.finished(group.as_ref())).collect();
        let shares = groups.into_iter().zip(rooflines).map(|(group, roofline)| Share { group, roofline });
        if let Some(blocks) = blocks.filter(|_| there.iter().any(Option::is_none)) {
            return self.lead(&setups, &plans, shares.collect(), blocks, how);
        }
        let mut end = RunsEnd::new();
        for (((setup, plan), share), finished) in setups.iter().zip(&plans).zip(shares).zip(there) {
            if let Some(found) = finished {
                self.observer.say(&format!("{} is already finished", found.path.display()));
                let verdict = render(&found.path)?.verdict();
                end.add(found.path, verdict);
                continue;
            }
            if self.stopped() {
                return Ok(RunsEnd { verdict: Verdict::Incomplete, ..end });
            }
            let (path, verdict) = self.run_one(setup, plan, share)?;
            self.observer.recording(false);
            if verdict == Verdict::Incomplete {
                end.runs.push(path);
                return Ok(RunsEnd { verdict, ..end });
            }
            end.add(path, verdict);
        }
        match (is_group, blocks) {
            (true, Some(_)) => compare_turns(&end.runs, self.observer)?,
            (true, None) => compare_group(&end.runs, self.observer)?,
            (false, _) => {}
        }
        Ok(end)
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Measures the machine for each configuration that needs it, and leaves out the cases over their budget.
    fn rooflines(&self, setups: &[Setup], plans: &mut [Plan<'_>]) -> Result<Vec<Option<Roofline>>, RunError> {
        let (mut rooflines, mut measured) = (Vec::new(), BTreeMap::new());
        for (setup, plan) in setups.iter().zip(plans) {
            // Before the weights are loaded, because the measurement needs memory of its own.
            let roofline = measured_roofline(plan, setup, &mut measured)?;
            if let Some(roofline) = roofline.as_ref().filter(|_| !self.request.over_budget) {
                setup.fit_budget(plan, roofline)?;
            }
            rooflines.push(roofline);
        }
        Ok(rooflines)
    }

    /// Returns what counts as unfinished in a run to resume.
    fn wanted(&self) -> Wanted {
        self.request.resume.unwrap_or(Wanted::Missing)
    }

    /// Returns the group of the request's runs, one per configuration; `None` for a single run.
    fn groups(&self, setups: &[Setup], blocks: Option<u32>) -> Vec<Option<Group>> {
        let (request, suite) = (self.request, &self.request.suite);
        let names: Vec<String> = setups.iter().filter_map(|s| s.name.clone()).collect();
        if names.len() < 2 {
            return vec![None; setups.len()];
        }
        let hash = suite.content_hash();
        let find = || find_group(&request.out, &hash, &names, (blocks, self.wanted()));
        let found = request.resume.is_some().then(find).flatten();
        let id = found.map_or_else(|| group_id(SystemTime::now(), &suite.name), |g| g.id);
        let of = |name: &String| {
            Some(Group {
                id: id.clone(),
                suite: hash.clone(),
                configuration: name.clone(),
                configurations: names.clone(),
                blocks,
            })
        };
        names.iter().map(of).collect()
    }

    /// Returns the run of a group's configuration that is finished already, if the request resumes.
    pub(super) fn finished(&self, group: Option<&Group>) -> Option<Found> {
        let group = group.filter(|_| self.request.resume.is_some())?;
        finished(&self.request.out, group, &group.configuration, self.wanted())
    }

    /// Starts the backend for a configuration's first cases, and creates or finds the run's directory. From then on, there
    /// is a recording to finish.
    ///
    /// `finished` is a finished run to reopen. Of two configurations that are timed alternately, one may already have its
    /// report.
    pub(super) fn prepare(
        &mut self,
        setup: &Setup,
        plan: &Plan<'_>,
        share: Share,
        finished: Option<Found>,
    ) -> Result<Ready, RunError> {
        let Setup { suite, model, tokenizer, compute, .. } = setup;
        let weights = setup.fingerprint(self.observer)?;
        let tp = plan.first_tp();
        let estimate = setup.estimate(plan, tp)?;
        let start = || setup.start(plan, tp, self.observer);
        let (started, facts) = roofline::timed_load(start, estimate, setup.makes_weights())?;
        let Started { backend, weight_faults } = started;
        let device = backend.device_info();
        let roofline = share.roofline.or_else(|| profile_roofline(plan, &device));
        let is_scripted = matches!(setup.answering, Answering::Scripted(_));
        let origin = Origin {
            suite,
            model: setup.model_name(),
            facts: model.facts(tokenizer.as_ref())?,
            weights,
            tokenizer: tokenizer.as_ref().map(|t| t.sha256().to_owned()),
            rotary: compute.rope,
            device,
            telemetry: telemetry::methods(&*backend),
            roofline,
            // A card's memory is not the host's. An emulated card and a script load nothing.
            load: (!compute.device.is_card() && !is_scripted).then_some(facts),
            weight_faults,
            command_line: self.request.command_line.clone(),
            group: share.group,
        };
        let mut first = record(&origin, plan, &model.config);
        first.plan.operators = compute.profile_operators && !first.plan.performance.is_empty();
        let (dir, record) = self.open(plan, first, finished)?;
        Ok(Ready { backend, dir, record })
    }

    /// Opens the directory of a run: an unfinished one of the same, or a new one.
    fn open(
        &mut self,
        plan: &Plan<'_>,
        first: RunRecord,
        finished: Option<Found>,
    ) -> Result<(RunDir, RunRecord), RunError> {
        let request = self.request;
        let resumes = request.resume.is_some();
        // An array is submitted again as a whole, also for a few of its shards.
        let found = find(&request.out, &first, request.resume).or(finished);
        let done = if resumes && found.is_none() { finished_shard(&request.out, &first) } else { None };
        if let Some(done) = &done {
            self.observer.say(&format!("{} is finished already", done.path.display()));
        }
        let found = found.or(done);
        if let Some(found) = found.as_ref().filter(|_| plan.shard().is_some()) {
            shard_dir::await_writer(&found.path, resumes, self.observer)?;
        }
        if let (Some(found), false) = (&found, resumes) {
            self.observer.say(&format!(
                "found an unfinished run of this suite at {}; --resume continues it",
                found.path.display()
            ));
        }
        if resumes && found.is_none() && first.provenance.group.is_none() {
            self.observer.say(&format!(
                "{} has no unfinished run of the same suite, data, model and device; a new one begins",
                request.out.display()
            ));
            for (path, why) in unreadable(&request.out) {
                self.observer.say(&format!("{} cannot be resumed: {why}", path.display()));
            }
        }
        let retry_failed = request.resume == Some(Wanted::MissingOrFailed);
        let mut told = Vec::new();
        let resume = found.as_ref().filter(|_| resumes).map(|found| Resume {
            found,
            plan,
            retry_failed,
            told: &mut told,
        });
        // A directory is a valid run from the start: a stop is left to the code that records in it.
        self.observer.recording(true);
        let (dir, record) = open_dir(&request.out, resume, first)?;
        self.observer.say(&format!("recording in {}", dir.path().display()));
        let what = if retry_failed { "repeats" } else { "repaired" };
        told.iter().for_each(|words| self.observer.say(&format!("{what}: {words}")));
        Ok((dir, record))
    }

    /// Runs one configuration, from starting the backend to the report.
    fn run_one(
        &mut self,
        setup: &Setup,
        plan: &Plan<'_>,
        share: Share,
    ) -> Result<(PathBuf, Verdict), RunError> {
        let Ready { backend, mut dir, mut record } = self.prepare(setup, plan, share, None)?;
        self.observer.cases(plan.cases());
        let mut reload = |tp, observer: &mut dyn Observer| Ok(setup.start(plan, tp, observer)?.backend);
        let (observer, stop) = (&mut *self.observer, self.stop);
        let ending = execute(plan, backend, &mut reload, &mut dir, &mut record, observer, stop);
        self.observer.end();
        Ok((dir.path().to_path_buf(), self.conclude(ending, dir.path(), &record)?))
    }

    /// Runs the suite on a server, from the probe to the report.
    fn on_endpoint(&mut self, of: &EndpointChoice) -> Result<RunsEnd, RunError> {
        let request = self.request;
        if request.interleave || request.blocks.is_some() || !request.choice.configurations.is_empty() {
            return Err(RunError::Request(
                "a server runs the cases of the suite's first configuration: leave out configurations and interleaving"
                    .into(),
            ));
        }
        let target = Target::find(of, &request.choice, &request.suite)?;
        let plan = target.plan(request.shard)?;
        plan.share_words().into_iter().for_each(|words| self.observer.say(&words));
        if let Some(refusal) = target.refusal(&plan, request.resume.is_some()) {
            return Err(refusal);
        }
        self.create_out()?;
        let server = target.server();
        let backend = server.backend()?;
        let first = target.record(&plan, &backend, request.command_line.clone());
        let (mut dir, mut record) = self.open(&plan, first, None)?;
        self.observer.cases(plan.cases());
        let mut reload = |_, _: &mut dyn Observer| Ok(Box::new(server.backend()?) as Box<dyn Backend>);
        let (observer, stop) = (&mut *self.observer, self.stop);
        let ending = execute(&plan, Box::new(backend), &mut reload, &mut dir, &mut record, observer, stop);
        self.observer.end();
        let mut end = RunsEnd::new();
        end.add(dir.path().to_path_buf(), self.conclude(ending, dir.path(), &record)?);
        Ok(end)
    }

    /// Creates the folder of run directories.
    fn create_out(&self) -> Result<(), RunError> {
        let out = &self.request.out;
        std::fs::create_dir_all(out).map_err(|cause| RunError::Folder { path: out.clone(), cause })
    }

    /// Tells how a run ended and makes its report. Returns its verdict.
    pub(super) fn conclude(
        &mut self,
        ending: Result<Ending, RunError>,
        path: &Path,
        record: &RunRecord,
    ) -> Result<Verdict, RunError> {
        let observer = &mut *self.observer;
        match ending {
            Ok(Ending::Complete) => {
                let summary = match render(path) {
                    Ok(summary) => summary,
                    Err(error) => {
                        observer.say(&error.to_string());
                        observer.say(&format!(
                            "{} is measured; its report is not made; `glmbench report` makes it",
                            path.display()
                        ));
                        return Ok(Verdict::Incomplete);
                    }
                };
                observer.reported(&summary, path)?;
                Ok(summary.verdict())
            }
            Ok(Ending::Interrupted) => {
                observer.say(&format!(
                    "stopped; what is done is in {}; the same command with --resume continues",
                    path.display()
                ));
                Ok(Verdict::Incomplete)
            }
            // Its error goes on: who starts the run again has to make space first.
            Err(RunError::Record(error)) if error.is_full() => {
                observer.say(&format!(
                    "run {} is incomplete; make space, then --resume continues",
                    record.run_id
                ));
                Err(error.into())
            }
            Err(error @ RunError::Record(_)) => {
                observer.say(&error.to_string());
                observer.say(&format!(
                    "run {} is incomplete; correct the cause, then --resume continues",
                    record.run_id
                ));
                Ok(Verdict::Incomplete)
            }
            Err(error) if endpoint::is_spent(&error) => {
                observer.say(&error.to_string());
                observer.say(&format!(
                    "stopped; what is done is in {}; the same command with --resume goes on",
                    path.display()
                ));
                Ok(Verdict::Incomplete)
            }
            Err(error @ RunError::Engine(EngineError::Device(_) | EngineError::Weights(_))) => {
                observer.say(&format!("run {} is incomplete; --resume continues", record.run_id));
                Err(error)
            }
            // Other errors would occur again at the same place.
            Err(error) => {
                observer.say(&format!("run {} is incomplete; what is done is reported", record.run_id));
                observer.reported(&render(path)?, path)?;
                Err(error)
            }
        }
    }
}

/// Returns the roofline of an emulated card, from its profile.
fn profile_roofline(plan: &Plan<'_>, device: &DeviceInfo) -> Option<Roofline> {
    let profile = device.modelled_by.as_ref().filter(|_| !plan.performance.is_empty())?;
    Some(Roofline {
        bandwidth_bytes_per_s: profile.memory_bytes_per_s as f64,
        peak_flops_per_s: profile.matmul_flops_per_s as f64,
        measured: None,
    })
}

/// Returns the machine's roofline, measured once per number of threads. `None` without performance cases or on other
/// devices than the CPU. In a shard, any timed case is enough: a merged run may judge times of two machines together only if
/// their limits agree.
fn measured_roofline(
    plan: &Plan<'_>,
    setup: &Setup,
    measured: &mut BTreeMap<usize, glmbench_cpu::Roofline>,
) -> Result<Option<Roofline>, EngineError> {
    let compute = &setup.compute;
    let is_timed_here = matches!(setup.answering, Answering::Engine) && compute.device.has_threads();
    let judges_machines = plan.shard().is_some() && !plan.timed().is_empty();
    if (plan.performance.is_empty() && !judges_machines) || !is_timed_here {
        return Ok(None);
    }
    let threads = compute.thread_count();
    if let Entry::Vacant(place) = measured.entry(threads) {
        place.insert(measure_roofline(threads)?);
    }
    Ok(Some(roofline::roofline(&measured[&threads], compute.precision)))
}
