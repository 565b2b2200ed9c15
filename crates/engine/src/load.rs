//! Loading a model from the command line's values: where it comes from, and the device and limits to load it for.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use glmbench_ascend::{AscendGroup, Chip, Emulation, Forced, GroupSettings};
use glmbench_cpu::{Cpu, CpuGroup, CpuOptions, InstructionSet, available_threads};
use glmbench_device::group::DeviceGroup;
use glmbench_device::reference::{Reference, ReferenceGroup};
use glmbench_device::rotary::RotaryMode;
use glmbench_device::timed::{OperatorClock, Timed, TimedGroup};
use glmbench_device::{DType, Device, DeviceError, Precision};

use super::Engine;
use super::EngineError;
use super::config::{ModelConfig, RopeScaling};
use super::model::{Forward, Limits, Model, attention_shape};
use super::parallel::{Cut, Ranks};
use super::tokenizer::{Tokenizer, TokenizerError};
use super::weights::dummy::Dummy;
use super::weights::unread::Unread;
use super::weights::watch::Watched;
use super::weights::{Choice, StorageType, WeightSource, layout, open_checkpoint, quantised};

/// Seed of the `dummy:` weights.
const DUMMY_SEED: u64 = 0;
/// ChatGLM2's end-of-sequence token `</s>`, for models without a file that names one.
const CHATGLM2_END: u32 = 2;

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelPath {
    /// A folder with `config.json` and weights.
    Folder(PathBuf),
    /// Random weights of ChatGLM2-6B's shape.
    DummyChatglm2,
    /// Random weights of the shape in a `config.json`.
    Dummy(PathBuf),
}

impl ModelPath {
    /// Parses the value of `--model`: a folder, `dummy:chatglm2-6b`, or `dummy:PATH/config.json`. The caller turns
    /// `demo` into a folder.
    pub fn parse(word: &OsStr) -> Self {
        match word.to_str().and_then(|word| word.strip_prefix("dummy:")) {
            Some("chatglm2-6b") => Self::DummyChatglm2,
            Some(path) => Self::Dummy(PathBuf::from(path)),
            None => dummy_of_bytes(word).map_or_else(|| Self::Folder(PathBuf::from(word)), Self::Dummy),
        }
    }

    /// Returns the model's shape. `scaling` is the user's choice of what `rope_ratio` scales.
    /// If `config.json` names no end-of-sequence token, the tokenizer's own is used.
    pub fn config(&self, scaling: Option<RopeScaling>) -> Result<ModelConfig, EngineError> {
        let read = |path: &Path| ModelConfig::from_file_as(path, scaling);
        let mut config = match self {
            Self::Folder(dir) => read(&dir.join("config.json"))?,
            Self::DummyChatglm2 => ModelConfig::chatglm2_6b(),
            Self::Dummy(path) if path.is_dir() => read(&path.join("config.json"))?,
            Self::Dummy(path) => read(path)?,
        };
        if config.eos_token_ids.is_empty() {
            config.eos_token_ids.push(self.end_of_sequence()?);
        }
        Ok(config)
    }

    /// Returns the end-of-sequence id from the tokenizer's files, or ChatGLM2's if there is no tokenizer.
    fn end_of_sequence(&self) -> Result<u32, EngineError> {
        let Some(dir) = self.tokenizer_dir() else { return Ok(CHATGLM2_END) };
        match Tokenizer::from_dir(dir) {
            Ok(tokenizer) => tokenizer.eos_id().ok_or_else(|| {
                EngineError::Option(format!(
                    "{}: nothing says which token ends a sequence: config.json has no eos_token_id, and the tokenizer names \
                     none",
                    dir.display()
                ))
            }),
            // A missing tokenizer is reported where it is needed.
            Err(TokenizerError::Missing { .. }) => Ok(CHATGLM2_END),
            Err(error) => Err(EngineError::Option(error.to_string())),
        }
    }

    /// Describes the weights in words; [`weights`](Self::weights) opens them.
    pub fn weights_in_words(&self) -> Result<String, EngineError> {
        Ok(match self {
            Self::Folder(dir) => Choice::of(dir)?.words(),
            Self::DummyChatglm2 | Self::Dummy(_) => format!("random, seed {DUMMY_SEED}"),
        })
    }

    /// Returns the folder with the tokenizer files; random weights have none.
    pub fn tokenizer_dir(&self) -> Option<&Path> {
        match self {
            Self::Folder(dir) => Some(dir),
            Self::DummyChatglm2 | Self::Dummy(_) => None,
        }
    }

