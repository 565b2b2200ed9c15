//! The steps that every kind of run takes: start the backend, open the directory, conclude with a report.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use glmbench_device::DeviceInfo;
use glmbench_engine::EngineError;

use crate::backend::Backend;
use crate::record::{Group, LoadFacts, Roofline, RunDir, RunRecord};
use crate::report::{Verdict, render};

use super::directory::{Resume, open_dir};
use super::error::RunError;
use super::observer::Observer;
use super::plan::Plan;
use super::provenance::{Origin, record};
use super::request::RunRequest;
use super::resume::{Found, Unreadable, Wanted, find, finished, finished_shard, unreadable};
use super::session::Ending;
use super::setup::{Answering, Setup, Started};
use super::{endpoint, roofline, shard_dir, telemetry};

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
pub(super) struct Runner<'a> {
    pub(super) request: &'a RunRequest,
    pub(super) observer: &'a mut dyn Observer,
    pub(super) stop: &'a AtomicBool,
}

impl Runner<'_> {
    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Returns what counts as unfinished in a run to resume.
    pub(super) fn wanted(&self) -> Wanted {
        self.request.resume.unwrap_or(Wanted::Missing)
    }

    /// Returns the finished run of a configuration in a group, if the request resumes.
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
        let Started { backend, weight_faults, pack_cache } = started;
        let facts = LoadFacts { pack_cache, ..facts };
        let device = backend.device_info();
        let roofline = share.roofline.or_else(|| profile_roofline(plan, &device));
        let is_of_engine = matches!(setup.answering, Answering::Engine);
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
            // A card's memory is not the host's. An emulated card, and whatever else answers, load nothing here.
            load: (!compute.device.is_card() && is_of_engine).then_some(facts),
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
    pub(super) fn open(
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
            for Unreadable { path, why } in unreadable(&request.out) {
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

    /// Creates the folder of run directories.
    pub(super) fn create_out(&self) -> Result<(), RunError> {
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
                let summary = match render(path, self.request.language) {
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
                observer.reported(&render(path, self.request.language)?, path)?;
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
