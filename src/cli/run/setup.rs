//! Turns flags and suite into the configurations that a command runs.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args as ClapArgs;

use glmbench_cpu::InstructionSet;
use glmbench_device::rotary::RotaryMode;
use glmbench_device::{DType, DeviceError, KvForm, Precision};

use glmbench_engine::EngineError;
use glmbench_engine::config::RopeScaling;
use glmbench_engine::load::{DeviceKind, ModelPath};
use glmbench_engine::memory::MemoryEstimate;
use glmbench_engine::parallel::check_world;
use glmbench_engine::tokenizer::Tokenizer;

use crate::cli::engine::{ComputeArgs, EmulationArgs, EmulationMode, FoundModel};
use crate::record::Roofline;
use crate::run::RunError;
use crate::run::plan::{Case, Plan};
use crate::suite::{self, Configuration, Suite};

/// Which model runs a suite's cases, and what computes.
#[derive(Debug, Clone, ClapArgs)]
pub(in crate::cli) struct SetupArgs {
    /// Model folder, `demo`, `dummy:chatglm2-6b` or `dummy:PATH/config.json`; the suite's own unless given
    #[arg(long, value_name = "DIR|demo|dummy:…")]
    pub(in crate::cli) model: Option<OsString>,
    /// Folder of a P-tuning v2 prefix to put over the model: its config.json and the prefix tensors
    #[arg(long, value_name = "DIR")]
    ptuning: Option<PathBuf>,
    /// What the model's rope_ratio does, where its folder does not say: `positions` (it divides them, as in
    /// ChatGLM2-6B-32k) or `base` (it multiplies the base, as in ChatGLM3 and later)
    #[arg(long, value_name = "WHAT")]
    rope_scaling: Option<RopeScaling>,
    /// Device: cpu, 300i-duo, 800i-a2, or reference (plain fp32 loops, slow); the suite's own unless given, else cpu
    #[arg(long)]
    device: Option<DeviceKind>,
    /// On the emulated card
    #[command(flatten)]
    emulation: EmulationArgs,
    /// Tensor-parallel ranks of every case; the suite's own unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    tp: Option<u16>,
    /// Run on this instead of the suite's configurations: `device=cpu,dtype=bf16,threads=1`; several make several runs
    #[arg(long, value_name = "KEY=VALUE,…", conflicts_with_all = ["device", "only"])]
    configuration: Vec<String>,
    /// Of the suite's configurations, run these alone
    #[arg(long, value_name = "NAME", conflicts_with = "device")]
    only: Vec<String>,
    /// Type of weights, activations and KV cache: fp16, bf16, fp32 or w8a8-dynamic; the suite's own unless given
    #[arg(long, value_name = "TYPE")]
    dtype: Option<Precision>,
    /// Type of the KV cache: auto (that of the activations) or int8; the suite's own unless given
    #[arg(long, value_name = "TYPE")]
    kv: Option<KvForm>,
    /// Rotary table: `model` rounds as the model's own code does, `exact` does not; the suite's own unless given
    #[arg(long, value_name = "MODE")]
    rope: Option<RotaryMode>,
    /// Threads; all cores unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// CPU kernels: amx, avx512, avx2, neon, portable or amx-portable; the best of the machine unless given
    #[arg(long, value_name = "SET")]
    kernel: Option<InstructionSet>,
    /// Keep each rank's threads on cores of its own; BIND_CPU=1 does the same
    #[arg(long)]
    bind: bool,
    /// Time every operator of the forward pass: operators.csv, and a table in the report
    #[arg(long)]
    profile_operators: bool,
}

/// One configuration: its cases, its model, and how to compute.
pub(in crate::cli) struct Setup {
    /// The configuration's name, if there are several.
    pub(in crate::cli) name: Option<String>,
    /// The suite, with the cases of this configuration only.
    pub(in crate::cli) suite: Suite,
    /// The requested model.
    word: OsString,
    /// The model, found but not loaded.
    pub(in crate::cli) model: FoundModel,
    /// The model's tokenizer.
    pub(in crate::cli) tokenizer: Option<Tokenizer>,
    /// How to compute.
    pub(in crate::cli) compute: ComputeArgs,
}

