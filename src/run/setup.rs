//! One configuration of a suite: its cases, its model, and what answers them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use glmbench_device::DeviceError;

use glmbench_engine::config::RopeScaling;
use glmbench_engine::load::ModelPath;
use glmbench_engine::memory::{MemoryBudget, MemoryEstimate};
use glmbench_engine::parallel::check_tp;
use glmbench_engine::tokenizer::Tokenizer;
use glmbench_engine::{EngineError, Savings};

use crate::backend::{Backend, SCRIPTED_DTYPE, Script, Scripted};
use crate::compute::{Compute, ComputeSpec};
use crate::record::Roofline;
use crate::suite::{Configuration, ModelChoice, Suite};

use super::duration::Counted;
use super::error::RunError;
use super::found::{FoundModel, weight_fault_words};
use super::observer::Observer;
use super::plan::{Case, Plan};
use super::shard::Shard;

/// Which model runs a suite's cases, and what computes. Each takes precedence over what the suite says.
#[derive(Debug, Clone, Default)]
pub struct SetupChoice {
    /// Value of `--model`; the suite's own if `None`.
    pub model: Option<OsString>,
    /// Folder of a P-tuning v2 prefix to put over the model.
    pub ptuning: Option<PathBuf>,
    /// What the model's `rope_ratio` does, where its folder does not say.
    pub rope_scaling: Option<RopeScaling>,
    /// How to compute. A device replaces the suite's configurations.
    pub compute: ComputeSpec,
    /// Configurations that replace the suite's.
    pub configurations: Vec<Configuration>,
    /// Of the suite's configurations, run these alone; all if empty.
    pub only: Vec<String>,
    /// What the engine may spare itself in accuracy cases. The results are the same.
    pub savings: Savings,
    /// What answers the cases.
    pub answering: Answering,
    /// Whether to hash the weights even if their hash is kept beside them.
    pub verify_weights: bool,
}

/// What answers the cases of a run.
#[derive(Debug, Clone, Default)]
pub enum Answering {
    /// This program's own engine, with the model's weights.
    #[default]
    Engine,
    /// A script. Of the model, only configuration and tokenizer are read.
    Scripted(Box<Script>),
}

impl SetupChoice {
    /// Whether this choice, the suite, or one of its configurations names a model.
    pub fn names_model(&self, suite: &Suite) -> bool {
        self.model.is_some()
            || suite.model.path.is_some()
            || suite.configurations.iter().any(|c| c.model.is_some())
    }

    /// Returns what is run, before any model is looked for: for each configuration its name, the suite restricted to its
    /// cases, and how to compute. Without configurations there is one, without a name.
    ///
    /// # Errors
    /// `--only` names no configuration of the suite, or the settings contradict each other.
    pub fn configurations(&self, suite: &Suite) -> Result<Vec<Configured>, RunError> {
        let typed = told_apart(self.configurations.clone());
        let replaced = !typed.is_empty() || self.compute.device.is_some();
        // The cases of replaced configurations are those of the first.
        let base = match suite.configurations.first() {
            Some(first) if replaced => Suite { model: suite.model.clone(), ..suite.of(first) },
            _ => suite.clone(),
        };
        let chosen = if replaced { typed } else { chosen(&suite.configurations, &self.only)? };
        if chosen.is_empty() {
            return Ok(vec![self.configured(None, base)?]);
        }
        chosen.iter().map(|c| self.configured(Some(c.name.clone()), restricted(&base, c))).collect()
    }

    fn configured(&self, name: Option<String>, mut suite: Suite) -> Result<Configured, RunError> {
        let compute = Compute::merged(&self.compute, &suite.model.compute)?;
        if let Some(ranks) = self.compute.ranks {
            suite.set_tp(ranks);
        }
        Ok(Configured { name, suite, compute })
    }
}