    /// Opens the weights and checks them against the shape, without reading them.
    pub fn weights(&self, config: &ModelConfig, dtype: DType) -> Result<Box<dyn WeightSource>, EngineError> {
        if let Self::Folder(dir) = self {
            let source = open_checkpoint(dir)?;
            layout::check(&*source, config)?;
            return Ok(source);
        }
        quantised::refuse_random(config)?;
        Ok(Box::new(Dummy::new(config.clone(), storage(dtype), DUMMY_SEED)))
    }
}

/// Returns the path after `dummy:` if it is not UTF-8, which paths need not be.
#[cfg(unix)]
fn dummy_of_bytes(word: &OsStr) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    Some(OsStr::from_bytes(word.as_bytes().strip_prefix(b"dummy:")?).into())
}

#[cfg(not(unix))]
fn dummy_of_bytes(_: &OsStr) -> Option<PathBuf> {
    None
}

/// Returns the storage type that corresponds to a device type.
fn storage(dtype: DType) -> StorageType {
    match dtype {
        DType::Fp32 => StorageType::F32,
        DType::Fp16 => StorageType::F16,
        DType::Bf16 => StorageType::Bf16,
    }
}

/// What follows the device's word in the name of an emulated card.
const EMULATED: &str = " (emulated)";

/// The values of `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The CPU engine.
    Cpu,
    /// The plain fp32 reference implementation.
    Reference,
    /// Atlas 300I DUO, two Ascend 310P3.
    Duo300i,
    /// Atlas 800I A2, eight Ascend 910B.
    A2800i,
}

impl DeviceKind {
    /// All devices.
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Reference, Self::Duo300i, Self::A2800i];

    /// Returns the type in which the device usually computes.
    pub fn main_type(self) -> DType {
        match self {
            Self::Cpu | Self::Duo300i | Self::A2800i => DType::Fp16,
            Self::Reference => DType::Fp32,
        }
    }

    /// Returns the device with this name in [`DeviceInfo::name`](glmbench_device::DeviceInfo::name), and whether it is
    /// emulated. `None` for the name of no device.
    pub fn of_info(name: &str) -> Option<(Self, bool)> {
        let (word, emulated) = match name.strip_suffix(EMULATED) {
            Some(word) => (word, true),
            None => (name, false),
        };
        Some((word.parse().ok()?, emulated))
    }

    /// Returns the largest useful number of tokens per step. A few hundred rows fill a CPU's matrix kernels. A card
    /// needs few launches, and whole prompts where possible.
    pub fn step_tokens(self) -> usize {
        match self {
            Self::Cpu | Self::Reference => 512,
            Self::Duo300i | Self::A2800i => 4096,
        }
    }

    /// Returns the word of this device, in suites, on the command line and in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Reference => "reference",
            Self::Duo300i => "300i-duo",
            Self::A2800i => "800i-a2",
        }
    }

    /// Returns the Ascend chip of this device, if it is a card.
    pub fn chip(self) -> Option<Chip> {
        match self {
            Self::Cpu | Self::Reference => None,
            Self::Duo300i => Some(Chip::Duo300i),
            Self::A2800i => Some(Chip::A2800i),
        }
    }

    /// Checks what can be known before a model is loaded.
    ///
    /// # Errors
    /// CANN is not installed and no emulator was requested, or the emulator was requested for a device that is not a
    /// card. Also a type or a number of ranks that the card does not support, or a choice in `GLMBENCH_ASCEND` that does
    /// not exist.
    pub fn check(
        self,
        precision: Precision,
        world: usize,
        emulate: Option<&Emulate>,
    ) -> Result<(), EngineError> {
        self.check_emulated(emulate)?;
        self.check_precision(precision)?;
        let Some(chip) = self.chip() else { return Ok(()) };
        Forced::from_environment(chip.name())?;
        let emulation = emulate.map(|emulate| emulate.machine(chip)).transpose()?;
        Ok(AscendGroup::check(chip, precision.dtype, world, emulation.as_ref())?)
    }

    /// Checks that emulation is requested for cards only.
    fn check_emulated(self, emulate: Option<&Emulate>) -> Result<(), EngineError> {
        if emulate.is_none() || self.chip().is_some() {
            return Ok(());
        }
        Err(EngineError::Option(format!(
            "--emulate: device {} runs as it is; the emulator is for 300i-duo and 800i-a2",
            self.name()
        )))
    }

    /// Checks that the host can time the device's operators.
    ///
    /// # Errors
    /// The device is a card, which runs its operators asynchronously.
    pub fn check_profile(self) -> Result<(), EngineError> {
        match self.chip() {
            None => Ok(()),
            Some(_) => Err(EngineError::Option(format!(
                "--profile-operators: device {} runs its operators behind the host's back, so the host cannot time them; \
                 expected cpu or reference",
                self.name()
            ))),
        }
    }

    /// Checks that the device supports the precision.
    ///
    /// # Errors
    /// The device does not; the message names what it supports.
    fn check_precision(self, precision: Precision) -> Result<(), EngineError> {
        let expected = match self {
            Self::Cpu => return Ok(()),
            Self::Reference if precision == DType::Fp32.into() => return Ok(()),
            // The chip's own code checks which of the plain types it supports.
            Self::Duo300i | Self::A2800i if precision.is_plain() => return Ok(()),
            Self::Reference => "it computes in fp32 only",
            Self::Duo300i => "it has fp16; quantised forms run on the cpu",
            Self::A2800i => "it has fp16 and bf16; quantised forms run on the cpu",
        };
        Err(EngineError::Device(DeviceError::Unsupported {
            device: self.name(),
            problem: format!("dtype {precision} was asked for, {expected}"),
        }))
    }
}