impl Setup {
    /// Returns the configurations of a command: those of `--configuration`, else those of the suite. With `--device`,
    /// or without any, there is one.
    pub(in crate::cli) fn all(args: &SetupArgs, suite: &Suite) -> anyhow::Result<Vec<Self>> {
        let typed = args.configuration.iter().map(|words| Configuration::from_words(words));
        let typed = told_apart(typed.collect::<Result<Vec<_>, _>>()?);
        // `--configuration` and `--device` replace the suite's configurations. The cases are then those of the first.
        let base = match suite.configurations.first() {
            Some(first) if !typed.is_empty() || args.device.is_some() => {
                Suite { model: suite.model.clone(), ..suite.of(first) }
            }
            _ => suite.clone(),
        };
        let configurations = if typed.is_empty() && args.device.is_none() {
            chosen(&suite.configurations, &args.only)?
        } else {
            typed
        };
        if configurations.is_empty() {
            return Ok(vec![Self::new(args, base, None)?]);
        }
        configurations.iter().map(|c| Self::new(args, restricted(&base, c), Some(c))).collect()
    }

    fn new(
        args: &SetupArgs,
        mut suite: Suite,
        configuration: Option<&Configuration>,
    ) -> anyhow::Result<Self> {
        let compute = compute_args(args, &suite, configuration)?;
        if let Some(tp) = args.tp {
            suite.set_tp(usize::from(tp));
        }
        let word = match args.model.as_ref().or(suite.model.path.as_ref()) {
            Some(word) => word.clone(),
            None if suite.model.required => bail!(
                "{}: the suite is for a model that it does not name; give it with --model DIR",
                suite.path.display()
            ),
            None => "demo".into(),
        };
        let model = FoundModel::find_as(&word, args.ptuning.as_deref(), args.rope_scaling)?;
        let tokenizer = model.tokenizer()?;
        // Find invalid weights before anything is measured.
        model.weights(compute.precision().dtype)?;
        let name = configuration.map(|c| c.name.clone());
        Ok(Self { name, suite, word, model, tokenizer, compute })
    }

    /// Returns the plan, with all that is known before weights are loaded.
    pub(in crate::cli) fn plan(&self) -> Result<Plan<'_>, RunError> {
        let step_tokens = self.compute.device.step_tokens();
        let mut plan = Plan::new(&self.suite, &self.model.config, self.tokenizer.as_ref(), step_tokens)
            .map_err(|error| self.hinted(error))?;
        if self.compute.emulation.emulate.is_some() {
            // A virtual clock has no noise, so one repetition is enough.
            for run in &mut plan.performance {
                (run.repetitions, run.warm_up.most) = (1, 0);
            }
        }
        // Before the memory check: a model that cannot be split is not a question of memory.
        plan.worlds().into_iter().try_for_each(|world| check_world(&self.model.config, world))?;
        if let Some(capacity) = self.model.capacity(&self.compute)? {
            plan.fit_memory(&self.model.config, self.compute.memory(), capacity);
        }
        Ok(plan)
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
    pub(in crate::cli) fn fit_budget(&self, plan: &mut Plan<'_>, roofline: &Roofline) -> anyhow::Result<()> {
        plan.fit_budget(&self.model.config, self.compute.precision(), roofline);
        if let Some(capacity) = self.model.capacity(&self.compute)? {
            plan.fit_memory(&self.model.config, self.compute.memory(), capacity);
        }
        Ok(())
    }

    /// Whether a flag, the suite, or one of its configurations names a model.
    pub(in crate::cli) fn names_model(args: &SetupArgs, suite: &Suite) -> bool {
        args.model.is_some()
            || suite.model.path.is_some()
            || suite.configurations.iter().any(|c| c.model.is_some())
    }

    /// Describes the skipped cases with reasons, and the cases whose batches memory limits.
    pub(in crate::cli) fn left_out(&self, plan: &Plan<'_>) -> Vec<String> {
        let words = |case: &&dyn Case| {
            if let Some(reason) = case.unfit() {
                return Some(format!("{}: {reason}", case.id()));
            }
            if !case.is_elastic() {
                return None;
            }
            let most = plan.largest_batch(*case, &self.model.config);
            let short = most < case.room().batch.1;
            short.then(|| format!("{}: no batch above {most}, out of memory by estimate", case.id()))
        };
        plan.timed().iter().filter_map(words).collect()
    }

    /// Checks that the remaining cases of a plan can run here.
    ///
    /// # Errors
    /// Fails if the number of ranks, the type, the device or the memory is unavailable.
    pub(in crate::cli) fn check(&self, plan: &Plan<'_>) -> anyhow::Result<()> {
        for world in plan.worlds() {
            self.model.check(&self.compute.on(world), plan.limits(world))?;
        }
        self.check_room(plan)
    }

