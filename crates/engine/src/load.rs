//! Loading a model from the command line's values: where it comes from ([`ModelPath`]), the device ([`DeviceKind`]), and the
//! capacity to load it for.

mod device;
mod packed;
mod path;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use glmbench_ascend::{AscendGroup, Chip, Forced, GroupSettings};
use glmbench_cpu::{Cpu, CpuGroup, CpuOptions, InstructionSet, Packs, available_threads};
use glmbench_device::group::DeviceGroup;
use glmbench_device::observed::{Observation, Observed, Observer};
use glmbench_device::reference::{Reference, ReferenceGroup};
use glmbench_device::rotary::RotaryMode;
use glmbench_device::timed::{OperatorClock, Timed, TimedGroup, Timing};
use glmbench_device::{Device, Precision};

use super::Engine;
use super::EngineError;
use super::config::ModelConfig;
use super::model::{Capacity, Forward, Model, attention_shape};
use super::parallel::{Cut, Ranks};
use super::weights::WeightSource;
use super::weights::unread::Unread;
use super::weights::watch::Watched;

use self::device::{check_emulated, check_precision};
use self::path::storage;

pub use glmbench_device::DeviceKind;

pub use self::device::{Emulate, check, check_pack_cache, check_profile};
pub use self::path::{ModelPath, load_tokenizer};

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
    /// The folder with the cache of packed weights; `None` for no cache.
    pub pack_cache: Option<PathBuf>,
    /// The capacity that must fit into memory.
    pub capacity: Capacity,
}

impl LoadOptions {
    /// Returns the options of a caller that asks for nothing further: one rank, all cores, the best kernels.
    pub fn plain(device: DeviceKind, precision: Precision, capacity: Capacity) -> Self {
        Self {
            device,
            emulate: None,
            precision,
            rotary: RotaryMode::Model,
            threads: None,
            instruction_set: None,
            tp: 1,
            bind: false,
            profile_operators: false,
            pack_cache: None,
            capacity,
        }
    }
}