impl std::str::FromStr for DeviceKind {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|device| device.name() == word).ok_or_else(|| {
            let [first @ .., last] = Self::ALL.map(Self::name);
            format!("device \"{word}\" is unknown, expected {} or {last}", first.join(", "))
        })
    }
}

/// Settings for an emulated card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emulate {
    /// Chip profile: a file, or the name of a built-in profile. `None` means the card's own.
    pub profile: Option<PathBuf>,
    /// Whether only the virtual clock runs: nothing is computed and no weights are read.
    pub timing_only: bool,
}

impl Emulate {
    /// Creates the emulated machine.
    ///
    /// # Errors
    /// The profile cannot be read, or belongs to another chip.
    pub fn machine(&self, chip: Chip) -> Result<Emulation, EngineError> {
        Emulation::new(chip, self.profile.as_deref(), self.timing_only)
            .map_err(|problem| EngineError::Option(problem.to_string()))
    }
}

/// Options for loading a model.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The device.
    pub device: DeviceKind,
    /// Emulator settings; `None` for real hardware.
    pub emulate: Option<Emulate>,
    /// Types of weights, activations and cache.
    pub precision: Precision,
    /// Rounding of the rotary table.
    pub rotary: RotaryMode,
    /// Number of threads; `None` means all cores available to the process.
    pub threads: Option<usize>,
    /// CPU kernels; `None` means the best that the machine supports.
    pub instruction_set: Option<InstructionSet>,
    /// Number of tensor-parallel ranks.
    pub tp: usize,
    /// Whether each rank's threads are bound to their own cores.
    pub bind: bool,
    /// Whether every operator is timed ([`Engine::take_profile`]).
    pub profile_operators: bool,
    /// The limits that must fit into memory.
    pub limits: Limits,
}

