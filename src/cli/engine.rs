//! The flags that select a model and the device, and loading the model.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use glmbench_ascend::{AscendMemory, Chip};
use glmbench_cpu::{CpuMemory, InstructionSet, available_threads};
use glmbench_device::affinity::why_not_bound;
use glmbench_device::rotary::RotaryMode;
use glmbench_device::{DType, DeviceError, KvForm, Precision};

use glmbench_engine::Engine;
use glmbench_engine::EngineError;
use glmbench_engine::config::{ModelConfig, RopeScaling};
use glmbench_engine::load::{self, DeviceKind, Emulate, LoadOptions, ModelPath, load_tokenizer};
use glmbench_engine::memory::{MemoryBudget, MemoryEstimate, MemoryOf};
use glmbench_engine::model::Capacity;
use glmbench_engine::parallel::check_tp;
use glmbench_engine::tokenizer::Tokenizer;
use glmbench_engine::weights::overlay::Overlay;
use glmbench_engine::weights::{Choice, WeightSource, layout, open_checkpoint};

use crate::run::machine::Machine;
use crate::run::model::ModelFacts;

use super::{progress, say};

/// Which model, on what.
#[derive(Debug, Clone, Args)]
pub struct EngineArgs {
    /// Model folder, `demo`, `dummy:chatglm2-6b` or `dummy:PATH/config.json`
    #[arg(long, value_name = "DIR|demo|dummy:…")]
    pub model: OsString,
    /// Folder of a P-tuning v2 prefix to put over the model: its config.json and the prefix tensors
    #[arg(long, value_name = "DIR")]
    pub ptuning: Option<PathBuf>,
    /// What the model's rope_ratio does, where its folder does not say: `positions` (it divides them, as in
    /// ChatGLM2-6B-32k) or `base` (it multiplies the base, as in ChatGLM3 and later)
    #[arg(long, value_name = "WHAT")]
    pub rope_scaling: Option<RopeScaling>,
    /// How to compute
    #[command(flatten)]
    pub compute: ComputeArgs,
}

impl EngineArgs {
    /// Finds the model and reads its configuration.
    pub fn find(&self) -> anyhow::Result<FoundModel> {
        FoundModel::find_as(&self.model, self.ptuning.as_deref(), self.rope_scaling)
    }
}

/// What an emulated card does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EmulationMode {
    /// Computes real models; for `dummy:` ones only the clock runs
    Auto,
    /// Computes: real numbers, modelled times
    Compute,
    /// Only the virtual clock runs: times without numbers
    Timing,
}

/// Whether an Ascend card is emulated, and by which numbers its clock runs.
#[derive(Debug, Clone, Default, Args)]
pub struct EmulationArgs {
    /// Emulate the Ascend card: numbers are computed on the CPU, times are modelled
    #[arg(
        long, value_name = "MODE", num_args = 0..=1, require_equals = true, default_missing_value = "auto"
    )]
    pub emulate: Option<EmulationMode>,
    /// Chip profile of the emulated card: a file, instead of the card's own
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
}

/// How to compute.
#[derive(Debug, Clone, Args)]
pub struct ComputeArgs {
    /// Device: cpu, 300i-duo, 800i-a2, or reference (plain fp32 loops, slow)
    #[arg(long, default_value = "cpu")]
    pub device: DeviceKind,
    /// On the emulated card
    #[command(flatten)]
    pub emulation: EmulationArgs,
    /// Type of weights, activations and KV cache: fp16, bf16 or fp32, or w8a8-dynamic (int8 products between fp16
    /// activations; cpu only); reference computes in fp32
    #[arg(long, value_name = "TYPE")]
    pub dtype: Option<Precision>,
    /// Type of the KV cache: auto (that of --dtype) or int8 (cpu only)
    #[arg(long, value_name = "TYPE")]
    pub kv: Option<KvForm>,
    /// Rotary table: `model` rounds as the model's own code does, `exact` does not
    #[arg(long, value_name = "MODE", default_value = "model")]
    pub rope: RotaryMode,
    /// Tensor-parallel ranks; TP_WORLD_SIZE, else 1, unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub tp: Option<u16>,
    /// Threads; all cores unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// CPU kernels: amx, avx512, avx2, neon, portable or amx-portable; the best of the machine unless given
    #[arg(long, value_name = "SET")]
    pub kernel: Option<InstructionSet>,
    /// Keep each rank's threads on cores of its own; BIND_CPU=1 does the same
    #[arg(long)]
    pub bind: bool,
    /// Every operator is timed
    #[arg(skip)]
    pub profile_operators: bool,
}

