//! From flags and suite to the configurations that a command runs.

use anyhow::bail;

use crate::cli::engine::{ComputeArgs, EmulationMode, FoundModel};
use crate::device::rotary::RotaryMode;
use crate::device::{DType, KvForm, Precision};
use crate::engine::load::{DeviceKind, ModelPath};
use crate::engine::memory::MemoryEstimate;
use crate::engine::parallel::check_world;
use crate::engine::tokenizer::Tokenizer;
use crate::record::Roofline;
use crate::run::RunError;
use crate::run::plan::Plan;
use crate::suite::{self, Configuration, Suite};

use super::Args;

/// One configuration: its cases, its model, and what computes.
pub(super) struct Setup {
    /// Its name, where there are several.
    pub(super) name: Option<String>,
    /// The suite with its cases alone.
    pub(super) suite: Suite,
    /// The word for the model.
    word: String,
    /// The model, found but not loaded.
    pub(super) model: FoundModel,
    /// The model's tokenizer.
    pub(super) tokenizer: Option<Tokenizer>,
    /// How to compute.
    pub(super) compute: ComputeArgs,
}

impl Setup {
    /// The configurations of a command: those of `--configuration`; else, without `--device`, those of the suite; else one.
    pub(super) fn all(args: &Args, suite: &Suite) -> anyhow::Result<Vec<Self>> {
        let typed = args.configuration.iter().map(|words| Configuration::from_words(words));
        let typed = typed.collect::<Result<Vec<_>, _>>()?;
        // What the command line names puts the suite's own configurations aside; the cases are those of the first.
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

    fn new(args: &Args, mut suite: Suite, configuration: Option<&Configuration>) -> anyhow::Result<Self> {
        let compute = compute_args(args, &suite, configuration)?;
        if let Some(tp) = args.tp {
            suite.set_tp(usize::from(tp));
        }
        let word = args.model.clone().or_else(|| suite.model.path.clone()).unwrap_or_else(|| "demo".into());
        let model = FoundModel::find(&word, args.ptuning.as_deref())?;
        let tokenizer = model.tokenizer()?;
        let name = configuration.map(|c| c.name.clone());
        Ok(Self { name, suite, word, model, tokenizer, compute })
    }

    /// All that is known before weights are loaded.
    pub(super) fn plan(&self) -> Result<Plan<'_>, RunError> {
        let step_tokens = self.compute.device.step_tokens();
        let mut plan = Plan::new(&self.suite, &self.model.config, self.tokenizer.as_ref(), step_tokens)?;
        if self.compute.emulation.emulate.is_some() {
            // A virtual clock has no noise: one repetition says it all.
            for run in &mut plan.performance {
                (run.repetitions, run.warm_up.most) = (1, 0);
            }
        }
        // Before memory is looked at: what cannot be cut is no matter of memory.
        plan.worlds().into_iter().try_for_each(|world| check_world(&self.model.config, world))?;
        if let Some(capacity) = self.model.capacity(&self.compute)? {
            plan.fit_memory(&self.model.config, self.compute.memory(), capacity);
        }
        Ok(plan)
    }

    /// Leaves out the cases that are over their budget on this machine.
    pub(super) fn fit_budget(&self, plan: &mut Plan<'_>, roofline: &Roofline) -> anyhow::Result<()> {
        plan.fit_budget(&self.model.config, self.compute.precision(), roofline);
        if let Some(capacity) = self.model.capacity(&self.compute)? {
            plan.fit_memory(&self.model.config, self.compute.memory(), capacity);
        }
        Ok(())
    }

    /// What the model takes by design on so many ranks.
    pub(super) fn estimate(&self, plan: &Plan<'_>, world: usize) -> Result<MemoryEstimate, RunError> {
        let (config, memory) = (&self.model.config, self.compute.memory());
        Ok(MemoryEstimate::per_rank(config, memory, plan.limits(world), world)?.of_ranks(world))
    }

    /// The model's name in records. The folder's name is enough; paths are nobody's business.
    pub(super) fn model_name(&self) -> String {
        match &self.model.path {
            ModelPath::Folder(dir) if self.word != "demo" => {
                dir.file_name().map_or_else(|| self.word.clone(), |n| n.to_string_lossy().into_owned())
            }
            _ => self.word.clone(),
        }
    }
}

/// The suite's configurations that `--only` names; all without it.
fn chosen(all: &[Configuration], only: &[String]) -> anyhow::Result<Vec<Configuration>> {
    if let Some(unknown) = only.iter().find(|name| all.iter().all(|c| c.name != **name)) {
        let known: Vec<&str> = all.iter().map(|c| c.name.as_str()).collect();
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        bail!("--only {unknown}: the suite has no such configuration; it has {known}");
    }
    Ok(all.iter().filter(|c| only.is_empty() || only.contains(&c.name)).cloned().collect())
}

/// The suite as a configuration runs it; one that was typed has all cases.
fn restricted(base: &Suite, configuration: &Configuration) -> Suite {
    let mut suite = base.clone();
    if base.configurations.iter().all(|c| c.name != configuration.name) {
        suite.accuracy.iter_mut().for_each(|case| case.configurations.clear());
        suite.performance.iter_mut().for_each(|case| case.configurations.clear());
        suite.max_batch.iter_mut().for_each(|case| case.configurations.clear());
        suite.load.iter_mut().for_each(|case| case.configurations.clear());
    }
    suite.of(configuration)
}

/// Flags go before the configuration, and that before the suite.
fn compute_args(
    args: &Args,
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
        // One profile cannot be that of two cards, and of none that is not emulated.
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