/// A configuration before its model is looked for.
pub struct Configured {
    /// The configuration's name, if there are several.
    pub name: Option<String>,
    /// The suite, with the cases of this configuration only.
    pub suite: Suite,
    /// How to compute.
    pub compute: Compute,
}

/// One configuration: its cases, its model, and how to compute.
pub struct Setup {
    /// The configuration's name, if there are several.
    pub name: Option<String>,
    /// The suite, with the cases of this configuration only.
    pub suite: Suite,
    /// The requested model.
    word: OsString,
    /// The model, found but not loaded.
    pub model: FoundModel,
    /// The model's tokenizer.
    pub tokenizer: Option<Tokenizer>,
    /// How to compute.
    pub compute: Compute,
    /// What the engine may spare itself in accuracy cases.
    savings: Savings,
    /// What answers the cases.
    pub answering: Answering,
    verify_weights: bool,
    /// Folder of a P-tuning prefix, and what `rope_ratio` does: the user's choices for the models of the run and of references.
    ptuning: Option<PathBuf>,
    rope_scaling: Option<RopeScaling>,
}

/// A backend that is ready to answer.
pub(super) struct Started {
    pub(super) backend: Box<dyn Backend>,
    /// Descriptions of non-finite weights in the run's type; `None` if no weights were read.
    pub(super) weight_faults: Option<Vec<String>>,
    pub(super) pack_cache: Option<String>,
}

impl Setup {
    /// Returns the parameters for counting a case's work on `tp` ranks.
    pub fn counted<'a>(&'a self, plan: &Plan<'_>, tp: usize) -> Counted<'a> {
        Counted {
            config: &self.model.config,
            precision: self.compute.precision,
            step_tokens: plan.capacity(tp).max_step_tokens,
        }
    }

    /// Returns the configurations of a suite under a choice, with their models.
    ///
    /// # Errors
    /// Those of [`SetupChoice::configurations`], and those of finding the models.
    pub fn all(choice: &SetupChoice, suite: &Suite) -> Result<Vec<Self>, RunError> {
        choice.configurations(suite)?.into_iter().map(|one| Self::new(choice, one)).collect()
    }

    fn new(choice: &SetupChoice, configured: Configured) -> Result<Self, RunError> {
        let Configured { name, mut suite, compute } = configured;
        let named = ModelChoice { path: choice.model.clone(), ..ModelChoice::default() };
        suite.timed_mut().into_iter().for_each(|table| table.of_model(&named));
        let word = match choice.model.as_ref().or(suite.model.path.as_ref()) {
            Some(word) => word.clone(),
            None if suite.model.required => {
                return Err(RunError::Suite {
                    suite: suite.path,
                    problem: "the suite is for a model that it does not name; give it with --model DIR"
                        .into(),
                });
            }
            None => "demo".into(),
        };
        let model = FoundModel::find(&word, choice.ptuning.as_deref(), choice.rope_scaling)?;
        let compute = compute.of_model(&model.config)?;
        let tokenizer = model.tokenizer()?;
        let answering = choice.answering.clone();
        if matches!(answering, Answering::Engine) {
            // Find invalid weights before anything is measured.
            model.weights(compute.precision.dtype)?;
        }
        let (savings, verify_weights) = (choice.savings, choice.verify_weights);
        Ok(Self {
            name,
            suite,
            word,
            model,
            tokenizer,
            compute,
            savings,
            answering,
            verify_weights,
            ptuning: choice.ptuning.clone(),
            rope_scaling: choice.rope_scaling,
        })
    }