/// Loads a model.
///
/// `progress` receives the number of tensors loaded so far (by rank 0, if there are several ranks) and the total.
/// Weights that are NaN, or infinite in the run's type, are loaded unchanged: [`Engine::weight_faults`] names them.
///
/// The model cannot be split over this number of ranks (checked before anything is loaded). The device is missing or
/// too small. The weights cannot be read.
/// too small, or the weights cannot be read.
pub fn load(
    config: &ModelConfig,
    source: Arc<dyn WeightSource>,
    options: &LoadOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Engine, EngineError> {
    let rank = Cut::new(config, 0, options.tp)?.config(config);
    let alone = options.tp == 1 && !options.bind;
    options.device.check_emulated(options.emulate.as_ref())?;
    options.device.check_precision(options.precision)?;
    let (rotary, limits) = (options.rotary, options.limits);
    if options.profile_operators {
        options.device.check_profile()?;
    }
    let clock: Option<Arc<OperatorClock>> = options.profile_operators.then(Arc::default);
    let watched = Arc::new(Watched::new(source, options.precision));
    let source = Arc::clone(&watched) as Arc<dyn WeightSource>;
    let mut on = On { config, options, clock: clock.clone(), source, progress };
    let model: Box<dyn Forward> = match options.device {
        DeviceKind::Cpu => {
            let cpu = CpuOptions {
                precision: options.precision,
                threads: options.threads.unwrap_or_else(available_threads),
                instruction_set: options.instruction_set,
                max_context: limits.max_context,
                attention: attention_shape(&rank),
            };
            if alone {
                on.one(Cpu::new(cpu)?)?
            } else {
                on.ranks(CpuGroup::new(cpu, options.tp, options.bind))?
            }
        }
        DeviceKind::Reference => {
            if alone {
                on.one(Reference::default())?
            } else {
                on.ranks(ReferenceGroup::new(options.tp))?
            }
        }
        DeviceKind::Duo300i | DeviceKind::A2800i => {
            let chip = options.device.chip().expect("invariant: these two are chips");
            let emulate = options.emulate.as_ref();
            let settings = GroupSettings {
                chip,
                world: options.tp,
                dtype: options.precision.dtype,
                attention: attention_shape(&rank),
                bind: options.bind,
                forced: Forced::from_environment(chip.name())?,
                emulation: emulate.map(|emulate| emulate.machine(chip)).transpose()?,
            };
            let source = match emulate {
                Some(Emulate { timing_only: true, .. }) => {
                    Arc::new(Unread { config: config.clone(), dtype: storage(options.precision.dtype) })
                }
                _ => on.source,
            };
            let group = AscendGroup::new(settings)?;
            Box::new(Ranks::load(group, config, rotary, limits, source, on.progress)?)
        }
    };
    let mut engine = match clock {
        Some(clock) => Engine::profiled(model, clock),
        None => Engine::new(model),
    };
    if !options.emulate.as_ref().is_some_and(|emulate| emulate.timing_only) {
        engine.set_weight_faults(watched.faults());
    }
    Ok(engine)
}

/// The inputs of loading that are common to all devices.
struct On<'a> {
    config: &'a ModelConfig,
    options: &'a LoadOptions,
    clock: Option<Arc<OperatorClock>>,
    source: Arc<dyn WeightSource>,
    progress: &'a mut dyn FnMut(usize, usize),
}

impl On<'_> {
    /// Loads the model on a single device, timed if requested.
    fn one(&mut self, device: impl Device + 'static) -> Result<Box<dyn Forward>, EngineError> {
        let LoadOptions { rotary, limits, .. } = *self.options;
        let (config, source, progress) = (self.config, &*self.source, &mut *self.progress);
        Ok(match self.clock.clone() {
            None => Box::new(Model::load(device, config, rotary, limits, source, progress)?),
            clock => {
                let device = Timed::new(device, clock);
                Box::new(Model::load(device, config, rotary, limits, source, progress)?)
            }
        })
    }

    /// Loads the model on a group of devices, timed if requested.
    fn ranks(&mut self, group: impl DeviceGroup) -> Result<Box<dyn Forward>, EngineError> {
        let LoadOptions { rotary, limits, .. } = *self.options;
        let (config, source, progress) = (self.config, Arc::clone(&self.source), &mut *self.progress);
        Ok(match self.clock.clone() {
            None => Box::new(Ranks::load(group, config, rotary, limits, source, progress)?),
            Some(clock) => {
                let group = TimedGroup::new(group, clock);
                Box::new(Ranks::load(group, config, rotary, limits, source, progress)?)
            }
        })
    }
}

/// Reads the tokenizer of a folder and checks that the model has an embedding row for each of its ids.
///
/// Byte pieces are exempt: a vocabulary converted from another kind of tokenizer may place them behind the last row.
/// Text that needs such a piece is rejected later.
pub fn load_tokenizer(dir: &Path, config: Option<&ModelConfig>) -> Result<Tokenizer, EngineError> {
    let tokenizer = Tokenizer::from_dir(dir).map_err(|e| EngineError::Option(e.to_string()))?;
    if let Some(config) = config {
        let rows = config.padded_vocab_size as u32;
        let is_byte = |id: u32| tokenizer.piece(id).is_some_and(|p| p.starts_with("<0x") && p.len() == 6);
        if let Some(id) = (rows..tokenizer.vocab_size() as u32).find(|id| !is_byte(*id)) {
            return Err(EngineError::Option(format!(
                "{}: the tokenizer has {} ids, the model only {rows} (padded_vocab_size): there is no row for {id}",
                dir.display(),
                tokenizer.vocab_size(),
            )));
        }
    }
    Ok(tokenizer)
}