impl ComputeArgs {
    /// Returns the settings used when no flag is given.
    pub fn usual() -> Self {
        Self {
            device: DeviceKind::Cpu,
            emulation: EmulationArgs::default(),
            dtype: None,
            kv: None,
            rope: RotaryMode::Model,
            tp: None,
            threads: None,
            kernel: None,
            bind: false,
            profile_operators: false,
        }
    }

    /// Returns the requested number of ranks. The flag takes precedence over the environment.
    ///
    /// # Errors
    /// Fails if `TP_WORLD_SIZE` is not a number.
    pub fn world(&self) -> Result<usize, EngineError> {
        match self.tp {
            Some(world) => Ok(usize::from(world)),
            None => Ok(from_environment("TP_WORLD_SIZE", "a number of ranks")?.unwrap_or(1)),
        }
    }

    /// Returns the same settings with `world` ranks.
    #[must_use]
    pub fn on(&self, world: usize) -> Self {
        // A number beyond `u16` exceeds what any model can be split into, and is rejected as such.
        Self { tp: Some(u16::try_from(world).unwrap_or(u16::MAX)), ..self.clone() }
    }

    /// Whether to bind ranks to cores. The flag takes precedence over the environment.
    fn bound(&self) -> Result<bool, EngineError> {
        Ok(self.bind || from_environment::<u8>("BIND_CPU", "0 or 1")?.is_some_and(|word| word != 0))
    }

    /// Returns the requested emulation, resolved for this model.
    pub fn emulate(&self, model: &ModelPath) -> Option<Emulate> {
        let timing_only = match self.emulation.emulate? {
            EmulationMode::Auto => !matches!(model, ModelPath::Folder(_)),
            EmulationMode::Compute => false,
            EmulationMode::Timing => true,
        };
        Some(Emulate { profile: self.emulation.profile.clone(), timing_only })
    }

    /// Returns the requested types, or the device's main type.
    pub fn precision(&self) -> Precision {
        let main = match self.device {
            DeviceKind::Cpu | DeviceKind::Duo300i | DeviceKind::A2800i => DType::Fp16,
            DeviceKind::Reference => DType::Fp32,
        };
        let precision = self.dtype.unwrap_or(main.into());
        Precision { kv: self.kv.unwrap_or(precision.kv), ..precision }
    }

    /// Returns how the device stores values, for memory estimates.
    pub fn memory(&self) -> MemoryOf {
        match self.device {
            DeviceKind::Cpu => {
                let threads = self.threads.map_or_else(available_threads, usize::from);
                MemoryOf::Cpu(CpuMemory::new(self.precision(), self.kernel, threads))
            }
            DeviceKind::Reference => self.precision().into(),
            DeviceKind::Duo300i => MemoryOf::Ascend(AscendMemory::new(Chip::Duo300i, self.precision().dtype)),
            DeviceKind::A2800i => MemoryOf::Ascend(AscendMemory::new(Chip::A2800i, self.precision().dtype)),
        }
    }

    /// Converts the settings to the engine's options.
    ///
    /// # Errors
    /// Fails if `TP_WORLD_SIZE` or `BIND_CPU` is not a number.
    pub fn load_options(&self, model: &ModelPath, limits: Capacity) -> Result<LoadOptions, EngineError> {
        Ok(LoadOptions {
            device: self.device,
            emulate: self.emulate(model),
            precision: self.precision(),
            rotary: self.rope,
            threads: self.threads.map(usize::from),
            instruction_set: self.kernel,
            tp: self.world()?,
            bind: self.bound()?,
            profile_operators: self.profile_operators,
            capacity: limits,
        })
    }
}

/// Reads a number from an environment variable. `None` if it is unset or empty.
fn from_environment<T: std::str::FromStr>(name: &str, expected: &str) -> Result<Option<T>, EngineError> {
    let Some(word) = std::env::var_os(name).filter(|word| !word.is_empty()) else { return Ok(None) };
    let word = word.to_string_lossy();
    let refused = |_| EngineError::Option(format!("{name} is \"{word}\", expected {expected}"));
    word.trim().parse().map(Some).map_err(refused)
}