    /// Returns the plan, with all that is known before weights are loaded.
    ///
    /// # Errors
    /// The cases do not fit the model, its tokenizer or the data sets.
    pub fn plan(&self) -> Result<Plan<'_>, RunError> {
        let step_tokens = self.compute.device.step_tokens();
        let mut plan = Plan::new(&self.suite, &self.model.config, self.tokenizer.as_ref(), step_tokens)
            .map_err(|error| self.hinted(error))?;
        plan.accuracy.iter_mut().for_each(|run| run.savings = self.savings);
        if self.compute.is_modelled() {
            // A virtual clock has no noise, so one repetition is enough.
            for run in &mut plan.performance {
                (run.repetitions, run.warm_up.most) = (1, 0);
            }
        }
        self.find_references(&mut plan)?;
        // Before the memory check: a model that cannot be split is not a question of memory.
        plan.tp_sizes().into_iter().try_for_each(|tp| check_tp(&self.model.config, tp))?;
        self.fit_memory(&mut plan)?;
        Ok(plan)
    }

    /// Keeps one shard of the plan.
    ///
    /// # Errors
    /// Those of [`Plan::keep_shard`].
    pub fn keep_shard(&self, plan: &mut Plan<'_>, shard: Shard) -> Result<(), RunError> {
        let precision = match &self.answering {
            Answering::Engine => self.compute.precision,
            Answering::Scripted(_) => SCRIPTED_DTYPE.into(),
        };
        plan.keep_shard(shard, &self.suite, &self.model.config, precision, self.compute.profile_operators)
    }

    fn fit_memory(&self, plan: &mut Plan<'_>) -> Result<(), EngineError> {
        if let Some(budget) = self.memory_budget()? {
            if self.compute.device.is_card() {
                plan.find_largest_batches(&self.model.config, self.compute.memory(), budget);
            }
            plan.fit_memory(&self.model.config, self.compute.memory(), budget);
        }
        let crowded = self.crowded(plan);
        let others = !plan.accuracy.is_empty() || crowded.iter().any(Option::is_none);
        for (case, reason) in plan.timed_mut().into_iter().zip(crowded) {
            // If nothing at all fits, the check before loading reports it.
            if let Some(reason) = reason.filter(|_| others) {
                case.leave_out(reason);
            }
        }
        Ok(())
    }

    /// Finds the models with which parity cases compare.
    fn find_references(&self, plan: &mut Plan<'_>) -> Result<(), RunError> {
        let refuse = |problem: String| RunError::Suite { suite: self.suite.path.clone(), problem };
        let Self { compute, model, ptuning, rope_scaling, .. } = self;
        for run in &mut plan.parity {
            if compute.emulate(&model.path).is_some_and(|emulate| emulate.timing_only) {
                return Err(refuse(format!(
                    "{} compares logits, and this emulated card computes times alone; give it a model folder, or name the case's \
                     configurations",
                    run.parity_id
                )));
            }
            run.find(compute, &model.config, ptuning.as_deref(), *rope_scaling)
                .map_err(|problem| self.hinted(refuse(problem)))?;
        }
        Ok(())
    }

    /// Returns for each timed case why this host does not hold what the case takes besides the engine; `None` if it does.
    fn crowded(&self, plan: &Plan<'_>) -> Vec<Option<String>> {
        let gb = |bytes: u64| bytes as f64 / 1e9;
        let on_host = match self.compute.emulate(&self.model.path) {
            Some(emulate) => !emulate.timing_only,
            None => !self.compute.device.is_card(),
        };
        let reason = |case: &dyn Case| {
            let available = self.model.available_bytes().filter(|_| case.host_bytes() > 0)?;
            let engine = self.estimate(plan, case.tp()).ok().filter(|_| on_host);
            let (engine, own) = (engine.map_or(0, |engine| engine.total_bytes()), case.host_bytes());
            (engine.saturating_add(own) > available).then(|| {
                format!(
                    "out of memory by estimate: the reference wants {:.1} GB beside {:.1} GB of the engine, {:.1} GB are available",
                    gb(own),
                    gb(engine),
                    gb(available)
                )
            })
        };
        plan.timed().into_iter().map(reason).collect()
    }

    /// Returns the memory that the model may use; `None` if nothing here knows it.
    pub fn memory_budget(&self) -> Result<Option<MemoryBudget>, EngineError> {
        match &self.answering {
            Answering::Engine => self.model.memory_budget(&self.compute),
            Answering::Scripted(_) => Ok(None),
        }
    }

    /// Adds a hint to an error of the suite that may be due to the small demo model.
    fn hinted(&self, error: RunError) -> RunError {
        match error {
            RunError::Suite { suite, problem } if self.word == "demo" && problem.contains("seq_length") => {
                let problem = format!(
                    "{problem}, which is the demo model; give another with --model, or `--model dummy:chatglm2-6b` for its speed \
                     with random weights"
                );
                RunError::Suite { suite, problem }
            }
            other => other,
        }
    }

    /// Skips the cases that exceed their time budget on this machine.
    pub(super) fn fit_budget(&self, plan: &mut Plan<'_>, roofline: &Roofline) -> Result<(), EngineError> {
        plan.fit_budget(&self.model.config, self.compute.precision, roofline);
        // The capacities of a shard are those of the whole plan.
        if plan.shard().is_some() { Ok(()) } else { self.fit_memory(plan) }
    }

    /// Describes the skipped cases with reasons, and the cases with batches limited by memory.
    pub fn left_out(&self, plan: &Plan<'_>) -> Vec<String> {
        let words = |case: &&dyn Case| {
            if let Some(reason) = case.unfit() {
                return Some(format!("{}: {reason}", case.id()));
            }
            if !case.is_elastic() {
                return None;
            }
            let most = plan.largest_batch(*case, &self.model.config);
            let short = most < case.room().most_batch;
            short.then(|| format!("{}: no batch above {most}, out of memory by estimate", case.id()))
        };
        plan.timed().iter().filter_map(words).collect()
    }

    /// Checks that the remaining cases of a plan can run here. A run ends with the same error before it loads anything.
    ///
    /// # Errors
    /// There is no case, or the number of ranks, the type, the device or the memory is unavailable.
    pub fn check(&self, plan: &Plan<'_>) -> Result<(), RunError> {
        if plan.tp_sizes().is_empty() && plan.shard().is_none() {
            let of = self.name.as_ref().map(|name| format!(" for configuration {name}")).unwrap_or_default();
            let problem = format!("the suite has no cases{of}");
            return Err(RunError::Suite { suite: self.suite.path.clone(), problem });
        }
        if matches!(self.answering, Answering::Scripted(_)) {
            return Ok(());
        }
        for tp in plan.tp_sizes() {
            self.model.check(&self.compute.on(tp), plan.capacity(tp))?;
        }
        Ok(self.check_room(plan)?)
    }

    /// Checks that the remaining cases of a plan can be loaded.
    ///
    /// # Errors
    /// The error states the required and the available memory.
    pub fn check_room(&self, plan: &Plan<'_>) -> Result<(), EngineError> {
        if matches!(self.answering, Answering::Scripted(_)) {
            return Ok(());
        }
        for tp in plan.tp_sizes() {
            let (compute, capacity) = (self.compute.on(tp), plan.capacity(tp));
            self.model.check_room(&compute, capacity)?;
            let Some(budget) = self.model.memory_budget(&compute)? else { continue };
            let (config, memory) = (&self.model.config, compute.memory());
            if !budget.holds(config, memory, capacity, tp) {
                let wanted = budget.wanted(config, memory, capacity, tp);
                return Err(EngineError::from(DeviceError::Unsupported {
                    device: compute.device.name(),
                    problem: format!("out of memory by estimate: {wanted}, {}", budget.words()),
                }));
            }
        }
        let crowded = plan.timed().iter().zip(self.crowded(plan)).find_map(|(case, reason)| {
            let reason = reason.filter(|_| case.unfit().is_none())?;
            Some(format!("{}: {reason}", case.id()))
        });
        if let Some(problem) = crowded {
            let device = self.compute.device.name();
            return Err(EngineError::from(DeviceError::Unsupported { device, problem }));
        }
        Ok(())
    }

    /// Estimates the memory of the model on `tp` ranks.
    pub fn estimate(&self, plan: &Plan<'_>, tp: usize) -> Result<MemoryEstimate, EngineError> {
        let (config, memory) = (&self.model.config, self.compute.memory());
        Ok(MemoryEstimate::per_rank(config, memory, plan.capacity(tp), tp)?.of_ranks(tp))
    }

    /// Returns the model's name for records.
    pub fn model_name(&self) -> String {
        self.model.name(&self.word)
    }

    /// Returns the hash of the weights; `none` if there are none.
    pub(super) fn fingerprint(&self, observer: &mut dyn Observer) -> Result<String, EngineError> {
        match &self.answering {
            Answering::Engine => {
                self.model.fingerprint(self.compute.precision.dtype, self.verify_weights, observer)
            }
            Answering::Scripted(_) => Ok("none".into()),
        }
    }

    /// Whether the weights are generated, or there are none.
    pub(super) fn makes_weights(&self) -> bool {
        !matches!((&self.answering, &self.model.path), (Answering::Engine, ModelPath::Folder(_)))
    }

    /// Starts a backend on `tp` ranks.
    pub(super) fn start(
        &self,
        plan: &Plan<'_>,
        tp: usize,
        observer: &mut dyn Observer,
    ) -> Result<Started, RunError> {
        Ok(match &self.answering {
            Answering::Engine => {
                let mut engine = self.model.load(&self.compute.on(tp), plan.capacity(tp), observer)?;
                // Accuracy cases may have stop texts, for which the engine decodes as it generates.
                if let (false, Some(tokenizer)) = (plan.accuracy.is_empty(), self.model.tokenizer()?) {
                    engine.set_tokenizer(Arc::new(tokenizer));
                }
                let weight_faults = weight_fault_words(&engine, 20);
                let pack_cache = engine.pack_cache().map(|cache| cache.used.name().to_owned());
                Started { backend: Box::new(engine), weight_faults, pack_cache }
            }
            Answering::Scripted(script) => {
                let backend = Box::new(Scripted::new(Script::clone(script)));
                Started { backend, weight_faults: None, pack_cache: None }
            }
        })
    }
}