/// Loads a model.
///
/// `progress` receives the number of tensors loaded so far (by rank 0, if there are several ranks) and the total.
/// Weights that are NaN, or infinite in the run's type, are loaded unchanged: [`Engine::weight_faults`] names them.
/// [`Engine::pack_cache`] tells what became of the cache of packed weights. A cache that cannot be used is no error.
///
/// # Errors
/// The model cannot be split over this number of ranks (checked before anything is loaded). The device is missing or too
/// small, or the weights cannot be read. Or the device has no cache of packed weights, and one was asked for.
pub fn load(
    config: &ModelConfig,
    source: Arc<dyn WeightSource>,
    options: &LoadOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Engine, EngineError> {
    let rank = Cut::new(config, 0, options.tp)?.config(config);
    check_emulated(options.device, options.emulate.as_ref())?;
    let options = &LoadOptions { precision: config.precision(options.precision)?, ..options.clone() };
    check_precision(options.device, config.types_on(options.device, options.precision))?;
    if options.profile_operators {
        check_profile(options.device)?;
    }
    let clock = options.profile_operators.then(Arc::default);
    let mut on = On { config, options, rank: &rank, clock, progress };
    match &options.pack_cache {
        None => on.watched(source, Vec::new()),
        Some(folder) => {
            check_pack_cache(options.device)?;
            packed::load(on, folder, &source)
        }
    }
}

/// Loads a model on all cores of this machine, for a caller that drives the forward pass itself. `observer` sees what it computes.
///
/// # Errors
/// As for [`load`].
pub fn load_observed(
    config: &ModelConfig,
    source: &dyn WeightSource,
    precision: Precision,
    capacity: Capacity,
    observer: Option<Arc<Mutex<dyn Observer>>>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Box<dyn Forward>, EngineError> {
    let cpu = Cpu::new(CpuOptions::plain(precision, capacity.max_context, attention_shape(config)))?;
    let rotary = RotaryMode::Model;
    Ok(match observer {
        None => Box::new(Model::load(cpu, config, rotary, capacity, source, progress)?),
        Some(observer) => {
            let cpu = Observed::new(cpu, Observation::new(observer));
            Box::new(Model::load(cpu, config, rotary, capacity, source, progress)?)
        }
    })
}

/// The inputs of loading that are common to all devices.
struct On<'a> {
    config: &'a ModelConfig,
    options: &'a LoadOptions,
    /// The shape of one rank.
    rank: &'a ModelConfig,
    clock: Option<Arc<OperatorClock>>,
    progress: &'a mut dyn FnMut(usize, usize),
}

impl On<'_> {
    /// Returns the options of the CPU.
    fn cpu(&self) -> CpuOptions {
        CpuOptions {
            precision: self.options.precision,
            threads: self.options.threads.unwrap_or_else(available_threads),
            instruction_set: self.options.instruction_set,
            max_context: self.options.capacity.max_context,
            attention: attention_shape(self.rank),
        }
    }

    /// Loads the model, and finds weights that are not finite.
    fn watched(&mut self, source: Arc<dyn WeightSource>, packs: Vec<Packs>) -> Result<Engine, EngineError> {
        let watched = Arc::new(Watched::new(source, self.options.precision));
        let mut engine = self.engine(Arc::clone(&watched) as Arc<dyn WeightSource>, packs)?;
        if !self.options.emulate.as_ref().is_some_and(|emulate| emulate.timing_only) {
            engine.set_weight_faults(watched.faults());
        }
        Ok(engine)
    }

    /// Loads the model. `packs` are the packed weights of the CPU's ranks that outlive the process, if any.
    fn engine(&mut self, source: Arc<dyn WeightSource>, packs: Vec<Packs>) -> Result<Engine, EngineError> {
        let model = self.model(source, packs)?;
        Ok(match self.clock.clone() {
            Some(clock) => Engine::profiled(model, clock),
            None => Engine::new(model),
        })
    }

    fn model(
        &mut self,
        source: Arc<dyn WeightSource>,
        mut packs: Vec<Packs>,
    ) -> Result<Box<dyn Forward>, EngineError> {
        let Self { config, options, .. } = *self;
        let alone = options.tp == 1 && !options.bind;
        match options.device {
            DeviceKind::Cpu if alone => {
                self.one(Cpu::new(self.cpu())?.with_packs(packs.pop().unwrap_or_default()), &*source)
            }
            DeviceKind::Cpu => {
                self.ranks(CpuGroup::new(self.cpu(), options.tp, options.bind).with_packs(packs), source)
            }
            DeviceKind::Reference if alone => self.one(Reference::default(), &*source),
            DeviceKind::Reference => self.ranks(ReferenceGroup::new(options.tp), source),
            DeviceKind::Duo300i | DeviceKind::A2800i => {
                let chip = Chip::of(options.device).expect("invariant: these two are chips");
                let emulate = options.emulate.as_ref();
                let settings = GroupSettings {
                    chip,
                    tp: options.tp,
                    dtype: options.precision.dtype,
                    weights: options.precision.weights,
                    kv: options.precision.kv,
                    attention: attention_shape(self.rank),
                    bind: options.bind,
                    forced: Forced::from_environment(chip.name())?,
                    emulation: emulate.map(|emulate| emulate.machine(chip)).transpose()?,
                };
                let source = match emulate {
                    Some(Emulate { timing_only: true, .. }) => {
                        Arc::new(Unread { config: config.clone(), dtype: storage(options.precision.dtype) })
                    }
                    _ => source,
                };
                let (rotary, capacity) = (options.rotary, options.capacity);
                let group = AscendGroup::new(settings)?;
                let progress = &mut *self.progress;
                Ok(Box::new(Ranks::load(group, config, rotary, capacity, source, progress)?))
            }
        }
    }

    /// Loads the model on a single device, timed if requested.
    fn one(
        &mut self,
        device: impl Device + 'static,
        source: &dyn WeightSource,
    ) -> Result<Box<dyn Forward>, EngineError> {
        let LoadOptions { rotary, capacity, .. } = *self.options;
        let (config, progress) = (self.config, &mut *self.progress);
        Ok(match self.clock.clone() {
            None => Box::new(Model::load(device, config, rotary, capacity, source, progress)?),
            clock => {
                let device = Timed::new(device, Timing::new(clock));
                Box::new(Model::load(device, config, rotary, capacity, source, progress)?)
            }
        })
    }

    /// Loads the model on a group of devices, timed if requested.
    fn ranks(
        &mut self,
        group: impl DeviceGroup,
        source: Arc<dyn WeightSource>,
    ) -> Result<Box<dyn Forward>, EngineError> {
        let LoadOptions { rotary, capacity, .. } = *self.options;
        let (config, progress) = (self.config, &mut *self.progress);
        Ok(match self.clock.clone() {
            None => Box::new(Ranks::load(group, config, rotary, capacity, source, progress)?),
            Some(clock) => {
                let group = TimedGroup::new(group, clock);
                Box::new(Ranks::load(group, config, rotary, capacity, source, progress)?)
            }
        })
    }
}