    /// Checks that the remaining cases of a plan can be loaded.
    ///
    /// # Errors
    /// The error states the required and the available memory.
    pub(in crate::cli) fn check_room(&self, plan: &Plan<'_>) -> anyhow::Result<()> {
        for world in plan.worlds() {
            let (compute, limits) = (self.compute.on(world), plan.limits(world));
            self.model.check_room(&compute, limits)?;
            let Some(capacity) = self.model.capacity(&compute)? else { continue };
            let (config, memory) = (&self.model.config, compute.memory());
            if !capacity.holds(config, memory, limits, world) {
                let wanted = capacity.wanted(config, memory, limits, world);
                return Err(EngineError::from(DeviceError::Unsupported {
                    device: compute.device.name(),
                    problem: format!("out of memory by estimate: {wanted}, {}", capacity.words()),
                })
                .into());
            }
        }
        Ok(())
    }

    /// Estimates the memory of the model on `world` ranks.
    pub(in crate::cli) fn estimate(&self, plan: &Plan<'_>, world: usize) -> Result<MemoryEstimate, RunError> {
        let (config, memory) = (&self.model.config, self.compute.memory());
        Ok(MemoryEstimate::per_rank(config, memory, plan.limits(world), world)?.of_ranks(world))
    }

    /// Returns the model's name for records. It is only the folder's name, because paths are private.
    pub(in crate::cli) fn model_name(&self) -> String {
        let name = match &self.model.path {
            ModelPath::Folder(dir) if self.word != "demo" => dir.file_name().unwrap_or(&self.word),
            _ => &self.word,
        };
        name.to_string_lossy().into_owned()
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
fn chosen(all: &[Configuration], only: &[String]) -> anyhow::Result<Vec<Configuration>> {
    if let Some(unknown) = only.iter().find(|name| all.iter().all(|c| c.name != **name)) {
        let known: Vec<&str> = all.iter().map(|c| c.name.as_str()).collect();
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        bail!("--only {unknown}: the suite has no such configuration; it has {known}");
    }
    Ok(all.iter().filter(|c| only.is_empty() || only.contains(&c.name)).cloned().collect())
}

/// Returns the suite restricted to a configuration. One from the command line has all cases.
fn restricted(base: &Suite, configuration: &Configuration) -> Suite {
    let mut suite = base.clone();
    if base.configurations.iter().all(|c| c.name != configuration.name) {
        suite.accuracy.iter_mut().for_each(|case| case.configurations.clear());
        suite.timed_mut().into_iter().for_each(|table| table.apply_to_all());
    }
    suite.of(configuration)
}

/// Combines the settings: flags take precedence over the configuration, and that over the suite.
fn compute_args(
    args: &SetupArgs,
    suite: &Suite,
    configuration: Option<&Configuration>,
) -> anyhow::Result<ComputeArgs> {
    let by_suite = match suite.model.dtype {
        suite::Dtype::Fp16 => DType::Fp16.into(),
        suite::Dtype::Fp32 => DType::Fp32.into(),
        suite::Dtype::Bf16 => DType::Bf16.into(),
        suite::Dtype::W8a8Dynamic => Precision::W8A8_DYNAMIC,
    };
    let kv = match suite.model.kv {
        suite::Kv::Auto => None,
        suite::Kv::Int8 => Some(KvForm::Int8),
    };
    let rope = match suite.model.rope {
        suite::Rope::Model => RotaryMode::Model,
        suite::Rope::Exact => RotaryMode::Exact,
    };
    let named = configuration.and_then(|c| c.device.as_deref()).map(str::parse::<DeviceKind>);
    let named = named.transpose().map_err(anyhow::Error::msg)?;
    let device = args.device.or(named).unwrap_or(DeviceKind::Cpu);
    let (dtype, kv) = match device {
        DeviceKind::Reference => (args.dtype, args.kv),
        _ => (Some(args.dtype.unwrap_or(by_suite)), args.kv.or(kv)),
    };
    let threads = configuration.and_then(|c| c.threads).map(|n| n.min(1024) as u16);
    let mut emulation = args.emulation.clone();
    if let Some(configuration) = configuration.filter(|_| args.emulation.emulate.is_none()) {
        emulation.emulate = configuration.emulate.then_some(EmulationMode::Auto);
        // One profile cannot serve two different cards, and is unused without emulation.
        emulation.profile = emulation.profile.filter(|_| configuration.emulate);
        emulation.profile = emulation.profile.or_else(|| configuration.profile.clone());
    }
    if emulation.profile.is_some() && emulation.emulate.is_none() {
        bail!("--profile is for an emulated card; give --emulate, too");
    }
    Ok(ComputeArgs {
        device,
        emulation,
        dtype,
        kv,
        rope: args.rope.unwrap_or(rope),
        tp: None,
        threads: args.threads.or(threads),
        bind: args.bind,
        profile_operators: args.profile_operators || suite.profile_operators,
        kernel: args.kernel.filter(|_| device == DeviceKind::Cpu || args.device.is_some()),
    })
}