/// Resolves a value of `--model`. `demo` is searched for in the current directory, in the program's directory, and in
/// their ancestors.
pub fn model_path(word: &OsStr) -> anyhow::Result<ModelPath> {
    if word != "demo" {
        let path = ModelPath::parse(word);
        let missing = match &path {
            ModelPath::Folder(dir) if !dir.exists() => Some(dir.join("config.json")),
            ModelPath::Dummy(file) if !file.exists() => Some(file.clone()),
            _ => None,
        };
        if let Some(missing) = missing {
            bail!(
                "--model {}: {} is not there; expected a model folder, `demo`, `dummy:chatglm2-6b` or \
                 `dummy:PATH/config.json`",
                word.display(),
                missing.display()
            );
        }
        return Ok(path);
    }
    let places = std::env::current_dir().into_iter().chain(std::env::current_exe());
    let mut folders: Vec<PathBuf> =
        places.flat_map(|p| p.ancestors().map(Path::to_path_buf).collect::<Vec<_>>()).collect();
    folders.push(PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    folders
        .into_iter()
        .map(|folder| folder.join("models").join("demo"))
        .find(|dir| dir.join("config.json").is_file())
        .map(ModelPath::Folder)
        .context(
            "--model demo: no folder models/demo here or above, nor beside the program; give a model folder",
        )
}

/// A model that was found and checked but not loaded.
pub struct FoundModel {
    /// The model's path.
    pub path: ModelPath,
    /// The model's configuration, including the prefix.
    pub config: ModelConfig,
    ptuning: Option<PathBuf>,
    /// Whether the user specified the meaning of `rope_ratio`.
    scaling_said: bool,
}

impl FoundModel {
    /// Finds the model for a value of `--model`, adds the prefix from a P-tuning folder, and reads its configuration.
    pub fn find(word: impl AsRef<OsStr>, ptuning: Option<&Path>) -> anyhow::Result<Self> {
        Self::find_as(word.as_ref(), ptuning, None)
    }

    /// Like [`find`](Self::find), with an optional user-specified meaning of `rope_ratio`.
    pub fn find_as(
        word: &OsStr,
        ptuning: Option<&Path>,
        scaling: Option<RopeScaling>,
    ) -> anyhow::Result<Self> {
        let path = model_path(word)?;
        let mut config = path.config(scaling)?;
        if let Some(dir) = ptuning {
            // Only the prefix is read from this folder. The base model defines the rotation.
            let tuned = ModelConfig::shape_of(&dir.join("config.json"))?;
            if tuned.pre_seq_len.is_none() {
                bail!("--ptuning {}: config.json has no pre_seq_len, so there is no prefix", dir.display());
            }
            config.pre_seq_len = tuned.pre_seq_len;
            config.prefix_projection = tuned.prefix_projection;
        }
        let scaling_said = scaling.is_some();
        Ok(Self { path, config, ptuning: ptuning.map(Path::to_path_buf), scaling_said })
    }

    /// Opens the weights and checks them against the configuration. Does not read them.
    pub fn weights(&self, dtype: DType) -> Result<Box<dyn WeightSource>, EngineError> {
        let Some(dir) = &self.ptuning else { return self.path.weights(&self.config, dtype) };
        let base = ModelConfig { pre_seq_len: None, ..self.config.clone() };
        let open = |dir: &Path| open_checkpoint(dir).map_err(EngineError::from);
        let overlay = Overlay { prefix: open(dir)?, base: self.path.weights(&base, dtype)? };
        layout::check(&overlay, &self.config)?;
        Ok(Box::new(overlay))
    }

    /// Returns what was read from the model, and what was assumed where its folder does not say.
    pub fn facts(&self, tokenizer: Option<&Tokenizer>) -> Result<ModelFacts, EngineError> {
        let mut weights = self.path.weights_in_words()?;
        if let Some(dir) = &self.ptuning {
            weights += &format!(", with the P-tuning prefix of {}", Choice::of(dir)?.words());
        }
        Ok(ModelFacts::new(&self.config, tokenizer, weights, self.scaling_said))
    }

    /// Returns the tokenizer; `None` for random weights.
    pub fn tokenizer(&self) -> anyhow::Result<Option<Tokenizer>> {
        self.path.tokenizer_dir().map(|dir| Ok(load_tokenizer(dir, Some(&self.config))?)).transpose()
    }

    /// Returns the memory the model may use: the host's, or that of the chips in an emulated card's profile. `None` for
    /// a real card, which is asked when the model is loaded.
    pub fn memory_budget(&self, compute: &ComputeArgs) -> Result<Option<MemoryBudget>, EngineError> {
        Ok(match (compute.device.chip(), compute.emulate(&self.path)) {
            (None, _) => Machine::read().available_bytes.map(MemoryBudget::Together),
            (Some(chip), Some(emulate)) => emulate.machine(chip)?.memory_bytes.map(MemoryBudget::EachRank),
            (Some(_), None) => None,
        })
    }

    /// Checks that the model can be loaded: that it can be split among the ranks, and that device and memory are
    /// available.
    pub fn check(&self, compute: &ComputeArgs, limits: Capacity) -> Result<(), EngineError> {
        let world = compute.world()?;
        let emulate = compute.emulate(&self.path);
        check_tp(&self.config, world)?;
        compute.device.check(compute.precision(), world, emulate.as_ref())?;
        if compute.profile_operators {
            compute.device.check_profile()?;
        }
        self.check_room(compute, limits)
    }

    /// Checks that the host has enough memory, if the host computes.
    pub fn check_room(&self, compute: &ComputeArgs, limits: Capacity) -> Result<(), EngineError> {
        let world = compute.world()?;
        let rank = MemoryEstimate::per_rank(&self.config, compute.memory(), limits, world)?;
        let emulate = compute.emulate(&self.path);
        // A real card checks its own memory. An emulated card that computes uses the host's.
        let here = match &emulate {
            Some(emulate) => !emulate.timing_only,
            None => compute.device.chip().is_none(),
        };
        if here {
            check_memory(&rank.of_ranks(world))?;
        }
        Ok(())
    }

    /// Loads the model with a progress bar, after [checking](Self::check) device and memory.
    pub fn load(&self, compute: &ComputeArgs, limits: Capacity) -> Result<Engine, EngineError> {
        self.check(compute, limits)?;
        let options = compute.load_options(&self.path, limits)?;
        let source = self.weights(options.precision.dtype)?;
        let bar = progress::bar("loading", "tensors");
        let engine = load::load(&self.config, source.into(), &options, &mut |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        if let Some(reason) = why_not_bound(&engine.device_info()) {
            say(&format!("glmbench: the ranks are not bound to cores: {reason}"));
        }
        for fault in weight_fault_words(&engine, 5).unwrap_or_default() {
            say(&format!("glmbench: warning: {fault}; what the model says cannot be believed"));
        }
        Ok(engine)
    }
}

/// Lists the first `most` tensors with weights that are NaN, or infinite in the run's type, and the number of further
/// ones. `None` if no weights were read.
pub fn weight_fault_words(engine: &Engine, most: usize) -> Option<Vec<String>> {
    let faults = engine.weight_faults()?;
    let mut words: Vec<String> = faults.iter().take(most).map(ToString::to_string).collect();
    match faults.len().saturating_sub(most) {
        0 => {}
        1 => words.push("1 more tensor is so".to_owned()),
        more => words.push(format!("{more} more tensors are so")),
    }
    Some(words)
}

/// Rejects a model that does not fit in memory, before time is spent on loading it.
pub fn check_memory(estimate: &MemoryEstimate) -> Result<(), DeviceError> {
    let Some(available) = Machine::read().available_bytes else { return Ok(()) };
    if estimate.total_bytes() > available {
        let gb = |bytes: u64| bytes as f64 / 1e9;
        return Err(DeviceError::OutOfMemory {
            device: "cpu",
            what: format!(
                "weights {:.2} GB, KV cache {:.2} GB, working memory {:.2} GB ({:.2} GB are available)",
                gb(estimate.weight_bytes),
                gb(estimate.kv_bytes),
                gb(estimate.activation_bytes),
                gb(available)
            ),
            wanted_bytes: estimate.total_bytes() as usize,
        });
    }
    Ok(())
}