/// Numbers configurations that repeat an earlier one, so that two runs of one command have different names, even if a
/// configuration is timed against itself.
fn told_apart(mut typed: Vec<Configuration>) -> Vec<Configuration> {
    let names: Vec<String> = typed.iter().map(|c| c.name.clone()).collect();
    for (index, configuration) in typed.iter_mut().enumerate() {
        let before = names[..index].iter().filter(|name| **name == configuration.name).count();
        if before > 0 {
            configuration.name = format!("{} #{}", configuration.name, before + 1);
        }
    }
    typed
}

/// Returns the suite's configurations that `--only` names; all without it.
fn chosen(all: &[Configuration], only: &[String]) -> Result<Vec<Configuration>, RunError> {
    if let Some(unknown) = only.iter().find(|name| all.iter().all(|c| c.name != **name)) {
        let known: Vec<&str> = all.iter().map(|c| c.name.as_str()).collect();
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        return Err(RunError::Request(format!(
            "--only {unknown}: the suite has no such configuration; it has {known}"
        )));
    }
    Ok(all.iter().filter(|c| only.is_empty() || only.contains(&c.name)).cloned().collect())
}

/// Returns the suite restricted to a configuration. One from the command line has all cases.
fn restricted(base: &Suite, configuration: &Configuration) -> Suite {
    let mut suite = base.clone();
    if base.configurations.iter().all(|c| c.name != configuration.name) {
        suite.accuracy.iter_mut().for_each(|case| case.configurations.clear());
        suite.timed_mut().into_iter().for_each(|table| table.scope_mut().configurations.clear());
    }
    suite.of(configuration)
}
