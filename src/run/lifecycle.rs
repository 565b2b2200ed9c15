//! The life of a run: from a suite to sealed, reported and compared records.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use glmbench_cpu::measure_limits;
use glmbench_engine::EngineError;

use crate::backend::Backend;
use crate::record::{Group, Roofline};
use crate::report::{Verdict, render};

use super::compared::{compare_all, compare_group};
use super::endpoint::{EndpointChoice, Target};
use super::error::RunError;
use super::execute::execute;
use super::observer::Observer;
use super::plan::Plan;
use super::request::{RunRequest, RunsEnd};
use super::resume::{Found, find_group, group_id};
use super::roofline;
use super::runner::{Ready, Runner, Share};
use super::setup::{Answering, Setup};
use super::turns::{self, Blocks};

impl RunRequest {
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
        let ended = Runner { request: self, observer: &mut *observer, stop }.run_all(blocks);
        observer.recording(false);
        ended
    }
}

impl Runner<'_> {
    /// Runs every configuration, or the server, in order.
    fn run_all(&mut self, how: &mut dyn Blocks) -> Result<RunsEnd, RunError> {
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
        let ahead = setups.iter().zip(&plans).zip(&there).map(|((setup, plan), finished)| match finished {
            Some(_) => Vec::new(),
            None => plan.ahead(|tp| setup.counted(plan, tp)),
        });
        self.observer.ahead(&ahead.collect::<Vec<_>>());
        let mut end = RunsEnd::new();
        for (((setup, plan), share), finished) in setups.iter().zip(&plans).zip(shares).zip(there) {
            if let Some(found) = finished {
                self.observer.say(&format!("{} is already finished", found.path.display()));
                let verdict = render(&found.path, request.language)?.verdict();
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
            (true, Some(_)) => compare_all(&end.runs, request.language, self.observer)?,
            (true, None) => compare_group(&end.runs, request.language, self.observer)?,
            (false, _) => {}
        }
        Ok(end)
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

    /// Returns the run group of the request, one run per configuration; `None` for a single run.
    fn groups(&self, setups: &[Setup], blocks: Option<u32>) -> Vec<Option<Group>> {
        let (request, suite) = (self.request, &self.request.suite);
        let names: Vec<String> = setups.iter().filter_map(|s| s.name.clone()).collect();
        if names.len() < 2 {
            return vec![None; setups.len()];
        }
        let hash = suite.content_hash();
        let find = || find_group(&request.out, &hash, &names, blocks, self.wanted());
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
        self.observer.ahead(&[plan.ahead_on_server()]);
        self.observer.cases(plan.cases());
        let mut reload = |_, _: &mut dyn Observer| Ok(Box::new(server.backend()?) as Box<dyn Backend>);
        let (observer, stop) = (&mut *self.observer, self.stop);
        let ending = execute(&plan, Box::new(backend), &mut reload, &mut dir, &mut record, observer, stop);
        self.observer.end();
        let mut end = RunsEnd::new();
        end.add(dir.path().to_path_buf(), self.conclude(ending, dir.path(), &record)?);
        Ok(end)
    }
}

/// Returns the machine's roofline, measured once per number of threads. `None` without performance cases or on other
/// devices than the CPU. In a shard, any timed case is enough: a merged run may judge times of two machines together only if
/// their limits agree.
fn measured_roofline(
    plan: &Plan<'_>,
    setup: &Setup,
    measured: &mut BTreeMap<usize, glmbench_cpu::MachineLimits>,
) -> Result<Option<Roofline>, EngineError> {
    let compute = &setup.compute;
    let is_timed_here = matches!(setup.answering, Answering::Engine) && compute.device.has_threads();
    let judges_machines = plan.shard().is_some() && !plan.timed().is_empty();
    if (plan.performance.is_empty() && !judges_machines) || !is_timed_here {
        return Ok(None);
    }
    let threads = compute.thread_count();
    if let Entry::Vacant(place) = measured.entry(threads) {
        place.insert(measure_limits(threads)?);
    }
    Ok(Some(roofline::roofline(&measured[&threads], compute.precision)))
}
